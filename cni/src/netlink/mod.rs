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

use netlink_packet_route::RouteNetlinkMessage;
use socket::RouteSocket;
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

/// The rtnetlink of one namespace. Its calls block for as long as the kernel's
/// locks do: microseconds, or tens of milliseconds while other namespaces end.
#[derive(Debug)]
pub struct Rtnl {
    socket: RouteSocket,
    /// Whether it is the agent's own namespace.
    here: bool,
}

impl Rtnl {
    /// The namespace that the caller is in.
    pub fn here() -> Result<Self, NetlinkError> {
        let opened = RouteSocket::here();
        let socket = opened.map_err(|e| NetlinkError::new("open", "a netlink socket", e))?;
        Ok(Self { socket, here: true })
    }

    /// The namespace that the NETLINK_ROUTE socket was opened in.
    pub fn over(socket: OwnedFd) -> Result<Self, NetlinkError> {
        let socket = RouteSocket::adopt(socket)
            .map_err(|e| NetlinkError::new("use", "the pod's netlink socket", e))?;
        Ok(Self {
            socket,
            here: false,
        })
    }

    /// Has something done.
    fn order(&self, request: RouteNetlinkMessage, flags: u16) -> io::Result<()> {
        self.socket.ask(request, flags).map(drop)
    }
}

/// Makes what is not there.
const CREATE: u16 = netlink_packet_core::NLM_F_CREATE | netlink_packet_core::NLM_F_EXCL;

/// Takes "exists already" for success.
fn exists_is_fine(result: io::Result<()>) -> io::Result<()> {
    accept(result, libc::EEXIST)
}

fn accept(result: io::Result<()>, fine: i32) -> io::Result<()> {
    match result {
        Err(e) if e.raw_os_error() == Some(fine) => Ok(()),
        other => other,
    }
}
