//! What touches the disk: each function is synchronous, idempotent, and names
//! the path it failed on.

pub mod atomic_writer;
pub mod attach;
pub mod device;
pub mod empty_dir;
pub mod host_path;
pub mod mountpoint;
pub mod ownership;
#[cfg(test)]
pub mod scratch;
pub mod tree;

use super::error::VolumeReason;
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path;

/// kubernetes v1.36 pkg/kubelet/kubelet.go `setupDataDirs`: what pods hold is
/// nobody's business on the host.
const DIR_MODE: u32 = 0o750;

/// Makes a folder of the kubelet's own, and those above it.
pub fn make_dirs(path: &Path) -> io::Result<()> {
    let mut dirs = std::fs::DirBuilder::new();
    dirs.recursive(true).mode(DIR_MODE).create(path)
}

/// Turns an errno into a reason.
pub fn failed<E: Into<io::Error>>(
    call: &'static str,
    path: &Path,
) -> impl FnOnce(E) -> VolumeReason {
    move |source| VolumeReason::Io {
        call,
        path: path.to_owned(),
        source: source.into(),
    }
}
