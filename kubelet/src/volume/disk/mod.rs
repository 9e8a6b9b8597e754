//! What touches the disk: each function is synchronous, idempotent, and names
//! the path it failed on.

pub mod atomic_writer;
pub mod empty_dir;
pub mod host_path;
pub mod mountpoint;
#[cfg(test)]
pub mod scratch;
pub mod tree;

use super::error::VolumeReason;
use std::io;
use std::path::Path;

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
