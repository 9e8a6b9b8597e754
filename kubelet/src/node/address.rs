//! The address a node is known by.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};

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
