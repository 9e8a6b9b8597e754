//! An OCI spec as a plan, with every mount of the host as a descriptor.
//!
//! Runs in the agent, in the host's mount namespace, where the sources of mounts
//! are. Nothing of what is made is ever attached there.

mod mounts;
mod options;
mod overlay;
mod process;

pub use overlay::make_layer;

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;

use oci_spec::runtime::{
    LinuxDevice, LinuxDeviceType, LinuxNamespaceType, Process as OciProcess, Spec,
};
use prost::Message;
use rustix::fs::{FileType, MemfdFlags, Mode, OFlags, SealFlags};
use rustix::pipe::PipeFlags;

use super::plan::{Device, Plan};
use super::wire::{Ahead, Create, Exec, PidOf};
use super::{
    ContainerCgroups, ContainerIo, ContainerPid, ContainerSpec, ExecSpec, ProcessError, Streams,
};

/// What of the sandbox matters here.
#[derive(Debug)]
pub struct Host {
    pub userns: Option<Arc<OwnedFd>>,
    /// The pod has a /dev/shm of its own.
    pub ipc: bool,
}

/// A request and its descriptors.
#[derive(Debug)]
pub struct Prepared<T> {
    pub request: T,
    pub fds: Vec<OwnedFd>,
    /// Of an exec: the caller's ends.
    pub streams: Streams,
}

/// Largest plan that goes in the packet itself; a packet is limited by the
/// socket's send buffer (net.core.wmem_default, 208 KiB).
const INLINE_MAX: usize = 96 * 1024;

/// What went wrong, before it is known in which container.
#[derive(Debug)]
pub(super) struct Trouble {
    step: &'static str,
    context: String,
    source: io::Error,
}

impl Trouble {
    fn of(self, container: String) -> ProcessError {
        ProcessError::Prepare {
            container,
            step: self.step,
            context: self.context,
            source: self.source,
        }
    }
}

/// Says what was tried, on what.
pub(super) fn trouble(
    step: &'static str,
    context: impl std::fmt::Display,
) -> impl FnOnce(rustix::io::Errno) -> Trouble {
    let context = context.to_string();
    move |errno| Trouble {
        step,
        context,
        source: errno.into(),
    }
}

/// The descriptors of a plan, by position.
#[derive(Debug, Default)]
pub(super) struct Fds(Vec<OwnedFd>);

impl Fds {
    fn add(&mut self, fd: OwnedFd) -> u32 {
        self.0.push(fd);
        (self.0.len() - 1) as u32
    }
}

/// A request for a monitor that waits for its pod: the mounts, of those that most containers
/// have, which are new file systems.
pub fn ahead(usual: &[oci_spec::runtime::Mount]) -> Ahead {
    let plan = Plan {
        mounts: mounts::fresh(usual),
        ..Plan::default()
    };
    Ahead {
        plan: plan.encode_to_vec(),
    }
}

/// A container's mounts and log, all that does not wait for its cgroup.
#[derive(Debug)]
pub struct Mounted {
    request: Create,
    plan: Plan,
    process: OciProcess,
    seccomp: Vec<u8>,
    fds: Fds,
    log: Vec<OwnedFd>,
}

/// Makes a container's mounts and opens its log.
pub fn mounts_and_log(spec: ContainerSpec, host: &Host) -> Result<Mounted, ProcessError> {
    let id = spec.id.clone();
    mount(spec, host).map_err(|trouble| trouble.of(id))
}

fn mount(spec: ContainerSpec, host: &Host) -> Result<Mounted, Trouble> {
    let mut fds = Fds::default();
    let userns = host.userns.as_ref().map(|fd| fd.as_fd());
    let oci = &spec.oci;
    let linux = oci.linux().clone().unwrap_or_default();
    let mount_label = linux.mount_label().clone().unwrap_or_default();
    let rootfs = overlay::rootfs(&spec.rootfs, userns, &mount_label)?;
    let rootfs = Some(fds.add(rootfs));
    let mut hierarchies = Vec::new();
    let scratch = &spec.rootfs.writable;
    let mounts = mounts::plan(oci, host, scratch, &mut fds, &mut hierarchies)?;
    let plan = Plan {
        process: None,
        rootfs,
        read_only: spec.rootfs.read_only,
        propagation: options::root_propagation(linux.rootfs_propagation().as_deref()),
        mounts,
        masked: linux.masked_paths().clone().unwrap_or_default(),
        readonly: linux.readonly_paths().clone().unwrap_or_default(),
        devices: linux.devices().iter().flatten().map(device).collect(),
        private_cgroup: private_cgroup(oci),
        hierarchies,
        mount_label,
        views: Vec::new(),
    };
    let (pid, target) = pid_of(&spec.pid);
    let mut request = Create {
        container: spec.id,
        plan: Vec::new(),
        pid: pid.into(),
        target,
        tty: spec.io.tty,
        stdin: spec.io.stdin,
        stdin_once: spec.io.stdin_once,
        log: String::new(),
        log_max_size: 0,
        log_max_files: spec.io.log_max_files,
        cgroup: None,
    };
    Ok(Mounted {
        log: open_logs(&spec.io, &mut request)?,
        process: oci.process().clone().unwrap_or_default(),
        seccomp: spec.seccomp,
        request,
        plan,
        fds,
    })
}

impl Mounted {
    /// The whole request.
    pub fn in_cgroups(self, cgroups: ContainerCgroups) -> Result<Prepared<Create>, ProcessError> {
        let id = self.request.container.clone();
        self.enter(cgroups).map_err(|trouble| trouble.of(id))
    }

    fn enter(self, from: ContainerCgroups) -> Result<Prepared<Create>, Trouble> {
        let Self {
            mut request,
            mut plan,
            mut fds,
            ..
        } = self;
        let cgroups = cgroups(from.doors, &mut fds)?;
        request.cgroup = cgroups.directory;
        plan.views = mounts::views(&plan, from.views, &mut fds)?;
        let mut process = process::plan(&self.process, cgroups, self.seccomp);
        process.terminal = request.tty;
        plan.process = Some(process);
        fds.0.extend(self.log);
        request.plan = pack(&plan, &mut fds)?;
        Ok(Prepared {
            request,
            fds: fds.0,
            streams: Streams::default(),
        })
    }
}

fn cgroups(from: Vec<OwnedFd>, fds: &mut Fds) -> Result<process::Cgroups, Trouble> {
    let mut cgroups = process::Cgroups::default();
    for fd in from {
        let stat = rustix::fs::fstat(&fd).map_err(trouble("look at", "a cgroup"))?;
        let directory = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
        let position = fds.add(fd);
        if directory {
            cgroups.directory = Some(position);
        } else {
            cgroups.files.push(position);
        }
    }
    Ok(cgroups)
}

fn pid_of(pid: &ContainerPid) -> (PidOf, String) {
    match pid {
        ContainerPid::Own => (PidOf::Own, String::new()),
        ContainerPid::Pod => (PidOf::Pod, String::new()),
        ContainerPid::Node => (PidOf::Node, String::new()),
        ContainerPid::Target(id) => (PidOf::Target, id.clone()),
    }
}

/// A cgroup namespace is made unless the spec lists namespaces and not this one.
fn private_cgroup(oci: &Spec) -> bool {
    let listed = oci
        .linux()
        .as_ref()
        .and_then(|linux| linux.namespaces().as_ref());
    listed.is_none_or(|list| list.iter().any(|ns| ns.typ() == LinuxNamespaceType::Cgroup))
}

fn device(device: &LinuxDevice) -> Device {
    let kind = match device.typ() {
        LinuxDeviceType::B => FileType::BlockDevice,
        LinuxDeviceType::P => FileType::Fifo,
        LinuxDeviceType::A | LinuxDeviceType::C | LinuxDeviceType::U => FileType::CharacterDevice,
    };
    Device {
        path: device.path().to_string_lossy().into_owned(),
        mode: kind.as_raw_mode() | device.file_mode().unwrap_or(0o666) & 0o7777,
        major: device.major() as u32,
        minor: device.minor() as u32,
        uid: device.uid().unwrap_or(0),
        gid: device.gid().unwrap_or(0),
    }
}

/// The log and, to rotate it in, its directory.
fn open_logs(io: &ContainerIo, request: &mut Create) -> Result<Vec<OwnedFd>, Trouble> {
    let Some(path) = &io.log else {
        return Ok(Vec::new());
    };
    let text = path.to_string_lossy().into_owned();
    let mut fds = vec![log_file(path).map_err(trouble("open the log", &text))?];
    if let (Some(size), Some(parent)) = (io.log_max_size, path.parent()) {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let dir = rustix::fs::open(parent, flags, Mode::empty());
        fds.push(dir.map_err(trouble("open the log's directory", parent.display()))?);
        request.log_max_size = size.max(1);
    }
    request.log = text;
    Ok(fds)
}

fn log_file(path: &Path) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::WRONLY
        | OFlags::CREATE
        | OFlags::APPEND
        | OFlags::NOFOLLOW
        | OFlags::NONBLOCK
        | OFlags::CLOEXEC;
    let mode = Mode::RUSR | Mode::WUSR | Mode::RGRP;
    let file = rustix::fs::open(path, flags, mode)?;
    // Neither a pipe nor a device: a log is a file.
    match FileType::from_raw_mode(rustix::fs::fstat(&file)?.st_mode) {
        FileType::RegularFile => Ok(file),
        _ => Err(rustix::io::Errno::INVAL),
    }
}

/// Opens a log anew.
pub fn open_log(path: &Path) -> Result<OwnedFd, ProcessError> {
    log_file(path).map_err(|errno| ProcessError::State {
        action: "open the log",
        path: path.to_owned(),
        source: errno.into(),
    })
}

/// The plan's bytes, or none if they went to a sealed memfd.
fn pack(plan: &Plan, fds: &mut Fds) -> Result<Vec<u8>, Trouble> {
    let bytes = plan.encode_to_vec();
    if bytes.len() <= INLINE_MAX {
        return Ok(bytes);
    }
    let file = memfd(&bytes).map_err(trouble("make a memfd for", "the plan"))?;
    fds.add(file);
    Ok(Vec::new())
}

fn memfd(bytes: &[u8]) -> rustix::io::Result<OwnedFd> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let file = rustix::fs::memfd_create(c"plan", flags)?;
    let mut rest = bytes;
    while !rest.is_empty() {
        let written = rustix::io::write(&file, rest)?;
        rest = &rest[written..];
    }
    let seals = SealFlags::SEAL | SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE;
    rustix::fs::fcntl_add_seals(&file, seals)?;
    Ok(file)
}

/// Prepares a further process in a container.
pub fn exec(container: &str, spec: ExecSpec) -> Result<Prepared<Exec>, ProcessError> {
    let subject = format!("{container}/{}", spec.id);
    prepare_exec(container, spec).map_err(|trouble| trouble.of(subject))
}

fn prepare_exec(container: &str, spec: ExecSpec) -> Result<Prepared<Exec>, Trouble> {
    let tty = spec.process.terminal().unwrap_or(false);
    let mut fds = Fds::default();
    let cgroups = cgroups(spec.cgroups, &mut fds)?;
    let cgroup = cgroups.directory;
    let plan = Plan {
        process: Some(process::plan(&spec.process, cgroups, spec.seccomp)),
        ..Plan::default()
    };
    let bytes = pack(&plan, &mut fds)?;
    let (mut theirs, streams) = match tty {
        true => (Vec::new(), Streams::default()),
        false => pipes(spec.stdin).map_err(trouble("make pipes for", &spec.id))?,
    };
    theirs.append(&mut fds.0);
    Ok(Prepared {
        request: Exec {
            container: container.to_owned(),
            exec: spec.id,
            plan: bytes,
            tty,
            cgroup,
        },
        fds: theirs,
        streams,
    })
}

/// The process' ends, and ours, which do not block.
fn pipes(stdin: bool) -> rustix::io::Result<(Vec<OwnedFd>, Streams)> {
    let pipe = || rustix::pipe::pipe_with(PipeFlags::CLOEXEC);
    let (stdout, stdout_theirs) = pipe()?;
    let (stderr, stderr_theirs) = pipe()?;
    let (stdin_theirs, stdin) = if stdin {
        let (theirs, ours) = pipe()?;
        rustix::io::ioctl_fionbio(&ours, true)?;
        (theirs, Some(ours))
    } else {
        let flags = OFlags::RDWR | OFlags::CLOEXEC;
        (rustix::fs::open(c"/dev/null", flags, Mode::empty())?, None)
    };
    for ours in [&stdout, &stderr] {
        rustix::io::ioctl_fionbio(ours, true)?;
    }
    let streams = Streams {
        stdin,
        stdout: Some(stdout),
        stderr: Some(stderr),
    };
    Ok((vec![stdin_theirs, stdout_theirs, stderr_theirs], streams))
}
