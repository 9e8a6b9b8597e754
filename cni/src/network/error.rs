use std::io;
use std::path::PathBuf;

/// Why the network can't be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The state folder can't be made or read.
    #[error("network state in {}", path.display())]
    State {
        /// Folder or file.
        path: PathBuf,
        #[allow(missing_docs)]
        source: io::Error,
    },
}

/// Why pod ranges are refused.
#[derive(Debug, thiserror::Error)]
pub enum SetCidrsError {
    /// They can't be kept.
    #[error("keep the pod CIDRs in {}", path.display())]
    State {
        /// The file.
        path: PathBuf,
        #[allow(missing_docs)]
        source: io::Error,
    },
}

/// Why no pod can be wired now.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotReady {
    /// Neither foreign configuration nor a range for the built-in network.
    #[error(
        "cni plugin not initialized: no configuration in {} and no pod CIDR for the built-in network; \
         wait for the node's podCIDR (kube-controller-manager --allocate-node-cidrs), set podCidr, or install a network add-on",
        conf_dir.display()
    )]
    NotConfigured {
        /// Where configuration was looked for.
        conf_dir: PathBuf,
    },
}

/// Why a pod was not wired.
#[derive(Debug, thiserror::Error)]
pub enum AddError {
    /// The network is not ready.
    #[error(transparent)]
    NotReady(#[from] NotReady),
}

/// Why a pod was not unwired.
#[derive(Debug, thiserror::Error)]
pub enum DelError {}

/// What differs from what the pod was given.
#[derive(Debug, thiserror::Error)]
pub enum CheckError {}

/// What could not be given back.
#[derive(Debug, thiserror::Error)]
pub enum GcError {}
