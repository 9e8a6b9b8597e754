//! What the tests of the engine run on: a root file system of one static busybox.

#![allow(dead_code)]

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use oci_spec::runtime::{
    Capability, LinuxBuilder, LinuxCapabilitiesBuilder, Mount, MountBuilder, Process,
    ProcessBuilder, Spec, SpecBuilder, UserBuilder,
};
use runtime::process::{
    ContainerCgroups, ContainerIo, ContainerPid, ContainerSpec, Engine, EngineConfig, Event,
    ExecSpec, Exit, Rootfs, Sandbox, SandboxSpec,
};
use tokio::sync::mpsc::UnboundedReceiver;

/// Longest time anything here may take; a test that needs it fails.
const PATIENCE: Duration = Duration::from_secs(10);

pub struct Bed {
    pub dir: PathBuf,
    engine: Option<Engine>,
    events: UnboundedReceiver<Event>,
    execs: u32,
    monitors: std::cell::RefCell<Vec<i32>>,
}

/// A container to be; fields are what tests vary.
pub struct Container {
    pub spec: Spec,
    pub io: ContainerIo,
    pub pid: ContainerPid,
    pub read_only: bool,
    pub seccomp: Vec<u8>,
}

impl Container {
    pub fn sh(script: &str) -> Self {
        Self::run(&["/bin/sh", "-c", script])
    }

    pub fn run(args: &[&str]) -> Self {
        let process = process(args);
        let spec = SpecBuilder::default()
            .process(process)
            .mounts(mounts())
            .linux(
                LinuxBuilder::default()
                    .masked_paths(
                        [
                            "/proc/kcore",
                            "/proc/timer_list",
                            "/sys/firmware",
                            "/proc/acpi",
                        ]
                        .map(str::to_owned),
                    )
                    .readonly_paths(["/proc/sys", "/proc/bus"].map(str::to_owned))
                    .build()
                    .expect("linux"),
            )
            .build()
            .expect("spec");
        Self {
            spec,
            io: ContainerIo::default(),
            pid: ContainerPid::Own,
            read_only: false,
            seccomp: Vec::new(),
        }
    }

    pub fn process(&mut self) -> &mut Process {
        self.spec.process_mut().as_mut().expect("process")
    }

    pub fn mount(mut self, mount: Mount) -> Self {
        self.spec.mounts_mut().as_mut().expect("mounts").push(mount);
        self
    }
}

pub fn process(args: &[&str]) -> Process {
    let caps: std::collections::HashSet<_> = [
        Capability::Chown,
        Capability::DacOverride,
        Capability::Kill,
        Capability::Setgid,
        Capability::Setuid,
        Capability::NetBindService,
        Capability::Mknod,
    ]
    .into();
    ProcessBuilder::default()
        .args(args.iter().map(ToString::to_string).collect::<Vec<_>>())
        .env(vec!["PATH=/bin".to_owned()])
        .cwd("/")
        .user(UserBuilder::default().build().expect("user"))
        .capabilities(
            LinuxCapabilitiesBuilder::default()
                .bounding(caps.clone())
                .effective(caps.clone())
                .permitted(caps.clone())
                .inheritable(caps.clone())
                .ambient(std::collections::HashSet::new())
                .build()
                .expect("capabilities"),
        )
        .no_new_privileges(false)
        .build()
        .expect("process")
}

pub fn mount(typ: &str, source: &Path, destination: &str, options: &[&str]) -> Mount {
    MountBuilder::default()
        .typ(typ)
        .source(source)
        .destination(destination)
        .options(options.iter().map(ToString::to_string).collect::<Vec<_>>())
        .build()
        .expect("mount")
}

/// What a CRI container has.
fn mounts() -> Vec<Mount> {
    let kernel = ["nosuid", "noexec", "nodev"];
    let m = |typ: &str, destination: &str, options: &[&str]| {
        mount(typ, Path::new(typ), destination, options)
    };
    vec![
        m("proc", "/proc", &kernel),
        m(
            "tmpfs",
            "/dev",
            &["nosuid", "strictatime", "mode=755", "size=65536k"],
        ),
        m(
            "devpts",
            "/dev/pts",
            &[
                "nosuid",
                "noexec",
                "newinstance",
                "ptmxmode=0666",
                "mode=0620",
                "gid=5",
            ],
        ),
        m("mqueue", "/dev/mqueue", &kernel),
        m("sysfs", "/sys", &["nosuid", "noexec", "nodev", "ro"]),
        m(
            "cgroup",
            "/sys/fs/cgroup",
            &["nosuid", "noexec", "nodev", "relatime", "ro"],
        ),
        m("pod-shm", "/dev/shm", &kernel),
    ]
}

impl Bed {
    pub async fn new(name: &str) -> Self {
        let dir = std::env::temp_dir().join(format!("lighter-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&dir);
        let layer = dir.join("layer");
        for sub in ["bin", "tmp", "etc"] {
            std::fs::create_dir_all(layer.join(sub)).expect("rootfs");
        }
        let busybox = ["/bin/busybox", "/usr/bin/busybox"].map(PathBuf::from);
        let busybox = busybox
            .iter()
            .find(|p| p.exists())
            .expect("the package busybox-static");
        std::fs::copy(busybox, layer.join("bin/busybox")).expect("busybox");
        for applet in [
            "sh", "cat", "sleep", "ls", "id", "grep", "stty", "touch", "mount", "ps", "kill",
            "hostname", "head", "stat", "readlink", "true", "mkdir", "tty", "yes", "sed", "nc",
            "dd", "env", "umount", "wc", "seq", "chmod",
        ] {
            std::os::unix::fs::symlink("busybox", layer.join("bin").join(applet)).expect("applet");
        }
        std::fs::create_dir_all(dir.join("logs")).expect("logs");
        let mut bed = Self {
            dir,
            engine: None,
            events: tokio::sync::mpsc::unbounded_channel().1,
            execs: 0,
            monitors: std::cell::RefCell::default(),
        };
        bed.open().await;
        bed
    }

    /// Opens an engine on the state folder, as a new agent does.
    pub async fn open(&mut self) {
        self.engine = None;
        let config = EngineConfig {
            state: self.dir.join("state"),
            monitor_cgroups: Vec::new(),
            mounts_ahead: Vec::new(),
        };
        let (engine, events) = Engine::open(config).await.expect("engine");
        self.engine = Some(engine);
        self.events = events;
    }

    pub fn engine(&self) -> &Engine {
        self.engine.as_ref().expect("open")
    }

    pub fn spec(id: &str) -> SandboxSpec {
        SandboxSpec {
            id: id.into(),
            hostname: Some("pod-host".into()),
            network: true,
            ipc: true,
            uts: true,
            sysctls: vec![("net.ipv4.ip_unprivileged_port_start".into(), "0".into())],
            shm_size: 64 << 20,
            ..SandboxSpec::default()
        }
    }

    pub async fn sandbox(&self, id: &str) -> Arc<Sandbox> {
        self.sandbox_of(Self::spec(id)).await
    }

    pub async fn sandbox_of(&self, spec: SandboxSpec) -> Arc<Sandbox> {
        match self.engine().run_sandbox(spec, None).await {
            Ok(sandbox) => {
                self.monitors.borrow_mut().push(sandbox.monitor_pid());
                sandbox
            }
            Err(error) => panic!("sandbox: {}", chain(&error)),
        }
    }

    /// Pid of the engine's spawner: the child of ours that is named so.
    pub fn spawner(&self) -> i32 {
        let tasks = std::fs::read_dir("/proc/self/task").expect("tasks");
        let children = tasks
            .flatten()
            .map(|task| std::fs::read_to_string(task.path().join("children")).unwrap_or_default());
        let all = children.collect::<Vec<_>>().join(" ");
        let named = |pid: &&str| {
            std::fs::read_to_string(format!("/proc/{pid}/comm"))
                .is_ok_and(|c| c == "lighter-spawner\n")
        };
        let last = all.split_whitespace().rfind(named);
        last.and_then(|pid| pid.parse().ok()).expect("a spawner")
    }

    pub fn rootfs(&self, id: &str, read_only: bool) -> Rootfs {
        Rootfs {
            layers: vec![self.dir.join("layer")],
            writable: self.dir.join("writable").join(id),
            read_only,
        }
    }

    pub fn container(&self, id: &str, container: Container) -> ContainerSpec {
        ContainerSpec {
            id: id.into(),
            oci: container.spec.into(),
            rootfs: self.rootfs(id, container.read_only),
            io: ContainerIo {
                log: Some(self.dir.join("logs").join(id)),
                ..container.io
            },
            pid: container.pid,
            seccomp: container.seccomp,
        }
    }

    pub async fn create(&self, sandbox: &Sandbox, id: &str, container: Container) -> i32 {
        let spec = self.container(id, container);
        match sandbox
            .create_container(spec, ContainerCgroups::default())
            .await
        {
            Ok(pid) => pid,
            Err(error) => panic!("create {id}: {}", chain(&error)),
        }
    }

    pub async fn run(&self, sandbox: &Sandbox, id: &str, container: Container) -> i32 {
        self.create(sandbox, id, container).await;
        match sandbox.start_container(id).await {
            Ok(pid) => pid,
            Err(error) => panic!("start {id}: {}", chain(&error)),
        }
    }

    /// Runs a container to its end; what its log holds without the headers.
    pub async fn output(&mut self, sandbox: &Sandbox, id: &str, container: Container) -> String {
        self.run(sandbox, id, container).await;
        let exit = self.exit(id).await;
        let log = self.log(id);
        assert_eq!(exit.code, 0, "{exit:?} {log}");
        log.lines()
            .map(|line| format!("{}\n", &line[line.len().min(40)..]))
            .collect()
    }

    pub async fn event(&mut self) -> Event {
        let event = tokio::time::timeout(PATIENCE, self.events.recv()).await;
        event.expect("an event in time").expect("the engine lives")
    }

    pub fn no_more_events(&mut self) {
        let event = self.events.try_recv();
        assert!(event.is_err(), "{event:?}");
    }

    /// The end of this container; ends of others that come first are a failure.
    pub async fn exit(&mut self, id: &str) -> Exit {
        match self.event().await {
            Event::ContainerExited {
                container, exit, ..
            } if container == id => exit,
            other => panic!("waited for {id}, got {other:?}"),
        }
    }

    pub fn log(&self, id: &str) -> String {
        std::fs::read_to_string(self.dir.join("logs").join(id)).expect("log")
    }

    pub async fn exec(
        &mut self,
        sandbox: &Sandbox,
        container: &str,
        script: &str,
        stdin: Option<&str>,
    ) -> (Exit, String, String) {
        let spec = self.exec_spec(process(&["/bin/sh", "-c", script]), stdin.is_some());
        let mut exec = match sandbox.exec(container, spec).await {
            Ok(exec) => exec,
            Err(error) => panic!("exec: {}", chain(&error)),
        };
        if let (Some(fd), Some(text)) = (exec.streams.stdin.take(), stdin) {
            rustix::io::write(&fd, text.as_bytes()).expect("stdin");
        }
        let exit = tokio::time::timeout(PATIENCE, exec.wait())
            .await
            .expect("exit in time");
        let stdout = exec.streams.stdout.map(|fd| drain(&fd)).unwrap_or_default();
        let stderr = exec.streams.stderr.map(|fd| drain(&fd)).unwrap_or_default();
        (exit, stdout, stderr)
    }

    pub fn exec_spec(&mut self, process: Process, stdin: bool) -> ExecSpec {
        self.execs += 1;
        ExecSpec {
            id: format!("exec-{}", self.execs),
            process,
            stdin,
            cgroups: Vec::new(),
            seccomp: Vec::new(),
        }
    }
}

/// What is in a pipe now.
pub fn drain(fd: &OwnedFd) -> String {
    let mut all = Vec::new();
    let mut chunk = [0; 4096];
    while let Ok(read @ 1..) = rustix::io::read(fd, &mut chunk) {
        all.extend_from_slice(&chunk[..read]);
    }
    String::from_utf8_lossy(&all).into_owned()
}

/// Reads until `text` has come.
pub async fn read_until(fd: &OwnedFd, text: &str) -> String {
    let mut all = String::new();
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while !all.contains(text) {
        assert!(
            tokio::time::Instant::now() < deadline,
            "waited for {text:?}, got {all:?}"
        );
        all += &drain(fd);
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    all
}

pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text += &format!(": {error}");
        source = error.source();
    }
    text
}

/// Ends what a test that failed has left: monitors by pid, their children first.
fn end(monitor: i32) {
    let path = format!("/proc/{monitor}/task/{monitor}/children");
    let children = std::fs::read_to_string(path).unwrap_or_default();
    let pids = children
        .split_whitespace()
        .filter_map(|pid| pid.parse().ok());
    for pid in pids
        .chain([monitor])
        .filter_map(rustix::process::Pid::from_raw)
    {
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
    }
}

impl Drop for Bed {
    fn drop(&mut self) {
        for monitor in self.monitors.borrow().iter() {
            end(*monitor);
        }
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}
