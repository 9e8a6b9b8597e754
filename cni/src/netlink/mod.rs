//! Links, addresses and routes of one network namespace, over rtnetlink.
//!
//! The agent never changes namespace: [`Rtnl::here`] is the agent's own,
//! [`Rtnl::over`] runs on a socket that was opened inside a pod.

mod address;
mod link;
mod route;
mod shape;
mod socket;

pub use address::Address;
pub use link::{LinkInfo, VethPair};
pub use route::Route;

use rtnetlink::Handle;
use std::io;
use std::os::fd::OwnedFd;

/// A request that the kernel refused.
#[derive(Debug, thiserror::Error)]
#[error("{what} {on}")]
pub struct NetlinkError {
    /// What was asked for, as a verb.
    pub what: &'static str,
    /// The interface or address it was asked for.
    pub on: String,
    #[allow(missing_docs)]
    pub source: io::Error,
}

impl NetlinkError {
    pub(crate) fn new(what: &'static str, on: impl Into<String>, source: io::Error) -> Self {
        Self {
            what,
            on: on.into(),
            source,
        }
    }

    /// The kernel's errno.
    pub fn errno(&self) -> Option<i32> {
        self.source.raw_os_error()
    }
}

/// A connection to the rtnetlink of one namespace. Ends when dropped.
#[derive(Debug, Clone)]
pub struct Rtnl {
    handle: Handle,
    /// Whether it is the agent's own namespace.
    here: bool,
}

impl Rtnl {
    /// The namespace that the caller is in. Needs a tokio runtime.
    pub fn here() -> Result<Self, NetlinkError> {
        let opened = rtnetlink::new_connection();
        let (connection, handle, _) =
            opened.map_err(|e| NetlinkError::new("open", "a netlink socket", e))?;
        tokio::spawn(connection);
        Ok(Self { handle, here: true })
    }

    /// The namespace that the NETLINK_ROUTE socket was opened in. Needs a
    /// tokio runtime.
    pub fn over(socket: OwnedFd) -> Result<Self, NetlinkError> {
        let socket = socket::adopt(socket)
            .map_err(|e| NetlinkError::new("use", "the pod's netlink socket", e))?;
        let (connection, handle, _) = rtnetlink::from_socket(socket);
        tokio::spawn(connection);
        Ok(Self {
            handle,
            here: false,
        })
    }
}

/// The errno within what the crate reports.
fn io_error(error: rtnetlink::Error) -> io::Error {
    match error {
        rtnetlink::Error::NetlinkError(message) => message.to_io(),
        other => io::Error::other(other.to_string()),
    }
}

/// Takes "exists already" for success.
fn exists_is_fine(result: Result<(), rtnetlink::Error>) -> io::Result<()> {
    accept(result, libc::EEXIST)
}

fn accept(result: Result<(), rtnetlink::Error>, fine: i32) -> io::Result<()> {
    match result.map_err(io_error) {
        Err(e) if e.raw_os_error() == Some(fine) => Ok(()),
        other => other,
    }
}
