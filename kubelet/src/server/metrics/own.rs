//! What the kubelet counts of itself.

use crate::pod::Known;
use crate::volume::usage::{Usage, VolumeUsage};
use axum::http::Method;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use std::sync::atomic::AtomicU64;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    method: String,
    path: String,
    server_type: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct NodeLabel {
    node: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct SignalLabel {
    eviction_signal: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReasonLabel {
    reason: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StateLabel {
    container_state: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ClaimLabels {
    namespace: String,
    persistentvolumeclaim: String,
}

/// Counters that live as long as the process.
#[derive(Default, Clone)]
pub struct Metrics {
    requests: Family<RequestLabels, Counter>,
    ttl: Gauge<f64, AtomicU64>,
    evictions: Family<SignalLabel, Counter>,
    images_removed: Family<ReasonLabel, Counter>,
}

impl Metrics {
    /// One more request.
    pub(in crate::server) fn request(&self, method: &Method, path: &str) {
        // The first part only: names of pods would make a series each.
        let root = path
            .trim_start_matches('/')
            .split('/')
            .next()
            .unwrap_or_default();
        let labels = RequestLabels {
            method: method.to_string(),
            path: root.to_owned(),
            server_type: "readwrite",
        };
        self.requests.get_or_create(&labels).inc();
    }

    /// One more pod was ended, because of this signal or limit.
    pub(crate) fn evicted(&self, eviction_signal: &'static str) {
        let label = SignalLabel { eviction_signal };
        self.evictions.get_or_create(&label).inc();
    }

    /// One more image was removed, for `age` or for `space`.
    pub(crate) fn image_removed(&self, reason: &'static str) {
        let label = ReasonLabel { reason };
        self.images_removed.get_or_create(&label).inc();
    }

    /// How long the client certificate is still good for, in seconds.
    pub fn client_certificate_ttl(&self, seconds: f64) {
        self.ttl.set(seconds);
    }

    /// As Prometheus reads it.
    pub(in crate::server) fn encode(
        &self,
        node_name: &str,
        pods: &[Known],
        volumes: &[VolumeUsage],
    ) -> String {
        let mut registry = Registry::default();
        registry.register(
            "kubelet_http_requests",
            "Number of HTTP requests",
            self.requests.clone(),
        );
        registry.register(
            "kubelet_certificate_manager_client_ttl_seconds",
            "Seconds until the client certificate expires",
            self.ttl.clone(),
        );
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
        self.node(&mut registry, node_name);
        running(&mut registry, pods);
        of_claims(&mut registry, volumes);
        process(&mut registry);
        let mut text = String::new();
        match encode(&mut text, &registry) {
            Ok(()) => text,
            Err(_) => String::new(),
        }
    }

    fn node(&self, registry: &mut Registry, node_name: &str) {
        let name = Family::<NodeLabel, Gauge>::default();
        let label = NodeLabel {
            node: node_name.to_owned(),
        };
        name.get_or_create(&label).set(1);
        registry.register("kubelet_node_name", "The node's name, always 1", name);
    }
}

/// kubernetes v1.37 pkg/kubelet/metrics/collectors/volume_stats.go.
fn of_claims(registry: &mut Registry, volumes: &[VolumeUsage]) {
    type Figure = fn(&Usage) -> Option<u64>;
    let families: [(&str, &str, Figure); 6] = [
        ("capacity_bytes", "Capacity in bytes of the volume", |u| {
            u.capacity
        }),
        (
            "available_bytes",
            "Number of available bytes in the volume",
            |u| u.available,
        ),
        ("used_bytes", "Number of used bytes in the volume", |u| {
            u.used
        }),
        ("inodes", "Maximum number of inodes in the volume", |u| {
            u.inodes
        }),
        ("inodes_free", "Number of free inodes in the volume", |u| {
            u.inodes_free
        }),
        ("inodes_used", "Number of used inodes in the volume", |u| {
            u.inodes_used
        }),
    ];
    for (name, help, figure) in families {
        let family = Family::<ClaimLabels, Gauge>::default();
        for volume in volumes {
            let (Some((namespace, claim)), Some(value)) = (&volume.claim, figure(&volume.usage))
            else {
                continue;
            };
            let labels = ClaimLabels {
                namespace: namespace.clone(),
                persistentvolumeclaim: claim.clone(),
            };
            let value = i64::try_from(value).unwrap_or(i64::MAX);
            family.get_or_create(&labels).set(value);
        }
        registry.register(format!("kubelet_volume_stats_{name}"), help, family);
    }
}

fn running(registry: &mut Registry, pods: &[Known]) {
    let (sandboxes, containers) = (
        Gauge::<i64>::default(),
        Family::<StateLabel, Gauge>::default(),
    );
    for known in pods {
        if known.status.phase.as_deref() == Some("Running") {
            sandboxes.inc();
        }
        for status in known.status.container_statuses.iter().flatten() {
            let state = status.state.as_ref();
            let state = match state {
                Some(s) if s.running.is_some() => "running",
                Some(s) if s.terminated.is_some() => "exited",
                _ => "created",
            };
            let label = StateLabel {
                container_state: state,
            };
            containers.get_or_create(&label).inc();
        }
    }
    registry.register(
        "kubelet_running_pods",
        "Pods with a running sandbox",
        sandboxes,
    );
    registry.register(
        "kubelet_running_containers",
        "Containers by state",
        containers,
    );
    let desired = Gauge::<i64>::default();
    desired.set(i64::try_from(pods.len()).unwrap_or(i64::MAX));
    registry.register("kubelet_desired_pods", "Pods that are to run here", desired);
}

/// Of /proc/self: what every Prometheus client reports.
fn process(registry: &mut Registry) {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // The command may have spaces; fields are counted from behind it.
    let fields: Vec<&str> = stat
        .rsplit(')')
        .next()
        .unwrap_or_default()
        .split_whitespace()
        .collect();
    let field = |n: usize| {
        fields
            .get(n)
            .and_then(|f| f.parse::<f64>().ok())
            .unwrap_or_default()
    };
    let mut gauge = |name: &str, help: &str, value: f64| {
        let gauge = Gauge::<f64, AtomicU64>::default();
        gauge.set(value);
        registry.register(name, help, gauge);
    };
    let open = std::fs::read_dir("/proc/self/fd").map_or(0, Iterator::count);
    gauge(
        "process_resident_memory_bytes",
        "Resident memory",
        field(21) * PAGE,
    );
    gauge("process_virtual_memory_bytes", "Virtual memory", field(20));
    gauge("process_open_fds", "Open file descriptors", open as f64);
    gauge("process_threads", "Threads", field(17));
    let cpu = Counter::<f64, AtomicU64>::default();
    cpu.inc_by((field(11) + field(12)) / super::node::TICKS);
    registry.register("process_cpu_seconds", "CPU time", cpu);
}

/// Bytes; the same on every Linux this runs on.
const PAGE: f64 = 4096.0;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_counted_by_the_first_part_of_their_path() {
        let metrics = Metrics::default();
        metrics.request(&Method::GET, "/containerLogs/a/b/c");
        metrics.request(&Method::GET, "/containerLogs/d/e/f");
        let volume = VolumeUsage {
            name: "v".into(),
            claim: Some(("ns".into(), "c".into())),
            usage: Usage {
                capacity: Some(7),
                ..Usage::default()
            },
        };
        let text = metrics.encode("n1", &[], &[volume]);
        let claim = "capacity_bytes{namespace=\"ns\",persistentvolumeclaim=\"c\"} 7";
        assert!(text.contains(claim), "{text}");
        let line = "kubelet_http_requests_total{method=\"GET\",path=\"containerLogs\",server_type=\"readwrite\"} 2";
        assert!(text.contains(line), "{text}");
        assert!(text.contains("kubelet_node_name{node=\"n1\"} 1"), "{text}");
        assert!(text.contains("process_cpu_seconds_total"), "{text}");
    }
}
