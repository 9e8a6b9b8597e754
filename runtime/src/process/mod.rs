//! The engine: OCI specs in, processes out.
//!
//! ```text
//! agent ── Engine ─SEQPACKET─> spawner ─fork─> monitor (one a pod) ─fork─> stage ─execve─> container
//!             └──── Sandbox ──SEQPACKET──────────┘
//! ```
//! The types below are the seam to the rest of the crate: everything that
//! knows of CRI is above it, everything that knows of clone and mounts below.

mod ahead;
mod answer;
mod connection;
mod engine;
mod error;
#[cfg(test)]
mod fuzz;
mod kit;
mod link;
mod monitor;
mod netns;
mod own;
mod plan;
mod prepare;
mod renewal;
mod sandbox;
mod spawner;
mod stage;
mod step;
mod wire;

pub use ahead::SandboxAhead;
pub use answer::moment;
pub use engine::Engine;
pub use error::{AdoptError, ProcessError};
pub use netns::NetworkNamespace;
pub(crate) use prepare::make_layer;
pub use sandbox::{Exec, MountedContainer, PreparedContainer, Sandbox};

use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;

/// What the engine needs of the host.
#[derive(Debug)]
pub struct EngineConfig {
    /// Directory of its own under the runtime's state: sockets, exit records.
    pub state: PathBuf,
    /// `cgroup.procs` files of `lighter-monitors`: the spawner writes itself into
    /// each before it makes anything.
    pub monitor_cgroups: Vec<OwnedFd>,
    /// Mounts that most containers have in these very words. A sandbox that waits for its pod
    /// makes those ahead that are new file systems; any other list costs time, nothing else.
    pub mounts_ahead: Vec<oci_spec::runtime::Mount>,
}

/// Whose PID namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
pub enum PidMode {
    /// One for each container.
    #[default]
    Container,
    /// One for the pod, with a tiny init of ours as pid 1.
    Pod,
    /// The host's.
    Node,
}

/// A run of ids in a user namespace, as in `/proc/PID/uid_map`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct IdMap {
    /// First id inside.
    pub container: u32,
    /// First id on the host.
    pub host: u32,
    /// Number of ids.
    pub length: u32,
}

/// A pod's own namespaces; what is `false` is shared with the host.
#[derive(Debug, Clone, Default, serde::Serialize, serde::Deserialize)]
pub struct SandboxSpec {
    /// 64 hex digits.
    pub id: String,
    /// Set in the UTS namespace; `None` keeps the host's.
    pub hostname: Option<String>,
    /// Own network namespace.
    pub network: bool,
    /// Own IPC namespace, with its own /dev/shm and /dev/mqueue.
    pub ipc: bool,
    /// Own UTS namespace.
    pub uts: bool,
    /// PID namespace of the containers, unless one asks otherwise.
    pub pid: PidMode,
    /// `hostUsers: false`: the maps of the pod's user namespace (uids, gids).
    pub user: Option<(Vec<IdMap>, Vec<IdMap>)>,
    /// Namespaced sysctls, checked by the caller: dotted name and value.
    pub sysctls: Vec<(String, String)>,
    /// Size of the pod's /dev/shm in bytes.
    pub shm_size: u64,
    /// SELinux context of what the pod has for itself; empty = none.
    pub mount_label: String,
    /// That of the process which holds the pod's PID namespace; empty = none.
    pub process_label: String,
}

/// The image's layers below, one writable layer above.
#[derive(Debug, Clone, serde::Serialize, serde::Deserialize)]
pub struct Rootfs {
    /// Extracted layers, the lowest first.
    pub layers: Vec<PathBuf>,
    /// Directory that holds (or shall hold) `upper` and `work`; it is the
    /// caller's to remove.
    pub writable: PathBuf,
    /// `readOnlyRootFilesystem`.
    pub read_only: bool,
}

/// Where a container's streams go.
#[derive(Debug, Clone, Default, serde::Serialize, serde::Deserialize)]
pub struct ContainerIo {
    /// A terminal; stderr is then part of stdout.
    pub tty: bool,
    /// Keep a stdin for attach; otherwise /dev/null.
    pub stdin: bool,
    /// Close stdin after the first attach ends.
    pub stdin_once: bool,
    /// The CRI log file; `None` = output is only for attach.
    pub log: Option<PathBuf>,
    /// Rotate at this size.
    pub log_max_size: Option<u64>,
    /// Rotated files kept, the current one included.
    pub log_max_files: u32,
}

/// One container of a sandbox.
///
/// Of `oci` the engine acts on: process (args, env, cwd, user, capabilities,
/// rlimits, noNewPrivileges, apparmorProfile, selinuxLabel, oomScoreAdj,
/// terminal), mounts (host paths as sources; `cgroup`, `proc`, `sysfs`, `tmpfs`,
/// `mqueue`, `devpts`, bind; the type `pod-shm` is the sandbox's own /dev/shm;
/// idmap per mount), linux.{maskedPaths, readonlyPaths, devices,
/// rootfsPropagation, mountLabel}. It does not read linux.resources, cgroupsPath,
/// seccomp or namespaces: those come prepared, below.
#[derive(Debug)]
pub struct ContainerSpec {
    /// 64 hex digits.
    pub id: String,
    /// What to run; see above.
    pub oci: Arc<oci_spec::runtime::Spec>,
    /// Where its root comes from.
    pub rootfs: Rootfs,
    /// Streams.
    pub io: ContainerIo,
    /// PID namespace.
    pub pid: ContainerPid,
    /// Compiled seccomp filter (`struct sock_filter[]`); empty = unconfined.
    pub seccomp: Vec<u8>,
}

/// A container's cgroups.
#[derive(Debug, Default)]
pub struct ContainerCgroups {
    /// What it enters them by, one a hierarchy. A directory (v2): the stage is born in it. A
    /// file: the stage writes itself into it.
    pub doors: Vec<OwnedFd>,
    /// Of v1: what it sees of each hierarchy, by the name below /sys/fs/cgroup, as a mount that
    /// is attached nowhere. Those that are missing the stage makes.
    pub views: Vec<(String, OwnedFd)>,
}

/// Whose PID namespace one container uses.
#[derive(Debug, Clone, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
pub enum ContainerPid {
    /// Its own.
    #[default]
    Own,
    /// The pod's.
    Pod,
    /// The host's.
    Node,
    /// That of another container of the sandbox (ephemeral containers).
    Target(String),
}

/// A further process in a running container.
#[derive(Debug)]
pub struct ExecSpec {
    /// Unique within the container.
    pub id: String,
    /// Program, environment, user, capabilities, terminal.
    pub process: oci_spec::runtime::Process,
    /// Whether stdin is wanted.
    pub stdin: bool,
    /// One a hierarchy. A directory (v2): the stage is born in it. A file: the stage
    /// writes itself into it.
    pub cgroups: Vec<OwnedFd>,
    /// As in [`ContainerSpec`].
    pub seccomp: Vec<u8>,
}

/// The caller's ends of a process' streams, all non-blocking.
#[derive(Debug, Default)]
pub struct Streams {
    /// Write end; dropping it is end of file. With a terminal: the terminal.
    pub stdin: Option<OwnedFd>,
    /// Read end. With a terminal: the terminal.
    pub stdout: Option<OwnedFd>,
    /// Read end; absent with a terminal.
    pub stderr: Option<OwnedFd>,
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Exit {
    /// Exit code, or 128 + signal; 255 when nobody saw the end.
    pub code: i32,
    /// Nanoseconds since the epoch.
    pub finished_at: i64,
    /// Nobody saw the end: the monitor was killed.
    pub unknown: bool,
}

/// What happened without being asked for.
#[derive(Debug, Clone)]
pub enum Event {
    /// A container's first process ended.
    ContainerExited {
        /// The sandbox.
        sandbox: String,
        /// The container.
        container: String,
        /// How.
        exit: Exit,
    },
    /// The monitor died and with it the sandbox; its containers have been
    /// reported as unknown exits. The caller kills what is left by cgroup.
    MonitorDied {
        /// The sandbox.
        sandbox: String,
    },
}

/// A TCP endpoint inside the pod's network namespace, for port-forward.
pub type PodPort = SocketAddr;

/// `argv[0]` of the spawner and, since they are forked from it, of the monitors.
pub const SPAWNER: &str = "lighter-spawner";

/// `argv[0]` of a monitor that went on as a newer program.
const MONITOR: &std::ffi::CStr = c"lighter-monitor";

/// To be called first in `main`, before any thread: when this process was
/// started as the engine's spawner (`argv[0]` is [`SPAWNER`]), as a monitor that is to go
/// on, or to hold a scope open, it becomes that and never returns.
pub fn dispatch() {
    let name = std::env::args_os().next().unwrap_or_default();
    if name == SPAWNER {
        end_by_panics();
        spawner::main();
    }
    if name.as_encoded_bytes() == MONITOR.to_bytes() {
        end_by_panics();
        monitor::resume();
    }
    if name == crate::cgroup::HOLDER {
        crate::cgroup::hold();
        crate::sys::exit_now(0);
    }
}

/// Spawner, monitors and stages are forked from each other without exec: a panic that unwound
/// would go on in what its parent was doing.
fn end_by_panics() {
    let tell = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        tell(info);
        std::process::abort();
    }));
}

fn seqpacket_pair() -> rustix::io::Result<(OwnedFd, OwnedFd)> {
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
    let flags = SocketFlags::CLOEXEC;
    socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)
}
