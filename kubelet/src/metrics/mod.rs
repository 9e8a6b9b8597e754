//! What the kubelet counts of its work, for `/metrics` and `/metrics/probes`.
//!
//! Names, labels and buckets are those of kubelet 1.37
//! (`pkg/kubelet/metrics/metrics.go`, `pkg/kubelet/prober/prober_manager.go`),
//! so that dashboards and alerts go on working. Counters are handles: clones
//! count together. Whoever does the work counts it.

mod families;
mod labels;
mod requests;
mod resources;
mod runtime;
pub mod storage;

pub use labels::Probed;
pub use requests::Requests;
pub use resources::{Answer, PodResourcesCall};
pub use storage::StorageOperations;

use jiff::Timestamp;
use labels::{
    ContainerType, Handler, Operation, ProbeKind, ProbeResult, Reason, Signal, Size, Terminated,
    TypeAndCode,
};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

/// Everything that is counted from the agent's start on.
#[derive(Clone)]
pub struct Metrics {
    runtime_operations: Family<Operation, Counter>,
    runtime_errors: Family<Operation, Counter>,
    runtime_duration: Family<Operation, Histogram, fn() -> Histogram>,
    sandbox_duration: Family<Handler, Histogram, fn() -> Histogram>,
    sandbox_errors: Family<Handler, Counter>,
    image_pull: Family<Size, Histogram, fn() -> Histogram>,
    started_pods: Counter,
    started_pods_errors: Counter,
    started_userns_pods: Counter,
    started_userns_pods_errors: Counter,
    started_containers: Family<ContainerType, Counter>,
    started_containers_errors: Family<TypeAndCode, Counter>,
    terminated_containers: Family<Terminated, Counter>,
    pod_start: Histogram,
    pod_start_total: Histogram,
    pod_start_sli: Histogram,
    /// Seconds; 0 until there is one.
    first_network_pod: Gauge<f64, AtomicU64>,
    pod_worker: Family<Operation, Histogram, fn() -> Histogram>,
    cgroup_manager: Family<Operation, Histogram, fn() -> Histogram>,
    status_sync: Histogram,
    probes: Family<ProbeResult, Counter>,
    probe_duration: Family<ProbeKind, Histogram, fn() -> Histogram>,
    evictions: Family<Signal, Counter>,
    images_removed: Family<Reason, Counter>,
    shutdown_start: Gauge,
    shutdown_end: Gauge,
    requests: Requests,
    storage: StorageOperations,
    resources: resources::Resources,
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new(Requests::default())
    }
}

impl Metrics {
    /// `requests` is what clients of the API server count.
    #[must_use]
    pub fn new(requests: Requests) -> Metrics {
        Metrics {
            runtime_operations: Family::default(),
            runtime_errors: Family::default(),
            runtime_duration: Family::new_with_constructor(families::runtime_duration),
            sandbox_duration: Family::new_with_constructor(families::duration),
            sandbox_errors: Family::default(),
            image_pull: Family::new_with_constructor(families::image_pull),
            started_pods: Counter::default(),
            started_pods_errors: Counter::default(),
            started_userns_pods: Counter::default(),
            started_userns_pods_errors: Counter::default(),
            started_containers: Family::default(),
            started_containers_errors: Family::default(),
            terminated_containers: Family::default(),
            pod_start: families::pod_start(),
            pod_start_total: families::pod_start(),
            pod_start_sli: families::pod_start(),
            first_network_pod: Gauge::default(),
            pod_worker: Family::new_with_constructor(families::duration),
            cgroup_manager: Family::new_with_constructor(families::duration),
            status_sync: families::status_sync(),
            probes: Family::default(),
            probe_duration: Family::new_with_constructor(families::duration),
            evictions: Family::default(),
            images_removed: Family::default(),
            shutdown_start: Gauge::default(),
            shutdown_end: Gauge::default(),
            requests,
            storage: StorageOperations::default(),
            resources: resources::Resources::default(),
        }
    }

    /// One more pod was ended, because of this signal or limit.
    pub fn evicted(&self, eviction_signal: &'static str) {
        let label = Signal { eviction_signal };
        self.evictions.get_or_create(&label).inc();
    }

    /// One more image was removed, for `age` or for `space`.
    pub fn image_removed(&self, reason: &'static str) {
        let label = Reason { reason };
        self.images_removed.get_or_create(&label).inc();
    }

    /// What is done for volumes.
    #[must_use]
    pub fn storage(&self) -> StorageOperations {
        self.storage.clone()
    }

    /// An image of so many bytes was pulled; 0 where the runtime did not say.
    pub fn image_pulled(&self, bytes: u64, took: Duration) {
        let image_size_in_bytes = families::size(bytes);
        let size = Size {
            image_size_in_bytes,
        };
        let histogram = self.image_pull.get_or_create(&size);
        histogram.observe(took.as_secs_f64());
    }

    /// When the last orderly shutdown of the machine began and ended.
    pub fn shutdown_times(&self, start: Option<Timestamp>, end: Option<Timestamp>) {
        let seconds = |time: Option<Timestamp>| time.map_or(0, Timestamp::as_second);
        self.shutdown_start.set(seconds(start));
        self.shutdown_end.set(seconds(end));
    }

    /// A container's start, and the error that it ended with.
    pub fn container_started(&self, container_type: &'static str, error: Option<&str>) {
        let kind = ContainerType { container_type };
        self.started_containers.get_or_create(&kind).inc();
        if let Some(code) = error {
            let labels = TypeAndCode {
                container_type,
                code: code.to_owned(),
            };
            self.started_containers_errors.get_or_create(&labels).inc();
        }
    }

    /// Whatever failed of the start of a pod with a user namespace.
    pub fn userns_pod_failed(&self) {
        self.started_userns_pods_errors.inc();
    }

    /// A container's end, as its status tells it.
    pub fn container_terminated(&self, container_type: &'static str, code: i32, reason: &str) {
        let labels = Terminated {
            container_type,
            exit_code: code,
            reason: reason.to_owned(),
        };
        self.terminated_containers.get_or_create(&labels).inc();
    }

    /// A pod runs that did not before, so long after it was seen here.
    pub fn pod_runs(&self, since_seen: Duration) {
        self.pod_start.observe(since_seen.as_secs_f64());
    }

    /// All containers of a pod run, so long after its creation, and what of that counts for the
    /// service level indicator of pods' starts, if it does.
    pub fn pod_started(&self, total: Duration, sli: Option<Duration>, host_network: bool) {
        self.pod_start_total.observe(total.as_secs_f64());
        let Some(seconds) = sli.map(|sli| sli.as_secs_f64()) else {
            return;
        };
        self.pod_start_sli.observe(seconds);
        if !host_network && self.first_network_pod.get() == 0.0 {
            self.first_network_pod.set(seconds);
        }
    }

    /// A piece of a pod's work, `create` before it runs and `sync` after.
    pub fn pod_worked(&self, operation_type: &'static str, took: Duration) {
        let labels = Operation { operation_type };
        let histogram = self.pod_worker.get_or_create(&labels);
        histogram.observe(took.as_secs_f64());
    }

    /// A cgroup above those of pods was made (`create`) or written to (`update`); pods' own are the
    /// runtime's.
    pub fn cgroup_managed(&self, operation_type: &'static str, took: Duration) {
        let labels = Operation { operation_type };
        let histogram = self.cgroup_manager.get_or_create(&labels);
        histogram.observe(took.as_secs_f64());
    }

    /// From a status that differs to the API server's having it.
    pub fn status_written(&self, took: Duration) {
        self.status_sync.observe(took.as_secs_f64());
    }

    /// One answer of a probe.
    pub fn probe(&self, of: &Probed, result: &'static str, took: Duration) {
        let labels = ProbeResult {
            of: of.clone(),
            result,
        };
        self.probes.get_or_create(&labels).inc();
        let histogram = self.probe_duration.get_or_create(&ProbeKind::of(of));
        histogram.observe(took.as_secs_f64());
    }

    /// The probe has ended with its container: its series go, or there would be
    /// more of them with every pod.
    pub fn probe_ended(&self, of: &Probed) {
        for result in [SUCCESSFUL, FAILED, UNKNOWN] {
            let of = of.clone();
            self.probes.remove(&ProbeResult { of, result });
        }
        self.probe_duration.remove(&ProbeKind::of(of));
    }
}

/// Results of probes (`pkg/kubelet/prober/prober_manager.go`).
pub const SUCCESSFUL: &str = "successful";
#[allow(missing_docs)]
pub const FAILED: &str = "failed";
#[allow(missing_docs)]
pub const UNKNOWN: &str = "unknown";

/// Types of containers (`pkg/kubelet/metrics`).
pub const CONTAINER: &str = "container";
#[allow(missing_docs)]
pub const INIT_CONTAINER: &str = "init_container";
#[allow(missing_docs)]
pub const EPHEMERAL_CONTAINER: &str = "ephemeral_container";
