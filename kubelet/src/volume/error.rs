//! Why a volume can't be had.

use super::csi::DriverError;
use crate::objects::ObjectError;
use std::io;
use std::path::PathBuf;

/// Why [`super::Volumes::mount`] or `unmount` failed: the message of a
/// `FailedMount` event.
#[derive(Debug, thiserror::Error)]
#[error("MountVolume.SetUp failed for volume {volume:?} : {reason}")]
pub struct VolumeError {
    /// Name of the volume in the pod.
    pub volume: String,
    /// What went wrong.
    pub reason: VolumeReason,
}

/// What went wrong with one volume.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum VolumeReason {
    #[error(transparent)]
    Object(#[from] ObjectError),
    /// In upstream's words, each kind's own: pkg/volume/{configmap,secret}.
    #[error("{what} key: {key}")]
    MissingKey { what: &'static str, key: String },
    #[error("invalid path {path:?} in the volume: {why}")]
    BadPath { path: String, why: &'static str },
    #[error("hostPath type check failed: {path} is not {expected}")]
    HostPathType {
        path: PathBuf,
        expected: &'static str,
    },
    #[error("field {field:?} is not available in a volume")]
    Field { field: String },
    #[error("resource {resource:?} of container {container:?} is not available")]
    Resource { resource: String, container: String },
    #[error("{why}")]
    Trust { why: &'static str },
    #[error("volume kind {kind} is not supported by this node")]
    Unsupported { kind: &'static str },
    #[error("emptyDir of medium {medium:?}: {why}")]
    HugePages { medium: String, why: &'static str },
    #[error("emptyDir of medium {medium:?}, which is none that this node knows")]
    Medium { medium: String },
    #[error(transparent)]
    Claim(#[from] ClaimReason),
    #[error(transparent)]
    Driver(#[from] DriverError),
    /// In upstream's words, as those below.
    #[error("driver name {driver} not found in the list of registered CSI drivers")]
    NoDriver { driver: String },
    #[error("volume mode {mode:?} not supported by driver {driver}")]
    Lifecycle { driver: String, mode: &'static str },
    #[error("volume {volume:?} is not attached to the node yet")]
    NotAttached { volume: String },
    #[error("multiple SELinux labels found: {labels}")]
    SelinuxLabels { labels: String },
    #[error("conflicting SELinux labels of volume {volume}: {mounted:?} and {wanted:?}")]
    SelinuxConflict {
        volume: String,
        mounted: String,
        wanted: String,
    },
    #[error("mount option {option:?} means nothing to a bind mount")]
    MountOption { option: String },
    #[error("{call} {kind} for {}: {source}", path.display())]
    NewMount {
        call: &'static str,
        kind: &'static str,
        path: PathBuf,
        source: io::Error,
    },
    #[error("{call} {}: {source}", path.display())]
    Io {
        call: &'static str,
        path: PathBuf,
        source: io::Error,
    },
}

/// Why a claim does not give a pod its volume.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum ClaimReason {
    #[error("persistentvolumeclaim {claim:?} is not bound to a volume yet (phase {phase})")]
    Unbound { claim: String, phase: String },
    /// In upstream's words.
    #[error("PVC is being deleted: persistentvolumeclaim {claim:?}")]
    Deleting { claim: String },
    #[error("PVC {claim:?} was not created for pod {pod:?} (pod is not owner)")]
    Foreign { claim: String, pod: String },
    #[error("persistentvolume {volume:?} is bound to another claim than {claim:?}")]
    NotHolder { claim: String, volume: String },
    #[error(
        "NodeAffinity check failed for persistentvolume {volume:?} : no matching NodeSelectorTerms"
    )]
    Elsewhere { volume: String },
    #[error("persistentvolume {volume:?} is of a kind that this node does not support")]
    Unsupported { volume: String },
    #[error("persistentvolume {volume:?} has mount options, and a hostPath takes none")]
    NoOptions { volume: String },
    #[error("volumeMode is {}: a container names the volume in the wrong list",
        if *block { "Block, for volumeDevices" } else { "Filesystem, for volumeMounts" })]
    Mode { block: bool },
}

impl ClaimReason {
    /// Somebody is about to change it, without anything done here.
    pub fn may_pass(&self) -> bool {
        matches!(self, ClaimReason::Unbound { .. })
    }
}

/// Why the mounts of a container could not be had: `CreateContainerConfigError`.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum MountError {
    #[error("volume {volume:?} is a block device and can't be mounted at {mount_path}")]
    IsDevice { volume: String, mount_path: String },
    #[error("volume {volume:?} is no block device for {device_path}")]
    NoDevice { volume: String, device_path: String },
    #[error("no volume named {volume:?} for mount {mount_path}")]
    UnknownVolume { volume: String, mount_path: String },
    #[error("subPath {sub_path:?} of volume {volume:?}: {why}")]
    BadSubPath {
        volume: String,
        sub_path: String,
        why: &'static str,
    },
    #[error(
        "failed to prepare subPath for volumeMount {volume:?} of container {container:?}: {call}: {source}"
    )]
    SubPath {
        volume: String,
        container: String,
        call: &'static str,
        source: io::Error,
    },
    #[error(
        "container {container:?} wants recursive read-only mounts, which its runtime handler lacks"
    )]
    RecursiveReadOnly { container: String },
    #[error("{call} {}: {source}", path.display())]
    Io {
        call: &'static str,
        path: PathBuf,
        source: io::Error,
    },
}
