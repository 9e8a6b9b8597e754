//! Joining a cluster as kubeadm does: discovery, TLS bootstrap, files.
//!
//! The steps, in the order in which they are taken:
//! 1. `token`: the token and the CA pins are what they must look like.
//! 2. [`discovery`]: cluster-info is read without trust, its signature and CA
//!    are checked, and it is read again with trust.
//! 3. `cluster`: the cluster's kubelet configuration, and that no live node
//!    has our name.
//! 4. [`csr`]: a key of ours, a certificate for it.
//! 5. [`files`]: what the agent, and a person, looks for under
//!    `/etc/kubernetes` and `/var/lib/kubelet`.

mod cluster;
pub mod csr;
pub mod discovery;
mod error;
pub mod files;
mod jws;
mod kubeconfig;
pub mod report;
mod run;
mod token;

pub use error::{ExitCode, JoinError};
pub use files::{JoinRoots, ResetError, made, reset};
pub use run::{JoinOptions, Joined, run};
pub use token::{BootstrapToken, CaPin};
