//! Archives that are put into a directory are imported, at start and when they
//! come: images for a node without a registry.

use crate::image::{Store, verbs};
use rustix::fs::inotify::{CreateFlags, WatchFlags, add_watch, init};
use rustix::io::Errno;
use std::collections::HashMap;
use std::ffi::OsString;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::{Arc, Weak};
use std::time::SystemTime;
use tokio::io::unix::AsyncFd;
use tokio::task::JoinHandle;

/// What is taken for an archive.
const ENDINGS: [&str; 6] = [".tar", ".tar.gz", ".tgz", ".tar.zst", ".tzst", ".oci"];

/// Files by name, with size and time, as they were when they were looked at.
type Seen = HashMap<OsString, (u64, Option<SystemTime>)>;

/// Ends the watching when dropped.
pub struct Watch(JoinHandle<()>);

impl Drop for Watch {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Begins to watch. Images are pinned: a node that got them this way may have
/// no other.
///
/// # Errors
/// When the directory can't be made or watched.
pub fn watch(store: &Arc<Store>, dir: &Path) -> io::Result<Watch> {
    crate::image::disk::private_dir(dir)?;
    let inotify = init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
    // A file is whole when its writer closes it or moves it in.
    let when = WatchFlags::CLOSE_WRITE | WatchFlags::MOVED_TO | WatchFlags::ONLYDIR;
    add_watch(&inotify, dir, when)?;
    let inotify = crate::sys::watch(inotify)?;
    let (store, dir) = (Arc::downgrade(store), dir.to_owned());
    Ok(Watch(tokio::spawn(async move {
        let mut seen = Seen::new();
        loop {
            import_new(&store, &dir, &mut seen).await;
            if let Err(error) = changed(&inotify).await {
                let dir = dir.display();
                tracing::warn!(%dir, %error, "the import directory is no longer watched");
                return;
            }
        }
    })))
}

async fn changed(inotify: &AsyncFd<OwnedFd>) -> io::Result<()> {
    let mut ready = inotify.readable().await?;
    let mut events = [0; 4096];
    loop {
        // What has happened is looked up on disk; the events only wake.
        match rustix::io::read(inotify, &mut events) {
            Ok(0) | Err(Errno::AGAIN) => break,
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    ready.clear_ready();
    Ok(())
}

async fn import_new(store: &Weak<Store>, dir: &Path, seen: &mut Seen) {
    let Ok(entries) = std::fs::read_dir(dir) else {
        return;
    };
    let mut entries: Vec<_> = entries.flatten().collect();
    entries.sort_by_key(std::fs::DirEntry::file_name);
    for entry in entries {
        let name = entry.file_name();
        let text = name.to_string_lossy().to_lowercase();
        let is_archive = !text.starts_with('.') && ENDINGS.iter().any(|end| text.ends_with(end));
        let Ok(meta) = entry.metadata() else { continue };
        let state = (meta.len(), meta.modified().ok());
        if !is_archive || seen.insert(name, state) == Some(state) {
            continue;
        }
        let Some(store) = store.upgrade() else { return };
        import_one(&store, &entry.path()).await;
    }
}

async fn import_one(store: &Arc<Store>, path: &Path) {
    let images = match store.import(path, None).await {
        Ok(images) => images,
        Err(error) => {
            tracing::warn!(error = verbs::chain(&error), "archive not imported");
            return;
        }
    };
    for image in images {
        tracing::info!(path = %path.display(), names = ?image.repo_tags, id = image.id, "image imported");
        if let Err(error) = store.pin(&image.id, true).await {
            tracing::warn!(error = verbs::chain(&error), "imported image is not pinned");
        }
    }
}
