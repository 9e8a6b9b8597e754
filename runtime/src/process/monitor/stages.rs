//! Stages on their way: from a request to a process, without waiting for either.
//!
//! ```text
//! fork ─> [sibling's pid] ─> created ─(start)─> [sibling's pid] ─> end of channel: executed
//!    └──────────┴────────────────┴─────────────────────┴─> failure
//! ```

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use prost::Message;
use rustix::event::epoll;
use rustix::event::epoll::EventFlags;
use rustix::io::Errno;
use rustix::net::RecvFlags;
use rustix::pipe::PipeFlags;

use super::super::stage::{self, MadeAhead, PidNamespace, Purpose, Stage};
use super::super::step::{At, Failure, Step};
use super::super::wire::{self, Body, Done, Failed, Frame, PidOf, Why};
use super::super::{answer, kit, seqpacket_pair};
use super::container::{Container, Output};
use super::exits::Execution;
use super::kept::{KeptStage, Open};
use super::line::{Lines, Stream};
use super::log::Rotation;
use super::verbs::failure;
use super::{Monitor, Watch, mark};
use crate::sys::{self, Child, Forked};

/// A stage that has not yet become its process.
pub struct Pending {
    channel: OwnedFd,
    /// The request to be answered next, while its agent is there.
    pub seq: Option<u64>,
    what: What,
    /// It has said that all is set up.
    ready: bool,
    /// It was told to go on.
    started: bool,
    master: Option<OwnedFd>,
    marks: Vec<wire::Mark>,
}

impl Pending {
    /// A stage of another program's that has set up its container.
    pub fn waiting(channel: OwnedFd, container: u32) -> Self {
        Self {
            channel,
            seq: None,
            what: What::Container(container),
            ready: true,
            started: false,
            master: None,
            marks: Vec::new(),
        }
    }

    /// The container that is set up and waits for the word to start.
    pub fn awaits_start(&self) -> Option<u32> {
        match self.what {
            What::Container(key) if self.ready && !self.started && self.seq.is_none() => Some(key),
            _ => None,
        }
    }

    /// For the program that goes on with it.
    pub fn keep<'a>(&'a self, key: u32, open: &mut Open<'a>) -> Option<KeptStage> {
        let container = self.awaits_start()?;
        Some(KeptStage {
            key,
            channel: open.keep(&self.channel),
            container,
        })
    }

    pub fn channel(&self) -> BorrowedFd<'_> {
        self.channel.as_fd()
    }
}

enum What {
    Container(u32),
    Execution {
        container: String,
        exec: String,
        process: Child,
    },
}

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
        let of_container =
            |p: &&mut Pending| matches!(p.what, What::Container(container) if container == key);
        let pending = self.pending.values_mut().find(of_container);
        match (self.containers.get(&key), pending) {
            (Some(container), _) if container.started => {
                let done = Done {
                    pid: container.pid,
                    ..Done::default()
                };
                self.answer(seq, Body::Done(done), &[]);
            }
            (_, Some(pending)) if pending.ready => {
                pending.seq = Some(seq);
                // Asked for a second time by an agent that has not seen the answer:
                // the word was given already.
                if !std::mem::replace(&mut pending.started, true) {
                    pending.marks = vec![mark("start read")];
                    let _ = sys::send(&pending.channel, b"start", &[]);
                }
            }
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

    fn await_stage(&mut self, channel: OwnedFd, seq: u64, what: What, marks: Vec<wire::Mark>) {
        let key = self.key();
        let _ = self.watch(channel.as_fd(), Watch::Stage(key), EventFlags::IN);
        let execution = matches!(what, What::Execution { .. });
        let mut marks = marks;
        marks.push(mark("stage forked"));
        self.pending.insert(
            key,
            Pending {
                channel,
                seq: Some(seq),
                what,
                ready: false,
                // An exec does not wait for a word.
                started: execution,
                master: None,
                marks,
            },
        );
    }

    /// Hears what stages have said so far.
    pub(super) fn hear_stages(&mut self) {
        let keys: Vec<_> = self.pending.keys().copied().collect();
        for key in keys {
            self.stage_speaks(key);
        }
    }

    pub(super) fn stage_speaks(&mut self, key: u32) {
        while let Some(pending) = self.pending.get(&key) {
            match sys::receive(&pending.channel, RecvFlags::DONTWAIT) {
                Ok(Some(packet)) => {
                    let frame = Frame::decode(packet.data.as_slice()).unwrap_or_default();
                    match frame.body {
                        Some(Body::Done(done)) if done.pid != 0 => {
                            self.sibling(key, done.pid, packet.fds);
                        }
                        Some(Body::Done(_)) => self.ready(key, packet.fds),
                        Some(Body::Failed(failed)) => return self.failed(key, failed),
                        _ => {}
                    }
                }
                Err(Errno::AGAIN) => return,
                Ok(None) | Err(_) => return self.channel_ended(key),
            }
        }
    }

    /// The stage goes on in another process. A container that may trace has the
    /// channel of a sibling that has just entered its PID namespace, so the word
    /// is taken for no process but a child of ours that is nobody yet.
    fn sibling(&mut self, key: u32, pid: i32, mut fds: Vec<OwnedFd>) {
        let reaped = self.early.iter().any(|(early, _)| *early == pid);
        let ours = |pidfd: &OwnedFd| match answer::pid_of(pidfd) {
            Ok(found) => found == pid && is_child(pidfd),
            // It has ended, and nothing can be done with its descriptor.
            Err(_) => reaped,
        };
        let Some(pidfd) = fds.pop().filter(ours) else {
            return;
        };
        let known = self.containers.values().any(|c| c.pid == pid)
            || self.executions.iter().any(|e| e.pid == pid);
        let Some(pending) = self.pending.get_mut(&key).filter(|_| !known) else {
            return;
        };
        match &mut pending.what {
            What::Container(container) => {
                if let Some(container) = self.containers.get_mut(container) {
                    container.pid = pid;
                    container.pidfd = Some(pidfd);
                }
            }
            What::Execution { process, .. } => {
                *process = Child { pid, pidfd };
                pending.ready = true;
            }
        }
    }

    /// All is set up.
    fn ready(&mut self, key: u32, mut fds: Vec<OwnedFd>) {
        let Some(pending) = self.pending.get_mut(&key) else {
            return;
        };
        pending.ready = true;
        pending.marks.push(mark("stage ready"));
        let What::Container(container) = pending.what else {
            pending.master = fds.pop();
            return;
        };
        let (seq, marks) = (pending.seq.take(), std::mem::take(&mut pending.marks));
        if let Some(master) = fds.pop() {
            let _ = rustix::io::ioctl_fionbio(&master, true);
            let copy = master.try_clone().ok();
            if let Some(container) = self.containers.get_mut(&container) {
                container.stdin = copy;
            }
            self.read_from(container, Stream::Stdout, Some(master));
        }
        let pid = self.containers.get(&container).map_or(0, |c| c.pid);
        if let Some(seq) = seq {
            self.answer(
                seq,
                Body::Done(Done {
                    pid,
                    marks,
                    ..Done::default()
                }),
                &[],
            );
        }
    }

    fn take_pending(&mut self, key: u32) -> Option<Pending> {
        let pending = self.pending.remove(&key)?;
        let _ = epoll::delete(&self.epoll, &pending.channel);
        Some(pending)
    }

    fn failed(&mut self, key: u32, failed: Failed) {
        let Some(pending) = self.take_pending(key) else {
            return;
        };
        if let What::Container(container) = pending.what {
            self.container_failed(container, pending.started);
        }
        if let Some(seq) = pending.seq {
            self.fail(seq, failed);
        }
    }

    /// One that failed to be created never was; one that failed to start has ended.
    fn container_failed(&mut self, key: u32, started: bool) {
        let Some(container) = self.containers.get_mut(&key) else {
            return;
        };
        container.silent = true;
        if !started {
            // Its id is free at once, though its stage may still have to be reaped.
            container.id.clear();
            container.removing.push(0);
        }
        super::verbs::send_signal(container, libc::SIGKILL);
        self.forget_if_ended(key);
    }

    /// Closed by execve, or by death.
    fn channel_ended(&mut self, key: u32) {
        let Some(pending) = self.pending.get(&key) else {
            return;
        };
        if !(pending.ready && pending.started) {
            return self.failed(key, failure(Step::StageDied, Errno::CHILD).into());
        }
        let Some(mut pending) = self.take_pending(key) else {
            return;
        };
        pending.marks.push(mark("executed"));
        let pid = match pending.what {
            What::Container(container) => self.containers.get_mut(&container).map_or(0, |c| {
                c.started = true;
                c.pid
            }),
            What::Execution {
                container,
                exec,
                process,
            } => {
                let pid = process.pid;
                self.executions.push(Execution {
                    container,
                    exec,
                    pid,
                });
                pid
            }
        };
        if let Some(seq) = pending.seq {
            let done = Done {
                pid,
                marks: pending.marks,
                ..Done::default()
            };
            let fds: Vec<BorrowedFd<'_>> = pending.master.iter().map(AsFd::as_fd).collect();
            self.answer(seq, Body::Done(done), &fds);
        }
        self.early_end(pid);
    }

    fn read_from(&mut self, key: u32, stream: Stream, fd: Option<OwnedFd>) {
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

/// Whether the process is a child of ours that has not been waited for.
fn is_child(pidfd: &OwnedFd) -> bool {
    use rustix::process::{WaitId, WaitIdOptions, waitid};
    // The child stays to be waited for; that of somebody else is ECHILD.
    let look = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
    waitid(WaitId::PidFd(pidfd.as_fd()), look).is_ok()
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
