//! Wires the node: sources, pods, status, node, server.

use crate::config::Config;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;

/// What an agent is told beside its configuration.
#[derive(Debug, Clone)]
pub struct AgentOptions {
    /// The node's name; [`crate::node::default_name`] when nobody chose one.
    pub node_name: String,
    /// Settings, from [`crate::config::load`].
    pub config: Config,
    /// The kubeconfig to use, and to write after a bootstrap.
    pub kubeconfig: PathBuf,
    /// With a bootstrap token, for when there is no kubeconfig yet.
    pub bootstrap_kubeconfig: Option<PathBuf>,
    /// Addresses to report; empty: that of the default route.
    pub node_ips: Vec<IpAddr>,
    /// Labels to register with.
    pub node_labels: BTreeMap<String, String>,
    /// `/var/lib/kubelet`.
    pub root_dir: PathBuf,
    /// Client and serving certificates; `None`: `pki` under the root.
    pub cert_dir: Option<PathBuf>,
    /// Where containers are mounted and images kept, for the disk figures of
    /// the node; `None`: the root's file system.
    pub image_fs: Option<PathBuf>,
}
