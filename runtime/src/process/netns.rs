//! The pod's network namespace, through its monitor.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use super::link::Link;
use super::wire::{Body, Failed, Socket};

/// That of a monitor which waits for its pod.
#[derive(Debug)]
pub struct NetworkNamespace {
    namespace: OwnedFd,
    /// A NETLINK_ROUTE socket in it.
    route: Mutex<Option<OwnedFd>>,
}

impl NetworkNamespace {
    pub(super) fn new([namespace, route]: [OwnedFd; 2]) -> Self {
        Self {
            namespace,
            route: Mutex::new(Some(route)),
        }
    }
}

#[async_trait::async_trait]
impl cni::Netns for NetworkNamespace {
    fn fd(&self) -> BorrowedFd<'_> {
        self.namespace.as_fd()
    }

    fn path(&self) -> Option<PathBuf> {
        None
    }

    /// There is one, and nobody inside who could open another.
    async fn netlink_socket(&self, protocol: i32) -> io::Result<OwnedFd> {
        let mut route = self.route.lock().unwrap_or_else(PoisonError::into_inner);
        let route = if protocol == 0 { route.take() } else { None };
        route.ok_or_else(|| io::ErrorKind::Unsupported.into())
    }
}

/// The namespace of one sandbox. It is kept alive by this handle too, so it is
/// not to be held longer than the sandbox.
#[derive(Debug)]
pub struct PodNetns {
    pub namespace: OwnedFd,
    pub link: Arc<Link>,
}

impl PodNetns {
    async fn socket(&self, domain: i32, kind: i32, protocol: i32) -> io::Result<OwnedFd> {
        let body = Body::Socket(Socket {
            domain,
            kind,
            protocol,
        });
        let mut answer = self.link.ask(body, &[]).await?;
        match (answer.body, answer.fds.pop()) {
            (Body::Done(_), Some(fd)) => Ok(fd),
            (Body::Failed(Failed { errno, .. }), _) => Err(io::Error::from_raw_os_error(errno)),
            _ => Err(io::ErrorKind::InvalidData.into()),
        }
    }

    /// Connects to a port of the pod's own 127.0.0.1, else ::1: only the socket
    /// is opened inside, connecting is the same from everywhere.
    pub async fn connect(&self, port: u16) -> io::Result<tokio::net::TcpStream> {
        let first = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        match self.connect_to(first).await {
            Ok(stream) => Ok(stream),
            Err(first) => {
                let second = SocketAddr::from((Ipv6Addr::LOCALHOST, port));
                self.connect_to(second).await.map_err(|_| first)
            }
        }
    }

    async fn connect_to(&self, address: SocketAddr) -> io::Result<tokio::net::TcpStream> {
        let domain = match address {
            SocketAddr::V4(_) => libc::AF_INET,
            SocketAddr::V6(_) => libc::AF_INET6,
        };
        let socket = self.socket(domain, libc::SOCK_STREAM, 0).await?;
        rustix::io::ioctl_fionbio(&socket, true)?;
        let socket = tokio::net::TcpSocket::from_std_stream(socket.into());
        socket.connect(address).await
    }
}

#[async_trait::async_trait]
impl cni::Netns for PodNetns {
    fn fd(&self) -> BorrowedFd<'_> {
        self.namespace.as_fd()
    }

    fn path(&self) -> Option<PathBuf> {
        None
    }

    async fn netlink_socket(&self, protocol: i32) -> io::Result<OwnedFd> {
        self.socket(libc::AF_NETLINK, libc::SOCK_RAW, protocol)
            .await
    }
}
