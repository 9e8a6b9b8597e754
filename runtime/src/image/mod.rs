//! Images: registries on one side, extracted layers on the other.
//!
//! Read in this order:
//! - [`Reference`], [`Digest`]: what an image is called.
//! - [`Store`]: what is on disk; resolve, list, remove, hold.
//! - `registry`: endpoints of a name (mirrors), authentication, one HTTP exchange.
//! - `pull`: a name to an [`Image`]; one streaming pass per layer.
//! - `layer`: tar bytes to a directory that overlay can use.
//! - `archive`: docker-archive and OCI layouts in and out.
//! - [`verbs`]: the CRI ImageService.
//!
//! Guarantees: an image is listed only when all of its layers are on disk and
//! verified; a failed or killed operation leaves nothing that the next start
//! does not remove; layers that are held survive the removal of their image.

mod archive;
mod defaults;
mod digest;
mod disk;
#[cfg(test)]
mod fuzz;
mod index;
mod layer;
mod pull;
mod record;
mod reference;
mod registry;
mod store;
#[cfg(test)]
mod testing;
pub mod verbs;

pub use archive::{ExportError, ImportError};
pub use digest::{Digest, DigestError};
pub use pull::{Auth, LayerProgress, Progress, PullError};
pub use reference::{Reference, ReferenceError};
pub use registry::ExplainError;
pub use store::{Hold, OpenError, RemoveError, Store};

use oci_spec::image::ImageConfiguration;
use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

/// Settings of the store.
#[derive(Debug, Clone)]
pub struct Config {
    /// Directory of the store; made with mode 0700 if missing.
    pub root: PathBuf,
    /// containerd's `certs.d`: a directory for each registry host with its `hosts.toml`.
    pub registry_config_dir: PathBuf,
    /// k3s' `registries.yaml`.
    pub registries_file: PathBuf,
    /// PEM files with certificate authorities trusted beside Mozilla's; missing ones are skipped.
    pub ca_bundles: Vec<PathBuf>,
    /// What containers use is written down here; need not outlive a boot.
    pub held: PathBuf,
    /// Archives put here are imported and pinned; `None` = nowhere.
    pub import_dir: Option<PathBuf>,
    /// Layers of one image downloaded at the same time.
    pub parallel_layers: usize,
}

impl Config {
    /// Defaults for everything but the directory.
    #[must_use]
    pub fn new(root: PathBuf) -> Self {
        Self {
            held: root.join("held"),
            import_dir: Some(root.join("import")),
            root,
            registry_config_dir: defaults::REGISTRY_CONFIG_DIR.into(),
            registries_file: defaults::REGISTRIES_FILE.into(),
            ca_bundles: defaults::CA_BUNDLES.iter().map(PathBuf::from).collect(),
            parallel_layers: defaults::PARALLEL_LAYERS,
        }
    }
}

/// An image whose layers are all on disk.
#[derive(Debug, Clone, PartialEq)]
pub struct Image {
    /// `sha256:` and the digest of the configuration.
    pub id: String,
    /// Names with a tag, as asked for (host name included).
    pub repo_tags: Vec<String>,
    /// Names with the digest of the manifest or index that was asked for.
    pub repo_digests: Vec<String>,
    /// Bytes on disk of all its layers, shared ones included.
    pub size: u64,
    /// Entrypoint, environment, user and the rest.
    pub config: ImageConfiguration,
    /// The configuration as it came, byte by byte.
    pub raw_config: String,
    /// Extracted layers, the lowest first; at least one, usable as overlay's
    /// lower directories.
    pub layers: Vec<PathBuf>,
    /// The directory at `/` of the uppermost layer that has one; an overlay's
    /// upper directory should carry the same.
    pub root_dir: RootDir,
    /// Never removed by a kubelet's garbage collection.
    pub pinned: bool,
    /// Nanoseconds since the epoch.
    pub pulled_at: i64,
}

/// Owner and mode of an image's `/`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[allow(missing_docs)]
pub struct RootDir {
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
}

impl Default for RootDir {
    fn default() -> Self {
        Self {
            mode: 0o755,
            uid: 0,
            gid: 0,
        }
    }
}

/// What the store takes on its file system.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FsUsage {
    /// Of layers and records.
    pub bytes: u64,
    /// Of layers and records.
    pub inodes: u64,
    /// A directory on the file system.
    pub mountpoint: PathBuf,
}

/// Nanoseconds since the epoch.
fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    i64::try_from(since.unwrap_or_default().as_nanos()).unwrap_or(i64::MAX)
}
