//! One controlling agent per state folder.

use std::fs::{File, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Why the runtime could not be opened.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum OpenError {
    #[error("{path} is controlled by process {holder}; stop it, or choose another state folder")]
    InUse { path: PathBuf, holder: String },
    #[error("take control of {path}")]
    Lock { path: PathBuf, source: io::Error },
}

/// The lock that makes this process the state folder's one controlling agent.
#[derive(Debug)]
pub(super) struct StateLock {
    _file: File,
}

impl StateLock {
    /// Locks `agent.lock` in `state`, writing our pid into it for others to name.
    pub(super) fn take(state: &Path) -> Result<Self, OpenError> {
        let path = state.join("agent.lock");
        let at = |source| OpenError::Lock {
            path: path.clone(),
            source,
        };
        std::fs::create_dir_all(state).map_err(at)?;
        let mut file = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(at)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::Error(source)) => return Err(at(source)),
            Err(TryLockError::WouldBlock) => return Err(in_use(&mut file, state)),
        }
        file.set_len(0).map_err(at)?;
        file.rewind().map_err(at)?;
        write!(file, "{}", std::process::id()).map_err(at)?;
        Ok(Self { _file: file })
    }
}

fn in_use(file: &mut File, state: &Path) -> OpenError {
    let mut pid = String::new();
    let known = file.read_to_string(&mut pid).is_ok() && !pid.trim().is_empty();
    let comm = std::fs::read_to_string(format!("/proc/{}/comm", pid.trim())).unwrap_or_default();
    OpenError::InUse {
        path: state.to_owned(),
        holder: if known {
            format!("{} ({})", pid.trim(), comm.trim())
        } else {
            "unknown".to_owned()
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lock_names_its_holder_when_taken_twice() {
        let dir = std::env::temp_dir().join(format!("lighter-lock-{}", std::process::id()));
        let first = StateLock::take(&dir).expect("free folder");
        let second = StateLock::take(&dir).expect_err("held folder");
        drop(first);
        let _ = std::fs::remove_dir_all(&dir);
        assert!(second.to_string().contains(&std::process::id().to_string()));
    }
}
