//! This machine as a node.

use crate::volume::dns;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use std::collections::BTreeMap;
use std::net::{IpAddr, UdpSocket};
use std::path::{Path, PathBuf};

/// KubeletConfiguration `maxPods`.
const PODS: &str = "110";
/// Documentation addresses of RFC 5737: no packet is sent there.
const ANYWHERE: (&str, u16) = ("192.0.2.1", 9);
/// What systemd-resolved itself asks; kubeadm points kubelets there too.
const RESOLVED: &str = "/run/systemd/resolve/resolv.conf";

/// cpu, memory, pods.
pub fn allocatable() -> BTreeMap<String, Quantity> {
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    BTreeMap::from([
        ("cpu".to_owned(), Quantity(cpus.to_string())),
        ("memory".to_owned(), Quantity(memory().to_string())),
        ("pods".to_owned(), Quantity(PODS.to_owned())),
    ])
}

/// Bytes of memory.
pub fn memory() -> u64 {
    let info = rustix::system::sysinfo();
    info.totalram.saturating_mul(info.mem_unit.into())
}

/// The kernel's name of the machine.
pub fn name() -> String {
    rustix::system::uname()
        .nodename()
        .to_string_lossy()
        .to_lowercase()
}

/// The address that the default route would send from.
pub fn address() -> IpAddr {
    let from_route = || {
        let socket = UdpSocket::bind(("0.0.0.0", 0))?;
        socket.connect(ANYWHERE)?;
        socket.local_addr()
    };
    from_route().map_or(IpAddr::from([127, 0, 0, 1]), |a| a.ip())
}

/// The resolv.conf that pods can use: one that names only a resolver on the
/// loopback is of no use in another network namespace.
pub fn resolv_conf(usual: &Path) -> PathBuf {
    let text = std::fs::read_to_string(usual).unwrap_or_default();
    let loopback = |ip: &String| ip.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback());
    let servers = dns::parse(&text).nameservers;
    let resolved = Path::new(RESOLVED);
    match !servers.is_empty() && servers.iter().all(loopback) && resolved.exists() {
        true => resolved.to_owned(),
        false => usual.to_owned(),
    }
}
