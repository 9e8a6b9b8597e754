//! Pod network: the built-in bridge, or somebody's CNI plugins.
//!
//! [`Network`](network::Network) is what the runtime calls. With a
//! configuration in `/etc/cni/net.d` it executes the plugins that it names;
//! with none it wires pods itself, over netlink and nf_tables, with no process
//! started. The same code stands in as CNI executables (`bridge`, `ptp`,
//! `host-local`, `portmap`, `loopback`) for plugins that delegate.

pub mod builtin;
pub mod cidr;
pub mod defaults;
pub mod foreign;
pub mod ipam;
pub mod netlink;
pub mod network;
pub mod nft;
pub mod plugin;
#[cfg(test)]
mod testing;

pub use cidr::Cidr;

use std::io;
use std::net::IpAddr;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::PathBuf;

/// A pod's network namespace, without entering it.
///
/// The pod's monitor lives inside and opens sockets there on behalf of the
/// agent, none of whose threads ever changes namespace.
#[async_trait::async_trait]
pub trait Netns: Send + Sync {
    /// The namespace, for `IFLA_NET_NS_FD`.
    fn fd(&self) -> BorrowedFd<'_>;
    /// A path by which others can open it (foreign plugins), where there is one.
    fn path(&self) -> Option<PathBuf>;
    /// An AF_NETLINK socket of this protocol, opened inside.
    async fn netlink_socket(&self, protocol: i32) -> io::Result<OwnedFd>;
}

/// Transport protocol of a port mapping.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs)]
pub enum Protocol {
    Tcp,
    Udp,
    Sctp,
}

/// `hostPort` to `containerPort`.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PortMapping {
    /// Port of the host.
    pub host_port: u16,
    /// Port of the pod.
    pub container_port: u16,
    /// Transport protocol.
    pub protocol: Protocol,
    /// Only this address of the host; `None` = all.
    #[serde(rename = "hostIP", default, skip_serializing_if = "Option::is_none")]
    pub host_ip: Option<IpAddr>,
}

/// The pod as the network sees it.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct PodNetwork {
    /// CNI's container id.
    pub sandbox_id: String,
    /// `K8S_POD_NAMESPACE`.
    pub namespace: String,
    /// `K8S_POD_NAME`.
    pub name: String,
    /// `K8S_POD_UID`.
    pub uid: String,
    /// Host ports.
    pub ports: Vec<PortMapping>,
    /// `kubernetes.io/ingress-bandwidth`, bits a second.
    pub ingress_rate: Option<u64>,
    /// `kubernetes.io/egress-bandwidth`, bits a second.
    pub egress_rate: Option<u64>,
}

/// What a pod was given.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Attachment {
    /// The pod's addresses, the primary one first.
    pub ips: Vec<IpAddr>,
    /// The CNI result, verbatim, for CHECK and DEL of foreign plugins.
    pub result: serde_json::Value,
}
