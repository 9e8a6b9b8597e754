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

use super::super::answer;
use super::super::step::Step;
use super::super::wire::{self, Body, Done, Failed, Frame};
use super::exits::Execution;
use super::kept::{KeptStage, Open};
use super::line::Stream;
use super::verbs::failure;
use super::{Monitor, Watch, mark};
use crate::sys::{self, Child};

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

    pub fn is_of(&self, key: u32) -> bool {
        matches!(self.what, What::Container(container) if container == key)
    }

    pub fn is_ready(&self) -> bool {
        self.ready
    }

    /// Gives the word, to be answered when it has become its process.
    pub fn start(&mut self, seq: u64) {
        self.seq = Some(seq);
        // Asked for a second time by an agent that has not seen the answer: the word was
        // given already.
        if !std::mem::replace(&mut self.started, true) {
            self.marks = vec![mark("start read")];
            let _ = sys::send(&self.channel, b"start", &[]);
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

/// What a stage is to become.
pub(super) enum What {
    Container(u32),
    Execution {
        container: String,
        exec: String,
        process: Child,
    },
}

impl Monitor {
    pub(super) fn await_stage(
        &mut self,
        channel: OwnedFd,
        seq: u64,
        what: What,
        marks: Vec<wire::Mark>,
    ) {
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
}

/// Whether the process is a child of ours that has not been waited for.
fn is_child(pidfd: &OwnedFd) -> bool {
    use rustix::process::{WaitId, WaitIdOptions, waitid};
    // The child stays to be waited for; that of somebody else is ECHILD.
    let look = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
    waitid(WaitId::PidFd(pidfd.as_fd()), look).is_ok()
}
