//! What is on disk.
//!
//! ```text
//! root/lock                    held by the one store that is open
//! root/images/<hex>.json       an image: names, configuration, keys of its layers
//! root/layers/<key>/diff       an extracted layer
//! root/layers/<key>/layer.json its size and origin
//! held/<owner>.json            layers that a container uses ([`Config::held`])
//! root/import/                archives to import (where it is not elsewhere)
//! root/tmp/                    what is in the making or being deleted
//! ```

mod held;
mod open;
mod state;

pub use held::Hold;
pub use open::OpenError;

use super::archive::Watch;
use super::disk;
use super::index::Entry;
use super::pull::Pulls;
use super::record::{ImageRecord, LayerRecord};
use super::registry::Clients;
use super::{Config, FsUsage, Image};
use state::State;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

/// The images of one agent. Cheap to share; every method may be called at any time.
pub struct Store {
    pub(super) config: Config,
    pub(super) pulls: Pulls,
    pub(super) clients: Clients,
    shared: Arc<Shared>,
    _lock: crate::lock::PidLock,
    import_watch: OnceLock<Watch>,
}

/// What guards need of the store, whoever outlives whom.
struct Shared {
    layout: Layout,
    state: Mutex<State>,
}

#[derive(Debug, Clone)]
pub(super) struct Layout {
    pub root: PathBuf,
    pub images: PathBuf,
    pub layers: PathBuf,
    pub held: PathBuf,
    pub tmp: PathBuf,
}

/// Why an image could not be removed or changed.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum RemoveError {
    #[error("remove the image record {path}")]
    Record { path: PathBuf, source: io::Error },
    #[error("remove unused layers in {path}")]
    Layers { path: PathBuf, source: io::Error },
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        // Every change is complete before the guard is dropped, or not begun.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Store {
    /// An image by tag (`:latest` and `docker.io/library/` supplied), by
    /// digest, by id, or by a beginning of the id that is unique.
    pub fn resolve(&self, text: &str) -> Option<Arc<Image>> {
        self.entry(text).map(|entry| entry.image)
    }

    pub(super) fn entry(&self, text: &str) -> Option<Entry> {
        self.shared.state().index.resolve(text).cloned()
    }

    /// All images, by id.
    pub fn list(&self) -> Vec<Arc<Image>> {
        let state = self.shared.state();
        state
            .index
            .iter()
            .map(|entry| entry.image.clone())
            .collect()
    }

    /// Sums over what was measured at extraction: no walk.
    pub fn usage(&self) -> FsUsage {
        let state = self.shared.state();
        let (bytes, inodes) = state.usage();
        FsUsage {
            bytes,
            inodes,
            mountpoint: self.shared.layout.root.clone(),
        }
    }

    /// Removes an image with all of its names, and the layers that nothing
    /// else uses. `false` when there is no such image.
    ///
    /// # Errors
    /// When the disk refuses; a repeated call goes on where this one stopped.
    pub async fn remove(&self, text: &str) -> Result<bool, RemoveError> {
        let shared = self.shared.clone();
        let text = text.to_owned();
        blocking(move || {
            let removed = remove_record(&shared, &text)?;
            collect(&shared)?;
            Ok(removed)
        })
        .await
    }

    /// Removes layers that no image, no container and no pull uses. Returns
    /// the bytes freed.
    ///
    /// # Errors
    /// When the disk refuses.
    pub async fn collect_garbage(&self) -> Result<u64, RemoveError> {
        let shared = self.shared.clone();
        blocking(move || collect(&shared)).await
    }

    /// Marks an image as never to be removed by a kubelet, or takes the mark
    /// away. `false` when there is no such image.
    ///
    /// # Errors
    /// When its record can't be written.
    pub async fn pin(&self, text: &str, pinned: bool) -> Result<bool, RemoveError> {
        let Some(mut record) = self.entry(text).map(|entry| entry.record) else {
            return Ok(false);
        };
        record.pinned = pinned;
        let shared = self.shared.clone();
        blocking(move || {
            let path = shared
                .layout
                .images
                .join(ImageRecord::file_name(&record.id));
            shared
                .put(record, disk::write_atomic)
                .map_err(|source| RemoveError::Record { path, source })
        })
        .await?;
        Ok(true)
    }

    /// Where a layer may be extracted to; gone with the next start.
    pub(super) fn temp_path(&self) -> PathBuf {
        disk::temp_path(&self.shared.layout.tmp)
    }

    pub(super) fn layout(&self) -> &Layout {
        &self.shared.layout
    }

    /// Holds a layer that is on disk.
    pub(super) fn hold_layer(&self, key: &str) -> Option<(Hold, LayerRecord)> {
        let mut state = self.shared.state();
        let record = state.layers.get(key)?.clone();
        Some((
            Hold::new(&self.shared, &mut state, vec![key.to_owned()]),
            record,
        ))
    }

    /// Makes an extracted layer known under a key: `temp` holds `diff` and is
    /// moved. When the key is taken already, `temp` is removed instead.
    pub(super) fn publish_layer(
        &self,
        temp: &Path,
        key: &str,
        mut record: LayerRecord,
    ) -> io::Result<Hold> {
        record.unsynced_boot = Some(disk::boot_id());
        let text = serde_json::to_vec(&record)?;
        std::fs::write(temp.join("layer.json"), text)?;
        let mut state = self.shared.state();
        if state.layers.contains_key(key) {
            let hold = Hold::new(&self.shared, &mut state, vec![key.to_owned()]);
            drop(state);
            disk::remove(temp)?;
            return Ok(hold);
        }
        std::fs::rename(temp, self.shared.layout.layers.join(key))?;
        state.layers.insert(key.to_owned(), record);
        Ok(Hold::new(&self.shared, &mut state, vec![key.to_owned()]))
    }

    /// Lists an image: merges names with those it has, and takes them from
    /// other images. Its layers must be held.
    pub(super) fn commit(&self, mut record: ImageRecord) -> io::Result<Arc<Image>> {
        if let Some(old) = self.shared.state().index.get(&record.id) {
            merge(&mut record.repo_tags, &old.record.repo_tags);
            merge(&mut record.repo_digests, &old.record.repo_digests);
            record.pinned |= old.record.pinned;
            record.manifest = record.manifest.or_else(|| old.record.manifest.clone());
        }
        // The sync that follows takes it along; a crash before loses the layers as well.
        self.shared.put(record, disk::write_unsynced)
    }

    /// Writes images and extracted layers back to disk, then forgets that they were not.
    pub(super) fn sync_layers(&self) {
        let shared = Arc::downgrade(&self.shared);
        tokio::task::spawn_blocking(move || {
            if let Some(shared) = shared.upgrade()
                && let Err(error) = shared.sync_layers()
            {
                tracing::warn!(%error, "image layers may not be on disk yet");
            }
        });
    }
}

impl Shared {
    fn put(&self, record: ImageRecord, write: Write) -> io::Result<Arc<Image>> {
        let mut state = self.state();
        let losers = state.index.losers(&record);
        let image = self.write(&mut state, record, write)?;
        // The new owner of a name is written first: a crash in between leaves
        // two images with it, and the younger wins at the next start.
        for loser in losers {
            self.write(&mut state, loser, write)?;
        }
        Ok(image)
    }

    fn write(
        &self,
        state: &mut State,
        record: ImageRecord,
        write: Write,
    ) -> io::Result<Arc<Image>> {
        let image = record
            .to_image(&self.layout.layers, |key| state.layers.get(key))
            .map_err(io::Error::other)?;
        let image = Arc::new(image);
        let text = serde_json::to_vec_pretty(&record)?;
        write(
            &self.layout.images,
            &ImageRecord::file_name(&record.id),
            &text,
        )?;
        state.index.insert(Entry {
            record,
            image: image.clone(),
        });
        Ok(image)
    }

    fn sync_layers(&self) -> io::Result<()> {
        let unsynced: Vec<(String, LayerRecord)> = {
            let state = self.state();
            let unsynced = state
                .layers
                .iter()
                .filter(|(_, l)| l.unsynced_boot.is_some());
            unsynced.map(|(k, l)| (k.clone(), l.clone())).collect()
        };
        disk::sync_file_system(&self.layout.layers)?;
        for (key, mut record) in unsynced {
            record.unsynced_boot = None;
            let text = serde_json::to_vec(&record)?;
            // Under the lock, so that a layer being removed is not written to.
            let mut state = self.state();
            if let Some(known) = state.layers.get_mut(&key) {
                // Lost or empty after a crash, the layer is only extracted once more.
                disk::write_unsynced(&self.layout.layers.join(&key), "layer.json", &text)?;
                *known = record;
            }
        }
        Ok(())
    }
}

/// How a record is written: [`disk::write_atomic`], or [`disk::write_unsynced`].
type Write = fn(&Path, &str, &[u8]) -> io::Result<()>;

fn remove_record(shared: &Shared, text: &str) -> Result<bool, RemoveError> {
    let mut state = shared.state();
    let Some(id) = state.index.resolve(text).map(|e| e.record.id.clone()) else {
        return Ok(false);
    };
    let path = shared.layout.images.join(ImageRecord::file_name(&id));
    // Not flushed: a crash may bring the image back, which loses nothing.
    disk::remove(&path).map_err(|source| RemoveError::Record { path, source })?;
    state.index.remove(&id);
    Ok(true)
}

/// Layers leave the store by a rename under the lock; the slow deletion follows.
fn collect(shared: &Shared) -> Result<u64, RemoveError> {
    let error = |source| RemoveError::Layers {
        path: shared.layout.layers.clone(),
        source,
    };
    let mut freed = 0;
    let mut trash = Vec::new();
    {
        let mut state = shared.state();
        for key in state.unused_layers() {
            let grave = disk::temp_path(&shared.layout.tmp);
            std::fs::rename(shared.layout.layers.join(&key), &grave).map_err(error)?;
            freed += state.layers.remove(&key).map_or(0, |layer| layer.bytes);
            trash.push(grave);
        }
    }
    for grave in trash {
        disk::remove(&grave).map_err(error)?;
    }
    Ok(freed)
}

fn merge(names: &mut Vec<String>, old: &[String]) {
    for name in old {
        if !names.contains(name) {
            names.push(name.clone());
        }
    }
    names.sort();
}

async fn blocking<T: Send + 'static>(f: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(f).await {
        Ok(value) => value,
        // Only a panic ends such a task early; it goes on in the caller.
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}
