//! The monitor: one a pod, one thread, one epoll.
//!
//! It holds what must outlive the agent: namespaces, streams, wait statuses. It
//! knows no OCI: plans go through it to the stages unread. Nothing in its loop
//! waits for a disk, for a client or for a stage.

mod ahead;
mod begin;
mod container;
mod exits;
mod kept;
mod line;
mod log;
mod pod_init;
mod renew;
mod setup;
mod stages;
mod streams;
mod verbs;

use std::collections::BTreeMap;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use prost::Message;
use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SocketFlags};
use rustix::time::{ClockId, Timespec, clock_gettime};

use super::stage::MadeAhead;
use super::step::{At, Failure, Step};
use super::wire::{Body, Failed, Frame, Known, Mark, Spawn, State, VERSION, Why};
use crate::sys;
use container::Container;
use exits::Execution;
use log::Logs;
use renew::Renewal;
use stages::Pending;
use streams::Client;

pub use ahead::main as ahead;
pub use renew::resume;

/// What a monitor is born with.
pub struct Given {
    /// To the agent.
    pub connection: OwnedFd,
    /// For later agents.
    pub listener: OwnedFd,
    /// The sandbox's.
    pub dir: OwnedFd,
}

impl Given {
    fn numbers(&self) -> Vec<i32> {
        let all = [&self.connection, &self.listener, &self.dir];
        all.map(AsRawFd::as_raw_fd).into()
    }
}

/// Becomes the monitor of a pod. `seq` is that of the agent's request, answered
/// on the connection by our state.
pub fn main(seq: u64, spec: &Spawn, given: Given) -> ! {
    let mut keep = given.numbers();
    let begun = leave_spawner(&mut keep).map(|()| mark("monitor forked"));
    become_monitor(seq, spec, given, begun.map(|mark| (mark, None)))
}

/// Nothing of the spawner's is kept but what is listed.
fn leave_spawner(keep: &mut Vec<i32>) -> Result<(), Failure> {
    keep.extend([0, 1, 2]);
    sys::close_all_but(keep).at(Step::CloseDescriptors)?;
    // The spawner's connection was there.
    rustix::stdio::dup2_stdin(rustix::stdio::stdout()).at(Step::CloseDescriptors)
}

/// What there is of a pod before it comes.
struct Waited {
    netns: OwnedFd,
    mounts: MadeAhead,
}

/// When it began, and what there was by then.
type Begun = (Mark, Option<Waited>);

fn become_monitor(seq: u64, spec: &Spawn, given: Given, begun: Result<Begun, Failure>) -> ! {
    let made = match begun {
        Ok(begun) => start(spec, given, begun),
        Err(failure) => Err((failure, given.connection)),
    };
    let mut monitor = match made {
        Ok(monitor) => monitor,
        Err((failure, connection)) => {
            let body = Some(Body::Failed(failure.into()));
            let _ = sys::send(&connection, &Frame { seq, body }.encode_to_vec(), &[]);
            sys::exit_now(1)
        }
    };
    monitor.answer_state(seq);
    let code = i32::from(monitor.run().is_err());
    sys::exit_now(code)
}

/// What is watched, and whose it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Watch {
    Signals,
    Listener,
    Agent,
    Ring,
    Stage(u32),
    Stdout(u32),
    Stderr(u32),
    Client(u32),
}

impl Watch {
    fn data(self) -> EventData {
        let (kind, key) = match self {
            Self::Signals => (0, 0),
            Self::Listener => (1, 0),
            Self::Agent => (2, 0),
            Self::Ring => (3, 0),
            Self::Stage(key) => (4, key),
            Self::Stdout(key) => (5, key),
            Self::Stderr(key) => (6, key),
            Self::Client(key) => (7, key),
        };
        EventData::new_u64(kind << 32 | u64::from(key))
    }

    fn of(data: EventData) -> Option<Self> {
        let data = data.u64();
        let key = data as u32;
        Some(match data >> 32 {
            0 => Self::Signals,
            1 => Self::Listener,
            2 => Self::Agent,
            3 => Self::Ring,
            4 => Self::Stage(key),
            5 => Self::Stdout(key),
            6 => Self::Stderr(key),
            7 => Self::Client(key),
            _ => return None,
        })
    }
}

struct Monitor {
    epoll: OwnedFd,
    signals: OwnedFd,
    listener: OwnedFd,
    agent: Option<OwnedFd>,
    /// Exit records are written in it.
    exits: OwnedFd,
    namespaces: setup::Namespaces,
    /// For the first container.
    ahead: MadeAhead,
    ipc: bool,
    marks: Vec<Mark>,
    containers: BTreeMap<u32, Container>,
    executions: Vec<Execution>,
    pending: BTreeMap<u32, Pending>,
    clients: BTreeMap<u32, Client>,
    logs: Logs,
    /// Children that ended before their stage told who they are.
    early: Vec<(i32, i32)>,
    next_key: u32,
    /// The request whose answer ends us.
    leaving: Option<u64>,
    /// Heap pages may be free since it was last given back.
    untidy: bool,
    /// It is to go on as another program.
    renewal: Option<Renewal>,
}

/// How long a monitor is idle before it gives free memory back: the next request
/// would have to take it again.
const TIDY: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 200_000_000,
};

fn start(spec: &Spawn, given: Given, begun: Begun) -> Result<Monitor, (Failure, OwnedFd)> {
    let Given {
        connection,
        listener,
        dir,
    } = given;
    let (begun, waited) = begun;
    let (netns, ahead) = match waited {
        Some(waited) => (Some(waited.netns), waited.mounts),
        None => Default::default(),
    };
    match prepare(spec, (&listener, &dir), (begun, netns)) {
        Ok((epoll, signals, exits, namespaces, marks)) => {
            let mut monitor = Monitor {
                epoll,
                signals,
                listener,
                agent: None,
                exits,
                namespaces,
                ahead,
                ipc: spec.ipc,
                marks,
                containers: BTreeMap::new(),
                executions: Vec::new(),
                pending: BTreeMap::new(),
                clients: BTreeMap::new(),
                logs: Logs::new(),
                early: Vec::new(),
                next_key: 1,
                leaving: None,
                untidy: true,
                renewal: None,
            };
            monitor.watch_basics();
            monitor.connect(connection);
            Ok(monitor)
        }
        Err(failure) => Err((failure, connection)),
    }
}

type Prepared = (OwnedFd, OwnedFd, OwnedFd, setup::Namespaces, Vec<Mark>);

fn prepare(
    spec: &Spawn,
    (listener, dir): (&OwnedFd, &OwnedFd),
    (begun, netns): (Mark, Option<OwnedFd>),
) -> Result<Prepared, Failure> {
    let mut marks = vec![begun];
    rustix::process::setsid().at(Step::Session)?;
    let name = format!("lighter-{}", spec.id.get(..7).unwrap_or("monitor"));
    let name = std::ffi::CString::new(name).unwrap_or_default();
    let _ = rustix::thread::set_name(&name);
    // Orphans of containers that share our PID namespace are ours to reap.
    rustix::process::set_child_subreaper(Some(rustix::process::getpid())).at(Step::Session)?;
    // The spawner has no handlers either, and ignores SIGPIPE as we do.
    sys::reset(libc::SIGCHLD);
    let signals = sys::signalfd(&[libc::SIGCHLD]).at(Step::Epoll)?;
    // By us, so that whoever connects is told our pid.
    rustix::net::listen(listener, 8).at(Step::OpenSocket)?;
    let exits = open_exits(dir).on(Step::StateDirectory, "exits")?;
    let namespaces = setup::namespaces(spec, netns)?;
    marks.push(mark("namespaces made"));
    let epoll = epoll::create(epoll::CreateFlags::CLOEXEC).at(Step::Epoll)?;
    Ok((epoll, signals, exits, namespaces, marks))
}

fn open_exits(dir: &OwnedFd) -> rustix::io::Result<OwnedFd> {
    use rustix::fs::{Mode, OFlags};
    match rustix::fs::mkdirat(dir, "exits", Mode::RWXU) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(errno) => return Err(errno),
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::openat(dir, "exits", flags, Mode::empty())
}

/// Gives an agent whose socket is full a moment to read.
fn wait_writable(agent: &OwnedFd) {
    use rustix::event::{PollFd, PollFlags, poll};
    let moment = Timespec {
        tv_sec: 0,
        tv_nsec: 100_000_000,
    };
    let _ = poll(&mut [PollFd::new(agent, PollFlags::OUT)], Some(&moment));
}

/// Nanoseconds since the epoch.
fn now() -> i64 {
    let time = clock_gettime(ClockId::Realtime);
    time.tv_sec * 1_000_000_000 + time.tv_nsec
}

/// Nanoseconds of a clock that only runs forward.
fn monotonic() -> u64 {
    let time = clock_gettime(ClockId::Monotonic);
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

fn mark(what: &str) -> Mark {
    Mark {
        what: what.to_owned(),
        at: monotonic(),
    }
}

impl Monitor {
    fn watch_basics(&mut self) {
        let _ = self.watch(self.signals.as_fd(), Watch::Signals, EventFlags::IN);
        let _ = self.watch(self.listener.as_fd(), Watch::Listener, EventFlags::IN);
        if let Some(ring) = self.logs.fd() {
            let _ = self.watch(ring, Watch::Ring, EventFlags::IN);
        }
    }

    fn watch(&self, fd: BorrowedFd<'_>, watch: Watch, flags: EventFlags) -> rustix::io::Result<()> {
        epoll::add(&self.epoll, fd, watch.data(), flags)
    }

    fn key(&mut self) -> u32 {
        self.next_key += 1;
        self.next_key
    }

    /// Serves until told to leave.
    fn run(&mut self) -> rustix::io::Result<()> {
        let mut events = Vec::with_capacity(32);
        loop {
            events.clear();
            let idle = self.untidy.then_some(TIDY);
            let timeout = self.timeout().or(idle);
            match epoll::wait(
                &self.epoll,
                rustix::buffer::spare_capacity(&mut events),
                timeout.as_ref(),
            ) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(errno) => return Err(errno),
            }
            if events.is_empty() && std::mem::take(&mut self.untidy) {
                sys::trim_heap();
            }
            for event in &events {
                if let Some(watch) = Watch::of(event.data) {
                    self.handle(watch, event.flags);
                }
            }
            self.settle_exits();
            self.settle_renewal();
            if self.has_left() {
                return Ok(());
            }
        }
    }

    fn handle(&mut self, watch: Watch, flags: EventFlags) {
        match watch {
            Watch::Signals => self.reap(),
            Watch::Listener => self.accept(),
            Watch::Agent => self.serve_agent(),
            Watch::Ring => {
                for key in self.logs.completed() {
                    self.resume(key);
                }
            }
            Watch::Stage(key) => self.stage_speaks(key),
            Watch::Stdout(key) => self.drain(key, line::Stream::Stdout),
            Watch::Stderr(key) => self.drain(key, line::Stream::Stderr),
            Watch::Client(key) if flags.intersects(EventFlags::ERR | EventFlags::HUP) => {
                self.clients.remove(&key);
            }
            Watch::Client(_) => {}
        }
    }

    /// A new agent takes the place of the one before.
    fn accept(&mut self) {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let Ok(connection) = rustix::net::accept_with(&self.listener, flags) else {
            return;
        };
        let peer = rustix::net::sockopt::socket_peercred(&connection);
        if peer.is_ok_and(|peer| peer.uid == rustix::process::geteuid()) {
            self.connect(connection);
        }
    }

    fn connect(&mut self, connection: OwnedFd) {
        let _ = rustix::io::ioctl_fionbio(&connection, true);
        let _ = self.watch(connection.as_fd(), Watch::Agent, EventFlags::IN);
        self.agent = Some(connection);
        // Whoever waited for an answer is gone.
        for pending in self.pending.values_mut() {
            pending.seq = None;
        }
    }

    fn serve_agent(&mut self) {
        while let Some(agent) = &self.agent {
            match sys::receive(agent, RecvFlags::DONTWAIT) {
                Ok(Some(packet)) => {
                    let Ok(frame) = Frame::decode(packet.data.as_slice()) else {
                        continue;
                    };
                    self.verb(frame.seq, frame.body, packet.fds);
                }
                Err(Errno::AGAIN) => break,
                Ok(None) | Err(_) => self.agent = None,
            }
        }
        self.untidy = true;
    }

    /// Answers the agent that is there now. One that does not read its answers is
    /// as good as none: it can connect again and is told everything anew.
    fn answer(&mut self, seq: u64, body: impl Into<Body>, fds: &[BorrowedFd<'_>]) {
        let Some(agent) = &self.agent else {
            return;
        };
        let body = Some(body.into());
        let bytes = Frame { seq, body }.encode_to_vec();
        let sent = match sys::send(agent, &bytes, fds) {
            Err(Errno::AGAIN) => {
                wait_writable(agent);
                sys::send(agent, &bytes, fds)
            }
            other => other,
        };
        if sent.is_err() {
            self.agent = None;
        }
    }

    fn fail(&mut self, seq: u64, why: impl Into<Failed>) {
        self.answer(seq, Body::Failed(why.into()), &[]);
    }

    fn answer_state(&mut self, seq: u64) {
        let state = State {
            version: VERSION,
            containers: self
                .containers
                .values()
                .filter(|container| !container.id.is_empty())
                .map(Known::from)
                .collect(),
            userns: self.namespaces.userns.is_some(),
            ipc: self.ipc,
            marks: std::mem::take(&mut self.marks),
        };
        let flags = rustix::process::PidfdFlags::empty();
        let Ok(pidfd) = rustix::process::pidfd_open(rustix::process::getpid(), flags) else {
            return self.fail(seq, Why::Unknown);
        };
        let (Ok(netns), userns) = (
            self.namespaces.netns.try_clone(),
            self.namespaces
                .userns
                .as_ref()
                .and_then(|fd| fd.try_clone().ok()),
        ) else {
            return self.fail(seq, Why::Unknown);
        };
        let mut fds = vec![pidfd.as_fd(), netns.as_fd()];
        fds.extend(userns.iter().map(AsFd::as_fd));
        self.answer(seq, Body::State(state), &fds);
    }
}
