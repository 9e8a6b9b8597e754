//! Images of an archive into the store.

use super::describe::{DescribeError, Described, describe};
use super::source::Source;
use crate::image::digest::Digest;
use crate::image::layer::TarError;
use crate::image::pull::check_config;
use crate::image::pull::layer::{LayerError, Temp, Wanted, unpack};
use crate::image::pull::settle::Layer;
use crate::image::record::ImageRecord;
use crate::image::{Image, Reference, ReferenceError, Store};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Why an archive could not be imported.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum ImportError {
    #[error("import {path}")]
    Open { path: PathBuf, source: TarError },
    #[error("import {path}")]
    Describe {
        path: PathBuf,
        source: DescribeError,
    },
    #[error("import: the name for it")]
    Name(#[source] ReferenceError),
    #[error("import {path}: image configuration {reason}")]
    ImageConfig { path: PathBuf, reason: String },
    #[error("import {path}: layer {name} is not in it")]
    Missing { path: PathBuf, name: String },
    #[error("import {path}: layer {name}")]
    Layer {
        path: PathBuf,
        name: String,
        source: LayerError,
    },
    #[error("import {path}: write to the image store")]
    Store { path: PathBuf, source: io::Error },
}

impl Store {
    /// Imports every image for this host of a docker-archive or OCI layout:
    /// a tar file, compressed or not, or a directory. `name` is given to
    /// images that have no name in it.
    ///
    /// # Errors
    /// See [`ImportError`]; images before the one that failed stay.
    pub async fn import(
        self: &Arc<Self>,
        path: &Path,
        name: Option<&str>,
    ) -> Result<Vec<Arc<Image>>, ImportError> {
        let path = path.to_owned();
        self.import_from(path.clone(), name, move |spool| Source::open(&path, spool))
            .await
    }

    /// The same from a stream, such as standard input.
    ///
    /// # Errors
    /// As [`Store::import`].
    pub async fn import_stream(
        self: &Arc<Self>,
        stream: impl Read + Send + 'static,
        name: Option<&str>,
    ) -> Result<Vec<Arc<Image>>, ImportError> {
        self.import_from("-".into(), name, move |spool| Source::stream(stream, spool))
            .await
    }

    async fn import_from(
        self: &Arc<Self>,
        path: PathBuf,
        name: Option<&str>,
        open: impl FnOnce(&Path) -> Result<Source, TarError> + Send + 'static,
    ) -> Result<Vec<Arc<Image>>, ImportError> {
        let name = name.map(Reference::parse).transpose();
        let name = name.map_err(ImportError::Name)?;
        let spool = self.layout().tmp.clone();
        let shown = path.clone();
        let described = tokio::task::spawn_blocking(move || {
            let source = open(&spool).map_err(|source| ImportError::Open {
                path: shown.clone(),
                source,
            })?;
            match describe(&source, name.as_ref()) {
                Ok(images) => Ok((Arc::new(source), images)),
                Err(source) => Err(ImportError::Describe {
                    path: shown,
                    source,
                }),
            }
        });
        let (source, described) = finished(described.await)?;
        let mut images = Vec::new();
        for image in described {
            images.push(self.import_image(&path, &source, image).await?);
        }
        self.sync_layers();
        Ok(images)
    }

    async fn import_image(
        self: &Arc<Self>,
        path: &Path,
        source: &Arc<Source>,
        image: Described,
    ) -> Result<Arc<Image>, ImportError> {
        let diff_ids = check_config(&image.config, image.layers.len());
        let diff_ids = diff_ids.map_err(|reason| ImportError::ImageConfig {
            path: path.to_owned(),
            reason,
        })?;
        let mut layers = Vec::new();
        for (at, name) in image.layers.iter().enumerate() {
            let wanted = Wanted::new(at, &diff_ids);
            layers.push(self.import_layer(path, source, name, wanted).await?);
        }
        let failed = |(at, source): (usize, LayerError)| ImportError::Layer {
            path: path.to_owned(),
            name: image.layers.get(at).cloned().unwrap_or_default(),
            source,
        };
        let layers = self.settle_layers(layers).await.map_err(failed)?;
        let record = ImageRecord {
            id: Digest::sha256(image.config.as_bytes()).to_string(),
            repo_tags: image.repo_tags,
            repo_digests: image.repo_digests,
            layers: layers.iter().map(|layer| layer.key.clone()).collect(),
            config: image.config,
            manifest: image.manifest,
            pinned: false,
            pulled_at: crate::image::now(),
        };
        self.commit(record).map_err(|source| ImportError::Store {
            path: path.to_owned(),
            source,
        })
    }

    async fn import_layer(
        self: &Arc<Self>,
        path: &Path,
        source: &Arc<Source>,
        name: &str,
        wanted: Wanted,
    ) -> Result<Layer, ImportError> {
        let turn = self.pulls.layer_turn(wanted.diff_id());
        let _turn = turn.lock().await;
        if let Some(ready) = self.ready_layer(&wanted) {
            return Ok(Layer::Ready(ready));
        }
        let failed = |source| ImportError::Layer {
            path: path.to_owned(),
            name: name.to_owned(),
            source,
        };
        let member = source.member(name).map_err(|source| ImportError::Store {
            path: path.to_owned(),
            source,
        })?;
        let member = member.ok_or_else(|| ImportError::Missing {
            path: path.to_owned(),
            name: name.to_owned(),
        })?;
        let temp = Temp(self.temp_path());
        let diff_id = wanted.diff_id().to_owned();
        let unpacked = tokio::task::spawn_blocking(move || unpack(member, temp, &diff_id));
        let unpacked = finished(unpacked.await).map_err(failed)?;
        self.place_layer(unpacked, wanted).map_err(failed)
    }
}

fn finished<T>(joined: Result<T, tokio::task::JoinError>) -> T {
    match joined {
        Ok(value) => value,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}
