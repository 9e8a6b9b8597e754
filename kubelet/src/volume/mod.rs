//! Volumes: made on the host, seen in containers, updated live.
//!
//! [`Volumes`] is the door. `kind` says what a volume is, `payload` which files
//! it holds, [`csi`] what drivers are asked, `nfs` what servers are, `claim` and `persistent` what stands behind a claim, `plan` what has
//! to be done on disk, `huge_pages` of which pages, `plugin` what it is called, and `disk` does it; `refresh` does it again when something
//! changed. [`dns`], [`hostname`] and [`hosts`]
//! are pure.

use cri_proto::v1;
use k8s_openapi::api::core::v1::{Container, Pod};
use std::collections::BTreeMap;
use std::path::PathBuf;

mod claim;
mod cleanup;
pub mod csi;
mod disk;
pub mod dns;
pub mod downward;
mod error;
mod expand;
pub mod hostname;
pub mod hosts;
mod huge_pages;
mod kind;
mod mounts;
mod nfs;
mod payload;
mod persistent;
mod plan;
mod plugin;
mod refresh;
mod subpath;
#[cfg(test)]
mod tests;
pub mod usage;
mod volumes;

pub(crate) use disk::mountpoint::tmpfs_avoids_swap;
#[cfg(test)]
pub(crate) use disk::scratch;
pub use error::{MountError, VolumeError};
pub use kind::OWN;
pub use volumes::{Volumes, VolumesConfig, used};

/// A volume ready for containers.
#[derive(Debug, Clone, PartialEq)]
pub enum Prepared {
    /// A file or directory of the host.
    Path {
        /// Where.
        path: PathBuf,
        /// The kubelet made it (so SELinux may relabel it, fsGroup applies).
        owned: bool,
        /// Its content is the kubelet's: containers never write to it.
        read_only: bool,
    },
    /// A block device of the host.
    Device {
        /// Where.
        path: PathBuf,
        /// Containers may not write to it.
        read_only: bool,
    },
    /// An image volume: pulled by the pod's executor by the volume's
    /// pullPolicy, mounted by the runtime.
    Image(v1::ImageSpec),
}

/// Volume name to what was prepared.
pub type PodVolumes = BTreeMap<String, Prepared>;

/// What is known of a pod only once its sandbox runs, and of its runtime handler.
#[derive(Debug, Clone, Default)]
pub struct PodFacts {
    /// `status.podIPs`, first one primary. Of a hostNetwork pod: the host's.
    pub pod_ips: Vec<String>,
    /// `status.hostIPs`.
    pub host_ips: Vec<String>,
    /// The pod's user namespace (hostUsers: false); empty without one.
    pub uid_mappings: Vec<v1::IdMapping>,
    /// As `uid_mappings`, for groups.
    pub gid_mappings: Vec<v1::IdMapping>,
    /// The runtime handler's feature `recursiveReadOnlyMounts`.
    pub recursive_read_only: bool,
}

/// One container's wish for mounts. Ephemeral containers come as [`Container`].
#[derive(Debug, Clone, Copy)]
pub struct MountRequest<'a> {
    /// The pod.
    pub pod: &'a Pod,
    /// One of its containers.
    pub container: &'a Container,
    /// Restarts of this container so far: each has its own termination log.
    pub attempt: u32,
    /// What [`Volumes::mount`] answered.
    pub volumes: &'a PodVolumes,
    /// The container's complete environment, for `subPathExpr`.
    pub env: &'a BTreeMap<String, String>,
    /// See [`PodFacts`].
    pub facts: &'a PodFacts,
}
