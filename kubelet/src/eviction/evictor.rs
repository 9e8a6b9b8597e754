//! Looks at what is short, and acts.

use super::rank::{self, Resource};
use super::usage::{self, Used};
use crate::event::{EventType, Recorder};
use crate::node::Shortage;
use crate::pod::{Engine, Known, PodView as _};
use cri_proto::{Cri, v1};
use k8s_openapi::api::core::v1::{ObjectReference, Pod};
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// kubernetes v1.37 pkg/kubelet/eviction/eviction_manager.go `podCleanupTimeout`.
const CLEANUP: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(200);

/// Where pods keep what counts as theirs.
pub struct Places {
    /// `/var/lib/kubelet`.
    pub root_dir: PathBuf,
    /// `/var/log/pods`.
    pub pod_logs_root: PathBuf,
}

/// Ends pods as long as something is short.
pub struct Evictor {
    engine: Arc<Engine>,
    cri: Arc<dyn Cri>,
    events: Arc<dyn Recorder>,
    node_name: String,
    places: Places,
}

impl Evictor {
    /// Does nothing before [`Evictor::run`].
    pub fn new(
        engine: Arc<Engine>,
        cri: Arc<dyn Cri>,
        events: Arc<dyn Recorder>,
        node_name: &str,
        places: Places,
    ) -> Self {
        Self {
            engine,
            cri,
            events,
            node_name: node_name.to_owned(),
            places,
        }
    }

    /// Acts on each measurement that `shortages` brings, until `shutdown`.
    pub async fn run(
        self,
        mut shortages: watch::Receiver<Vec<Shortage>>,
        shutdown: CancellationToken,
    ) {
        loop {
            let measured = tokio::select! {
                () = shutdown.cancelled() => return,
                measured = shortages.changed() => measured,
            };
            if measured.is_err() {
                return;
            }
            // Memory first: its lack is felt first.
            let worst = shortages
                .borrow_and_update()
                .iter()
                .min_by_key(|s| s.signal)
                .copied();
            if let Some(worst) = worst {
                self.relieve(&worst).await;
            }
        }
    }

    async fn relieve(&self, shortage: &Shortage) {
        let resource = Resource::of(shortage.signal);
        self.say(
            "EvictionThresholdMet",
            &format!("Attempting to reclaim {}", resource.name()),
        );
        let on_disk = matches!(resource, Resource::Storage | Resource::Inodes);
        // Whether that was enough the next measurement tells.
        if on_disk && self.remove_unused_images().await > 0 {
            return;
        }
        let pods = self.used(on_disk).await;
        let Some((pod, used)) = rank::first(pods, resource) else {
            tracing::warn!(
                resource = resource.name(),
                "short, and there is no pod to evict"
            );
            return;
        };
        let verdict = rank::verdict(&pod, &used, shortage);
        tracing::warn!(pod = pod.metadata.name, why = verdict.message, "evicting");
        let uid = pod.metadata.uid.clone().unwrap_or_default();
        self.engine.evict(&uid, verdict);
        // One at a time: what it held is to be counted before the next.
        let gone = async {
            while self.engine.pods().iter().any(|k| is(k, &uid) && !over(k)) {
                tokio::time::sleep(POLL).await;
            }
        };
        let _ = tokio::time::timeout(CLEANUP, gone).await;
    }

    fn say(&self, reason: &str, message: &str) {
        let about = ObjectReference {
            kind: Some("Node".to_owned()),
            name: Some(self.node_name.clone()),
            uid: Some(self.node_name.clone()),
            ..ObjectReference::default()
        };
        self.events
            .record(&about, EventType::Warning, reason, message);
    }

    /// Pods that run, and what each uses; their files are counted only if asked for.
    async fn used(&self, with_files: bool) -> Vec<(Arc<Pod>, Used)> {
        let request = v1::ListPodSandboxStatsRequest { filter: None };
        let stats = match self.cri.list_pod_sandbox_stats(request).await {
            Ok(answer) => answer.stats,
            Err(status) => {
                tracing::warn!(why = status.message(), "nobody knows what pods use");
                return Vec::new();
            }
        };
        let by_uid: BTreeMap<String, Used> = stats
            .iter()
            .filter_map(|s| {
                let metadata = s.attributes.as_ref()?.metadata.as_ref()?;
                Some((metadata.uid.clone(), usage::of_sandbox(s)))
            })
            .collect();
        let mut pods = Vec::new();
        for known in self.engine.pods().into_iter().filter(|k| !over(k)) {
            let uid = known.pod.metadata.uid.as_deref().unwrap_or_default();
            let Some(mut used) = by_uid.get(uid).copied() else {
                continue;
            };
            if with_files {
                used = self.with_files(&known.pod, used).await;
            }
            pods.push((known.pod, used));
        }
        pods
    }

    async fn with_files(&self, pod: &Pod, mut used: Used) -> Used {
        let text = |field: &Option<String>| field.clone().unwrap_or_default();
        let meta = &pod.metadata;
        let uid = text(&meta.uid);
        let log = format!("{}_{}_{uid}", text(&meta.namespace), text(&meta.name));
        let dirs = [
            self.places.pod_logs_root.join(log),
            self.places
                .root_dir
                .join("pods")
                .join(uid)
                .join("volumes/kubernetes.io~empty-dir"),
        ];
        let count = move || {
            dirs.iter().for_each(|dir| used.add_tree(dir));
            used
        };
        tokio::task::spawn_blocking(count).await.unwrap_or(used)
    }

    /// Answers how many went.
    async fn remove_unused_images(&self) -> usize {
        let images = self.cri.list_images(v1::ListImagesRequest { filter: None });
        let containers = self
            .cri
            .list_containers(v1::ListContainersRequest { filter: None });
        let (Ok(images), Ok(containers)) = tokio::join!(images, containers) else {
            return 0;
        };
        let mut removed = 0;
        for id in unused(&images.images, &containers.containers) {
            let image = Some(v1::ImageSpec {
                image: id.clone(),
                ..v1::ImageSpec::default()
            });
            match self
                .cri
                .remove_image(v1::RemoveImageRequest { image })
                .await
            {
                Ok(_) => removed += 1,
                Err(status) => tracing::warn!(image = id, why = status.message(), "image stays"),
            }
        }
        tracing::info!(removed, "removed images that no container uses");
        removed
    }
}

/// Ids of the images that are neither pinned nor any container's.
fn unused(images: &[v1::Image], containers: &[v1::Container]) -> Vec<String> {
    let mut used: BTreeSet<&str> = BTreeSet::new();
    for container in containers {
        used.insert(&container.image_ref);
        used.insert(&container.image_id);
        used.extend(container.image.as_ref().map(|i| i.image.as_str()));
    }
    let names = |image: &v1::Image| {
        let tags = image.repo_tags.iter().chain(&image.repo_digests);
        tags.chain([&image.id]).any(|n| used.contains(n.as_str()))
    };
    let free = images.iter().filter(|i| !i.pinned && !names(i));
    free.map(|i| i.id.clone()).collect()
}

fn is(known: &Known, uid: &str) -> bool {
    known.pod.metadata.uid.as_deref() == Some(uid)
}

fn over(known: &Known) -> bool {
    matches!(known.status.phase.as_deref(), Some("Succeeded" | "Failed"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_are_unused_when_no_container_names_them_in_any_way() {
        let image = |id: &str, tag: &str, pinned| v1::Image {
            id: id.into(),
            repo_tags: vec![tag.into()],
            pinned,
            ..v1::Image::default()
        };
        let images = [
            image("sha256:a", "a:1", false),
            image("sha256:b", "b:1", false),
            image("sha256:c", "c:1", false),
            image("sha256:p", "pause:3", true),
        ];
        let container = |image_ref: &str, image: &str| v1::Container {
            image_ref: image_ref.into(),
            image: Some(v1::ImageSpec {
                image: image.into(),
                ..v1::ImageSpec::default()
            }),
            ..v1::Container::default()
        };
        let containers = [container("sha256:a", ""), container("", "b:1")];
        assert_eq!(unused(&images, &containers), ["sha256:c"]);
    }
}
