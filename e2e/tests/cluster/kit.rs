//! What the tests say things with.

use anyhow::{Result, anyhow, bail, ensure};
use clap::ValueEnum as _;
use e2e::cluster::{Bed, Cluster, addons, down, up};
use e2e::image::catalog;
use e2e::machine::Machine;
use e2e::node::{Kind, Maker};
use e2e::{command, progress};
use serde_json::{Value, json};
use std::fs::File;
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

#[derive(Clone, Copy)]
pub struct Test {
    pub name: &'static str,
    pub run: fn(&Space) -> Result<()>,
    /// Kills what others live on.
    pub alone: bool,
    /// It tests what only our kubelet has.
    pub our_kubelet: bool,
    /// It tests what only our runtime has.
    pub our_runtime: bool,
    /// It needs a runtime that both kubelets can use.
    pub containerd: bool,
}

impl Test {
    /// Why there is nothing to test on such a node.
    pub fn not_for(&self, kind: Kind) -> Option<&'static str> {
        if self.our_kubelet && kind.kubelet() != Maker::Lighter {
            return Some("the kubelet is not ours");
        }
        if self.our_runtime && kind.runtime() != Maker::Lighter {
            return Some("the runtime is not ours");
        }
        if self.containerd && kind.runtime() == Maker::Lighter {
            return Some("the runtime is not containerd");
        }
        None
    }
}

/// Lists tests by their functions' names.
#[macro_export]
macro_rules! tests {
    ($($name:ident $(: $flag:ident)*),* $(,)?) => {
        pub const TESTS: &[$crate::kit::Test] = &[$({
            #[allow(unused_mut)]
            let mut test = $crate::kit::Test {
                name: stringify!($name), run: $name, alone: false,
                our_kubelet: false, our_runtime: false, containerd: false,
            };
            $(test.$flag = true;)*
            test
        }),*];
    };
}

pub struct Suite {
    pub bed: Bed,
    pub cluster: Cluster,
    spaces: AtomicUsize,
    /// Held as long as the cluster is this run's.
    _lock: File,
}

impl Suite {
    pub fn up() -> Result<Suite> {
        let bed = Bed::new(env!("CARGO_BIN_EXE_bed").into());
        let kind = match std::env::var("NODE").as_deref() {
            Err(_) => Kind::Lighter,
            Ok(name) => Kind::from_str(name, false).map_err(|_| {
                anyhow!("NODE={name}: lighter, stock, kubelet+lighter or lighter+containerd")
            })?,
        };
        let (name, lock) = free_name(&bed, kind)?;
        let spaces = AtomicUsize::new(std::process::id() as usize * 1000);
        if keep()
            && let Ok(cluster) = Cluster::load(&bed, &name)
            && cluster.check_alive().is_ok()
        {
            return Ok(Suite {
                bed,
                cluster,
                spaces,
                _lock: lock,
            });
        }
        down::down(&bed, &name)?;
        let options = up::Options {
            name,
            nodes: 1,
            kind,
            lighter: None,
            bare: false,
        };
        let cluster = up::up(&bed, &options)?;
        progress::step("images of the tests", || {
            cluster.push(&bed, &catalog::TESTS)
        })?;
        Ok(Suite {
            bed,
            cluster,
            spaces,
            _lock: lock,
        })
    }

    pub fn down(&self) -> Result<()> {
        if keep() {
            println!("cluster {} stays up (KEEP)", self.cluster.name);
            return Ok(());
        }
        down::down(&self.bed, &self.cluster.name)
    }

    pub fn run(&self, test: &Test) -> Result<()> {
        let number = self.spaces.fetch_add(1, Ordering::Relaxed);
        let space = Space {
            suite: self,
            name: format!("t{number}"),
        };
        self.cluster
            .kubectl(&["create", "namespace", &space.name])?;
        let result = (test.run)(&space);
        if result.is_err() {
            space.tell();
        }
        let _ = self
            .cluster
            .kubectl(&["delete", "namespace", &space.name, "--wait=false"]);
        result
    }

    pub fn kind(&self) -> Kind {
        self.cluster.nodes[0].kind
    }
}

/// Runs side by side on one machine must not take each other's cluster down.
fn free_name(bed: &Bed, kind: Kind) -> Result<(String, File)> {
    for number in 1..100 {
        let name = format!("test-{kind}-{number}");
        let path = bed.cache.dir("locks")?.join(format!("run-{name}"));
        let lock = File::create(path)?;
        if lock.try_lock().is_ok() {
            return Ok((name, lock));
        }
    }
    bail!("a hundred runs of the cluster tests at once")
}

fn keep() -> bool {
    std::env::var_os("KEEP").is_some()
}

/// A namespace of one test.
pub struct Space<'a> {
    pub suite: &'a Suite,
    pub name: String,
}

impl Space<'_> {
    pub fn cluster(&self) -> &Cluster {
        &self.suite.cluster
    }

    pub fn node(&self) -> &Machine {
        &self.suite.cluster.nodes[0].machine
    }

    pub fn command(&self) -> Command {
        let mut kubectl = self.suite.cluster.kubectl_command();
        kubectl.args(["-n", &self.name]);
        kubectl
    }

    pub fn kubectl(&self, args: &[&str]) -> Result<String> {
        command::run(self.command().args(args))
    }

    /// Also when it fails.
    pub fn output(&self, args: &[&str]) -> Result<Output> {
        command::output(self.command().args(args))
    }

    pub fn kubectl_with_input(&self, args: &[&str], input: &str) -> Result<String> {
        command::run_with_input(self.command().args(args), input.as_bytes())
    }

    /// kubectl in the background with its output kept; ended when dropped.
    pub fn background(&self, args: &[&str]) -> Result<Background> {
        Background::start(self.command().args(args))
    }

    pub fn apply(&self, object: &Value) -> Result<()> {
        self.kubectl_with_input(&["apply", "-f", "-"], &object.to_string())
            .map(drop)
    }

    /// Adds an ephemeral container to a pod, and waits until it runs.
    pub fn add_ephemeral(&self, pod: &str, container: Value) -> Result<()> {
        let mut object = self.pod(pod)?;
        object["spec"]["ephemeralContainers"] = json!([container]);
        let path = format!(
            "/api/v1/namespaces/{}/pods/{pod}/ephemeralcontainers",
            self.name
        );
        let replace = ["replace", "--raw", &path, "-f", "-"];
        self.kubectl_with_input(&replace, &object.to_string())?;
        self.wait(pod, "its ephemeral container runs", |p| {
            !p["status"]["ephemeralContainerStatuses"][0]["state"]["running"].is_null()
        })
    }

    /// Creates a pod and waits until it is Ready.
    pub fn run(&self, pod: &Value) -> Result<()> {
        self.apply(pod)?;
        self.wait_ready(pod["metadata"]["name"].as_str().unwrap_or_default())
    }

    pub fn wait_ready(&self, pod: &str) -> Result<()> {
        self.wait(pod, "Ready", |p| condition(p, "Ready") == Some("True"))
    }

    /// Waits until `is` holds of the pod; 60 s is more than any of this takes on a busy machine.
    pub fn wait(&self, pod: &str, what: &str, is: impl Fn(&Value) -> bool) -> Result<()> {
        self.wait_for(pod, what, 60, is)
    }

    pub fn wait_for(
        &self,
        pod: &str,
        what: &str,
        seconds: u64,
        is: impl Fn(&Value) -> bool,
    ) -> Result<()> {
        let mut last = Value::Null;
        let limit = Duration::from_secs(seconds);
        progress::wait_for(&format!("pod {pod}: {what}"), limit, || {
            if let Ok(found) = self.pod(pod) {
                last = found;
            }
            if is(&last) {
                return Ok(Some(()));
            }
            std::thread::sleep(Duration::from_millis(150));
            Ok(None)
        })
        .map_err(|e| anyhow!("{e}; {}", summary(&last)))
    }

    pub fn wait_gone(&self, pod: &str) -> Result<()> {
        let limit = Duration::from_secs(60);
        progress::wait_for(&format!("pod {pod} gone"), limit, || {
            let left = self.kubectl(&["get", "pod", pod, "--ignore-not-found", "-o", "name"])?;
            Ok(left.trim().is_empty().then_some(()))
        })
    }

    pub fn pod(&self, name: &str) -> Result<Value> {
        Ok(serde_json::from_str(
            &self.kubectl(&["get", "pod", name, "-o", "json"])?,
        )?)
    }

    pub fn sh(&self, pod: &str, script: &str) -> Result<String> {
        self.kubectl(&["exec", pod, "--", "sh", "-c", script])
    }

    /// With one `key=value`.
    pub fn make_secret(&self, name: &str, literal: &str) -> Result<()> {
        let literal = format!("--from-literal={literal}");
        let words = ["create", "secret", "generic", name, &literal];
        self.kubectl(&words).map(drop)
    }

    pub fn logs(&self, pod: &str) -> Result<String> {
        self.kubectl(&["logs", pod])
    }

    /// Waits until the log of a pod contains `text`.
    pub fn wait_log(&self, pod: &str, text: &str) -> Result<()> {
        let limit = Duration::from_secs(30);
        progress::wait_for(&format!("{text:?} in the log of {pod}"), limit, || {
            Ok(self.logs(pod).is_ok_and(|l| l.contains(text)).then_some(()))
        })
    }

    /// Messages of the events about one object.
    pub fn events(&self, object: &str) -> Result<String> {
        let field = format!("involvedObject.name={object}");
        let columns = "custom-columns=R:.reason,M:.message";
        self.kubectl(&[
            "get",
            "events",
            "--field-selector",
            &field,
            "-o",
            columns,
            "--no-headers",
        ])
    }

    pub fn wait_event(&self, object: &str, words: &[&str]) -> Result<()> {
        let limit = Duration::from_secs(45);
        let mut last = String::new();
        progress::wait_for(
            &format!("event on {object} that says {words:?}"),
            limit,
            || {
                last = self.events(object)?;
                let said = last.lines().any(|l| words.iter().all(|w| l.contains(w)));
                std::thread::sleep(Duration::from_millis(150));
                Ok(said.then_some(()))
            },
        )
        .map_err(|e| anyhow!("{e}; events: {}", last.trim().replace('\n', " | ")))
    }

    /// After a failure: what there is to see.
    fn tell(&self) {
        for args in [&["get", "pods", "-o", "wide"][..], &["get", "events"]] {
            if let Ok(text) = self.kubectl(args) {
                text.lines()
                    .rev()
                    .take(12)
                    .for_each(|l| println!("    {l}"));
            }
        }
        println!("    {}", addons::why(self.cluster()));
    }
}

pub struct Background {
    child: Child,
    output: std::sync::Arc<std::sync::Mutex<String>>,
}

impl Background {
    pub fn start(command: &mut Command) -> Result<Background> {
        let pipes = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        Background::new(pipes.spawn()?)
    }

    fn new(mut child: Child) -> Result<Background> {
        let output = std::sync::Arc::new(std::sync::Mutex::new(String::new()));
        let readers: [Option<Box<dyn std::io::Read + Send>>; 2] = [
            child.stdout.take().map(|s| Box::new(s) as _),
            child.stderr.take().map(|s| Box::new(s) as _),
        ];
        for mut reader in readers.into_iter().flatten() {
            let output = output.clone();
            std::thread::spawn(move || {
                let mut buffer = [0; 4096];
                while let Ok(n @ 1..) = reader.read(&mut buffer) {
                    if let Ok(mut output) = output.lock() {
                        output.push_str(&String::from_utf8_lossy(&buffer[..n]));
                    }
                }
            });
        }
        Ok(Background { child, output })
    }

    pub fn text(&self) -> String {
        self.output.lock().map(|o| o.clone()).unwrap_or_default()
    }

    pub fn send(&mut self, text: &str) -> Result<()> {
        use std::io::Write;
        let Some(stdin) = self.child.stdin.as_mut() else {
            bail!("stdin is closed")
        };
        Ok(stdin.write_all(text.as_bytes())?)
    }

    pub fn close_stdin(&mut self) {
        self.child.stdin = None;
    }

    pub fn wait_text(&self, text: &str) -> Result<()> {
        let limit = Duration::from_secs(30);
        progress::wait_for(&format!("{text:?} from kubectl"), limit, || {
            Ok(self.text().contains(text).then_some(()))
        })
        .map_err(|e| anyhow!("{e}; it said {:?}", self.text()))
    }

    /// Waits for the end; the exit code.
    pub fn end(&mut self) -> Result<i32> {
        let limit = Duration::from_secs(60);
        let status = progress::wait_for("end of kubectl", limit, || Ok(self.child.try_wait()?))?;
        std::thread::sleep(Duration::from_millis(100));
        Ok(status.code().unwrap_or(-1))
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub const BUSYBOX: &str = "docker.io/library/busybox:1.37";
pub const AGNHOST: &str = "registry.k8s.io/e2e-test-images/agnhost:2.66.1";

/// A pod with one container `main` that runs a shell script.
pub fn pod(name: &str, script: &str) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": { "name": name, "labels": { "app": name } },
        "spec": {
            "terminationGracePeriodSeconds": 1,
            "containers": [container("main", script)],
        },
    })
}

pub fn container(name: &str, script: &str) -> Value {
    json!({
        "name": name,
        "image": BUSYBOX,
        "imagePullPolicy": "IfNotPresent",
        "command": ["sh", "-c", script],
    })
}

/// Ends at once on SIGTERM, as a well-behaved pid 1 does.
pub const FOREVER: &str = "trap 'exit 0' TERM; while :; do sleep 0.2; done";

/// `pod` with fields of the pod's spec set.
pub fn with(mut pod: Value, fields: Value) -> Value {
    merge(&mut pod["spec"], fields);
    pod
}

/// `pod` with fields of its first container set.
pub fn with_main(mut pod: Value, fields: Value) -> Value {
    merge(&mut pod["spec"]["containers"][0], fields);
    pod
}

fn merge(into: &mut Value, fields: Value) {
    if let Value::Object(fields) = fields {
        for (key, value) in fields {
            into[key] = value;
        }
    }
}

pub fn condition<'a>(object: &'a Value, kind: &str) -> Option<&'a str> {
    let conditions = object["status"]["conditions"].as_array()?;
    conditions.iter().find(|c| c["type"] == kind)?["status"].as_str()
}

pub fn status(pod: &Value) -> &Value {
    &pod["status"]["containerStatuses"][0]
}

/// Why the first container waits.
pub fn waiting(pod: &Value) -> &str {
    status(pod)["state"]["waiting"]["reason"]
        .as_str()
        .unwrap_or_default()
}

pub fn phase(pod: &Value) -> &str {
    pod["status"]["phase"].as_str().unwrap_or_default()
}

pub fn restarts(pod: &Value) -> u64 {
    status(pod)["restartCount"].as_u64().unwrap_or_default()
}

fn summary(pod: &Value) -> String {
    format!(
        "phase {}, container state {}",
        phase(pod),
        status(pod)["state"]
    )
}

/// A program of a test's on a node: killed when it is dropped.
pub struct Running(Child);

impl Running {
    /// What it says goes to the node's log of that name.
    pub fn spawn(t: &Space, name: &str, command: &mut Command) -> Result<Running> {
        Ok(Running(t.node().spawn(name, command)?))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Like `assert!(text.contains(..))`, as an error.
pub fn has(text: &str, part: &str) -> Result<()> {
    ensure!(text.contains(part), "expected {part:?} in {text:?}");
    Ok(())
}

pub fn same<T: PartialEq + std::fmt::Debug>(got: T, want: T) -> Result<()> {
    ensure!(got == want, "got {got:?}, expected {want:?}");
    Ok(())
}
