//! The pod's namespace by its path. A plugin is a short process of its own,
//! so a thread of it may go there.

use super::failure::Failure;
use super::request::Request;
use crate::Netns;
use crate::netlink::Rtnl;
use rustix::net::{AddressFamily, Protocol, SocketFlags, SocketType, socket_with};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use std::fs::File;
use std::io;
use std::num::NonZeroU32;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

/// A namespace that was opened.
#[derive(Debug)]
pub struct OpenNetns {
    file: File,
    path: PathBuf,
}

impl OpenNetns {
    /// The request's; none when it has gone.
    pub fn of(request: &Request) -> Option<Self> {
        let path = request.netns.clone()?;
        let file = File::open(&path).ok()?;
        Some(Self { file, path })
    }

    /// The same where it must be there.
    pub fn needed(request: &Request) -> Result<Self, Failure> {
        let missing = || Failure::environment("CNI_NETNS can't be opened");
        Self::of(request).ok_or_else(missing)
    }

    /// A connection to its links and routes.
    pub async fn rtnl(&self) -> Result<Rtnl, Failure> {
        let protocol = netlink_sys::protocols::NETLINK_ROUTE as i32;
        let socket = self.netlink_socket(protocol).await;
        let socket = socket.map_err(|e| Failure::io("open a socket in CNI_NETNS", &e))?;
        Ok(Rtnl::over(socket)?)
    }
}

#[async_trait::async_trait]
impl Netns for OpenNetns {
    fn fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }

    fn path(&self) -> Option<PathBuf> {
        Some(self.path.clone())
    }

    async fn netlink_socket(&self, protocol: i32) -> io::Result<OwnedFd> {
        std::thread::scope(|scope| {
            let opened = scope.spawn(|| {
                move_into_link_name_space(self.fd(), Some(LinkNameSpaceType::Network))?;
                let protocol = NonZeroU32::new(protocol.cast_unsigned()).map(Protocol::from_raw);
                let flags = SocketFlags::CLOEXEC;
                let family = AddressFamily::NETLINK;
                Ok(socket_with(family, SocketType::RAW, flags, protocol)?)
            });
            let gone = |_| io::Error::other("the thread ended");
            opened.join().map_err(gone)?
        })
    }
}
