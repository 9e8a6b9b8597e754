//! A layer's tar to a directory that overlay uses as one of its lower ones.
//!
//! Guarantees: nothing outside the directory is read or written, whatever the
//! archive says; memory does not grow with the size of members; what is on
//! disk when extraction fails is the caller's to remove.

mod apply;
pub mod lean;
mod pax;
mod sparse;
pub mod tar;
#[cfg(test)]
mod tests;
mod tree;

pub use apply::{OPAQUE_XATTR, is_kept};
pub use tar::TarError;

use super::RootDir;
use rustix::io::Errno;
use std::io::{BufReader, Read};
use std::path::Path;

/// GNU tar pads to its blocking factor, at most some MiB; more is not padding.
const MAX_TRAILING: u64 = 16 << 20;
/// Larger reads hash and decompress faster; one per layer in flight.
const BUFFER: usize = 256 << 10;

/// What came of a layer.
#[derive(Debug, Default)]
pub struct Extracted {
    /// On disk.
    pub bytes: u64,
    /// On disk.
    pub inodes: u64,
    /// When the layer speaks of `/`.
    pub root_dir: Option<RootDir>,
    /// Directories that only names of members speak of: their owner and mode
    /// are those of the layers below.
    pub implicit: Vec<Vec<u8>>,
}

/// Why a layer could not be extracted.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum ExtractError {
    #[error(transparent)]
    Tar(#[from] TarError),
    #[error("{action} {path}")]
    File {
        action: &'static str,
        path: String,
        source: Errno,
    },
    #[error("{path:?} leads out of the layer")]
    Outside { path: String },
    #[error("{path} is a hard link to {target}, which is not in its layer")]
    DanglingLink { path: String, target: String },
}

impl ExtractError {
    fn new(action: &'static str, path: &[u8], source: Errno) -> Self {
        Self::File {
            action,
            path: String::from_utf8_lossy(path).into_owned(),
            source,
        }
    }

    fn outside(path: &[u8]) -> Self {
        Self::Outside {
            path: String::from_utf8_lossy(path).into_owned(),
        }
    }
}

/// Extracts an uncompressed tar into an existing empty directory, and reads
/// the stream to its end.
///
/// # Errors
/// See [`ExtractError`]; the directory then holds part of the layer.
pub fn extract(stream: impl Read, dir: &Path) -> Result<Extracted, ExtractError> {
    let mut reader = tar::Reader::new(BufReader::with_capacity(BUFFER, stream));
    let mut applier = apply::Applier::new(dir)?;
    while let Some(entry) = reader.next()? {
        applier.apply(entry, &mut reader)?;
    }
    reader.drain(MAX_TRAILING)?;
    applier.finish()
}

/// Parsers that only this room sees, for the tests with damaged input.
#[cfg(test)]
pub mod fuzzed {
    pub fn pax(input: &[u8]) {
        if let Ok(pax) = super::pax::parse(input) {
            assert!(pax.path.is_none_or(|path| !path.contains(&0)));
        }
    }
}
