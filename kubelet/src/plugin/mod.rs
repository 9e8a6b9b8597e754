//! Plugins that announce themselves by a socket in `plugins_registry`.
//!
//! A socket that appears is asked what it is, handed to the [`Handler`] of its kind, and told
//! what became of it; one that vanishes is handed back. All that may be met at any time: the
//! folder is compared with what is known whenever something in it changes.

mod registry;
mod watcher;

pub use watcher::Watcher;

use std::path::PathBuf;

/// A plugin, as it describes itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Announced {
    /// By which name it is known.
    pub name: String,
    /// Where it is served.
    pub endpoint: PathBuf,
    /// Versions of its kind's API.
    pub versions: Vec<String>,
}

/// Takes plugins of one kind.
#[async_trait::async_trait]
pub trait Handler: Send + Sync + 'static {
    /// `CSIPlugin`, `DRAPlugin`.
    fn kind(&self) -> &'static str;

    /// Takes it in; the message of an error is told to the plugin, and it is tried again.
    async fn register(&self, plugin: &Announced) -> Result<(), String>;

    /// It has gone.
    async fn deregister(&self, plugin: &Announced);
}
