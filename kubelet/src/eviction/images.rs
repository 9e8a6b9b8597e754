//! Removes images that nobody uses.

use super::garbage::{self, Records, Unused};
use crate::config::ImageGc;
use crate::event::{EventType, Recorder};
use crate::metrics::Metrics;
use crate::node::disk::{self, Disk};
use crate::pod::spec::labels;
use crate::pod::{Engine, PodView as _};
use cri_proto::{Cri, Status, v1};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;

/// Images of the node, and since when they are there.
pub struct Images {
    cri: Arc<dyn Cri>,
    engine: Arc<Engine>,
    events: Arc<dyn Recorder>,
    metrics: Metrics,
    node_name: String,
    policy: ImageGc,
    records: Mutex<Records>,
}

/// Why not enough could be removed.
#[derive(Debug, thiserror::Error)]
enum GarbageError {
    #[error("ask the runtime: {}", .0.message())]
    Runtime(#[from] Status),
    #[error("invalid capacity 0 on image filesystem")]
    NoCapacity,
    #[error("{0}")]
    Insufficient(String),
}

impl Images {
    /// Does nothing before [`Images::run`].
    pub fn new(
        engine: Arc<Engine>,
        cri: Arc<dyn Cri>,
        events: Arc<dyn Recorder>,
        metrics: Metrics,
        (node_name, policy): (&str, ImageGc),
    ) -> Arc<Self> {
        Arc::new(Self {
            cri,
            engine,
            events,
            metrics,
            node_name: node_name.to_owned(),
            policy,
            records: Mutex::default(),
        })
    }

    /// Collects until `shutdown`.
    pub async fn run(self: Arc<Self>, shutdown: CancellationToken) {
        let mut failed = false;
        loop {
            let wait = match self.collect().await {
                Ok(wait) => {
                    failed = false;
                    wait
                }
                Err((error, wait)) => {
                    tracing::warn!(%error, "images are not collected as wanted");
                    // Once may be the beginning: the runtime is not there yet.
                    if std::mem::replace(&mut failed, true) {
                        self.warn("ImageGCFailed", &error.to_string());
                    }
                    wait
                }
            };
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep(wait) => {}
            }
        }
    }

    /// All that nobody uses and that is old enough; answers how many went.
    pub async fn remove_unused(&self) -> usize {
        let unused = match self.unused().await {
            Ok(unused) => garbage::old_enough(&unused, &self.policy, Instant::now()),
            Err(status) => {
                tracing::warn!(why = status.message(), "nobody knows the images");
                return 0;
            }
        };
        self.remove(&unused, u64::MAX, "space").await.0
    }

    /// One round; answers when the next should be.
    async fn collect(&self) -> Result<Duration, (GarbageError, Duration)> {
        let usual = crate::defaults::IMAGE_GC_PERIOD;
        let unused = self.unused().await.map_err(|e| (e.into(), usual))?;
        if !self.policy.is_on() {
            return Ok(usual);
        }
        let now = Instant::now();
        let aged = garbage::aged(&unused, &self.policy, now);
        self.remove(&aged, u64::MAX, "age").await;
        let left: Vec<Unused> = unused.into_iter().filter(|i| !aged.contains(i)).collect();
        let disk = self.disk().await.map_err(|e| (e, usual))?;
        let Some(excess) = garbage::excess(&disk, &self.policy) else {
            return Ok(garbage::wait(&left, &self.policy, now, false));
        };
        let old = garbage::old_enough(&left, &self.policy, now);
        let (_, freed) = self.remove(&old, excess, "space").await;
        let wait = garbage::wait(&left, &self.policy, now, freed < excess);
        match freed < excess {
            true => Err((self.insufficient(&disk, freed), wait)),
            false => Ok(wait),
        }
    }

    /// In upstream's words.
    fn insufficient(&self, disk: &Disk, freed: u64) -> GarbageError {
        let free = disk.available.min(disk.capacity);
        let percent = 100 - u128::from(free) * 100 / u128::from(disk.capacity.max(1));
        let message = format!(
            "Insufficient free disk space on the node's image filesystem ({percent}% of {} used). \
             Failed to free sufficient space by deleting unused images (freed {freed} bytes). \
             Investigate disk usage, as it could be used by active images, logs, volumes, or \
             other data.",
            rounded(disk.capacity)
        );
        self.warn("FreeDiskSpaceFailed", &message);
        GarbageError::Insufficient(message)
    }

    fn warn(&self, reason: &str, message: &str) {
        let about = super::node(&self.node_name);
        self.events
            .record(&about, EventType::Warning, reason, message);
    }

    async fn disk(&self) -> Result<Disk, GarbageError> {
        let info = self.cri.image_fs_info(v1::ImageFsInfoRequest {}).await?;
        let first = info.image_filesystems.into_iter().next();
        let mountpoint = first.and_then(|fs| fs.fs_id).map(|id| id.mountpoint);
        let found = mountpoint.and_then(|m| disk::of(m.as_ref()));
        let found = found.filter(|d| d.capacity > 0);
        if found.is_none() {
            self.warn("InvalidDiskCapacity", &GarbageError::NoCapacity.to_string());
        }
        found.ok_or(GarbageError::NoCapacity)
    }

    async fn unused(&self) -> Result<Vec<Unused>, Status> {
        let mut records = self.records.lock().await;
        let images = self.cri.list_images(v1::ListImagesRequest { filter: None });
        let images = images.await?.images;
        let used = self.used().await?;
        Ok(records.observe(&images, &used, Instant::now()))
    }

    /// Everything that containers call their images, those of image volumes included.
    async fn used(&self) -> Result<BTreeSet<String>, Status> {
        let request = v1::ListContainersRequest { filter: None };
        let containers = self.cri.list_containers(request).await?.containers;
        let with_images: BTreeSet<String> = self
            .engine
            .pods()
            .iter()
            .filter(|k| has_image_volume(&k.pod))
            .filter_map(|k| k.pod.metadata.uid.clone())
            .collect();
        let mut used = BTreeSet::new();
        for container in containers {
            let uid = container.labels.get(labels::POD_UID);
            if uid.is_some_and(|uid| with_images.contains(uid)) {
                used.extend(self.mounted(&container.id).await);
            }
            used.insert(container.image_ref);
            used.insert(container.image_id);
            used.extend(container.image.map(|i| i.image));
        }
        Ok(used)
    }

    /// A container that is gone meanwhile mounts nothing.
    async fn mounted(&self, id: &str) -> Vec<String> {
        let request = v1::ContainerStatusRequest {
            container_id: id.to_owned(),
            verbose: false,
        };
        let status = self.cri.container_status(request).await;
        let mounts = status.ok().and_then(|s| s.status).map(|s| s.mounts);
        let images = mounts.into_iter().flatten().filter_map(|m| m.image);
        images.flat_map(|i| [i.image, i.image_ref]).collect()
    }

    /// Until so many bytes are free; answers how many went, and their bytes.
    async fn remove(&self, unused: &[Unused], bytes: u64, why: &'static str) -> (usize, u64) {
        let (mut removed, mut freed) = (0, 0);
        for image in unused {
            if freed >= bytes {
                break;
            }
            let spec = v1::ImageSpec {
                image: image.id.clone(),
                ..v1::ImageSpec::default()
            };
            let request = v1::RemoveImageRequest { image: Some(spec) };
            match self.cri.remove_image(request).await {
                Ok(_) => {
                    (removed, freed) = (removed + 1, freed + image.bytes);
                    self.metrics.image_removed(why);
                    tracing::info!(image = image.id, why, "removed an image that nobody uses");
                }
                Err(e) => tracing::warn!(image = image.id, why = e.message(), "image stays"),
            }
        }
        (removed, freed)
    }
}

fn has_image_volume(pod: &k8s_openapi::api::core::v1::Pod) -> bool {
    let volumes = pod.spec.iter().flat_map(|s| s.volumes.iter().flatten());
    volumes.into_iter().any(|v| v.image.is_some())
}

/// kubernetes v1.37 pkg/kubelet/images/image_gc_manager.go `formatSize`.
fn rounded(bytes: u64) -> String {
    let mut size = bytes as f64;
    let mut unit = "B";
    for next in ["KiB", "MiB", "GiB", "TiB"] {
        if size < 1024.0 {
            break;
        }
        (size, unit) = (size / 1024.0, next);
    }
    match unit {
        "B" => format!("{bytes} B"),
        unit => format!("{size:.1} {unit}"),
    }
}
