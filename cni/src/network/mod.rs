//! What the runtime calls: one pod in, its addresses out.

mod error;

pub use error::{AddError, CheckError, DelError, GcError, NotReady, OpenError, SetCidrsError};

use crate::{Attachment, Cidr, Netns, PodNetwork};
use std::path::PathBuf;
use std::sync::Arc;

/// Where the network finds its configuration and keeps its state.
#[derive(Debug, Clone)]
pub struct NetworkConfig {
    /// Foreign configuration (`/etc/cni/net.d`); with none, the built-in network.
    pub conf_dir: PathBuf,
    /// Where plugins are looked for, in order.
    pub bin_dirs: Vec<PathBuf>,
    /// Address reservations and cached results.
    pub state_dir: PathBuf,
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

/// The pod network of one node.
#[derive(Debug)]
pub struct Network {
    config: NetworkConfig,
}

impl Network {
    /// Reads what earlier runs left and answers at once; nothing of the host
    /// is touched before the first pod.
    pub fn open(config: NetworkConfig) -> Result<Arc<Self>, OpenError> {
        Ok(Arc::new(Self { config }))
    }

    /// Ranges to give addresses from, at most one of each family. Kept over
    /// restarts. Pods that have addresses keep them.
    pub fn set_pod_cidrs(&self, _cidrs: &[Cidr]) -> Result<(), SetCidrsError> {
        Ok(())
    }

    /// Whether a pod could be wired now; if not, why and what to do.
    pub async fn status(&self) -> Result<(), NotReady> {
        Err(NotReady::NotConfigured {
            conf_dir: self.config.conf_dir.clone(),
        })
    }

    /// Wires the pod. After an error nothing is left behind; a pod that has
    /// been wired before is answered with what it has.
    pub async fn add(&self, _pod: &PodNetwork, _netns: &dyn Netns) -> Result<Attachment, AddError> {
        self.status().await?;
        Ok(Attachment::default())
    }

    /// Unwires the pod. Idempotent: what is gone already, its network
    /// namespace included, is no error.
    pub async fn del(
        &self,
        _pod: &PodNetwork,
        _netns: Option<&dyn Netns>,
        _attachment: Option<&Attachment>,
    ) -> Result<(), DelError> {
        Ok(())
    }

    /// Compares the pod's interface and addresses with what was given.
    pub async fn check(&self, _pod: &PodNetwork, _netns: &dyn Netns) -> Result<(), CheckError> {
        Ok(())
    }

    /// Gives back whatever belongs to none of these sandboxes. Call at start,
    /// when all live sandboxes are known.
    pub async fn gc(&self, _valid: &[String]) -> Result<(), GcError> {
        Ok(())
    }

    /// Brings the namespace's loopback up; `add` does it as well.
    pub async fn loopback_up(&self, _netns: &dyn Netns) -> Result<(), AddError> {
        Ok(())
    }
}
