//! Volumes: made on the host, seen in containers, updated live.

use cri_proto::v1;
use std::collections::BTreeMap;
use std::path::PathBuf;

/// A volume ready for containers.
#[derive(Debug, Clone, PartialEq)]
pub enum Prepared {
    /// A file or directory of the host.
    Path {
        /// Where.
        path: PathBuf,
        /// The kubelet made it (so SELinux may relabel it, fsGroup applies).
        owned: bool,
    },
    /// An image volume: mounted by the runtime.
    Image(v1::ImageSpec),
}

/// Volume name to what was prepared.
pub type PodVolumes = BTreeMap<String, Prepared>;
