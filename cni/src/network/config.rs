use crate::Cidr;
use std::path::PathBuf;

/// Where the network finds its configuration and keeps its state.
#[derive(Debug, Clone)]
pub struct NetworkConfig {
    /// Foreign configuration (`/etc/cni/net.d`); with none, the built-in network.
    pub conf_dir: PathBuf,
    /// Where plugins are looked for, in order.
    pub bin_dirs: Vec<PathBuf>,
    /// What outlives a boot of the host: pod ranges, what foreign plugins gave.
    pub state_dir: PathBuf,
    /// What does not: records of the built-in network (ADR 11). It is the runtime's alone.
    pub run_dir: PathBuf,
    /// Its addresses, which do not either: one folder for all runtimes that share a bridge.
    pub ipam_dir: PathBuf,
    /// Our executable, which stands in for the reference plugins where none
    /// are installed; it must call [`crate::plugin::dispatch`].
    pub executable: Option<PathBuf>,
    /// The built-in network.
    pub builtin: Builtin,
}

/// Settings of the built-in network.
#[derive(Debug, Clone)]
pub struct Builtin {
    /// Name of the bridge, at most 15 bytes.
    pub bridge: String,
    /// Name of our nf_tables table, which is the runtime's alone: it takes what is not its own
    /// out of it.
    pub table: String,
    /// MTU of the pods' interfaces; 0 = that of the default route's interface.
    pub mtu: u32,
    /// Destinations outside this node's pod range that still see the pod's own
    /// address: the cluster's pod range. Everything else is masqueraded. Empty
    /// = guessed, see [`Builtin::unmasqueraded`].
    pub no_masquerade: Vec<Cidr>,
}

/// Bits by which a cluster's range is commonly wider than its nodes' (kubeadm,
/// kind and k3s: /16 and /24; kube-controller-manager v1.37's defaults for
/// node-cidr-mask-size are 24 and 64).
const WIDER: u8 = 8;

impl Builtin {
    /// Who sees pods' own addresses: the ranges set, or else the cluster's as
    /// a node's range of the usual size lets it be guessed. A node does not
    /// learn the cluster's range from the API server.
    pub fn unmasqueraded(&self, pods: &[Cidr]) -> Vec<Cidr> {
        if !self.no_masquerade.is_empty() {
            return self.no_masquerade.clone();
        }
        let usual = pods
            .iter()
            .filter(|c| c.prefix() >= if c.is_ipv6() { 64 } else { 24 });
        usual
            .filter_map(|c| Cidr::new(c.addr(), c.prefix() - WIDER))
            .collect()
    }
}

impl Default for Builtin {
    fn default() -> Self {
        Self {
            bridge: "lighter0".to_owned(),
            table: "lighter0".to_owned(),
            mtu: 0,
            no_masquerade: Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cluster_range_is_guessed_only_from_a_node_range_of_the_usual_size() {
        let guess = |cidr: &str| Builtin::default().unmasqueraded(&[cidr.parse().unwrap()]);
        assert_eq!(guess("10.244.3.0/24"), ["10.244.0.0/16".parse().unwrap()]);
        assert_eq!(guess("fd00:1:2:3::/64"), ["fd00:1:2::/56".parse().unwrap()]);
        assert!(guess("10.88.0.0/16").is_empty());
        let set = Builtin {
            no_masquerade: vec!["10.0.0.0/8".parse().unwrap()],
            ..Builtin::default()
        };
        assert_eq!(set.unmasqueraded(&[]), set.no_masquerade);
    }
}
