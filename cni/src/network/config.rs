use crate::Cidr;
use std::path::PathBuf;

/// Where the network finds its configuration and keeps its state.
#[derive(Debug, Clone)]
pub struct NetworkConfig {
    /// Foreign configuration (`/etc/cni/net.d`); with none, the built-in network.
    pub conf_dir: PathBuf,
    /// Where plugins are looked for, in order.
    pub bin_dirs: Vec<PathBuf>,
    /// Address reservations and cached results.
    pub state_dir: PathBuf,
    /// Our executable, which stands in for the reference plugins where none
    /// are installed; it must call [`crate::plugin::dispatch`].
    pub executable: Option<PathBuf>,
    /// The built-in network.
    pub builtin: Builtin,
}

/// Settings of the built-in network.
#[derive(Debug, Clone)]
pub struct Builtin {
    /// Name of the bridge, at most 15 bytes; also the name of our nf_tables table.
    pub bridge: String,
    /// MTU of the pods' interfaces; 0 = that of the default route's interface.
    pub mtu: u32,
    /// Destinations outside this node's pod range that still see the pod's own
    /// address: the cluster's pod range. Everything else is masqueraded.
    pub no_masquerade: Vec<Cidr>,
}

impl Default for Builtin {
    fn default() -> Self {
        Self {
            bridge: "lighter0".to_owned(),
            mtu: 0,
            no_masquerade: Vec::new(),
        }
    }
}
