//! Output of containers: to the log, and to whoever is attached.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::epoll;
use rustix::event::epoll::EventFlags;
use rustix::io::Errno;
use rustix::pipe::PipeFlags;

use super::super::step::Step;
use super::super::wire::{self, Body, Done, Why};
use super::container::{Container, Output};
use super::line::Stream;
use super::verbs::failure;
use super::{Monitor, Watch, now};

/// What is read at once: a pipe's default capacity would cost us that much
/// memory for ever.
const CHUNK: usize = 16 * 1024;
/// Chunks in a row, after which others get their turn.
const TURN: usize = 4;
/// How much an attached client may lag behind before it misses output: a
/// container never waits for a client.
const CLIENT_LAG: usize = 1024 * 1024;

/// The write end of somebody's attached stream.
pub struct Client {
    pub container: u32,
    pub stream: Stream,
    pub fd: OwnedFd,
}

/// How a reading ended.
#[derive(Debug, PartialEq, Eq)]
enum Read {
    /// There is more.
    More,
    /// Nothing, for now.
    Drained,
    /// Never again.
    Ended,
}

impl Container {
    pub(super) fn output(&mut self, stream: Stream) -> &mut Option<Output> {
        match stream {
            Stream::Stdout => &mut self.stdout,
            Stream::Stderr => &mut self.stderr,
        }
    }
}

impl Monitor {
    /// Reads what a container has written, for one turn.
    pub(super) fn drain(&mut self, key: u32, stream: Stream) {
        for _ in 0..TURN {
            if self.logs.is_full(key) {
                return self.pause(key, stream);
            }
            if self.read_once(key, stream) != Read::More {
                return;
            }
        }
    }

    /// Reads all there is, unless the log cannot take it. Whether that was all.
    pub(super) fn drain_all(&mut self, key: u32) -> bool {
        for stream in [Stream::Stdout, Stream::Stderr] {
            loop {
                if self.logs.is_full(key) {
                    self.pause(key, stream);
                    return false;
                }
                if self.read_once(key, stream) != Read::More {
                    break;
                }
            }
        }
        true
    }

    fn read_once(&mut self, key: u32, stream: Stream) -> Read {
        let mut chunk = [0u8; CHUNK];
        let Some(container) = self.containers.get_mut(&key) else {
            return Read::Ended;
        };
        let Some(output) = container.output(stream) else {
            return Read::Ended;
        };
        let read = match rustix::io::read(&output.fd, &mut chunk) {
            Ok(read) => read,
            Err(Errno::AGAIN) => return Read::Drained,
            Err(Errno::INTR) => return Read::More,
            // EIO: the last one has closed the terminal's other side.
            Err(_) => 0,
        };
        if read == 0 {
            self.end_output(key, stream);
            return Read::Ended;
        }
        if let Some(log) = self.logs.buffer(key) {
            output.lines.push(stream, &chunk[..read], now(), log);
        }
        self.logs.flush(key);
        self.broadcast(key, stream, &chunk[..read]);
        Read::More
    }

    fn end_output(&mut self, key: u32, stream: Stream) {
        let Some(container) = self.containers.get_mut(&key) else {
            return;
        };
        let Some(mut output) = container.output(stream).take() else {
            return;
        };
        let _ = epoll::delete(&self.epoll, &output.fd);
        if let Some(log) = self.logs.buffer(key) {
            output.lines.end(stream, now(), log);
        }
        self.logs.flush(key);
        self.clients
            .retain(|_, client| client.container != key || client.stream != stream);
    }

    fn pause(&mut self, key: u32, stream: Stream) {
        let Some(container) = self.containers.get_mut(&key) else {
            return;
        };
        if let Some(output) = container.output(stream).as_mut().filter(|o| !o.paused) {
            output.paused = true;
            let _ = epoll::delete(&self.epoll, &output.fd);
        }
    }

    /// The log has room again.
    pub(super) fn resume(&mut self, key: u32) {
        if self.logs.is_full(key) {
            return;
        }
        let Some(container) = self.containers.get_mut(&key) else {
            return;
        };
        for (stream, watch) in [
            (Stream::Stdout, Watch::Stdout(key)),
            (Stream::Stderr, Watch::Stderr(key)),
        ] {
            if let Some(output) = container.output(stream).as_mut().filter(|o| o.paused) {
                output.paused = false;
                let _ = epoll::add(&self.epoll, &output.fd, watch.data(), EventFlags::IN);
            }
        }
    }

    fn broadcast(&mut self, key: u32, stream: Stream, data: &[u8]) {
        self.clients.retain(|_, client| {
            if client.container != key || client.stream != stream {
                return true;
            }
            let mut rest = data;
            while !rest.is_empty() {
                match rustix::io::write(&client.fd, rest) {
                    Ok(written) => rest = &rest[written..],
                    Err(Errno::INTR) => {}
                    // It lags too far behind: this much it does not see.
                    Err(Errno::AGAIN) => return true,
                    Err(_) => return false,
                }
            }
            true
        });
    }

    pub(super) fn attach(&mut self, seq: u64, attach: &wire::Attach) {
        let Some(key) = self.find(&attach.container) else {
            return self.fail(seq, Why::NotFound);
        };
        if !self.containers.get(&key).is_some_and(Container::is_alive) {
            return self.fail(seq, Why::NotRunning);
        }
        match self.try_attach(key, attach.stdin) {
            Ok((stdin, outputs)) => {
                let done = Done {
                    stdin: stdin.is_some(),
                    ..Done::default()
                };
                let fds: Vec<BorrowedFd<'_>> =
                    stdin.iter().chain(&outputs).map(AsFd::as_fd).collect();
                self.answer(seq, Body::Done(done), &fds);
            }
            Err(errno) => self.fail(seq, failure(Step::Streams, errno)),
        }
    }

    fn try_attach(
        &mut self,
        key: u32,
        stdin: bool,
    ) -> rustix::io::Result<(Option<OwnedFd>, Vec<OwnedFd>)> {
        let Some(container) = self.containers.get_mut(&key) else {
            return Err(Errno::SRCH);
        };
        let mut streams = Vec::new();
        for stream in [Stream::Stdout, Stream::Stderr] {
            if container.output(stream).is_some() {
                streams.push(stream);
            }
        }
        let input = match (&container.stdin, stdin) {
            (Some(fd), true) => Some(fd.try_clone().map_err(|_| Errno::MFILE)?),
            _ => None,
        };
        // The one who attaches first holds the only other end: when it goes, the
        // container sees the end of its stdin.
        if container.stdin_once && !container.tty && input.is_some() {
            container.stdin = None;
        }
        let mut ends = Vec::new();
        for stream in streams {
            ends.push(self.client(key, stream)?);
        }
        Ok((input, ends))
    }

    fn client(&mut self, container: u32, stream: Stream) -> rustix::io::Result<OwnedFd> {
        let (theirs, ours) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
        // Refused above the user's limit: then it is a pipe like any other.
        let _ = rustix::pipe::fcntl_setpipe_size(&ours, CLIENT_LAG);
        let key = self.key();
        // No event is asked for: that the reader is gone comes unasked.
        self.watch(ours.as_fd(), Watch::Client(key), EventFlags::empty())?;
        self.clients.insert(
            key,
            Client {
                container,
                stream,
                fd: ours,
            },
        );
        Ok(theirs)
    }
}
