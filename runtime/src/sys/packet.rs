//! Packets with file descriptors over SOCK_SEQPACKET.

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::{Errno, Result};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags,
};

/// Descriptors in one packet; the kernel's `SCM_MAX_FD` (include/net/scm.h).
pub const FDS_MAX: usize = 253;

/// One packet.
#[derive(Debug)]
pub struct Packet {
    /// Its bytes.
    pub data: Vec<u8>,
    /// Descriptors that came with it, close-on-exec.
    pub fds: Vec<OwnedFd>,
}

/// Sends one packet, whole or not at all. More than [`FDS_MAX`] descriptors are
/// sent ahead in packets without bytes, which [`receive`] gathers again.
///
/// # Errors
/// `AGAIN` when the socket is non-blocking and full; others of sendmsg(2).
pub fn send(socket: impl AsFd, data: &[u8], fds: &[BorrowedFd<'_>]) -> Result<()> {
    let mut rest = fds;
    while rest.len() > FDS_MAX {
        let (ahead, later) = rest.split_at(FDS_MAX);
        send_one(socket.as_fd(), &[0], ahead)?;
        rest = later;
    }
    send_one(socket.as_fd(), data, rest)
}

fn send_one(socket: BorrowedFd<'_>, data: &[u8], fds: &[BorrowedFd<'_>]) -> Result<()> {
    let mut space = vec![MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(fds.len()))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(Errno::MSGSIZE);
    }
    loop {
        match rustix::net::sendmsg(
            socket,
            &[IoSlice::new(data)],
            &mut control,
            SendFlags::NOSIGNAL,
        ) {
            Err(Errno::INTR) => {}
            other => return other.map(drop),
        }
    }
}

/// Receives one packet; `None` at the end of the connection.
///
/// # Errors
/// `AGAIN` when the socket is non-blocking and empty; others of recvmsg(2).
pub fn receive(socket: impl AsFd, flags: RecvFlags) -> Result<Option<Packet>> {
    let mut fds = Vec::new();
    loop {
        let Some(data) = receive_one(socket.as_fd(), flags, &mut fds)? else {
            return Ok(None);
        };
        // A single zero byte is no message of ours: descriptors sent ahead.
        if data != [0] {
            return Ok(Some(Packet { data, fds }));
        }
    }
}

fn receive_one(
    socket: BorrowedFd<'_>,
    flags: RecvFlags,
    fds: &mut Vec<OwnedFd>,
) -> Result<Option<Vec<u8>>> {
    let size = packet_size(socket, flags)?;
    let mut data = vec![0; size.max(1)];
    let mut space = vec![MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FDS_MAX))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let message = rustix::net::recvmsg(
        socket,
        &mut [IoSliceMut::new(&mut data)],
        &mut control,
        flags | RecvFlags::CMSG_CLOEXEC,
    )?;
    for part in control.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = part {
            fds.extend(rights);
        }
    }
    if message.bytes == 0 {
        return Ok(None);
    }
    if message.flags.contains(ReturnFlags::TRUNC) || message.flags.contains(ReturnFlags::CTRUNC) {
        return Err(Errno::MSGSIZE);
    }
    data.truncate(message.bytes);
    Ok(Some(data))
}

/// Waits for a packet and tells its size, so that no buffer of the largest size
/// has to be kept.
fn packet_size(socket: BorrowedFd<'_>, flags: RecvFlags) -> Result<usize> {
    loop {
        let peek = flags | RecvFlags::PEEK | RecvFlags::TRUNC;
        let mut none = [0u8; 1];
        match rustix::net::recv(socket, &mut none, peek) {
            Err(Errno::INTR) => {}
            other => return other.map(|(_, size)| size),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

    fn pair() -> (OwnedFd, OwnedFd) {
        socketpair(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::CLOEXEC,
            None,
        )
        .expect("socketpair")
    }

    #[test]
    fn packet_arrives_with_all_descriptors_when_they_exceed_one_message() {
        let (one, two) = pair();
        let sent: Vec<_> = (0..300).map(|_| one.as_fd()).collect();
        send(&one, b"verb", &sent).expect("send");
        let packet = receive(&two, RecvFlags::empty()).expect("receive");
        let packet = packet.expect("packet");
        assert_eq!(packet.data, b"verb");
        assert_eq!(packet.fds.len(), 300);
    }

    #[test]
    fn receive_tells_the_end_when_the_peer_is_gone() {
        let (one, two) = pair();
        drop(one);
        assert!(
            receive(&two, RecvFlags::empty())
                .expect("receive")
                .is_none()
        );
    }
}
