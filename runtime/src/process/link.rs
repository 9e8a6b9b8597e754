//! The agent's end of a monitor's socket: requests paired with their answers.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use prost::Message;
use rustix::io::Errno;
use rustix::net::RecvFlags;
use tokio::io::unix::AsyncFd;
use tokio::sync::oneshot;

use super::wire::{Body, Exited, Frame};
use crate::sys::{self, Packet};

/// An answer and the descriptors that came with it.
#[derive(Debug)]
pub struct Answer {
    pub body: Body,
    pub fds: Vec<OwnedFd>,
}

/// What [`Link::tell`] sends as its request's number, and [`Link::first`] waits for.
const FIRST: u64 = 1;

/// A connection; clones are not needed, it is shared.
#[derive(Debug)]
pub struct Link {
    socket: AsyncFd<OwnedFd>,
    /// Who waits; `None` once the peer is gone.
    waiting: Mutex<Option<HashMap<u64, oneshot::Sender<Answer>>>>,
    next: AtomicU64,
    reader: Mutex<Option<tokio::task::AbortHandle>>,
}

/// What comes unasked.
#[derive(Debug)]
pub enum Unasked {
    Exited(Exited),
    /// The peer is gone.
    Gone,
}

impl Link {
    /// Takes over a connected socket; `unasked` is called from the task that
    /// reads it, [`Gone`](Unasked::Gone) once and last.
    pub fn new(
        socket: OwnedFd,
        unasked: impl Fn(Unasked) + Send + 'static,
    ) -> io::Result<Arc<Self>> {
        rustix::io::ioctl_fionbio(&socket, true)?;
        let link = Arc::new(Self {
            socket: sys::watch(socket)?,
            waiting: Mutex::new(Some(HashMap::new())),
            next: AtomicU64::new(FIRST + 1),
            reader: Mutex::new(None),
        });
        let reader = Arc::clone(&link);
        let task = tokio::spawn(async move {
            while let Ok(packet) = reader.receive().await {
                if let Some(exited) = reader.dispatch(packet) {
                    unasked(Unasked::Exited(exited));
                }
            }
            *reader.lock() = None;
            unasked(Unasked::Gone);
        });
        *link.reader.lock().unwrap_or_else(PoisonError::into_inner) = Some(task.abort_handle());
        Ok(link)
    }

    /// Sends a request and waits for its answer.
    ///
    /// # Errors
    /// `ConnectionReset` when the peer is gone.
    pub async fn ask(&self, body: Body, fds: &[BorrowedFd<'_>]) -> io::Result<Answer> {
        answered(self.request(body, fds).await?).await
    }

    /// As [`ask`](Self::ask), and closes the descriptors while the peer works.
    ///
    /// # Errors
    /// As there.
    pub async fn ask_with(&self, body: Body, fds: Vec<OwnedFd>) -> io::Result<Answer> {
        let borrowed: Vec<_> = fds.iter().map(AsFd::as_fd).collect();
        let answer = self.request(body, &borrowed).await?;
        drop(borrowed);
        drop(fds);
        answered(answer).await
    }

    async fn request(
        &self,
        body: Body,
        fds: &[BorrowedFd<'_>],
    ) -> io::Result<oneshot::Receiver<Answer>> {
        let seq = self.next.fetch_add(1, Ordering::Relaxed);
        let (sender, answer) = oneshot::channel();
        match self.lock().as_mut() {
            Some(waiting) => waiting.insert(seq, sender),
            None => return Err(io::ErrorKind::ConnectionReset.into()),
        };
        let frame = Frame {
            seq,
            body: Some(body),
        };
        if let Err(error) = self.send(&frame.encode_to_vec(), fds).await {
            if let Some(waiting) = self.lock().as_mut() {
                waiting.remove(&seq);
            }
            return Err(error);
        }
        Ok(answer)
    }

    /// Sends what is answered elsewhere.
    pub async fn tell(&self, body: Body, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        let frame = Frame {
            seq: FIRST,
            body: Some(body),
        };
        self.send(&frame.encode_to_vec(), fds).await
    }

    /// Waits for the answer to a request that somebody else has passed on.
    ///
    /// # Errors
    /// `ConnectionReset` when the peer is gone.
    pub async fn first(&self) -> io::Result<Answer> {
        let answer = match self.lock().as_mut() {
            Some(waiting) => {
                let (sender, answer) = oneshot::channel();
                waiting.insert(FIRST, sender);
                answer
            }
            None => return Err(io::ErrorKind::ConnectionReset.into()),
        };
        answered(answer).await
    }

    /// Ends the connection: whoever waits is told that the peer is gone.
    pub fn close(&self) {
        let mut reader = self.reader.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(task) = reader.take() {
            task.abort();
        }
        *self.lock() = None;
        let _ = rustix::net::shutdown(self.socket.get_ref(), rustix::net::Shutdown::Both);
    }

    /// Whether the peer is gone.
    pub fn is_closed(&self) -> bool {
        self.lock().is_none()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<HashMap<u64, oneshot::Sender<Answer>>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn send(&self, data: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        let fds: Vec<_> = fds.to_vec();
        self.socket
            .async_io(tokio::io::Interest::WRITABLE, |socket| {
                sys::send(socket.as_fd(), data, &fds).map_err(io::Error::from)
            })
            .await
    }

    async fn receive(&self) -> io::Result<Packet> {
        self.socket
            .async_io(tokio::io::Interest::READABLE, |socket| {
                match sys::receive(socket.as_fd(), RecvFlags::DONTWAIT) {
                    Ok(Some(packet)) => Ok(packet),
                    Ok(None) => Err(Errno::CONNRESET.into()),
                    Err(errno) => Err(errno.into()),
                }
            })
            .await
    }

    fn dispatch(&self, packet: Packet) -> Option<Exited> {
        let frame = Frame::decode(packet.data.as_slice()).ok()?;
        let body = frame.body?;
        if let (0, Body::Exited(exited)) = (frame.seq, &body) {
            return Some(exited.clone());
        }
        let waiting = self.lock().as_mut()?.remove(&frame.seq)?;
        // Whoever asked has stopped waiting: its descriptors are closed here.
        let _ = waiting.send(Answer {
            body,
            fds: packet.fds,
        });
        None
    }
}

/// The answer, unless the peer has gone before it.
async fn answered(answer: oneshot::Receiver<Answer>) -> io::Result<Answer> {
    answer
        .await
        .map_err(|_| io::ErrorKind::ConnectionReset.into())
}
