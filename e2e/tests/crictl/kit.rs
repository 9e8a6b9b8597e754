//! What the cases say things with.

use anyhow::{Context, Result, anyhow, bail, ensure};
use e2e::cri::Stand;
use e2e::node::Kind;
use e2e::{command, progress};
use serde_json::{Value, json};
use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

pub const BUSYBOX: &str = "registry.k8s.io/e2e-test-images/busybox:1.37.0-2";
pub const NGINX: &str = "docker.io/library/nginx:1.26";

#[derive(Clone, Copy)]
pub struct Case {
    pub name: &'static str,
    pub run: fn(&Kit) -> Result<()>,
}

/// Lists cases by their functions' names.
#[macro_export]
macro_rules! cases {
    ($($name:ident),* $(,)?) => {
        pub const CASES: &[$crate::kit::Case] =
            &[$($crate::kit::Case { name: stringify!($name), run: $name }),*];
    };
}

pub struct Kit<'a> {
    pub stand: &'a Stand,
    number: Cell<u32>,
    /// Commands that a case has called.
    called: RefCell<BTreeSet<String>>,
}

impl<'a> Kit<'a> {
    pub fn new(stand: &'a Stand) -> Kit<'a> {
        Kit {
            stand,
            number: Cell::new(0),
            called: RefCell::default(),
        }
    }

    /// What nearly every case needs.
    pub fn prepare(&self) -> Result<()> {
        self.ok(&["pull", BUSYBOX])?;
        self.called.borrow_mut().clear();
        Ok(())
    }

    /// Commands that crictl has and no case has called.
    pub fn forgotten(&self) -> Result<Vec<String>> {
        let help = command::run(self.stand.crictl().arg("help"))?;
        let lines = help.lines().skip_while(|l| *l != "COMMANDS:").skip(1);
        let names = lines
            .take_while(|l| !l.is_empty())
            .filter_map(|l| l.split_whitespace().next())
            .map(|name| name.trim_end_matches(',').to_owned());
        let called = self.called.borrow();
        Ok(names
            .filter(|n| n != "help" && !called.contains(n))
            .collect())
    }

    pub fn is_lighter(&self) -> bool {
        self.stand.kind == Kind::Lighter
    }

    /// A machine that does much else at once must not fail a case: crictl's own limit is 2 s.
    pub fn crictl(&self, args: &[&str]) -> Command {
        let name = args.first().copied().unwrap_or_default();
        self.called.borrow_mut().insert(name.to_owned());
        let mut crictl = self.stand.crictl();
        crictl.arg("--timeout=30s").args(args);
        crictl
    }

    /// Runs to the end, whatever comes of it.
    pub fn output(&self, args: &[&str]) -> Result<Output> {
        command::output(&mut self.crictl(args))
    }

    /// Runs to a good end; what it wrote to stdout.
    pub fn ok(&self, args: &[&str]) -> Result<String> {
        command::run(&mut self.crictl(args))
    }

    /// Runs to a good end; the one word it wrote.
    pub fn word(&self, args: &[&str]) -> Result<String> {
        Ok(self.ok(args)?.trim().to_owned())
    }

    pub fn json(&self, args: &[&str]) -> Result<Value> {
        let text = self.ok(args)?;
        serde_json::from_str(&text).with_context(|| format!("crictl {}: no JSON", args.join(" ")))
    }

    /// Runs to a bad end; what it wrote to stderr.
    pub fn fails(&self, args: &[&str]) -> Result<String> {
        let output = self.output(args)?;
        ensure!(!output.status.success(), "crictl {} passed", args.join(" "));
        Ok(String::from_utf8_lossy(&output.stderr).into_owned())
    }

    /// Runs in the background, its stdout in a file of the host.
    pub fn background(&self, args: &[&str]) -> Result<Background> {
        let number = self.next();
        let path = self.stand.machine.dir.join(format!("background-{number}"));
        let mut crictl = self.crictl(args);
        let child = crictl
            .stdin(Stdio::piped())
            .stdout(File::create(&path)?)
            .stderr(File::create(path.with_extension("stderr"))?)
            .spawn()?;
        Ok(Background { child, path })
    }

    /// A program on the machine.
    pub fn run(&self, program: &str, args: &[&str]) -> Result<String> {
        self.stand.machine.run(program, args)
    }

    pub fn next(&self) -> u32 {
        self.number.set(self.number.get() + 1);
        self.number.get()
    }

    pub fn pod(&self) -> Result<Pod<'_>> {
        self.pod_with(&[], json!({}))
    }

    /// Runs a pod; `more` is merged into its config.
    pub fn pod_with(&self, flags: &[&str], more: Value) -> Result<Pod<'_>> {
        let (config, name) = self.pod_config(more)?;
        let args = [&["runp"][..], flags, &[&config]].concat();
        let id = self.word(&args)?;
        ensure!(id.len() == 64, "runp printed no id: {id}");
        Ok(Pod {
            kit: self,
            id,
            name,
            config,
        })
    }

    /// The path of a new pod's config, and the pod's name.
    pub fn pod_config(&self, more: Value) -> Result<(String, String)> {
        let name = format!("pod-{}", self.next());
        let mut config = json!({
            "metadata": {"name": name, "namespace": "default", "uid": name, "attempt": 1},
            "log_directory": format!("/var/log/pods/{name}"),
            "linux": {},
        });
        merge(&mut config, more);
        Ok((self.file(&name, &config)?, name))
    }

    /// The path of a new container's config.
    pub fn container_config(&self, command: &[&str], more: Value) -> Result<String> {
        let name = format!("container-{}", self.next());
        let mut config = json!({
            "metadata": {"name": name, "attempt": 0},
            "image": {"image": BUSYBOX},
            "command": command,
            "log_path": format!("{name}.log"),
            "linux": {},
        });
        merge(&mut config, more);
        self.file(&name, &config)
    }

    fn file(&self, name: &str, config: &Value) -> Result<String> {
        let path = format!("/tmp/{name}.json");
        self.stand.machine.write(&path, &config.to_string())?;
        Ok(path)
    }
}

/// A pod, removed with its containers when the case is over.
pub struct Pod<'a> {
    pub kit: &'a Kit<'a>,
    pub id: String,
    pub name: String,
    pub config: String,
}

impl Pod<'_> {
    /// Creates a container and starts it.
    pub fn start(&self, command: &[&str]) -> Result<String> {
        self.start_with(command, json!({}))
    }

    pub fn start_with(&self, command: &[&str], more: Value) -> Result<String> {
        let id = self.create(command, more)?;
        self.kit.ok(&["start", &id])?;
        Ok(id)
    }

    pub fn create(&self, command: &[&str], more: Value) -> Result<String> {
        let config = self.kit.container_config(command, more)?;
        self.kit.word(&["create", &self.id, &config, &self.config])
    }

    /// Waits for a container's end.
    pub fn wait_exited(&self, id: &str) -> Result<Value> {
        progress::wait_for("end of the container", Duration::from_secs(20), || {
            let status = self.kit.json(&["inspect", id])?;
            Ok((status["status"]["state"] == "CONTAINER_EXITED").then_some(status))
        })
    }
}

impl Drop for Pod<'_> {
    fn drop(&mut self) {
        let _ = self.kit.output(&["rmp", "--force", &self.id]);
    }
}

/// A crictl that goes on while the case does; killed at its end.
pub struct Background {
    pub child: Child,
    path: PathBuf,
}

impl Background {
    /// Waits until `found` is in the output, and returns all of it.
    pub fn wait_for(&self, found: &str) -> Result<String> {
        let limit = Duration::from_secs(20);
        let seen = progress::wait_for(&format!("'{found}' in the output"), limit, || {
            let text = fs::read_to_string(&self.path)?;
            Ok(text.contains(found).then_some(text))
        });
        seen.map_err(|e| anyhow!("{e}: {}", self.last_words()))
    }

    /// Waits for a good end by itself; the whole output.
    pub fn ended(mut self) -> Result<String> {
        let status = progress::wait_for("end of crictl", Duration::from_secs(20), || {
            Ok(self.child.try_wait()?)
        })?;
        if !status.success() {
            bail!("crictl: {status}: {}", self.last_words());
        }
        Ok(fs::read_to_string(&self.path)?)
    }

    fn last_words(&self) -> String {
        let text = fs::read_to_string(self.path.with_extension("stderr")).unwrap_or_default();
        text.lines()
            .last()
            .unwrap_or("(nothing on stderr)")
            .to_owned()
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Lays `more` over `config`, object by object.
fn merge(config: &mut Value, more: Value) {
    match (config, more) {
        (Value::Object(config), Value::Object(more)) => {
            for (key, value) in more {
                merge(config.entry(key).or_insert(Value::Null), value);
            }
        }
        (config, more) => *config = more,
    }
}

/// The ids in a list of `--quiet`.
pub fn ids(text: &str) -> Vec<&str> {
    text.split_whitespace().collect()
}
