//! The one place where a passed descriptor becomes a socket of the netlink
//! crates: they offer nothing but `FromRawFd` for it.
#![allow(unsafe_code)]

use netlink_sys::{AsyncSocket, TokioSocket};
use std::io;
use std::os::fd::{FromRawFd, IntoRawFd, OwnedFd};

/// Takes over a socket opened elsewhere.
pub fn adopt(socket: OwnedFd) -> io::Result<TokioSocket> {
    // The crate panics where this fails, so it is tried first.
    rustix::io::ioctl_fionbio(&socket, true)?;
    // SAFETY: `into_raw_fd` gives up the only owner of an open descriptor, and
    // TokioSocket becomes the new one, which closes it when dropped.
    let mut socket = unsafe { TokioSocket::from_raw_fd(socket.into_raw_fd()) };
    // An unbound socket is given its port at the first send; bound here, an
    // error is seen here.
    socket.socket_mut().bind_auto()?;
    Ok(socket)
}
