//! What resource managers write down, in the stock kubelet's own form: JSON with a
//! checksum over a description of it in Go's words.
//!
//! kubernetes v1.37 pkg/kubelet/checkpointmanager/checksum: FNV-1a over what
//! `k8s.io/utils/dump.ForHash` prints.

use serde::Serialize;
use serde::de::DeserializeOwned;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// Why what was written down is of no use, or can't be written.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum CheckpointError {
    #[error("read {path}")]
    Read {
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("write {path}")]
    Write {
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("{path} is damaged ({why}); drain the node, remove the file and start again")]
    Damaged { path: PathBuf, why: String },
    #[error(
        "{path} was written under policy {written:?}, and {configured:?} is configured; drain the \
         node, remove the file and start again"
    )]
    OtherPolicy {
        path: PathBuf,
        written: String,
        configured: String,
    },
    #[error(
        "{path} does not fit this machine: {why}; drain the node, remove the file and start again"
    )]
    Misfit { path: PathBuf, why: String },
}

/// FNV-1a, 32 bits.
pub fn checksum(text: &str) -> u32 {
    let step = |hash: u32, byte: &u8| (hash ^ u32::from(*byte)).wrapping_mul(16_777_619);
    text.as_bytes().iter().fold(2_166_136_261, step)
}

/// The same of a string, which Go's dump gives a type.
pub fn checksum_of_data(data: &str) -> u32 {
    checksum(&format!("(string){data}"))
}

/// What a file says; `None` when there is none.
///
/// # Errors
/// When it can't be read, or is no JSON of this form.
pub fn read<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, CheckpointError> {
    let text = match std::fs::read_to_string(path) {
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
        Err(source) => {
            return Err(CheckpointError::Read {
                path: path.to_owned(),
                source,
            });
        }
        Ok(text) => text,
    };
    let parsed = serde_json::from_str(&text);
    parsed.map(Some).map_err(|e| damaged(path, e.to_string()))
}

/// Writes it, whole or not at all.
///
/// # Errors
/// When it can't.
pub fn write(path: &Path, content: &impl Serialize) -> Result<(), CheckpointError> {
    let failed = |source| CheckpointError::Write {
        path: path.to_owned(),
        source,
    };
    let text = serde_json::to_vec(content).map_err(|e| failed(e.into()))?;
    crate::join::files::write_atomically(path, &text, 0o600).map_err(failed)
}

/// Not to be gone on with.
pub fn damaged(path: &Path, why: impl Into<String>) -> CheckpointError {
    CheckpointError::Damaged {
        path: path.to_owned(),
        why: why.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksum_is_that_of_kubernetes() {
        assert_eq!(checksum_of_data("abc"), 2_241_406_447);
    }
}
