//! One NETLINK_ROUTE socket, a request and its answer at a time.
//!
//! The kernel works on a request within the send, so there is nothing to wait
//! for but its locks, and the answer lies there when the send returns. The one
//! place, too, where a passed descriptor becomes a socket of the netlink crates:
//! they offer nothing but `FromRawFd` for it.
#![allow(unsafe_code)]

use netlink_packet_core::{NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_sys::{Socket, SocketAddr};
use std::io;
use std::os::fd::{FromRawFd, IntoRawFd, OwnedFd};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// This bounds what a lost answer costs.
const ANSWER: Duration = Duration::from_secs(30);
/// A dump comes in datagrams of at most this size (net/netlink/af_netlink.c,
/// `netlink_dump`).
const DUMP: usize = 32 << 10;
/// What is told of one thing: an interface with all its attributes takes 2 KiB, a refusal
/// repeats the request. It lies on the stack, since giving back a block beside the heap's end
/// has the allocator put all its small ones together.
const ONE: usize = 8 << 10;

/// A socket in one network namespace.
#[derive(Debug)]
pub struct RouteSocket {
    socket: Socket,
    sequence: AtomicU32,
}

impl RouteSocket {
    /// In the namespace that the caller is in.
    pub fn here() -> io::Result<Self> {
        Self::of(Socket::new(netlink_sys::protocols::NETLINK_ROUTE)?)
    }

    /// Takes over a socket opened elsewhere.
    pub fn adopt(socket: OwnedFd) -> io::Result<Self> {
        // SAFETY: `into_raw_fd` gives up the only owner of an open descriptor, and
        // Socket becomes the new one, which closes it when dropped.
        Self::of(unsafe { Socket::from_raw_fd(socket.into_raw_fd()) })
    }

    fn of(mut socket: Socket) -> io::Result<Self> {
        socket.set_non_blocking(false)?;
        let which = rustix::net::sockopt::Timeout::Recv;
        rustix::net::sockopt::set_socket_timeout(&socket, which, Some(ANSWER))?;
        // An unbound socket is given its port at the first send; bound here, an
        // error is seen here.
        socket.bind_auto()?;
        Ok(Self {
            socket,
            sequence: AtomicU32::new(1),
        })
    }

    /// Sends a request and hands back what the kernel answers. With `NLM_F_DUMP`
    /// that is many messages.
    ///
    /// # Errors
    /// The kernel's errno.
    pub fn ask(
        &self,
        request: RouteNetlinkMessage,
        flags: u16,
    ) -> io::Result<Vec<RouteNetlinkMessage>> {
        let sequence = self.sequence.fetch_add(1, Ordering::Relaxed);
        let mut message = NetlinkMessage::from(request);
        // A dump ends with a word of its own.
        let ended = if flags & NLM_F_DUMP == NLM_F_DUMP {
            0
        } else {
            NLM_F_ACK
        };
        message.header.flags = NLM_F_REQUEST | ended | flags;
        message.header.sequence_number = sequence;
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        self.socket.send_to(&bytes, &SocketAddr::new(0, 0), 0)?;
        match ended {
            0 => self.answer(sequence, &mut vec![0; DUMP]),
            _ => self.answer(sequence, &mut [0; ONE]),
        }
    }

    /// The index of the interface of this name. Unlike a request this takes none of the
    /// kernel's locks, for which others that make and end interfaces queue.
    pub fn index_of(&self, name: &str) -> io::Result<u32> {
        Ok(rustix::net::netdevice::name_to_index(&self.socket, name)?)
    }

    fn answer(&self, sequence: u32, buffer: &mut [u8]) -> io::Result<Vec<RouteNetlinkMessage>> {
        let mut told = Vec::new();
        loop {
            let whole = self.socket.recv(&mut &mut *buffer, libc::MSG_TRUNC)?;
            let datagram = buffer.get(..whole).ok_or(io::ErrorKind::FileTooLarge)?;
            for message in messages(datagram) {
                let message = message?;
                if message.header.sequence_number != sequence {
                    continue;
                }
                match message.payload {
                    NetlinkPayload::InnerMessage(inner) => told.push(inner),
                    NetlinkPayload::Error(error) if error.code.is_some() => {
                        return Err(error.to_io());
                    }
                    NetlinkPayload::Error(_) | NetlinkPayload::Done(_) => return Ok(told),
                    _ => {}
                }
            }
        }
    }
}

/// The messages of a datagram.
fn messages(
    mut bytes: &[u8],
) -> impl Iterator<Item = io::Result<NetlinkMessage<RouteNetlinkMessage>>> {
    std::iter::from_fn(move || {
        let length = u32::from_ne_bytes(*bytes.first_chunk()?) as usize;
        let whole = bytes.get(..length)?;
        let message = NetlinkMessage::deserialize(whole);
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or(&[]);
        Some(message.map_err(|error| io::Error::other(error.to_string())))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use netlink_packet_route::link::LinkMessage;

    #[test]
    fn messages_of_a_datagram_are_told_apart_and_a_torn_one_ends_it() {
        let one = |sequence| {
            let link = RouteNetlinkMessage::NewLink(LinkMessage::default());
            let mut message = NetlinkMessage::from(link);
            message.header.sequence_number = sequence;
            message.finalize();
            let mut bytes = vec![0; message.buffer_len()];
            message.serialize(&mut bytes);
            bytes
        };
        let mut datagram = [one(7), one(8)].concat();
        let numbers = |bytes: &[u8]| {
            let all = messages(bytes).map(|m| m.expect("whole").header.sequence_number);
            all.collect::<Vec<_>>()
        };
        assert_eq!(numbers(&datagram), [7, 8]);
        datagram.truncate(datagram.len() - 1);
        assert_eq!(numbers(&datagram), [7]);
        assert!(numbers(&[0; 3]).is_empty());
    }
}
