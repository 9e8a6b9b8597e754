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
    /// Whose each of the built-in network's addresses is: for all runtimes of the host, which may
    /// share a bridge.
    pub ipam_dir: PathBuf,
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
    /// Where the addresses of this bridge are: a folder a bridge.
    #[must_use]
    pub fn ipam_of_bridge(&self) -> PathBuf {
        let usual = self.bridge == Self::default().bridge;
        match self.ipam_dir.file_name().filter(|_| !usual) {
            Some(name) => {
                let name = format!("{}.{}", name.to_string_lossy(), self.bridge);
                self.ipam_dir.with_file_name(name)
            }
            None => self.ipam_dir.clone(),
        }
    }

    /// Name of the nf_tables table: a runtime's alone, and the bridge's for the usual one.
    #[must_use]
    pub fn table(&self) -> String {
        if self.state == Self::default().state {
            return self.bridge.clone();
        }
        let state = self.state.as_os_str().as_encoded_bytes();
        let digest = image::Digest::sha256(state);
        format!("{}.{:.8}", self.bridge, digest.hex())
    }

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
            ipam_dir: "/run/lighter/network/ipam".into(),
            no_masquerade: Vec::new(),
            networks_ahead: 16,
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runtimes_of_one_bridge_share_addresses_and_have_a_table_each() {
        let usual = Config::default();
        let second = Config {
            state: "/run/second".into(),
            ..Config::default()
        };
        assert_eq!(usual.table(), "lighter0");
        assert!(second.table().starts_with("lighter0."));
        assert_eq!(second.table().len(), "lighter0.".len() + 8);
        let dir = usual.ipam_of_bridge();
        assert_eq!(dir, usual.state.join("network/ipam"));
        assert_eq!(second.ipam_of_bridge(), dir);
        let other = Config {
            bridge: "br1".to_owned(),
            ..Config::default()
        };
        assert_eq!(
            other.ipam_of_bridge(),
            PathBuf::from("/run/lighter/network/ipam.br1")
        );
    }
}
