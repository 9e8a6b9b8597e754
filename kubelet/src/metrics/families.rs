//! Buckets, and names under which families are registered.

use super::Metrics;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

/// Of the Prometheus client libraries.
const DEFAULT: [f64; 11] = [
    0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
];
const POD_START: [f64; 25] = [
    0.5, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0, 20.0, 30.0, 45.0, 60.0, 120.0, 180.0, 240.0,
    300.0, 360.0, 480.0, 600.0, 900.0, 1200.0, 1800.0, 2700.0, 3600.0,
];
const IMAGE_PULL: [f64; 18] = [
    1.0, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 180.0, 240.0, 300.0, 360.0, 480.0, 600.0, 900.0,
    1200.0, 1800.0, 2700.0, 3600.0,
];
const STATUS_SYNC: [f64; 11] = [0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0, 20.0, 30.0, 45.0, 60.0];

pub fn duration() -> Histogram {
    Histogram::new(DEFAULT)
}

pub fn runtime_duration() -> Histogram {
    Histogram::new(exponential_buckets(0.005, 2.5, 14))
}

pub fn image_pull() -> Histogram {
    Histogram::new(IMAGE_PULL)
}

/// kubernetes v1.37 pkg/kubelet/metrics/metrics.go `imageSizeBuckets`: more bytes than these.
const SIZES: [(u64, &str); 12] = [
    (100 << 30, "GT100GB"),
    (60 << 30, "60GB-100GB"),
    (40 << 30, "40GB-60GB"),
    (30 << 30, "30GB-40GB"),
    (20 << 30, "20GB-30GB"),
    (10 << 30, "10GB-20GB"),
    (5 << 30, "5GB-10GB"),
    (1 << 30, "1GB-5GB"),
    (500 << 20, "500MB-1GB"),
    (100 << 20, "100MB-500MB"),
    (10 << 20, "10MB-100MB"),
    (0, "0-10MB"),
];

/// The class of an image of so many bytes.
pub fn size(bytes: u64) -> &'static str {
    let found = SIZES.iter().find(|(least, _)| bytes > *least);
    found.map_or("N/A", |(_, label)| label)
}

pub fn pod_start() -> Histogram {
    Histogram::new(POD_START)
}

pub fn status_sync() -> Histogram {
    Histogram::new(STATUS_SYNC)
}

impl Metrics {
    /// What `/metrics` shows of it. Counters get their `_total` when written.
    pub fn register(&self, registry: &mut Registry) {
        self.register_runtime(registry);
        self.register_pods(registry);
        self.register_resources(registry);
        registry.register(
            "kubelet_evictions",
            "Pods ended because of a signal or limit",
            self.evictions.clone(),
        );
        registry.register(
            "kubelet_image_garbage_collected",
            "Images removed that nobody used",
            self.images_removed.clone(),
        );
        registry.register(
            "kubelet_graceful_shutdown_start_time_seconds",
            "When the last orderly shutdown began, seconds since 1970",
            self.shutdown_start.clone(),
        );
        registry.register(
            "kubelet_graceful_shutdown_end_time_seconds",
            "When the last orderly shutdown ended, seconds since 1970",
            self.shutdown_end.clone(),
        );
        self.requests.register(registry);
        self.storage.register(registry);
    }

    fn register_runtime(&self, registry: &mut Registry) {
        registry.register(
            "kubelet_runtime_operations",
            "Runtime operations by type",
            self.runtime_operations.clone(),
        );
        registry.register(
            "kubelet_runtime_operations_errors",
            "Runtime operations that failed, by type",
            self.runtime_errors.clone(),
        );
        registry.register(
            "kubelet_runtime_operations_duration_seconds",
            "Duration of runtime operations by type",
            self.runtime_duration.clone(),
        );
        registry.register(
            "kubelet_run_podsandbox_duration_seconds",
            "Duration of making a sandbox, by RuntimeClass handler",
            self.sandbox_duration.clone(),
        );
        registry.register(
            "kubelet_run_podsandbox_errors",
            "Sandboxes that could not be made, by RuntimeClass handler",
            self.sandbox_errors.clone(),
        );
        registry.register(
            "kubelet_image_pull_duration_seconds",
            "Duration of image pulls",
            self.image_pull.clone(),
        );
    }

    fn register_pods(&self, registry: &mut Registry) {
        let counters = [
            ("kubelet_started_pods", "Pods started", &self.started_pods),
            (
                "kubelet_started_pods_errors",
                "Errors when pods were started",
                &self.started_pods_errors,
            ),
            (
                "kubelet_started_user_namespaced_pods",
                "Pods started with a user namespace",
                &self.started_userns_pods,
            ),
            (
                "kubelet_started_user_namespaced_pods_errors",
                "Errors when pods with a user namespace were started",
                &self.started_userns_pods_errors,
            ),
        ];
        for (name, help, counter) in counters {
            registry.register(name, help, counter.clone());
        }
        registry.register(
            "kubelet_started_containers",
            "Containers started, by type",
            self.started_containers.clone(),
        );
        registry.register(
            "kubelet_started_containers_errors",
            "Errors when containers were started, by type and reason",
            self.started_containers_errors.clone(),
        );
        registry.register(
            "kubelet_terminated_containers",
            "Containers that ended, by type, exit code and reason",
            self.terminated_containers.clone(),
        );
        registry.register(
            "kubelet_pod_start_duration_seconds",
            "From the pod's being seen here to its running",
            self.pod_start.clone(),
        );
        registry.register(
            "kubelet_pod_start_total_duration_seconds",
            "From the pod's creation to all its containers' running, pulls and init containers included",
            self.pod_start_total.clone(),
        );
        registry.register(
            "kubelet_pod_start_sli_duration_seconds",
            "From the pod's creation to all its containers' running, without pulls and init containers",
            self.pod_start_sli.clone(),
        );
        registry.register(
            "kubelet_first_network_pod_start_sli_duration_seconds",
            "The same of the first pod that is not on the host's network; 0 until there is one",
            self.first_network_pod.clone(),
        );
        registry.register(
            "kubelet_pod_worker_duration_seconds",
            "Duration of a piece of a pod's work: create before it runs, sync after",
            self.pod_worker.clone(),
        );
        registry.register(
            "kubelet_cgroup_manager_duration_seconds",
            "Duration of making and limiting the cgroups above those of pods",
            self.cgroup_manager.clone(),
        );
        registry.register(
            "kubelet_pod_status_sync_duration_seconds",
            "From a change of a pod's status to the API server's having it",
            self.status_sync.clone(),
        );
    }

    /// What `/metrics/probes` shows.
    pub fn register_probes(&self, registry: &mut Registry) {
        registry.register(
            "prober_probe",
            "Answers of probes by result",
            self.probes.clone(),
        );
        registry.register(
            "prober_probe_duration_seconds",
            "Duration of probes",
            self.probe_duration.clone(),
        );
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn size_of_an_image_is_told_by_its_class() {
        for (bytes, class) in [
            (0, "N/A"),
            (1, "0-10MB"),
            (10 << 20, "0-10MB"),
            ((10 << 20) + 1, "10MB-100MB"),
            (2 << 30, "1GB-5GB"),
            (1 << 40, "GT100GB"),
        ] {
            assert_eq!(super::size(bytes), class, "{bytes}");
        }
    }
}
