use crate::builtin::BuiltinError;
use crate::foreign::ForeignError;
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
    /// The built-in network can't take up its state.
    #[error(transparent)]
    Builtin(#[from] BuiltinError),
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
    /// They can't be used.
    #[error(transparent)]
    Builtin(#[from] BuiltinError),
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
    /// A plugin says that it can't take pods.
    #[error("cni plugin not ready: {reason}")]
    Plugin {
        /// The whole chain of causes.
        reason: String,
    },
}

/// Why a pod was not wired.
#[derive(Debug, thiserror::Error)]
pub enum AddError {
    /// Somebody's plugins failed.
    #[error(transparent)]
    Foreign(#[from] ForeignError),
    /// The network is not ready.
    #[error(transparent)]
    NotReady(#[from] NotReady),
    /// The built-in network failed.
    #[error(transparent)]
    Builtin(#[from] BuiltinError),
    /// What was done can't be recorded, so it was undone.
    #[error("record the pod's network in {}", path.display())]
    State {
        /// The folder.
        path: PathBuf,
        #[allow(missing_docs)]
        source: io::Error,
    },
}

/// Why a pod was not unwired wholly; to be tried again.
#[derive(Debug, thiserror::Error)]
pub enum DelError {
    /// Somebody's plugins failed.
    #[error(transparent)]
    Foreign(#[from] ForeignError),
    /// The built-in network failed.
    #[error(transparent)]
    Builtin(#[from] BuiltinError),
    /// The record can't be removed.
    #[error("remove the pod's network record in {}", path.display())]
    State {
        /// The folder.
        path: PathBuf,
        #[allow(missing_docs)]
        source: io::Error,
    },
}

/// What differs from what the pod was given.
#[derive(Debug, thiserror::Error)]
pub enum CheckError {
    /// Somebody's plugins failed.
    #[error(transparent)]
    Foreign(#[from] ForeignError),
    /// Nothing was given to this sandbox.
    #[error("sandbox {sandbox} has no network record")]
    Unknown {
        /// Its id.
        sandbox: String,
    },
    /// The built-in network found a difference.
    #[error(transparent)]
    Builtin(#[from] BuiltinError),
}

/// What could not be given back.
#[derive(Debug, thiserror::Error)]
pub enum GcError {
    /// Somebody's plugins failed.
    #[error(transparent)]
    Foreign(#[from] ForeignError),
    /// The state folder can't be read.
    #[error("network state in {}", path.display())]
    State {
        /// The folder.
        path: PathBuf,
        #[allow(missing_docs)]
        source: io::Error,
    },
    /// A dead pod can't be unwired.
    #[error(transparent)]
    Del(#[from] DelError),
    /// The built-in network can't be reconciled.
    #[error(transparent)]
    Builtin(#[from] BuiltinError),
}
