//! The addresses a node is known by.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use tokio::sync::watch;

/// Those that were given; else that of the host, which may change while it runs.
#[derive(Debug)]
pub struct Addresses {
    given: bool,
    server: Option<SocketAddr>,
    current: watch::Sender<Vec<IpAddr>>,
}

/// [`Addresses`] as they are now, for whoever asks.
#[derive(Debug, Clone)]
pub struct LiveAddresses(watch::Receiver<Vec<IpAddr>>);

impl Addresses {
    /// Looks for the first time where none are given.
    pub fn new(given: Vec<IpAddr>, server: Option<SocketAddr>) -> Addresses {
        let addresses = Addresses {
            given: !given.is_empty(),
            server,
            current: watch::channel(given).0,
        };
        addresses.look();
        addresses
    }

    /// Looks again. A host that has lost its address for a moment keeps the one it had.
    pub fn look(&self) -> Vec<IpAddr> {
        if !self.given
            && let Some(found) = of_host(self.server)
        {
            self.current.send_if_modified(|current| {
                let is_new = *current != [found];
                *current = vec![found];
                is_new
            });
        }
        self.current.borrow().clone()
    }

    /// For those who only read.
    pub fn live(&self) -> LiveAddresses {
        LiveAddresses(self.current.subscribe())
    }
}

impl LiveAddresses {
    /// The primary one first.
    pub fn now(&self) -> Vec<IpAddr> {
        self.0.borrow().clone()
    }

    /// The same as the API writes them.
    pub fn texts(&self) -> Vec<String> {
        self.0.borrow().iter().map(ToString::to_string).collect()
    }
}

/// Addresses that never change.
impl From<Vec<IpAddr>> for LiveAddresses {
    fn from(addresses: Vec<IpAddr>) -> Self {
        LiveAddresses(watch::channel(addresses).1)
    }
}

/// Any address of the internet will do: nothing is sent there.
const ELSEWHERE: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)), 9);

/// The address this host would send from: along its default route, else
/// towards the API server, else none.
pub fn of_host(api_server: Option<SocketAddr>) -> Option<IpAddr> {
    let targets = [Some(ELSEWHERE), api_server];
    let found = targets.into_iter().flatten().filter_map(source_towards);
    found
        .into_iter()
        .find(|ip| !ip.is_loopback() && !ip.is_unspecified())
}

/// A connected UDP socket has asked the routing table and sent nothing.
fn source_towards(target: SocketAddr) -> Option<IpAddr> {
    let any: SocketAddr = match target {
        SocketAddr::V4(_) => ([0, 0, 0, 0], 0).into(),
        SocketAddr::V6(_) => ([0_u16; 8], 0).into(),
    };
    let socket = UdpSocket::bind(any).ok()?;
    socket.connect(target).ok()?;
    Some(socket.local_addr().ok()?.ip())
}

/// Where a server of a kubeconfig is, resolved.
pub async fn of_server(server: &http::Uri) -> Option<SocketAddr> {
    let host = server.host()?.trim_matches(['[', ']']);
    let port = server.port_u16().unwrap_or(443);
    let found = tokio::net::lookup_host((host, port));
    let found = tokio::time::timeout(crate::defaults::RESOLVE_TIMEOUT, found).await;
    found.ok()?.ok()?.next()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn given_addresses_are_not_looked_for() {
        let given: Vec<IpAddr> = vec!["10.9.8.7".parse().unwrap()];
        let addresses = Addresses::new(given.clone(), None);
        let live = addresses.live();
        assert_eq!((addresses.look(), live.now()), (given.clone(), given));
    }
}
