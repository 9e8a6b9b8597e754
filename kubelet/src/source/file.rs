//! Static pods: a folder of manifests.
//! Rules: kubernetes v1.36 pkg/kubelet/config/file.go.

use super::manifest::static_pod;
use super::{Mirrors, PodUpdate, Source};
use futures::StreamExt as _;
use inotify::{Inotify, WatchMask};
use k8s_openapi::api::core::v1::Pod;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// Editors and installers write more than once.
const SETTLE: Duration = Duration::from_millis(50);

/// The folder (or single file) of `staticPodPath`.
pub struct StaticPods {
    path: PathBuf,
    node_name: String,
    check_every: Duration,
    mirrors: Arc<Mirrors>,
    files: BTreeMap<PathBuf, Loaded>,
}

/// A file as it was last read.
struct Loaded {
    content: Vec<u8>,
    /// The last pod it held that could be read.
    pod: Option<Arc<Pod>>,
}

impl StaticPods {
    /// `check_every` is `fileCheckFrequency`, beside inotify.
    #[must_use]
    pub fn new(path: &Path, node_name: &str, check_every: Duration, mirrors: Arc<Mirrors>) -> Self {
        Self {
            path: path.to_owned(),
            node_name: node_name.to_owned(),
            check_every,
            mirrors,
            files: BTreeMap::new(),
        }
    }

    /// Tells `updates` of every pod until `shutdown` or until nobody listens.
    /// A manifest that can't be read is logged, and the pod that it held
    /// before stays as it is.
    pub async fn run(mut self, updates: mpsc::Sender<PodUpdate>, shutdown: CancellationToken) {
        let mut synced = false;
        loop {
            let events = self.watch();
            let mut said = self.scan();
            if !synced {
                said.push(PodUpdate::Synced(Source::File));
                synced = true;
            }
            if send(&updates, said).await.is_err() {
                return;
            }
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = changed(events) => tokio::time::sleep(SETTLE).await,
                () = tokio::time::sleep(self.check_every) => {}
                pods = self.mirrors.unreported() => {
                    // From here and not from where mirrors are seen, so that none
                    // of them comes after its removal.
                    let again = |pod: Arc<Pod>| PodUpdate::Set(Source::File, Arc::new(Pod::clone(&pod)));
                    if send(&updates, pods.into_iter().map(again).collect()).await.is_err() {
                        return;
                    }
                }
            }
        }
    }

    /// Set up before each scan, so that nothing falls between the two.
    fn watch(&self) -> Option<Inotify> {
        let inotify = Inotify::init().ok()?;
        let mask = WatchMask::CREATE
            | WatchMask::CLOSE_WRITE
            | WatchMask::DELETE
            | WatchMask::MOVED_TO
            | WatchMask::MOVED_FROM
            | WatchMask::ATTRIB;
        let dir = match self.path.is_file() {
            true => self.path.parent()?,
            false => &self.path,
        };
        inotify.watches().add(dir, mask).ok()?;
        Some(inotify)
    }

    fn scan(&mut self) -> Vec<PodUpdate> {
        let mut found = BTreeMap::new();
        for path in manifests(&self.path) {
            match std::fs::read(&path) {
                Ok(content) => {
                    found.insert(path, content);
                }
                Err(error) => {
                    tracing::warn!(%error, path = %path.display(), "static pod not readable")
                }
            }
        }
        self.follow(found)
    }

    fn follow(&mut self, mut found: BTreeMap<PathBuf, Vec<u8>>) -> Vec<PodUpdate> {
        let mut said = Vec::new();
        let gone: Vec<PathBuf> = self
            .files
            .keys()
            .filter(|p| !found.contains_key(*p))
            .cloned()
            .collect();
        for path in gone {
            let loaded = self.files.remove(&path);
            said.extend(loaded.and_then(|l| l.pod).map(|pod| self.remove(&pod)));
        }
        found.retain(|path, content| self.files.get(path).is_none_or(|l| l.content != *content));
        for (path, content) in found {
            said.extend(self.load(path, content));
        }
        said
    }

    fn load(&mut self, path: PathBuf, content: Vec<u8>) -> Vec<PodUpdate> {
        let before = self.files.remove(&path).and_then(|l| l.pod);
        let mut said = Vec::new();
        let pod = match static_pod(&content, &path, &self.node_name) {
            Err(error) => {
                let error = error.to_string();
                tracing::error!(path = %path.display(), error, "static pod not used; correct the file");
                before
            }
            Ok(pod) => {
                if before
                    .as_ref()
                    .is_some_and(|old| old.metadata.uid == pod.metadata.uid)
                {
                    self.files.insert(
                        path,
                        Loaded {
                            content,
                            pod: before,
                        },
                    );
                    return said;
                }
                let pod = Arc::new(pod);
                said.extend(before.map(|old| self.remove(&old)));
                self.mirrors.wanted(&pod);
                said.push(PodUpdate::Set(Source::File, pod.clone()));
                Some(pod)
            }
        };
        self.files.insert(path, Loaded { content, pod });
        said
    }

    fn remove(&self, pod: &Pod) -> PodUpdate {
        self.mirrors.unwanted(pod);
        let uid = pod.metadata.uid.clone();
        PodUpdate::Remove(Source::File, uid.unwrap_or_default())
    }
}

/// Fails when nobody listens any more.
async fn send(updates: &mpsc::Sender<PodUpdate>, said: Vec<PodUpdate>) -> Result<(), ()> {
    for update in said {
        updates.send(update).await.map_err(|_| ())?;
    }
    Ok(())
}

async fn changed(inotify: Option<Inotify>) {
    let mut buffer = [0; 4096];
    let stream = inotify.and_then(|i| i.into_event_stream(&mut buffer).ok());
    match stream {
        Some(mut events) => {
            events.next().await;
        }
        None => std::future::pending().await,
    }
}

/// Files in the folder, hidden ones left out; or the one file.
fn manifests(path: &Path) -> Vec<PathBuf> {
    if path.is_file() {
        return vec![path.to_owned()];
    }
    let Ok(entries) = std::fs::read_dir(path) else {
        return Vec::new();
    };
    let visible = |path: &PathBuf| {
        let name = path.file_name().and_then(|n| n.to_str());
        name.is_some_and(|n| !n.starts_with('.')) && path.is_file()
    };
    entries
        .flatten()
        .map(|e| e.path())
        .filter(visible)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const POD: &str = "apiVersion: v1\nkind: Pod\nmetadata: {name: web}\nspec: {containers: [{name: a, image: b}]}\n";

    fn source() -> StaticPods {
        StaticPods::new(
            Path::new("/m"),
            "Node-1",
            Duration::from_secs(20),
            Mirrors::detached(),
        )
    }

    fn follow(source: &mut StaticPods, files: &[(&str, &str)]) -> Vec<String> {
        let found = files
            .iter()
            .map(|(path, text)| (PathBuf::from(path), text.as_bytes().to_vec()));
        let said = source.follow(found.collect());
        let word = |update: PodUpdate| match update {
            PodUpdate::Set(_, pod) => {
                format!("set {}", pod.metadata.name.as_deref().unwrap_or_default())
            }
            PodUpdate::Remove(..) => "remove".to_owned(),
            PodUpdate::Synced(_) => "synced".to_owned(),
        };
        said.into_iter().map(word).collect()
    }

    #[test]
    fn a_changed_file_is_another_pod_and_a_broken_one_changes_nothing() {
        let mut source = source();
        assert_eq!(follow(&mut source, &[("/m/a", POD)]), ["set web-node-1"]);
        assert_eq!(follow(&mut source, &[("/m/a", POD)]), [""; 0]);
        let spaced = format!("# a comment\n{POD}");
        assert_eq!(
            follow(&mut source, &[("/m/a", &spaced)]),
            [""; 0],
            "the same pod"
        );
        let changed = POD.replace("image: b", "image: c");
        assert_eq!(
            follow(&mut source, &[("/m/a", &changed)]),
            ["remove", "set web-node-1"]
        );
        assert_eq!(follow(&mut source, &[("/m/a", "kind: [")]), [""; 0]);
        assert_eq!(follow(&mut source, &[]), ["remove"]);
    }
}
