//! seccomp profiles and their compiler to BPF.
//!
//! [`Profile`] is what a profile says, whichever of the two JSON forms it came
//! in; [`compile`] turns it into the kernel's `struct sock_filter[]`.
//! [`Compiled`] keeps the results, since nearly all containers share one.

mod bpf;
mod compile;
mod profile;
mod runtime_default;
mod syscall_table;

#[cfg(test)]
mod interpreter;

pub use compile::{CompileError, compile};
pub use profile::{Profile, ProfileError};
pub use runtime_default::runtime_default;

use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

/// Which profile a container asked for.
#[derive(Debug, Clone, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub enum Selection {
    /// No filter.
    Unconfined,
    /// The runtime's own.
    RuntimeDefault,
    /// A file on the host.
    Localhost(PathBuf),
}

/// Why a filter could not be had.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum SeccompError {
    #[error("read the seccomp profile {path}")]
    Read {
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("the seccomp profile {path} is larger than {limit} bytes")]
    TooLarge { path: PathBuf, limit: u64 },
    #[error("the seccomp profile {path} can't be used")]
    Parse { path: PathBuf, source: ProfileError },
    #[error("compile the seccomp profile {name}")]
    Compile { name: String, source: CompileError },
}

/// Profiles are small; containerd's default has 25 KiB.
const MAX_PROFILE: u64 = 1 << 20;

/// The text of a profile, and the capabilities as bits.
type Ingredients = (Vec<u8>, u64);

/// Filters made so far, by what they were made of.
#[derive(Debug, Default)]
pub struct Compiled {
    filters: Mutex<HashMap<Ingredients, Arc<[u8]>>>,
}

impl Compiled {
    /// The filter for a container that holds `capabilities` (names with `CAP_`).
    /// Empty for [`Selection::Unconfined`].
    ///
    /// # Errors
    /// When the profile can't be read, understood or compiled.
    pub fn get(
        &self,
        selection: &Selection,
        capabilities: &BTreeSet<String>,
    ) -> Result<Arc<[u8]>, SeccompError> {
        let text = match selection {
            Selection::Unconfined => return Ok(Arc::from([])),
            Selection::RuntimeDefault => Vec::new(),
            Selection::Localhost(path) => read(path)?,
        };
        let key = (text, capability_key(capabilities));
        let lock = || self.filters.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(filter) = lock().get(&key) {
            return Ok(filter.clone());
        }
        let profile = match selection {
            Selection::Localhost(path) => {
                Profile::parse(&key.0, capabilities).map_err(|source| SeccompError::Parse {
                    path: path.clone(),
                    source,
                })?
            }
            _ => runtime_default(capabilities),
        };
        let filter: Arc<[u8]> = compile(&profile)
            .map_err(|source| SeccompError::Compile {
                name: format!("{selection:?}"),
                source,
            })?
            .into();
        lock().insert(key, filter.clone());
        Ok(filter)
    }
}

fn read(path: &Path) -> Result<Vec<u8>, SeccompError> {
    use std::io::Read;
    let at = |source| SeccompError::Read {
        path: path.to_owned(),
        source,
    };
    let mut text = Vec::new();
    let file = std::fs::File::open(path).map_err(at)?;
    file.take(MAX_PROFILE + 1)
        .read_to_end(&mut text)
        .map_err(at)?;
    if text.len() as u64 > MAX_PROFILE {
        return Err(SeccompError::TooLarge {
            path: path.to_owned(),
            limit: MAX_PROFILE,
        });
    }
    Ok(text)
}

fn capability_key(capabilities: &BTreeSet<String>) -> u64 {
    use std::hash::{DefaultHasher, Hash, Hasher};
    let mut hasher = DefaultHasher::new();
    capabilities.hash(&mut hasher);
    hasher.finish()
}
