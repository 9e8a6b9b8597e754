//! Requests that make a process: its stage is forked, and heard of in `stages`.

use std::os::fd::{AsFd, OwnedFd};

use rustix::event::epoll::EventFlags;
use rustix::io::Errno;
use rustix::pipe::PipeFlags;

use super::super::stage::{self, MadeAhead, PidNamespace, Purpose, Stage};
use super::super::step::{At, Failure, Step};
use super::super::wire::{self, Body, Done, Failed, PidOf, Why};
use super::super::{kit, seqpacket_pair};
use super::container::{Container, Output};
use super::line::{Lines, Stream};
use super::log::Rotation;
use super::stages::What;
use super::verbs::failure;
use super::{Monitor, Watch, mark};
use crate::sys::{self, Child, Forked};

/// Our ends of a container's streams, and the ones it is given.
struct Pipes {
    ours: [Option<OwnedFd>; 3],
    theirs: [OwnedFd; 3],
}

impl Monitor {
    pub(super) fn create(&mut self, seq: u64, create: wire::Create, mut fds: Vec<OwnedFd>) {
        if self.find(&create.container).is_some() {
            return self.fail(seq, Why::Exists);
        }
        match self.try_create(seq, create, &mut fds) {
            Ok(()) => {}
            Err(failed) => self.fail(seq, failed),
        }
    }

    fn try_create(
        &mut self,
        seq: u64,
        mut create: wire::Create,
        fds: &mut Vec<OwnedFd>,
    ) -> Result<(), Failed> {
        let marks = vec![mark("request read")];
        read_plan(&mut create.plan, fds)?;
        let log = (!create.log.is_empty())
            .then(|| split_log(&create, fds))
            .transpose()?;
        let pid_of = create.pid();
        let target = self.target(pid_of, &create.target)?;
        let pipes = match create.tty {
            true => None,
            false => Some(pipes(create.stdin).at(Step::Streams)?),
        };
        let (channel, theirs) = seqpacket_pair().at(Step::Fork)?;
        let userns = self.namespaces.userns.as_ref().map(AsFd::as_fd);
        let pid = match (pid_of, &target) {
            (PidOf::Own, _) => PidNamespace::Own,
            (PidOf::Node, _) | (_, None) => PidNamespace::Node,
            (_, Some((pidfd, pid))) => PidNamespace::Of(pidfd.as_fd(), *pid),
        };
        let own = pid_of == PidOf::Own && userns.is_none();
        let flags = if own { libc::CLONE_NEWPID } else { 0 };
        let stage = Stage {
            purpose: Purpose::Create { pid, userns },
            plan: &create.plan,
            fds,
            streams: pipes.as_ref().map(|p| p.theirs.each_ref().map(AsFd::as_fd)),
            channel: theirs.as_fd(),
            cgroup: create.cgroup,
            born: false,
            ahead: &self.ahead,
        };
        let child = fork_stage(flags, stage)?;
        // Each is a file system of one container's.
        self.ahead = MadeAhead::default();
        let key = self.key();
        let [stdin, stdout, stderr] = pipes.map(|p| p.ours).unwrap_or_default();
        if let Some((file, rotation)) = log {
            self.logs.open(key, file, rotation);
        }
        let container = Container {
            id: create.container,
            pid: child.pid,
            pidfd: Some(child.pidfd),
            started: false,
            exit: None,
            pid_of,
            tty: create.tty,
            stdin_once: create.stdin_once,
            log_path: create.log,
            stdin,
            stdout: None,
            stderr: None,
            telling_until: None,
            removing: Vec::new(),
            silent: false,
        };
        self.containers.insert(key, container);
        self.read_from(key, Stream::Stdout, stdout);
        self.read_from(key, Stream::Stderr, stderr);
        self.await_stage(channel, seq, What::Container(key), marks);
        Ok(())
    }

    /// The process whose PID namespace is to be joined.
    fn target(&self, pid: PidOf, target: &str) -> Result<Option<(OwnedFd, i32)>, Failed> {
        let copy = |fd: &OwnedFd| fd.try_clone().at(Step::JoinPidNamespace);
        match pid {
            PidOf::Own | PidOf::Node => Ok(None),
            PidOf::Pod => {
                let init = self
                    .namespaces
                    .init
                    .as_ref()
                    .ok_or(Failed::from(Why::NotFound))?;
                Ok(Some((copy(&init.pidfd)?, init.pid)))
            }
            PidOf::Target => {
                let key = self.find(target).ok_or(Failed::from(Why::NotFound))?;
                let running = self.containers.get(&key).filter(|c| c.is_running());
                let container = running.ok_or(Failed::from(Why::NotRunning))?;
                if container.pid_of == PidOf::Node {
                    return Ok(None);
                }
                let pidfd = container
                    .pidfd
                    .as_ref()
                    .ok_or(Failed::from(Why::NotRunning))?;
                Ok(Some((copy(pidfd)?, container.pid)))
            }
        }
    }

    pub(super) fn start(&mut self, seq: u64, id: &str) {
        let Some(key) = self.find(id) else {
            return self.fail(seq, Why::NotFound);
        };
        let pending = self.pending.values_mut().find(|p| p.is_of(key));
        match (self.containers.get(&key), pending) {
            (Some(container), _) if container.started => {
                let done = Done {
                    pid: container.pid,
                    ..Done::default()
                };
                self.answer(seq, Body::Done(done), &[]);
            }
            (_, Some(pending)) if pending.is_ready() => pending.start(seq),
            _ => self.fail(seq, Why::NotRunning),
        }
    }

    pub(super) fn exec(&mut self, seq: u64, exec: wire::Exec, fds: Vec<OwnedFd>) {
        if let Err(failed) = self.try_exec(seq, exec, fds) {
            self.fail(seq, failed);
        }
    }

    fn try_exec(
        &mut self,
        seq: u64,
        mut exec: wire::Exec,
        mut fds: Vec<OwnedFd>,
    ) -> Result<(), Failed> {
        let key = self
            .find(&exec.container)
            .ok_or(Failed::from(Why::NotFound))?;
        read_plan(&mut exec.plan, &mut fds)?;
        let (streams, fds) = match exec.tty {
            true => (None, fds.as_slice()),
            false => fds
                .split_at_checked(3)
                .map(|(streams, fds)| (Some(streams), fds))
                .ok_or(Failed::from(failure(Step::Streams, Errno::BADMSG)))?,
        };
        let running = self.containers.get(&key).filter(|c| c.is_running());
        let container = running.ok_or(Failed::from(Why::NotRunning))?;
        let pidfd = container
            .pidfd
            .as_ref()
            .ok_or(Failed::from(Why::NotRunning))?;
        let (channel, theirs) = seqpacket_pair().at(Step::Fork)?;
        let stage = Stage {
            purpose: Purpose::Exec {
                container: pidfd.as_fd(),
                pid: container.pid_of != PidOf::Node,
                user: self.namespaces.userns.is_some(),
            },
            plan: &exec.plan,
            fds,
            streams: streams.map(|s| [s[0].as_fd(), s[1].as_fd(), s[2].as_fd()]),
            channel: theirs.as_fd(),
            cgroup: exec.cgroup,
            born: false,
            ahead: &MadeAhead::default(),
        };
        let process = fork_stage(0, stage)?;
        let what = What::Execution {
            container: exec.container,
            exec: exec.exec,
            process,
        };
        self.await_stage(channel, seq, what, Vec::new());
        Ok(())
    }

    pub(super) fn read_from(&mut self, key: u32, stream: Stream, fd: Option<OwnedFd>) {
        let Some(fd) = fd else {
            return;
        };
        let watch = match stream {
            Stream::Stdout => Watch::Stdout(key),
            Stream::Stderr => Watch::Stderr(key),
        };
        let _ = self.watch(fd.as_fd(), watch, EventFlags::IN);
        let output = Some(Output {
            fd,
            lines: Lines::default(),
            paused: false,
        });
        if let Some(container) = self.containers.get_mut(&key) {
            match stream {
                Stream::Stdout => container.stdout = output,
                Stream::Stderr => container.stderr = output,
            }
        }
    }
}

fn fork_stage(flags: i32, mut stage: Stage<'_>) -> Result<Child, Failure> {
    let cgroup = stage.cgroup.and_then(|at| stage.fds.get(at as usize));
    stage.born = cgroup.is_some();
    let born = cgroup.map(|cgroup| sys::fork_into(flags, cgroup.as_fd()));
    let forked = match born {
        Some(Ok(forked)) => forked,
        // The kernel can't, or won't for this cgroup: then the stage moves there itself, and
        // says what is wrong with it.
        Some(Err(_)) | None => {
            stage.born = false;
            sys::fork(flags).at(Step::Fork)?
        }
    };
    match forked {
        Forked::Child => stage::main(&stage),
        Forked::Parent(child) => Ok(child),
    }
}

/// Takes the log's descriptors off the end of the list.
fn split_log(
    create: &wire::Create,
    fds: &mut Vec<OwnedFd>,
) -> Result<(OwnedFd, Option<Rotation>), Failure> {
    let lacking = || failure(Step::ReadPlan, Errno::BADMSG);
    let rotation = match create.log_max_size {
        0 => None,
        size => {
            let dir = fds.pop().ok_or_else(lacking)?;
            let name = create.log.rsplit('/').next().unwrap_or_default().to_owned();
            Some(Rotation::new(dir, name, size, create.log_max_files))
        }
    };
    Ok((fds.pop().ok_or_else(lacking)?, rotation))
}

/// A plan too large for a packet comes in a sealed memfd, the last descriptor.
fn read_plan(plan: &mut Vec<u8>, fds: &mut Vec<OwnedFd>) -> Result<(), Failure> {
    if !plan.is_empty() {
        return Ok(());
    }
    let file = fds.pop().ok_or(Errno::BADMSG).at(Step::ReadPlan)?;
    *plan = read_whole(&file).at(Step::ReadPlan)?;
    Ok(())
}

/// All of a memfd, wherever its position is.
pub fn read_whole(file: &OwnedFd) -> rustix::io::Result<Vec<u8>> {
    let size = rustix::fs::fstat(file)?.st_size;
    let mut bytes = vec![0; usize::try_from(size).unwrap_or_default()];
    let mut at = 0;
    while at < bytes.len() {
        match rustix::io::pread(file, &mut bytes[at..], at as u64)? {
            0 => return Err(Errno::BADMSG),
            read => at += read,
        }
    }
    Ok(bytes)
}

/// Pipes for a container without a terminal; our ends do not block.
fn pipes(stdin: bool) -> rustix::io::Result<Pipes> {
    let pipe = || rustix::pipe::pipe_with(PipeFlags::CLOEXEC);
    let (out, out_theirs) = pipe()?;
    let (err, err_theirs) = pipe()?;
    let (input, input_theirs) = match stdin {
        true => {
            let (theirs, ours) = pipe()?;
            rustix::io::ioctl_fionbio(&ours, true)?;
            (Some(ours), theirs)
        }
        false => (None, kit::null()?),
    };
    for ours in [&out, &err] {
        rustix::io::ioctl_fionbio(ours, true)?;
    }
    Ok(Pipes {
        ours: [input, Some(out), Some(err)],
        theirs: [input_theirs, out_theirs, err_theirs],
    })
}
