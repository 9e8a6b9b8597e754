//! Why a volume can't be had.

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
    #[error("{call} {}: {source}", path.display())]
    Io {
        call: &'static str,
        path: PathBuf,
        source: io::Error,
    },
}

/// Why the mounts of a container could not be had: `CreateContainerConfigError`.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum MountError {
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
