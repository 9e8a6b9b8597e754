//! Reading the store at start: nothing that can't be read prevents it.

use super::state::State;
use super::{Layout, Shared, Store, collect};
use crate::image::archive::watch;
use crate::image::index::Entry;
use crate::image::pull::Pulls;
use crate::image::record::{ImageRecord, LayerRecord};
use crate::image::registry::Clients;
use crate::image::{Config, Image, disk};
use crate::lock::{LockError, PidLock};
use serde::de::DeserializeOwned;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock};

/// Why the store could not be opened.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum OpenError {
    #[error("make the image store {path}")]
    Make { path: PathBuf, source: io::Error },
    #[error(
        "the image store {path} is in use by process {holder}; stop it, or choose another root"
    )]
    InUse { path: PathBuf, holder: String },
    #[error("read the image store {path}")]
    Read { path: PathBuf, source: io::Error },
}

impl Store {
    /// Opens the store, making it if need be, and removes what an earlier
    /// process left half-done. Records that can't be read are skipped with a
    /// warning.
    ///
    /// # Errors
    /// When the directories can't be made or listed, or another process has
    /// the store open.
    pub fn open(config: Config) -> Result<Arc<Self>, OpenError> {
        let layout = Layout::of(&config);
        layout.make()?;
        let lock = lock(&layout)?;
        let shared = Arc::new(Shared {
            state: Mutex::new(load(&layout)?),
            layout,
        });
        empty_tmp_later(&shared.layout);
        if let Err(error) = collect(&shared) {
            tracing::warn!(%error, "unused image layers stay until the next removal");
        }
        let store = Arc::new(Self {
            clients: Clients::new(config.ca_bundles.clone()),
            pulls: Pulls::default(),
            config,
            shared,
            _lock: lock,
            import_watch: OnceLock::new(),
        });
        store.watch_imports();
        Ok(store)
    }

    /// Only where there is an executor: a tool that opens the store to look
    /// does not import.
    fn watch_imports(self: &Arc<Self>) {
        let Some(dir) = &self.config.import_dir else {
            return;
        };
        if tokio::runtime::Handle::try_current().is_err() {
            return;
        }
        match watch(self, dir) {
            Ok(watch) => drop(self.import_watch.set(watch)),
            Err(error) => {
                tracing::warn!(dir = %dir.display(), %error, "the import directory is not watched");
            }
        }
    }
}

impl Layout {
    fn of(config: &Config) -> Self {
        let root = &config.root;
        Self {
            root: root.to_owned(),
            images: root.join("images"),
            layers: root.join("layers"),
            held: config.held.clone(),
            tmp: root.join("tmp"),
        }
    }

    fn make(&self) -> Result<(), OpenError> {
        for dir in [
            &self.root,
            &self.images,
            &self.layers,
            &self.held,
            &self.tmp,
        ] {
            disk::private_dir(dir).map_err(|source| OpenError::Make {
                path: dir.clone(),
                source,
            })?;
        }
        Ok(())
    }
}

fn lock(layout: &Layout) -> Result<PidLock, OpenError> {
    let path = layout.root.join("lock");
    PidLock::take(&path).map_err(|error| match error {
        LockError::Held(holder) => OpenError::InUse {
            path: layout.root.clone(),
            holder,
        },
        LockError::Io(source) => OpenError::Make { path, source },
    })
}

/// Deleting what a killed process left may take long; a start does not wait.
fn empty_tmp_later(layout: &Layout) {
    let entries = |dir: &Path| std::fs::read_dir(dir).into_iter().flatten().flatten();
    // Records begin with a dot until they are whole.
    let half = |entry: &std::fs::DirEntry| entry.file_name().as_encoded_bytes().starts_with(b".");
    let records = [&layout.held, &layout.images];
    let records = records
        .into_iter()
        .flat_map(|dir| entries(dir).filter(half));
    let left: Vec<PathBuf> = entries(&layout.tmp)
        .chain(records)
        .map(|entry| entry.path())
        .collect();
    if left.is_empty() {
        return;
    }
    std::thread::spawn(move || {
        for path in left {
            if let Err(error) = disk::remove(&path) {
                tracing::warn!(path = %path.display(), %error, "leftover of the image store stays");
            }
        }
    });
}

fn load(layout: &Layout) -> Result<State, OpenError> {
    let mut state = State::default();
    load_layers(layout, &mut state)?;
    load_kept(layout, &mut state)?;
    load_images(layout, &mut state)?;
    Ok(state)
}

fn load_layers(layout: &Layout, state: &mut State) -> Result<(), OpenError> {
    let boot = disk::boot_id();
    for key in list(&layout.layers)? {
        let dir = layout.layers.join(&key);
        match read::<LayerRecord>(&dir.join("layer.json")) {
            Ok(record) if record.unsynced_boot.as_ref().is_none_or(|b| *b == boot) => {
                state.layers.insert(key, record);
            }
            Ok(_) => discard(
                layout,
                &dir,
                "it may have lost data when the host went down",
            ),
            Err(error) => discard(layout, &dir, &error),
        }
    }
    Ok(())
}

fn discard(layout: &Layout, dir: &Path, why: &str) {
    tracing::warn!(layer = %dir.display(), why, "image layer dropped; images with it are pulled again");
    if let Err(error) = std::fs::rename(dir, disk::temp_path(&layout.tmp)) {
        tracing::warn!(layer = %dir.display(), %error, "image layer can't be moved away");
    }
}

fn load_kept(layout: &Layout, state: &mut State) -> Result<(), OpenError> {
    for name in list(&layout.held)? {
        let path = layout.held.join(&name);
        let owner = name.strip_suffix(".json").unwrap_or(&name).to_owned();
        let keys = read::<Vec<String>>(&path);
        if let Err(error) = &keys {
            tracing::warn!(path = %path.display(), error, "unreadable; no layer is removed until its owner is");
        }
        state.kept.insert(owner, keys.ok());
    }
    Ok(())
}

fn load_images(layout: &Layout, state: &mut State) -> Result<(), OpenError> {
    let mut entries = Vec::new();
    for name in list(&layout.images)? {
        let path = layout.images.join(&name);
        match read::<ImageRecord>(&path).and_then(|record| entry(layout, state, record)) {
            Ok(entry) => entries.push(entry),
            Err(error) => {
                tracing::warn!(path = %path.display(), error, "image record skipped; pull the image again");
            }
        }
    }
    // The younger of two images with one name keeps it.
    entries.sort_by_key(|entry| entry.record.pulled_at);
    for entry in entries {
        for loser in state.index.losers(&entry.record) {
            if let Ok(entry) = self::entry(layout, state, loser) {
                state.index.insert(entry);
            }
        }
        state.index.insert(entry);
    }
    Ok(())
}

fn entry(layout: &Layout, state: &State, record: ImageRecord) -> Result<Entry, String> {
    let image: Image = record
        .to_image(&layout.layers, |key| state.layers.get(key))
        .map_err(|e| e.to_string())?;
    Ok(Entry {
        record,
        image: Arc::new(image),
    })
}

fn list(dir: &Path) -> Result<Vec<String>, OpenError> {
    disk::names(dir).map_err(|source| OpenError::Read {
        path: dir.to_owned(),
        source,
    })
}

fn read<T: DeserializeOwned>(path: &Path) -> Result<T, String> {
    let text = std::fs::read(path).map_err(|e| e.to_string())?;
    serde_json::from_slice(&text).map_err(|e| e.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::testing::TempDir;

    #[test]
    fn half_written_records_of_a_killed_process_are_removed_and_whole_ones_stay() {
        let dir = TempDir::new();
        let config = Config::new(dir.path().join("store"));
        let layout = Layout::of(&config);
        layout.make().unwrap();
        let half = [
            layout.held.join(".c.json.7-1-1"),
            layout.images.join(".i.json.7-1-2"),
        ];
        let whole = layout.held.join("c.json");
        for path in half.iter().chain([&whole]) {
            std::fs::write(path, "[]").unwrap();
        }
        let _store = Store::open(config).unwrap();
        // In the background.
        while half.iter().any(|path| path.exists()) {
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        assert!(whole.exists());
    }
}
