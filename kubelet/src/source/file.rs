//! Static pods: a folder of manifests.
//! Rules: kubernetes v1.36 pkg/kubelet/config/{file,common}.go.

use super::api::{annotate, now};
use super::yaml::{self, YamlError};
use super::{CONFIG_HASH, Mirrors, PodUpdate, Source, default_pod};
use crate::objects::{ObjectRef, references};
use futures::StreamExt as _;
use inotify::{Inotify, WatchMask};
use k8s_openapi::api::core::v1::{Pod, Toleration};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// Editors and installers write more than once.
const SETTLE: Duration = Duration::from_millis(50);

/// Why a file is no static pod.
#[derive(Debug, thiserror::Error)]
enum ManifestError {
    #[error("not readable as text")]
    NotText,
    #[error("empty, or more than one document")]
    Documents,
    #[error(transparent)]
    Yaml(#[from] YamlError),
    #[error("is a {kind:?}, not a Pod of v1")]
    NotAPod { kind: String },
    #[error("has no {field}")]
    Missing { field: &'static str },
    /// Since 1.37: they would be read with the node's rights.
    #[error("a static pod can't refer to {what}")]
    Refers { what: String },
}

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

/// The pod of a manifest, made this node's own.
fn static_pod(content: &[u8], path: &Path, node_name: &str) -> Result<Pod, ManifestError> {
    let text = std::str::from_utf8(content).map_err(|_| ManifestError::NotText)?;
    let documents = yaml::documents(text);
    let [document] = documents.as_slice() else {
        return Err(ManifestError::Documents);
    };
    let head: Head = document.read()?;
    if (head.kind.as_str(), head.api_version.as_str()) != ("Pod", "v1") {
        return Err(ManifestError::NotAPod { kind: head.kind });
    }
    let mut pod: Pod = document.read()?;
    let name = pod.metadata.name.clone().filter(|n| !n.is_empty());
    let name = name.ok_or(ManifestError::Missing {
        field: "metadata.name",
    })?;
    refuse_references(&pod)?;
    default_pod(&mut pod);
    pod.metadata.name = Some(format!("{name}-{}", node_name.to_lowercase()));
    let spec = pod
        .spec
        .as_mut()
        .ok_or(ManifestError::Missing { field: "spec" })?;
    spec.node_name = Some(node_name.to_owned());
    // No taint ever evicts it: common.go `applyDefaults`.
    spec.tolerations.get_or_insert_default().push(Toleration {
        operator: Some("Exists".to_owned()),
        effect: Some("NoExecute".to_owned()),
        ..Toleration::default()
    });
    identify(&mut pod, path);
    Ok(pod)
}

#[derive(serde::Deserialize)]
#[serde(rename_all = "camelCase")]
struct Head {
    #[serde(default)]
    api_version: String,
    #[serde(default)]
    kind: String,
}

fn refuse_references(pod: &Pod) -> Result<(), ManifestError> {
    let refuse = |what: String| Err(ManifestError::Refers { what });
    match references(pod).into_iter().next() {
        Some(ObjectRef::ConfigMap { name, .. }) => return refuse(format!("ConfigMap {name:?}")),
        Some(ObjectRef::Secret { name, .. }) => return refuse(format!("Secret {name:?}")),
        None => {}
    }
    let Some(spec) = &pod.spec else {
        return Ok(());
    };
    if let Some(account) = spec.service_account_name.as_ref().filter(|a| !a.is_empty()) {
        return refuse(format!("ServiceAccount {account:?}"));
    }
    let claims = spec
        .volumes
        .iter()
        .flatten()
        .filter_map(|v| v.persistent_volume_claim.as_ref());
    match claims.into_iter().next() {
        Some(claim) => refuse(format!("PersistentVolumeClaim {:?}", claim.claim_name)),
        None => Ok(()),
    }
}

/// The UID is a hash of all that matters, so that a changed file is another pod.
fn identify(pod: &mut Pod, path: &Path) {
    let mut hash = ring::digest::Context::new(&ring::digest::SHA256);
    hash.update(path.as_os_str().as_encoded_bytes());
    // A pod that was read from text can always be written.
    hash.update(&serde_json::to_vec(&pod).unwrap_or_default());
    let digest = hash.finish();
    let hex: String = digest.as_ref()[..16]
        .iter()
        .map(|b| format!("{b:02x}"))
        .collect();
    let uid = pod.metadata.uid.get_or_insert_with(|| hex.clone()).clone();
    annotate(pod, Source::File, &now());
    let annotations = pod.metadata.annotations.get_or_insert_default();
    annotations.insert(CONFIG_HASH.to_owned(), uid);
    // As common.go: a static pod has no status but this before it is looked at.
    let status = pod.status.get_or_insert_default();
    status.phase = Some("Pending".to_owned());
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
    fn a_manifest_becomes_a_pod_of_this_node() {
        let pod = static_pod(POD.as_bytes(), Path::new("/m/web.yaml"), "Node-1").unwrap();
        assert_eq!(pod.metadata.name.as_deref(), Some("web-node-1"));
        assert_eq!(pod.metadata.namespace.as_deref(), Some("default"));
        let annotations = pod.metadata.annotations.unwrap();
        assert_eq!(annotations[super::super::CONFIG_SOURCE], "file");
        assert_eq!(Some(&annotations[CONFIG_HASH]), pod.metadata.uid.as_ref());
        assert_eq!(pod.metadata.uid.unwrap().len(), 32);
        assert_eq!(pod.spec.unwrap().node_name.as_deref(), Some("Node-1"));
    }

    #[test]
    fn the_uid_depends_on_content_and_path_only() {
        let uid = |text: &str, path| {
            static_pod(text.as_bytes(), Path::new(path), "n")
                .unwrap()
                .metadata
                .uid
        };
        assert_eq!(uid(POD, "/m/a"), uid(POD, "/m/a"));
        assert_ne!(uid(POD, "/m/a"), uid(POD, "/m/b"));
        assert_ne!(
            uid(POD, "/m/a"),
            uid(&POD.replace("image: b", "image: c"), "/m/a")
        );
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

    #[test]
    fn references_to_the_api_server_are_refused() {
        for what in [
            "serviceAccountName: x",
            "volumes: [{name: v, secret: {secretName: s}}]",
            "volumes: [{name: v, configMap: {name: s}}]",
            "volumes: [{name: v, persistentVolumeClaim: {claimName: s}}]",
        ] {
            let text = POD.replace("spec: {", &format!("spec: {{{what}, "));
            let refused = static_pod(text.as_bytes(), Path::new("/m/a"), "n");
            assert!(
                matches!(refused, Err(ManifestError::Refers { .. })),
                "{what}: {refused:?}"
            );
        }
    }

    #[test]
    fn other_kinds_and_nameless_pods_are_refused() {
        let refused = |text: &str| {
            static_pod(text.as_bytes(), Path::new("/m/a"), "n")
                .unwrap_err()
                .to_string()
        };
        assert_eq!(
            refused(&POD.replace("kind: Pod", "kind: Job")),
            "is a \"Job\", not a Pod of v1"
        );
        assert_eq!(
            refused(&POD.replace("name: web", "labels: {}")),
            "has no metadata.name"
        );
        assert_eq!(refused(""), "empty, or more than one document");
    }
}
