//! What is written of an image and of a layer.

use super::{Image, RootDir};
use oci_spec::image::ImageConfiguration;
use serde::{Deserialize, Serialize};
use std::path::Path;

/// `images/<hex of the id>.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ImageRecord {
    /// `sha256:…` of `config`.
    pub id: String,
    #[serde(default)]
    pub repo_tags: Vec<String>,
    #[serde(default)]
    pub repo_digests: Vec<String>,
    /// Keys below `layers/`, the lowest first.
    pub layers: Vec<String>,
    /// The configuration as it came.
    pub config: String,
    /// The manifest as it came; absent for a docker-archive.
    #[serde(default)]
    pub manifest: Option<String>,
    #[serde(default)]
    pub pinned: bool,
    pub pulled_at: i64,
}

/// `layers/<key>/layer.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LayerRecord {
    /// Digest of the uncompressed tar.
    pub diff_id: String,
    /// On disk.
    pub bytes: u64,
    /// On disk.
    pub inodes: u64,
    /// `/`, when the layer says something about it.
    #[serde(default)]
    pub root_dir: Option<RootDir>,
    /// Directories whose owner and mode are those of the layers below; where
    /// there are any, the layer fits one stack of layers only.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub implicit: Vec<String>,
    /// The boot in which it was extracted, until its data is known to be on
    /// disk: after a power cut such a layer may have lost data and goes.
    #[serde(default)]
    pub unsynced_boot: Option<String>,
}

impl ImageRecord {
    /// The record's file name.
    pub fn file_name(id: &str) -> String {
        format!("{}.json", id.strip_prefix("sha256:").unwrap_or(id))
    }

    /// The image as others see it. `layer` yields a layer's record by key.
    /// `Err` names what is missing.
    pub fn to_image<'a>(
        &self,
        layers_dir: &Path,
        layer: impl Fn(&str) -> Option<&'a LayerRecord>,
    ) -> Result<Image, RecordError> {
        let config: ImageConfiguration =
            serde_json::from_str(&self.config).map_err(RecordError::Config)?;
        let mut size = self.config.len() as u64;
        let mut root_dir = RootDir::default();
        let mut layers = Vec::with_capacity(self.layers.len());
        for key in &self.layers {
            let record = layer(key).ok_or_else(|| RecordError::Layer { key: key.clone() })?;
            size += record.bytes;
            root_dir = record.root_dir.unwrap_or(root_dir);
            layers.push(layers_dir.join(key).join("diff"));
        }
        Ok(Image {
            id: self.id.clone(),
            repo_tags: self.repo_tags.clone(),
            repo_digests: self.repo_digests.clone(),
            size,
            config,
            raw_config: self.config.clone(),
            layers,
            root_dir,
            pinned: self.pinned,
            pulled_at: self.pulled_at,
        })
    }
}

/// Why a record is of no use.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum RecordError {
    #[error("its configuration can't be read")]
    Config(#[source] serde_json::Error),
    #[error("layer {key} is not on disk")]
    Layer { key: String },
}
