//! Sends to nfnetlink and waits for the kernel's answer.

use super::message::{HEADER, Messages};
use super::uapi::NETLINK_NETFILTER;
use netlink_sys::{Socket, SocketAddr};
use std::io;
use std::time::Duration;

/// The kernel answers at once; this bounds what a lost answer costs.
const ANSWER: Duration = Duration::from_secs(10);
/// `linux/netlink.h` NLMSG_ERROR and NLMSG_DONE.
const ERROR: u16 = 2;
const DONE: u16 = 3;

/// Commits a batch that has been begun: all of it or nothing. Blocks for as
/// long as the kernel takes, about 0.3 ms.
pub fn commit(mut batch: Messages) -> io::Result<()> {
    let answered = batch.end();
    let socket = open()?;
    send(&socket, &batch)?;
    receive(&socket, |m| match m.error() {
        Some(0) if m.sequence == answered => Some(Ok(())),
        Some(0) | None => None,
        Some(errno) => Some(Err(io::Error::from_raw_os_error(errno))),
    })
}

/// Sends one request and hands every message of the answer on until the
/// kernel says that it is done.
pub fn request(request: &Messages, mut each: impl FnMut(&[u8])) -> io::Result<()> {
    let socket = open()?;
    send(&socket, request)?;
    receive(&socket, |m| match (m.kind, m.error()) {
        (DONE, _) | (_, Some(0)) => Some(Ok(())),
        (_, Some(errno)) => Some(Err(io::Error::from_raw_os_error(errno))),
        (_, None) => {
            each(m.body);
            None
        }
    })
}

fn open() -> io::Result<Socket> {
    let socket = Socket::new(NETLINK_NETFILTER)?;
    let which = rustix::net::sockopt::Timeout::Recv;
    rustix::net::sockopt::set_socket_timeout(&socket, which, Some(ANSWER))?;
    Ok(socket)
}

fn send(socket: &Socket, messages: &Messages) -> io::Result<()> {
    let sent = socket.send_to(messages.bytes(), &SocketAddr::new(0, 0), 0)?;
    if sent == messages.bytes().len() {
        Ok(())
    } else {
        Err(io::ErrorKind::WriteZero.into())
    }
}

struct Message<'a> {
    kind: u16,
    sequence: u32,
    body: &'a [u8],
}

impl Message<'_> {
    /// The errno of an answer, 0 for an acknowledgement.
    fn error(&self) -> Option<i32> {
        let code = self.body.first_chunk::<4>()?;
        (self.kind == ERROR).then(|| i32::from_ne_bytes(*code).saturating_neg())
    }
}

fn receive<T>(
    socket: &Socket,
    mut judge: impl FnMut(&Message<'_>) -> Option<io::Result<T>>,
) -> io::Result<T> {
    loop {
        let (datagram, _) = socket.recv_from_full()?;
        for message in messages(&datagram) {
            if let Some(result) = judge(&message) {
                return result;
            }
        }
    }
}

fn messages(mut bytes: &[u8]) -> impl Iterator<Item = Message<'_>> {
    std::iter::from_fn(move || {
        let header = bytes.first_chunk::<HEADER>()?;
        let word = |at: usize| [header[at], header[at + 1], header[at + 2], header[at + 3]];
        let length = u32::from_ne_bytes(word(0)) as usize;
        let body = bytes.get(HEADER..length)?;
        let message = Message {
            kind: u16::from_ne_bytes([header[4], header[5]]),
            sequence: u32::from_ne_bytes(word(8)),
            body,
        };
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or(&[]);
        Some(message)
    })
}
