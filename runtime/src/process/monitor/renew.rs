//! A monitor that goes on as another program: that of a newer agent, so that whatever starts
//! in an old pod is set up by the newest code.
//!
//! execve(2) keeps what a monitor is there for: its pid, its children and their wait
//! statuses, its namespaces, its descriptors. What it knows goes along in a memfd.

use std::ffi::CString;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use prost::Message;
use rustix::event::epoll::{self, EventFlags};
use rustix::fs::MemfdFlags;
use rustix::io::{Errno, FdFlags};

use super::super::MONITOR;
use super::super::stage::MadeAhead;
use super::super::step::{Failure, Step};
use super::super::wire::{Body, Done, Failed, Why};
use super::begin::read_whole;
use super::kept::{Kept, KeptChild, KeptClient, KeptContainer, KeptEnd, KeptExecution, Open};
use super::line::Stream;
use super::log::Logs;
use super::verbs::failure;
use super::{Monitor, Watch, monotonic};
use crate::sys;

/// How long writes of logs may take to end before the monitor stays what it is: whoever
/// asked has something to start, which a frozen file system must not hold up.
const PATIENCE: u64 = 100_000_000;

/// A request to go on as another program.
pub struct Renewal {
    seq: u64,
    program: OwnedFd,
    /// When it is given up (monotonic).
    pub until: u64,
}

impl Monitor {
    /// Writes of logs are held back from now on, so that there soon is a moment with none.
    pub(super) fn renew(&mut self, seq: u64, mut fds: Vec<OwnedFd>) {
        let Some(program) = fds.pop() else {
            return self.fail(seq, failure(Step::Renew, Errno::BADF));
        };
        self.give_up_renewal(Why::Busy);
        self.logs.hold(true);
        self.renewal = Some(Renewal {
            seq,
            program,
            until: monotonic() + PATIENCE,
        });
    }

    /// Once nothing is half done.
    pub(super) fn settle_renewal(&mut self) {
        let Some(until) = self.renewal.as_ref().map(|r| r.until) else {
            return;
        };
        if self.is_quiet()
            && let Some(renewal) = &self.renewal
        {
            let failure = self.execute(renewal);
            return self.give_up_renewal(failure);
        }
        if until <= monotonic() {
            self.give_up_renewal(Why::Busy);
        }
    }

    fn give_up_renewal(&mut self, why: impl Into<Failed>) {
        let Some(renewal) = self.renewal.take() else {
            return;
        };
        self.logs.hold(false);
        self.fail(renewal.seq, why);
    }

    fn is_quiet(&self) -> bool {
        self.leaving.is_none()
            && self.pending.values().all(|p| p.awaits_start().is_some())
            && self.logs.are_settled()
    }

    /// Becomes the program; comes back only with an error, and as it was.
    fn execute(&self, renewal: &Renewal) -> Failure {
        let mut open = Open::default();
        let kept = self.keep(renewal.seq, &mut open).encode_to_vec();
        let file = match memory(&kept) {
            Ok(file) => file,
            Err(errno) => return failure(Step::Renew, errno),
        };
        let number = CString::new(file.as_raw_fd().to_string()).unwrap_or_default();
        open.0.push(file.as_fd());
        for fd in &open.0 {
            let _ = rustix::io::fcntl_setfd(fd, FdFlags::empty());
        }
        let args = [CString::from(MONITOR), number];
        let errno = sys::execve_fd(&renewal.program, &args, &[]);
        for fd in &open.0 {
            let _ = rustix::io::fcntl_setfd(fd, FdFlags::CLOEXEC);
        }
        failure(Step::Renew, errno)
    }

    fn keep<'a>(&'a self, seq: u64, open: &mut Open<'a>) -> Kept {
        let name = rustix::thread::name().unwrap_or_default();
        let spaces = &self.namespaces;
        let containers = self.containers.iter();
        let containers = containers.map(|(key, c)| KeptContainer::of(*key, c, open));
        let containers = containers.collect();
        let clients = self.clients.iter().map(|(key, client)| KeptClient {
            key: *key,
            container: client.container,
            stderr: client.stream == Stream::Stderr,
            fd: open.keep(&client.fd),
        });
        let clients = clients.collect();
        let stages = self.pending.iter();
        let stages = stages.filter_map(|(key, stage)| stage.keep(*key, open));
        let stages = stages.collect();
        Kept {
            seq,
            name: name.to_string_lossy().into_owned(),
            listener: open.keep(&self.listener),
            agent: open.keep_if(self.agent.as_ref()),
            exits: open.keep(&self.exits),
            netns: open.keep(&spaces.netns),
            userns: open.keep_if(spaces.userns.as_ref()),
            init: spaces.init.as_ref().map(|init| KeptChild::of(init, open)),
            ipc: self.ipc,
            next_key: self.next_key,
            containers,
            executions: self.executions.iter().map(KeptExecution::from).collect(),
            clients,
            logs: self.logs.keep(open),
            stages,
            early: ends(&self.early),
        }
    }
}

fn ends(early: &[(i32, i32)]) -> Vec<KeptEnd> {
    let end = |(pid, code): &(i32, i32)| KeptEnd {
        pid: *pid,
        code: *code,
    };
    early.iter().map(end).collect()
}

fn memory(bytes: &[u8]) -> rustix::io::Result<OwnedFd> {
    let file = rustix::fs::memfd_create(c"monitor", MemfdFlags::CLOEXEC)?;
    let mut rest = bytes;
    while !rest.is_empty() {
        rest = &rest[rustix::io::write(&file, rest)?..];
    }
    Ok(file)
}

/// Goes on where the program before left off. `argv[1]` is the number of the memfd.
pub fn resume() -> ! {
    let _ = rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable);
    let code = match taken_over() {
        Ok((mut monitor, seq)) => {
            monitor.answer(seq, Body::Done(Done::default()), &[]);
            // Ends that were told while nobody listened.
            monitor.reap();
            i32::from(monitor.run().is_err())
        }
        Err(_) => 1,
    };
    sys::exit_now(code)
}

fn taken_over() -> rustix::io::Result<(Monitor, u64)> {
    let kept = handed()?;
    let name = CString::new(kept.name.as_str()).unwrap_or_default();
    let _ = rustix::thread::set_name(&name);
    sys::reset_all();
    sys::ignore(libc::SIGPIPE);
    let (logs, agent) = (kept.logs()?, kept.agent.map(sys::inherited).transpose()?);
    let mut monitor = Monitor {
        epoll: epoll::create(epoll::CreateFlags::CLOEXEC)?,
        signals: sys::signalfd(&[libc::SIGCHLD])?,
        listener: sys::inherited(kept.listener)?,
        agent,
        exits: sys::inherited(kept.exits)?,
        namespaces: kept.namespaces()?,
        ahead: MadeAhead::default(),
        ipc: kept.ipc,
        marks: Vec::new(),
        containers: kept.containers()?,
        executions: kept.executions(),
        pending: kept.stages()?,
        clients: kept.clients()?,
        logs: Logs::of(logs),
        early: kept.early.iter().map(|end| (end.pid, end.code)).collect(),
        next_key: kept.next_key,
        leaving: None,
        untidy: true,
        renewal: None,
    };
    monitor.watch_basics();
    monitor.watch_taken_over()?;
    monitor.logs.hold(false);
    Ok((monitor, kept.seq))
}

fn handed() -> rustix::io::Result<Kept> {
    let number = std::env::args().nth(1).and_then(|n| n.parse().ok());
    let file = sys::inherited(number.ok_or(Errno::INVAL)?)?;
    Kept::decode(read_whole(&file)?.as_slice()).map_err(|_| Errno::BADMSG)
}

impl Monitor {
    fn watch_taken_over(&self) -> rustix::io::Result<()> {
        if let Some(agent) = &self.agent {
            self.watch(agent.as_fd(), Watch::Agent, EventFlags::IN)?;
        }
        for (key, stage) in &self.pending {
            self.watch(stage.channel(), Watch::Stage(*key), EventFlags::IN)?;
        }
        for (key, client) in &self.clients {
            self.watch(client.fd.as_fd(), Watch::Client(*key), EventFlags::empty())?;
        }
        for (key, container) in &self.containers {
            for (output, watch) in [
                (&container.stdout, Watch::Stdout(*key)),
                (&container.stderr, Watch::Stderr(*key)),
            ] {
                if let Some(output) = output.as_ref().filter(|output| !output.paused) {
                    self.watch(output.fd.as_fd(), watch, EventFlags::IN)?;
                }
            }
        }
        Ok(())
    }
}
