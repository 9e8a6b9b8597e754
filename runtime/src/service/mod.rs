//! The CRI verbs, a file each.

mod open;

pub use open::OpenError;

use crate::Config;
use cri_proto::Cri;
use std::sync::Arc;

/// The container runtime: the object that the kubelet calls and the socket serves.
#[derive(Debug)]
pub struct Runtime {
    config: Config,
    _lock: open::StateLock,
}

impl Runtime {
    /// Takes control of the state folder, finds what runs there and goes on with it.
    ///
    /// # Errors
    /// When another agent controls the folder, or a part could not be opened.
    /// Records that can't be read are reported and take down only their own pod.
    pub async fn open(config: Config) -> Result<Arc<Self>, OpenError> {
        let lock = open::StateLock::take(&config.state)?;
        Ok(Arc::new(Self {
            config,
            _lock: lock,
        }))
    }

    /// What it was opened with.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Ends the background work of this process. Containers run on.
    pub async fn shutdown(&self) {}
}

#[async_trait::async_trait]
impl Cri for Runtime {}
