//! How far a pull is.

use crate::image::registry::manifest::Descriptor;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// How far a pull is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Progress {
    /// The normalised name.
    pub reference: String,
    /// Empty until the manifest is known.
    pub layers: Vec<LayerProgress>,
}

/// How far one layer is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LayerProgress {
    /// Digest of the compressed layer.
    pub digest: String,
    /// Compressed bytes in all.
    pub total: u64,
    /// Compressed bytes so far.
    pub done: u64,
    /// It was on disk already.
    pub cached: bool,
    /// Extracted and verified.
    pub finished: bool,
}

/// The same, while it changes.
#[derive(Debug)]
pub struct Live {
    reference: String,
    layers: OnceLock<Vec<LiveLayer>>,
}

#[derive(Debug)]
pub struct LiveLayer {
    digest: String,
    total: u64,
    pub done: AtomicU64,
    pub cached: AtomicBool,
    pub finished: AtomicBool,
}

impl Live {
    /// Of a pull that begins.
    pub fn new(reference: String) -> Self {
        Self {
            reference,
            layers: OnceLock::new(),
        }
    }

    /// Makes the layers known, once.
    pub fn set_layers(&self, layers: &[Descriptor]) {
        let live = |layer: &Descriptor| LiveLayer {
            digest: layer.digest.to_string(),
            total: layer.size,
            done: AtomicU64::new(0),
            cached: AtomicBool::new(false),
            finished: AtomicBool::new(false),
        };
        let _ = self.layers.set(layers.iter().map(live).collect());
    }

    /// One of them.
    pub fn layer(&self, at: usize) -> Option<&LiveLayer> {
        self.layers.get()?.get(at)
    }

    /// All of it, now.
    pub fn snapshot(&self) -> Progress {
        let layer = |live: &LiveLayer| LayerProgress {
            digest: live.digest.clone(),
            total: live.total,
            done: live.done.load(Ordering::Relaxed),
            cached: live.cached.load(Ordering::Relaxed),
            finished: live.finished.load(Ordering::Relaxed),
        };
        Progress {
            reference: self.reference.clone(),
            layers: self.layers.get().into_iter().flatten().map(layer).collect(),
        }
    }
}
