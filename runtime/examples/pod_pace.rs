//! How long a pod's start takes, and where: `pod_pace [PODS]`, as root.
//!
//! Makes pods of one busybox container each, one after another, without network
//! and cgroups: what the engine itself costs. Prints the median of every verb and
//! of every step between, then what fifty living pods cost in memory.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Instant;

use oci_spec::runtime::{LinuxBuilder, MountBuilder, ProcessBuilder, SpecBuilder};
use runtime::process::{
    ContainerCgroups, ContainerIo, ContainerPid, ContainerSpec, Engine, EngineConfig, ExecSpec,
    Rootfs, SandboxSpec,
};

/// Steps as the engine tells them, in order.
static STEPS: Mutex<Vec<(String, u64)>> = Mutex::new(Vec::new());

fn main() {
    runtime::process::dispatch();
    tracing::subscriber::set_global_default(Waterfall).expect("the only subscriber");
    let pods = std::env::args()
        .nth(1)
        .map_or(100, |n| n.parse().expect("a number"));
    let runtime = tokio::runtime::Runtime::new().expect("runtime");
    let dir = std::env::temp_dir().join(format!("lighter-pace-{}", std::process::id()));
    prepare(&dir);
    runtime.block_on(measure(&dir, pods));
    let _ = std::fs::remove_dir_all(&dir);
}

fn prepare(dir: &Path) {
    let bin = dir.join("layer/bin");
    std::fs::create_dir_all(&bin).expect("layer");
    std::fs::copy("/bin/busybox", bin.join("busybox")).expect("the package busybox-static");
    for applet in ["sh", "sleep", "true"] {
        std::os::unix::fs::symlink("busybox", bin.join(applet)).expect("applet");
    }
    for sub in ["proc", "sys", "dev", "tmp"] {
        std::fs::create_dir_all(dir.join("layer").join(sub)).expect("layer");
    }
}

async fn measure(dir: &Path, pods: usize) {
    let config = EngineConfig {
        state: dir.join("state"),
        monitor_cgroups: Vec::new(),
        mounts_ahead: Vec::new(),
    };
    let opened = Instant::now();
    let (engine, _events) = Engine::open(config).await.expect("engine");
    println!(
        "the spawner's exec and start: {:.3} ms",
        opened.elapsed().as_secs_f64() * 1e3
    );
    let mut verbs: BTreeMap<&str, Vec<u64>> = BTreeMap::new();
    let mut steps: Vec<(String, Vec<u64>)> = Vec::new();
    for number in 0..pods {
        let id = format!("pod{number}");
        STEPS.lock().expect("steps").clear();
        let start = Instant::now();
        let mut at = start;
        let mut lap = |verb| {
            let now = Instant::now();
            verbs
                .entry(verb)
                .or_default()
                .push((now - at).as_nanos() as u64);
            at = now;
        };
        let begun = monotonic();
        let sandbox = engine
            .run_sandbox(sandbox(&id), None)
            .await
            .expect("sandbox");
        lap("1 run_sandbox");
        sandbox
            .create_container(container(dir, &id), ContainerCgroups::default())
            .await
            .expect("create");
        lap("2 create_container");
        sandbox.start_container(&id).await.expect("start");
        lap("3 start_container");
        collect(&mut steps, begun);
        let mut exec = sandbox.exec(&id, exec()).await.expect("exec");
        exec.wait().await;
        lap("4 exec true");
        sandbox.shutdown().await.expect("shutdown");
        lap("5 shutdown");
        verbs.entry("  whole start (1+2+3)").or_default();
    }
    let whole: Vec<u64> = (0..pods)
        .map(|i| {
            ["1 run_sandbox", "2 create_container", "3 start_container"]
                .iter()
                .map(|v| verbs[v][i])
                .sum()
        })
        .collect();
    verbs.insert("  whole start (1+2+3)", whole);
    for (verb, times) in &mut verbs {
        println!(
            "{verb:24} p50 {:7.3} ms   p99 {:7.3} ms",
            at(times, 50),
            at(times, 99)
        );
    }
    println!("\nstep, median of when it was done since the pod's start:");
    for (step, times) in &mut steps {
        println!("{:8.3} ms  {step}", at(times, 50));
    }
    memory(&engine, dir).await;
}

fn collect(steps: &mut Vec<(String, Vec<u64>)>, begun: u64) {
    for (position, (what, at)) in STEPS.lock().expect("steps").drain(..).enumerate() {
        if steps.len() <= position {
            steps.push((what, Vec::new()));
        }
        steps[position].1.push(at.saturating_sub(begun));
    }
}

fn at(times: &mut [u64], percent: usize) -> f64 {
    times.sort_unstable();
    times[(times.len() - 1) * percent / 100] as f64 / 1e6
}

/// Fifty pods: what their monitors are charged of shared and private memory.
async fn memory(engine: &Engine, dir: &Path) {
    const PODS: usize = 50;
    let mut alive = Vec::new();
    for number in 0..PODS {
        let id = format!("mem{number}");
        let sandbox = engine
            .run_sandbox(sandbox(&id), None)
            .await
            .expect("sandbox");
        sandbox
            .create_container(container(dir, &id), ContainerCgroups::default())
            .await
            .expect("create");
        sandbox.start_container(&id).await.expect("start");
        let mut exec = sandbox.exec(&id, exec()).await.expect("exec");
        exec.wait().await;
        alive.push(sandbox);
    }
    let monitors: Vec<_> = alive.iter().map(|sandbox| sandbox.monitor_pid()).collect();
    print_memory(&format!("a monitor of {PODS}"), &monitors);
    // Exec'd from the same file and idle: what a monitor would be that is exec'd too.
    print_memory("the spawner", &[parent(monitors[0])]);
    for sandbox in alive {
        sandbox.shutdown().await.expect("shutdown");
    }
}

fn print_memory(whose: &str, pids: &[i32]) {
    let mut sums: BTreeMap<String, u64> = BTreeMap::new();
    for pid in pids {
        let rollup = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup"));
        for line in rollup.unwrap_or_default().lines() {
            let mut words = line.split_whitespace();
            if let (Some(key), Some(Ok(value))) =
                (words.next(), words.next().map(str::parse::<u64>))
            {
                *sums.entry(key.to_owned()).or_default() += value;
            }
        }
    }
    println!("\n{whose}, KiB each:");
    for key in [
        "Pss:",
        "Pss_Anon:",
        "Pss_File:",
        "Pss_Shmem:",
        "Private_Dirty:",
    ] {
        let sum = sums.get(key).copied().unwrap_or_default();
        println!("{key:15} {}", sum / pids.len() as u64);
    }
}

fn parent(pid: i32) -> i32 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("PPid:"));
    line.and_then(|pid| pid.trim().parse().ok())
        .expect("a parent")
}

fn sandbox(id: &str) -> SandboxSpec {
    SandboxSpec {
        id: id.into(),
        hostname: Some("pace".into()),
        network: true,
        ipc: true,
        uts: true,
        shm_size: 64 << 20,
        ..SandboxSpec::default()
    }
}

fn container(dir: &Path, id: &str) -> ContainerSpec {
    let mount = |typ: &str, destination: &str, options: &[&str]| {
        let options: Vec<_> = options.iter().map(ToString::to_string).collect();
        let builder = MountBuilder::default()
            .typ(typ)
            .source(typ)
            .destination(destination);
        builder.options(options).build().expect("mount")
    };
    let kernel = ["nosuid", "noexec", "nodev"];
    let mounts = vec![
        mount("proc", "/proc", &kernel),
        mount("tmpfs", "/dev", &["nosuid", "strictatime", "mode=755"]),
        mount(
            "devpts",
            "/dev/pts",
            &["nosuid", "noexec", "newinstance", "ptmxmode=0666"],
        ),
        mount("mqueue", "/dev/mqueue", &kernel),
        mount("sysfs", "/sys", &["nosuid", "noexec", "nodev", "ro"]),
        mount("pod-shm", "/dev/shm", &kernel),
    ];
    let paths = |list: &[&str]| list.iter().map(ToString::to_string).collect::<Vec<_>>();
    let linux = LinuxBuilder::default()
        .masked_paths(paths(&[
            "/proc/kcore",
            "/proc/keys",
            "/proc/timer_list",
            "/sys/firmware",
        ]))
        .readonly_paths(paths(&["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys"]))
        .build();
    let spec = SpecBuilder::default()
        .process(process(&["/bin/sleep", "1000"]))
        .mounts(mounts)
        .linux(linux.expect("linux"))
        .build();
    ContainerSpec {
        id: id.into(),
        oci: spec.expect("spec").into(),
        rootfs: Rootfs {
            layers: vec![dir.join("layer")],
            writable: dir.join("writable").join(id),
            read_only: false,
        },
        io: ContainerIo {
            log: Some(PathBuf::from(dir).join(format!("{id}.log"))),
            ..ContainerIo::default()
        },
        pid: ContainerPid::Own,
        seccomp: Vec::new(),
    }
}

fn process(args: &[&str]) -> oci_spec::runtime::Process {
    let args: Vec<_> = args.iter().map(ToString::to_string).collect();
    let builder = ProcessBuilder::default()
        .args(args)
        .cwd("/")
        .env(vec!["PATH=/bin".to_owned()]);
    builder.build().expect("process")
}

fn exec() -> ExecSpec {
    ExecSpec {
        id: "e".into(),
        process: process(&["/bin/true"]),
        stdin: false,
        cgroups: Vec::new(),
        seccomp: Vec::new(),
    }
}

fn monotonic() -> u64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// Listens to the engine's marks and nothing else.
struct Waterfall;

#[derive(Default)]
struct Mark {
    what: String,
    at: u64,
}

impl tracing::field::Visit for Mark {
    fn record_u64(&mut self, field: &tracing::field::Field, value: u64) {
        if field.name() == "at" {
            self.at = value;
        }
    }

    fn record_str(&mut self, field: &tracing::field::Field, value: &str) {
        if field.name() == "what" {
            self.what = value.to_owned();
        }
    }

    fn record_debug(&mut self, _: &tracing::field::Field, _: &dyn std::fmt::Debug) {}
}

impl tracing::Subscriber for Waterfall {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        metadata.target() == "lighter::waterfall"
    }

    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        tracing::span::Id::from_u64(1)
    }

    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}

    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}

    fn event(&self, event: &tracing::Event<'_>) {
        let mut mark = Mark::default();
        event.record(&mut mark);
        STEPS.lock().expect("steps").push((mark.what, mark.at));
    }

    fn enter(&self, _: &tracing::span::Id) {}

    fn exit(&self, _: &tracing::span::Id) {}
}
