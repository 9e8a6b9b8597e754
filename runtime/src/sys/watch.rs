//! Descriptors in tokio's loop.

use std::io;
use std::os::fd::OwnedFd;

use tokio::io::unix::AsyncFd;

/// Watches a descriptor, which has to be non-blocking to be read or written.
///
/// # Errors
/// When it is none that can be watched, or outside of a runtime.
pub fn watch(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: the descriptor belongs to the AsyncFd from here on, so it stays open
    // and the same for as long as it is registered.
    unsafe { AsyncFd::register(fd) }.map_err(io::Error::from)
}
