//! What an operator can set about the runtime.

use crate::image;
use std::net::SocketAddr;
use std::path::PathBuf;

/// Who makes cgroups.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Deserialize, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum CgroupDriver {
    /// The runtime, by mkdir.
    #[default]
    Cgroupfs,
    /// systemd, asked over D-Bus.
    Systemd,
}

/// Settings of the runtime; every path can be moved so that any number of
/// agents share a host.
#[derive(Debug, Clone, serde::Deserialize, serde::Serialize)]
#[serde(deny_unknown_fields, default, rename_all = "camelCase")]
pub struct Config {
    /// Images, containers' writable layers, addresses: what is large, or outlives a boot.
    pub root: PathBuf,
    /// Sockets, and the records and files of pods: what is gone with a boot.
    pub state: PathBuf,
    /// Where CNI configuration is looked for; empty directory = built-in network.
    pub cni_conf_dir: PathBuf,
    /// Where CNI plugins are looked for, in order.
    pub cni_bin_dirs: Vec<PathBuf>,
    /// Addresses for pods when the built-in network is used and no kubelet has
    /// given a podCIDR.
    pub pod_cidr: Option<String>,
    /// MTU of the built-in network; 0 = that of the default route's interface.
    pub mtu: u32,
    /// Name of the built-in network's bridge, at most 15 bytes.
    pub bridge: String,
    /// Ranges that see pods' own addresses (the cluster's pod range); others
    /// see the node's. Empty = guessed from a podCIDR of the usual size.
    pub no_masquerade: Vec<String>,
    /// Sandboxes that are kept ready on the built-in network, with a monitor, namespaces and
    /// an address each, once there was a first pod.
    pub networks_ahead: usize,
    /// The cgroup below which everything is made ("" = the root of the hierarchy).
    pub cgroup_root: String,
    /// Who makes cgroups.
    pub cgroup_driver: CgroupDriver,
    /// containerd's `certs.d`: a directory for each registry host with its `hosts.toml`.
    pub registry_config_dir: PathBuf,
    /// k3s' `registries.yaml`.
    pub registries_file: PathBuf,
    /// Where exec, attach and port-forward streams are served; port 0 = any.
    pub streaming_address: SocketAddr,
    /// Rotate a container's log at this many bytes; `None` leaves it to the kubelet
    /// through ReopenContainerLog.
    pub log_max_size: Option<u64>,
    /// Files kept of a rotated log, the current one included.
    pub log_max_files: u32,
    /// Where Localhost seccomp profiles live.
    pub seccomp_dir: PathBuf,
    /// Where files of CDI devices are looked for; the later ones win.
    pub cdi_dirs: Vec<PathBuf>,
}

impl Config {
    /// Settings of the image store, for those who open it without a runtime.
    #[must_use]
    pub fn images(&self) -> image::Config {
        image::Config {
            registry_config_dir: self.registry_config_dir.clone(),
            registries_file: self.registries_file.clone(),
            held: self.state.join("held"),
            ..image::Config::new(self.root.join("images"))
        }
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            root: "/var/lib/lighter".into(),
            state: "/run/lighter".into(),
            cni_conf_dir: "/etc/cni/net.d".into(),
            cni_bin_dirs: vec!["/opt/cni/bin".into()],
            pod_cidr: None,
            mtu: 0,
            bridge: "lighter0".to_owned(),
            no_masquerade: Vec::new(),
            networks_ahead: 4,
            cgroup_root: String::new(),
            cgroup_driver: CgroupDriver::default(),
            registry_config_dir: "/etc/containerd/certs.d".into(),
            registries_file: "/etc/rancher/k3s/registries.yaml".into(),
            streaming_address: SocketAddr::from(([127, 0, 0, 1], 0)),
            log_max_size: None,
            log_max_files: 5,
            seccomp_dir: "/var/lib/kubelet/seccomp".into(),
            cdi_dirs: vec!["/etc/cdi".into(), "/var/run/cdi".into()],
        }
    }
}
