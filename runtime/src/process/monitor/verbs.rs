//! What the agent asks for.

use std::num::NonZeroU32;
use std::os::fd::{AsFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{AddressFamily, Protocol, SocketFlags, SocketType};
use rustix::process::Signal;

use super::super::step::{Failure, Step};
use super::super::wire::{self, Body, Done, Why};
use super::Monitor;
use super::container::Container;
use crate::sys;

impl Monitor {
    pub(super) fn verb(&mut self, seq: u64, body: Option<Body>, fds: Vec<OwnedFd>) {
        match body {
            Some(Body::Hello(_)) => self.answer_state(seq),
            Some(Body::Create(create)) => self.create(seq, create, fds),
            Some(Body::Start(start)) => self.start(seq, &start.container),
            Some(Body::Signal(signal)) => self.signal(seq, &signal),
            Some(Body::Exec(exec)) => self.exec(seq, exec, fds),
            Some(Body::Attach(attach)) => self.attach(seq, &attach),
            Some(Body::Resize(resize)) => self.resize(seq, &resize),
            Some(Body::ReopenLog(named)) => self.reopen_log(seq, &named.container, fds),
            Some(Body::Remove(named)) => self.remove(seq, &named.container),
            Some(Body::Socket(socket)) => self.socket(seq, &socket),
            Some(Body::Shutdown(_)) => self.leave(seq),
            Some(Body::Renew(_)) => self.renew(seq, fds),
            _ => self.fail(seq, Why::Unknown),
        }
    }

    pub(super) fn done(&mut self, seq: u64) {
        self.answer(seq, Body::Done(Done::default()), &[]);
    }

    pub(super) fn find(&self, id: &str) -> Option<u32> {
        let found = self.containers.iter().find(|(_, c)| c.id == id);
        found.map(|(key, _)| *key)
    }

    fn signal(&mut self, seq: u64, signal: &wire::Signal) {
        let container = self
            .find(&signal.container)
            .and_then(|key| self.containers.get(&key));
        if let Some(container) = container.filter(|c| c.is_alive()) {
            send_signal(container, signal.signal);
        }
        self.done(seq);
    }

    fn resize(&mut self, seq: u64, resize: &wire::Resize) {
        let size = rustix::termios::Winsize {
            ws_row: resize.height as u16,
            ws_col: resize.width as u16,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        let container = self
            .find(&resize.container)
            .and_then(|key| self.containers.get(&key));
        if let Some(output) = container.filter(|c| c.tty).and_then(|c| c.stdout.as_ref()) {
            let _ = rustix::termios::tcsetwinsize(&output.fd, size);
        }
        self.done(seq);
    }

    fn reopen_log(&mut self, seq: u64, id: &str, mut fds: Vec<OwnedFd>) {
        match (self.find(id), fds.pop()) {
            (Some(key), Some(file)) => {
                self.logs.reopen(key, file);
                self.done(seq);
            }
            _ => self.fail(seq, Why::NotFound),
        }
    }

    fn remove(&mut self, seq: u64, id: &str) {
        let Some(key) = self.find(id) else {
            return self.done(seq);
        };
        if let Some(container) = self.containers.get_mut(&key) {
            container.removing.push(seq);
            send_signal(container, libc::SIGKILL);
        }
        self.forget_if_ended(key);
    }

    /// Drops a container that is to be removed, once its process is no more.
    pub(super) fn forget_if_ended(&mut self, key: u32) {
        let ended =
            |c: &Container| !c.removing.is_empty() && !c.is_alive() && c.telling_until.is_none();
        if !self.containers.get(&key).is_some_and(ended) {
            return;
        }
        let Some(container) = self.containers.remove(&key) else {
            return;
        };
        self.clients.retain(|_, client| client.container != key);
        self.logs.close(key);
        let record = format!("{}.json", container.id);
        let _ = rustix::fs::unlinkat(&self.exits, record, rustix::fs::AtFlags::empty());
        // 0: nobody asked, a failed creation is undone.
        for seq in container.removing.into_iter().filter(|seq| *seq != 0) {
            self.done(seq);
        }
    }

    fn socket(&mut self, seq: u64, socket: &wire::Socket) {
        let made = rustix::net::socket_with(
            AddressFamily::from_raw(socket.domain as u16),
            SocketType::from_raw(socket.kind as u32),
            SocketFlags::CLOEXEC,
            NonZeroU32::new(socket.protocol as u32).map(Protocol::from_raw),
        );
        match made {
            Ok(fd) => self.answer(seq, Body::Done(Done::default()), &[fd.as_fd()]),
            Err(errno) => self.fail(seq, failure(Step::OpenSocket, errno)),
        }
    }

    /// Kills everything; the answer comes when all are reaped.
    fn leave(&mut self, seq: u64) {
        self.leaving = Some(seq);
        for container in self.containers.values().filter(|c| c.is_alive()) {
            send_signal(container, libc::SIGKILL);
        }
        for execution in &self.executions {
            if let Some(pid) = rustix::process::Pid::from_raw(execution.pid) {
                let _ = rustix::process::kill_process(pid, Signal::KILL);
            }
        }
        if let Some(init) = &self.namespaces.init {
            let _ = rustix::process::pidfd_send_signal(&init.pidfd, Signal::KILL);
        }
    }

    pub(super) fn has_left(&mut self) -> bool {
        let Some(seq) = self.leaving else {
            return false;
        };
        let busy = |c: &Container| c.is_alive() || c.telling_until.is_some();
        if self.containers.values().any(busy) || !self.executions.is_empty() {
            return false;
        }
        self.done(seq);
        true
    }
}

pub(super) fn send_signal(container: &Container, signal: i32) {
    if let Some(pidfd) = &container.pidfd {
        let _ = sys::send_signal(pidfd, signal);
    }
}

pub(super) fn failure(step: Step, errno: Errno) -> Failure {
    Failure {
        step,
        errno,
        context: String::new(),
    }
}
