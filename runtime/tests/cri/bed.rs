//! A runtime of its own for each test.

use super::registry;
use cri_proto::v1::*;
use cri_proto::{Cri, Status};
use runtime::{Config, Runtime};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

/// What tests run.
pub const IMAGE: &str = "registry.test/busybox:1";

/// Moves this program into a network namespace of its own, loopback up.
pub fn enter_network_namespace() {
    let root = rustix::process::geteuid().is_root();
    if !root || !std::env::args().any(|arg| arg.contains("ignored")) {
        return;
    }
    let flags = rustix::thread::UnshareFlags::NEWNET;
    // SAFETY: runs before main, so there is one thread; no descriptor table
    // is taken apart by NEWNET.
    let entered = unsafe { rustix::thread::unshare_unsafe(flags) };
    entered.expect("a network namespace");
    run("ip", &["link", "set", "lo", "up"]);
}

fn run(program: &str, args: &[&str]) {
    let status = Command::new(program).args(args).status();
    assert!(status.is_ok_and(|s| s.success()), "{program} {args:?}");
}

/// A pod to run.
pub struct Pod {
    pub config: PodSandboxConfig,
}

impl Pod {
    /// With every namespace of its own.
    pub fn named(name: &str) -> Self {
        let metadata = PodSandboxMetadata {
            name: name.to_owned(),
            uid: format!("uid-{name}"),
            namespace: "default".to_owned(),
            attempt: 0,
        };
        let linux = LinuxPodSandboxConfig {
            cgroup_parent: format!("/kubepods/pod{name}"),
            security_context: Some(LinuxSandboxSecurityContext {
                namespace_options: Some(NamespaceOption::default()),
                ..Default::default()
            }),
            ..Default::default()
        };
        let config = PodSandboxConfig {
            metadata: Some(metadata),
            hostname: name.to_owned(),
            linux: Some(linux),
            ..Default::default()
        };
        Self { config }
    }
}

/// A folder that a runtime writes in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// Records and sockets.
    State,
    /// Images and writable layers.
    Root,
    Logs,
}

fn image() -> ImageSpec {
    ImageSpec {
        image: IMAGE.to_owned(),
        ..Default::default()
    }
}

/// A runtime with everything of its own.
pub struct Bed {
    pub runtime: Arc<Runtime>,
    dir: PathBuf,
    logs: PathBuf,
    config: Config,
}

impl Bed {
    pub async fn new(name: &str) -> Self {
        Self::on(name, None).await
    }

    /// With one of its folders elsewhere.
    pub async fn on(name: &str, place: Option<(Place, &Path)>) -> Self {
        let dir = PathBuf::from(format!("/run/lighter-cri-{}-{name}", std::process::id()));
        let certs = dir.join("certs.d/registry.test");
        std::fs::create_dir_all(&certs).expect("dir");
        let server = format!("server = \"http://{}\"\n", registry::serve().await);
        std::fs::write(certs.join("hosts.toml"), server).expect("hosts.toml");
        let config = Config {
            // Not on /run: before Linux 6.3 a tmpfs can't be id-mapped.
            root: std::env::temp_dir().join(format!("lighter-cri-{}-{name}", std::process::id())),
            state: dir.join("state"),
            cni_conf_dir: dir.join("cni"),
            registry_config_dir: dir.join("certs.d"),
            pod_cidr: Some("10.231.0.0/16".to_owned()),
            cgroup_root: format!("/lighter-cri-{}-{name}", std::process::id()),
            ..Config::default()
        };
        let (mut config, mut logs) = (config, dir.join("logs"));
        match place {
            Some((Place::State, path)) => config.state = path.to_owned(),
            Some((Place::Root, path)) => config.root = path.to_owned(),
            Some((Place::Logs, path)) => logs = path.to_owned(),
            None => {}
        }
        config.ipam_dir = config.state.join("network/ipam");
        if place.is_some() {
            // Files that come and go by themselves would be taken for what is left.
            config.networks_ahead = 0;
        }
        let runtime = Runtime::open(config.clone()).await.expect("runtime");
        let bed = Self {
            runtime,
            dir,
            logs,
            config,
        };
        bed.pull().await.expect("pulled");
        bed
    }

    pub async fn pull(&self) -> Result<(), Status> {
        let request = PullImageRequest {
            image: Some(image()),
            ..Default::default()
        };
        self.runtime.pull_image(request).await.map(drop)
    }

    pub async fn remove_image(&self) -> Result<(), Status> {
        let image = Some(image());
        let request = RemoveImageRequest { image };
        self.runtime.remove_image(request).await.map(drop)
    }

    fn logs(&self, pod: &str) -> PathBuf {
        self.logs.join(pod)
    }

    pub async fn run_pod(&self, pod: Pod) -> String {
        self.try_run_pod(pod).await.expect("pod runs")
    }

    pub async fn try_run_pod(&self, pod: Pod) -> Result<String, Status> {
        let mut config = pod.config;
        let name = config.metadata.clone().expect("metadata").name;
        config.log_directory = self.logs(&name).display().to_string();
        let request = RunPodSandboxRequest {
            config: Some(config),
            runtime_handler: String::new(),
        };
        let response = self.runtime.run_pod_sandbox(request).await;
        response.map(|r| r.pod_sandbox_id)
    }

    pub fn container(&self, name: &str, command: &[&str]) -> ContainerConfig {
        ContainerConfig {
            metadata: Some(ContainerMetadata {
                name: name.to_owned(),
                attempt: 0,
            }),
            image: Some(ImageSpec {
                image: IMAGE.to_owned(),
                ..Default::default()
            }),
            command: command.iter().map(|c| (*c).to_owned()).collect(),
            log_path: format!("{name}.log"),
            ..Default::default()
        }
    }

    pub async fn create(&self, pod: &str, config: ContainerConfig) -> Result<String, Status> {
        let request = CreateContainerRequest {
            pod_sandbox_id: pod.to_owned(),
            config: Some(config),
            sandbox_config: None,
        };
        let response = self.runtime.create_container(request).await;
        response.map(|r| r.container_id)
    }

    pub async fn start_created(&self, id: &str) -> Result<(), Status> {
        let container_id = id.to_owned();
        let request = StartContainerRequest { container_id };
        self.runtime.start_container(request).await.map(|_| ())
    }

    pub async fn start(&self, pod: &str, name: &str, command: &[&str]) -> String {
        let id = self.create(pod, self.container(name, command)).await;
        let id = id.expect("created");
        self.start_created(&id).await.expect("started");
        id
    }

    pub async fn status(&self, id: &str) -> ContainerStatus {
        let request = ContainerStatusRequest {
            container_id: id.to_owned(),
            verbose: false,
        };
        let response = self.runtime.container_status(request).await;
        response.expect("there").status.expect("status")
    }

    pub async fn pid(&self, id: &str) -> i64 {
        let request = ContainerStatusRequest {
            container_id: id.to_owned(),
            verbose: true,
        };
        let response = self.runtime.container_status(request).await.expect("there");
        let info: serde_json::Value = serde_json::from_str(&response.info["info"]).expect("json");
        info["pid"].as_i64().filter(|pid| *pid > 0).expect("a pid")
    }

    pub async fn ended(&self, id: &str) -> ContainerStatus {
        for _ in 0..600 {
            let status = self.status(id).await;
            if status.state() == ContainerState::ContainerExited {
                return status;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("container {id} does not end");
    }

    pub async fn eventually(&self, what: &str, holds: impl Fn() -> bool) {
        for _ in 0..600 {
            if holds() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("never: {what}");
    }

    pub fn log(&self, pod: &str, container: &str) -> String {
        let name = self.pod_name(pod);
        let path = self.logs(&name).join(format!("{container}.log"));
        std::fs::read_to_string(path).unwrap_or_default()
    }

    fn pod_name(&self, pod: &str) -> String {
        let path = self
            .config
            .state
            .join("sandboxes")
            .join(pod)
            .join("hostname");
        let name = std::fs::read_to_string(path).expect("hostname");
        name.trim().to_owned()
    }

    pub async fn exec(&self, id: &str, command: &[&str]) -> ExecSyncResponse {
        let request = ExecSyncRequest {
            container_id: id.to_owned(),
            cmd: command.iter().map(|c| (*c).to_owned()).collect(),
            timeout: 60,
        };
        self.runtime.exec_sync(request).await.expect("exec")
    }

    pub async fn stop(&self, id: &str, timeout: i64) {
        let request = StopContainerRequest {
            container_id: id.to_owned(),
            timeout,
        };
        self.runtime.stop_container(request).await.expect("stopped");
    }

    pub async fn remove(&self, id: &str) {
        let container_id = id.to_owned();
        let request = RemoveContainerRequest { container_id };
        self.runtime
            .remove_container(request)
            .await
            .expect("removed");
    }

    pub async fn stop_pod(&self, id: &str) {
        let pod_sandbox_id = id.to_owned();
        let request = StopPodSandboxRequest { pod_sandbox_id };
        self.runtime
            .stop_pod_sandbox(request)
            .await
            .expect("stopped");
    }

    pub async fn remove_pod(&self, id: &str) {
        self.stop_pod(id).await;
        let pod_sandbox_id = id.to_owned();
        let request = RemovePodSandboxRequest { pod_sandbox_id };
        self.runtime
            .remove_pod_sandbox(request)
            .await
            .expect("removed");
    }

    pub async fn pods(&self) -> Vec<String> {
        let list = self
            .runtime
            .list_pod_sandbox(ListPodSandboxRequest::default());
        let list = list.await.expect("listed");
        list.items.into_iter().map(|pod| pod.id).collect()
    }

    async fn pod_status(&self, id: &str) -> PodSandboxStatusResponse {
        let request = PodSandboxStatusRequest {
            pod_sandbox_id: id.to_owned(),
            verbose: true,
        };
        self.runtime
            .pod_sandbox_status(request)
            .await
            .expect("there")
    }

    /// The first of the pod.
    pub async fn address(&self, id: &str) -> String {
        let status = self.pod_status(id).await.status.expect("status");
        status.network.expect("a network").ip
    }

    /// Where records and sockets are.
    pub fn state(&self) -> &Path {
        &self.config.state
    }

    pub async fn pod_is(&self, id: &str, state: PodSandboxState) {
        for _ in 0..600 {
            let status = self.pod_status(id).await.status.expect("status");
            if status.state() == state {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("pod {id} never is {state:?}");
    }

    pub async fn kill_monitor(&self, pod: &str) {
        let status = self.pod_status(pod).await;
        let info: serde_json::Value = serde_json::from_str(&status.info["info"]).expect("json");
        let pid = info["pid"].as_i64().expect("a pid") as i32;
        let pid = rustix::process::Pid::from_raw(pid).expect("a pid");
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).expect("killed");
    }

    pub fn break_record(&self, pod: &str) {
        let record = self
            .config
            .state
            .join("sandboxes")
            .join(pod)
            .join("record.json");
        std::fs::write(record, "{").expect("broken");
    }

    /// As after a new start of the agent: nothing of the old one's memory.
    pub async fn restart_after(&mut self, pause: Duration) {
        self.runtime.shutdown().await;
        let config = Config {
            state: self.dir.join("nowhere"),
            root: self.dir.join("nowhere"),
            ..self.config.clone()
        };
        let stand_in = Runtime::open(config).await.expect("a stand-in");
        drop(std::mem::replace(&mut self.runtime, stand_in));
        tokio::time::sleep(pause).await;
        for _ in 0..100 {
            match Runtime::open(self.config.clone()).await {
                Ok(runtime) => {
                    self.runtime = runtime;
                    return;
                }
                // Tasks of the old one end in their own time.
                Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
        self.runtime = Runtime::open(self.config.clone())
            .await
            .expect("opened anew");
    }

    /// In how many hierarchies there is a cgroup of that name below the runtime's.
    pub fn cgroups(&self, name: &str) -> usize {
        cgroup_dirs(&format!("{}{name}", self.config.cgroup_root)).len()
    }

    /// Names of the cgroups in that one, of each hierarchy.
    pub fn cgroups_below(&self, name: &str) -> Vec<String> {
        let all = cgroup_dirs(&format!("{}{name}", self.config.cgroup_root));
        let entries = all.iter().flat_map(std::fs::read_dir).flatten().flatten();
        let dirs = entries.filter(|e| e.file_type().is_ok_and(|kind| kind.is_dir()));
        dirs.map(|e| e.file_name().to_string_lossy().into_owned())
            .collect()
    }

    /// Looks for what was left, then goes.
    pub async fn close(self) {
        assert!(self.pods().await.is_empty(), "pods are left");
        let (root, state) = (self.config.root.clone(), &self.config.state);
        for dir in [state.join("sandboxes"), state.join("held")] {
            assert_empty(&dir);
        }
        let kubepods = cgroup_dirs(&self.config.cgroup_root)
            .into_iter()
            .filter(|dir| dir.join("kubepods").exists())
            .collect::<Vec<_>>();
        assert!(kubepods.is_empty(), "cgroups are left: {kubepods:?}");
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").expect("mounts");
        for dir in [&self.dir, &root] {
            // A disk that the test has put there may be mounted on it.
            let below = format!("{}/", dir.display());
            assert!(!mounts.contains(&below), "mounts are left");
        }
        self.runtime.shutdown().await;
        drop(self.runtime);
        // With those that have waited for their containers.
        assert_empty(&root.join("containers"));
        for _ in 0..250 {
            if cgroup_dirs(&self.config.cgroup_root)
                .iter()
                .all(|dir| remove(dir))
            {
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let left = cgroup_dirs(&self.config.cgroup_root);
        assert!(left.is_empty(), "processes are left in {left:?}");
        let _ = std::fs::remove_dir_all(self.dir);
        let _ = std::fs::remove_dir_all(root);
    }
}

fn assert_empty(dir: &Path) {
    let entries = std::fs::read_dir(dir).expect("a directory");
    assert_eq!(entries.count(), 0, "{} is not empty", dir.display());
}

fn cgroup_dirs(root: &str) -> Vec<PathBuf> {
    let mut dirs = vec![PathBuf::from(format!("/sys/fs/cgroup{root}"))];
    for entry in std::fs::read_dir("/sys/fs/cgroup")
        .into_iter()
        .flatten()
        .flatten()
    {
        dirs.push(PathBuf::from(format!("{}{root}", entry.path().display())));
    }
    dirs.retain(|dir| dir.exists());
    dirs
}

fn remove(dir: &Path) -> bool {
    let _ = std::fs::remove_dir(dir.join("lighter-monitors"));
    std::fs::remove_dir(dir).is_ok()
}
