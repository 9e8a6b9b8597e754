//! Looks at what is short, and acts.

use super::images::Images;
use super::local;
use super::rank::{self, Resource, critical};
use super::usage::{self, Folders, PodUsed};
use crate::defaults::EVICTION_MONITORING_PERIOD;
use crate::event::{EventType, Recorder};
use crate::metrics::Metrics;
use crate::node::Shortage;
use crate::pod::spec::labels;
use crate::pod::{Engine, Known, PodView as _};
use crate::status::is_over;
use cri_proto::{Cri, v1};
use k8s_openapi::api::core::v1::Pod;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// kubernetes v1.37 pkg/kubelet/eviction/eviction_manager.go `podCleanupTimeout`.
const CLEANUP: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(200);
/// Kinds of volumes that count as the pod's own: kubernetes v1.37 pkg/volume/util
/// `IsLocalEphemeralVolume`.
const LOCAL_VOLUMES: [&str; 2] = ["kubernetes.io~empty-dir", "kubernetes.io~configmap"];

/// What an evictor works with.
pub struct EvictorOptions {
    /// The name of the Node.
    pub node_name: String,
    /// `/var/lib/kubelet`.
    pub root_dir: PathBuf,
    /// `/var/log/pods`.
    pub pod_logs_root: PathBuf,
    /// `evictionMaxPodGracePeriod`, in seconds.
    pub max_pod_grace: i64,
    /// `localStorageCapacityIsolation`.
    pub local_storage_isolation: bool,
}

/// Ends pods as long as something is short, and those that exceed their share of the disk.
pub struct Evictor {
    engine: Arc<Engine>,
    cri: Arc<dyn Cri>,
    events: Arc<dyn Recorder>,
    metrics: Metrics,
    images: Arc<Images>,
    options: EvictorOptions,
}

impl Evictor {
    /// Does nothing before [`Evictor::run`].
    pub fn new(
        (engine, images): (Arc<Engine>, Arc<Images>),
        cri: Arc<dyn Cri>,
        events: Arc<dyn Recorder>,
        metrics: Metrics,
        options: EvictorOptions,
    ) -> Self {
        Self {
            engine,
            cri,
            events,
            metrics,
            images,
            options,
        }
    }

    /// Acts on each measurement that `shortages` brings, until `shutdown`.
    pub async fn run(
        self,
        mut shortages: watch::Receiver<Vec<Shortage>>,
        shutdown: CancellationToken,
    ) {
        let mut round = tokio::time::interval(EVICTION_MONITORING_PERIOD);
        round.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let measured = tokio::select! {
                () = shutdown.cancelled() => return,
                measured = shortages.changed() => measured,
                _ = round.tick(), if self.options.local_storage_isolation => {
                    self.hold_to_limits().await;
                    continue;
                }
            };
            if measured.is_err() {
                return;
            }
            // Memory first: its lack is felt first.
            let worst = shortages
                .borrow_and_update()
                .iter()
                .min_by_key(|s| (s.signal, s.soft))
                .copied();
            if let Some(worst) = worst {
                self.relieve(&worst).await;
            }
        }
    }

    /// Ends every pod that keeps more on the disk than it may.
    async fn hold_to_limits(&self) {
        let limited =
            |k: &Known| !is_over(&k.status) && local::limited(&k.pod) && !critical(&k.pod);
        if !self.engine.pods().iter().any(limited) {
            return;
        }
        for (pod, used) in self.used(true, limited).await {
            let Some((limit, verdict)) = local::exceeded(&pod, &used) else {
                continue;
            };
            tracing::warn!(pod = pod.metadata.name, why = verdict.message, "evicting");
            self.metrics.evicted(limit);
            let uid = pod.metadata.uid.as_deref().unwrap_or_default();
            self.engine.evict(uid, verdict);
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
        if on_disk && self.remove_unused().await > 0 {
            return;
        }
        let pods = self.used(on_disk, |k| !is_over(&k.status)).await;
        let Some((pod, used)) = rank::first(pods, resource) else {
            tracing::warn!(
                resource = resource.name(),
                "short, and there is no pod to evict"
            );
            return;
        };
        let verdict = rank::verdict(&pod, &used, shortage, self.options.max_pod_grace);
        self.metrics.evicted(shortage.signal.name());
        tracing::warn!(pod = pod.metadata.name, why = verdict.message, "evicting");
        let uid = pod.metadata.uid.clone().unwrap_or_default();
        self.engine.evict(&uid, verdict);
        // One at a time: what it held is to be counted before the next.
        let gone = async {
            while self
                .engine
                .pods()
                .iter()
                .any(|k| is(k, &uid) && !is_over(&k.status))
            {
                tokio::time::sleep(POLL).await;
            }
        };
        let _ = tokio::time::timeout(CLEANUP, gone).await;
    }

    fn say(&self, reason: &str, message: &str) {
        let about = super::node(&self.options.node_name);
        self.events
            .record(&about, EventType::Warning, reason, message);
    }

    /// Pods of a kind that run, and what each uses; their files are counted only if asked for.
    async fn used(
        &self,
        with_files: bool,
        wanted: impl Fn(&Known) -> bool,
    ) -> Vec<(Arc<Pod>, PodUsed)> {
        let request = v1::ListPodSandboxStatsRequest { filter: None };
        let stats = match self.cri.list_pod_sandbox_stats(request).await {
            Ok(answer) => answer.stats,
            Err(status) => {
                tracing::warn!(why = status.message(), "nobody knows what pods use");
                return Vec::new();
            }
        };
        let mut by_uid: BTreeMap<String, PodUsed> = stats
            .iter()
            .filter_map(|s| {
                let metadata = s.attributes.as_ref()?.metadata.as_ref()?;
                Some((metadata.uid.clone(), usage::of_sandbox(s)))
            })
            .collect();
        let mut pods = Vec::new();
        for known in self.engine.pods().into_iter().filter(wanted) {
            let uid = known.pod.metadata.uid.as_deref().unwrap_or_default();
            let Some(mut used) = by_uid.remove(uid) else {
                continue;
            };
            if with_files {
                used = self.with_files(&known.pod, used).await;
            }
            pods.push((known.pod, used));
        }
        pods
    }

    async fn with_files(&self, pod: &Pod, used: PodUsed) -> PodUsed {
        let text = |field: &Option<String>| field.clone().unwrap_or_default();
        let meta = &pod.metadata;
        let uid = text(&meta.uid);
        let log = format!("{}_{}_{uid}", text(&meta.namespace), text(&meta.name));
        let volumes = self.options.root_dir.join("pods").join(uid).join("volumes");
        let folders = Folders {
            logs: self.options.pod_logs_root.join(log),
            volumes: LOCAL_VOLUMES.map(|kind| volumes.join(kind)).into(),
        };
        let mut counted = used.clone();
        let count = move || {
            counted.add_files(&folders);
            counted
        };
        tokio::task::spawn_blocking(count).await.unwrap_or(used)
    }

    /// Containers that have ended and images that nobody uses; answers how many went.
    async fn remove_unused(&self) -> usize {
        let containers = self.remove_ended().await;
        let images = self.images.remove_unused().await;
        tracing::info!(containers, images, "removed what nobody uses");
        // What a container has written is small beside what it can't tell any more: only
        // images count as relief.
        images
    }

    /// The containers of pods that are over.
    async fn remove_ended(&self) -> usize {
        let pods = self.engine.pods().into_iter();
        let ended: BTreeSet<String> = pods
            .filter(|k| is_over(&k.status))
            .filter_map(|k| k.pod.metadata.uid.clone())
            .collect();
        let request = v1::ListContainersRequest { filter: None };
        let containers = match self.cri.list_containers(request).await {
            Ok(answer) => answer.containers,
            Err(_) => return 0,
        };
        let dead = containers.into_iter().filter(|c| {
            let uid = c.labels.get(labels::POD_UID);
            c.state() == v1::ContainerState::ContainerExited
                && uid.is_some_and(|uid| ended.contains(uid))
        });
        let mut removed = 0;
        for container in dead {
            let request = v1::RemoveContainerRequest {
                container_id: container.id,
            };
            removed += usize::from(self.cri.remove_container(request).await.is_ok());
        }
        removed
    }
}

fn is(known: &Known, uid: &str) -> bool {
    known.pod.metadata.uid.as_deref() == Some(uid)
}
