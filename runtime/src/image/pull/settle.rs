//! Extracted layers to their places in the store.

use super::layer::{LayerError, Ready, Unpacked, Wanted};
use crate::image::Store;
use crate::image::layer::lean;
use crate::image::pull::error::is_full;
use crate::image::record::LayerRecord;
use std::collections::HashSet;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

/// The key of the directory that an image without layers uses.
const EMPTY: &str = "empty";

/// A layer of an image that is being made.
pub enum Layer {
    /// In its place.
    Ready(Ready),
    /// It needs those below it first.
    Leaning(Unpacked, Wanted),
}

impl Store {
    /// Puts an extracted layer in its place, unless it leans on lower ones.
    pub(in crate::image) fn place_layer(
        &self,
        unpacked: Unpacked,
        wanted: Wanted,
    ) -> Result<Layer, LayerError> {
        // The lowest has nothing to lean on.
        if wanted.at > 0 && !unpacked.record.implicit.is_empty() {
            return Ok(Layer::Leaning(unpacked, wanted));
        }
        self.publish(unpacked, wanted.key()).map(Layer::Ready)
    }

    /// Puts the leaning layers of an image in place, the lowest first, and
    /// drops repeated ones. The error names the layer.
    pub(in crate::image) async fn settle_layers(
        self: &Arc<Self>,
        layers: Vec<Layer>,
    ) -> Result<Vec<Ready>, (usize, LayerError)> {
        let store = self.clone();
        let settled = tokio::task::spawn_blocking(move || store.settle_now(layers));
        match settled.await {
            Ok(settled) => settled,
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        }
    }

    fn settle_now(&self, layers: Vec<Layer>) -> Result<Vec<Ready>, (usize, LayerError)> {
        let mut settled: Vec<Ready> = Vec::with_capacity(layers.len());
        for (at, layer) in layers.into_iter().enumerate() {
            let ready = match layer {
                Layer::Ready(ready) => ready,
                Layer::Leaning(unpacked, wanted) => {
                    let below: Vec<PathBuf> = settled.iter().rev().map(|r| self.diff(r)).collect();
                    let diff = unpacked.temp.0.join("diff");
                    lean::settle(&diff, &below, &unpacked.record.implicit)
                        .map_err(|e| (at, LayerError::Extract(e)))?;
                    self.publish(unpacked, wanted.chain_key())
                        .map_err(|e| (at, e))?
                }
            };
            settled.push(ready);
        }
        if settled.is_empty() {
            settled.push(self.empty_layer().map_err(|e| (0, e))?);
        }
        Ok(without_repetition(settled))
    }

    fn diff(&self, layer: &Ready) -> PathBuf {
        self.layout().layers.join(&layer.key).join("diff")
    }

    fn publish(&self, unpacked: Unpacked, key: String) -> Result<Ready, LayerError> {
        let Unpacked { temp, record } = unpacked;
        let hold = self
            .publish_layer(&temp.0, &key, record)
            .map_err(|source| write_error(&temp.0, source))?;
        Ok(Ready { key, _hold: hold })
    }

    /// Overlay needs one lower directory at least.
    fn empty_layer(&self) -> Result<Ready, LayerError> {
        let temp = super::layer::Temp(self.temp_path());
        let made = crate::image::disk::private_dir(&temp.0)
            .and_then(|()| std::fs::create_dir(temp.0.join("diff")));
        made.map_err(|source| write_error(&temp.0, source))?;
        let record = LayerRecord {
            diff_id: String::new(),
            bytes: 4096,
            inodes: 1,
            root_dir: None,
            implicit: Vec::new(),
            unsynced_boot: None,
        };
        let key = EMPTY.to_owned();
        self.publish(Unpacked { temp, record }, key)
    }
}

/// Of a layer that an image has twice, overlay takes the upper one only: it
/// refuses one directory at two places, and the upper hides the lower wholly.
fn without_repetition(layers: Vec<Ready>) -> Vec<Ready> {
    let mut seen = HashSet::new();
    let mut kept: Vec<Ready> = layers
        .into_iter()
        .rev()
        .filter(|layer| seen.insert(layer.key.clone()))
        .collect();
    kept.reverse();
    kept
}

fn write_error(path: &std::path::Path, source: io::Error) -> LayerError {
    let path = path.to_owned();
    if is_full(&source) {
        return LayerError::DiskFull { path };
    }
    LayerError::Store { path, source }
}
