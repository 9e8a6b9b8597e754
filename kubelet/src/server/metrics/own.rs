//! What the kubelet counts of itself.

use super::pods;
use crate::metrics::Metrics as Work;
use crate::pod::Known;
use crate::volume::usage::{Usage, VolumeUsage};
use axum::http::Method;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use std::collections::BTreeMap;
use std::sync::atomic::AtomicU64;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    long_running: &'static str,
    method: String,
    path: String,
    server_type: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct NodeLabel {
    node: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct BuildLabels {
    build_date: &'static str,
    compiler: &'static str,
    git_commit: &'static str,
    git_tree_state: &'static str,
    git_version: &'static str,
    go_version: &'static str,
    major: String,
    minor: String,
    platform: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ClaimLabels {
    namespace: String,
    persistentvolumeclaim: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct VolumeLabels {
    plugin_name: String,
    state: &'static str,
}

/// Volumes by plugin and state.
type Totals = BTreeMap<(String, &'static str), i64>;

/// Counters that live as long as the process.
#[derive(Default, Clone)]
pub struct Metrics {
    requests: Family<RequestLabels, Counter>,
    certificates: Certificates,
    work: Work,
}

/// Those that the cluster issues.
#[derive(Default, Clone)]
pub struct Certificates {
    /// Seconds until the client certificate ends.
    pub client_ttl: Gauge<f64, AtomicU64>,
    /// The same of the serving certificate.
    pub server_ttl: Gauge<f64, AtomicU64>,
    /// Renewals of the client certificate that failed.
    pub client_errors: Counter,
    /// The same of the serving certificate.
    pub server_errors: Counter,
}

impl Certificates {
    /// kubernetes v1.37 pkg/kubelet/certificate: its counters of errors lack the `_total` that
    /// ours are given.
    fn register(&self, registry: &mut Registry) {
        let (client, server) = (self.client_ttl.clone(), self.server_ttl.clone());
        registry.register(
            "kubelet_certificate_manager_client_ttl_seconds",
            "Seconds until the client certificate expires",
            client,
        );
        registry.register(
            "kubelet_certificate_manager_server_ttl_seconds",
            "Seconds until the serving certificate expires",
            server,
        );
        registry.register(
            "kubelet_certificate_manager_client_expiration_renew_errors",
            "Renewals of the client certificate that failed",
            self.client_errors.clone(),
        );
        registry.register(
            "kubelet_server_expiration_renew_errors",
            "Renewals of the serving certificate that failed",
            self.server_errors.clone(),
        );
    }
}

impl Metrics {
    /// Beside the server's own, what the whole kubelet counts.
    #[must_use]
    pub fn new(work: Work) -> Metrics {
        Metrics {
            work,
            ..Metrics::default()
        }
    }

    /// Of probes, as Prometheus reads it.
    pub(in crate::server) fn encode_probes(&self) -> String {
        let mut registry = Registry::default();
        self.work.register_probes(&mut registry);
        written(&registry)
    }

    /// One more request.
    pub(in crate::server) fn request(&self, method: &Method, path: &str) {
        // The first part only: names of pods would make a series each.
        let root = path
            .trim_start_matches('/')
            .split('/')
            .next()
            .unwrap_or_default();
        let labels = RequestLabels {
            long_running: long_running(root),
            method: method.to_string(),
            path: root.to_owned(),
            server_type: "readwrite",
        };
        self.requests.get_or_create(&labels).inc();
    }

    /// What is counted of certificates.
    pub fn certificates(&self) -> &Certificates {
        &self.certificates
    }

    /// As Prometheus reads it.
    pub(in crate::server) fn encode(
        &self,
        node_name: &str,
        pods: &[Known],
        (volumes, totals): (&[VolumeUsage], &Totals),
    ) -> String {
        let mut registry = Registry::default();
        registry.register(
            "kubelet_http_requests",
            "Number of HTTP requests",
            self.requests.clone(),
        );
        self.certificates.register(&mut registry);
        self.node(&mut registry, node_name);
        self.work.register(&mut registry);
        pods::register(&mut registry, pods);
        of_claims(&mut registry, volumes);
        of_volumes(&mut registry, totals);
        build(&mut registry);
        process(&mut registry);
        written(&registry)
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

/// kubernetes v1.37 pkg/kubelet/volumemanager/metrics/metrics.go.
fn of_volumes(registry: &mut Registry, totals: &Totals) {
    let family = Family::<VolumeLabels, Gauge>::default();
    for ((plugin_name, state), total) in totals {
        let labels = VolumeLabels {
            plugin_name: plugin_name.clone(),
            state,
        };
        family.get_or_create(&labels).set(*total);
    }
    registry.register(
        "volume_manager_total_volumes",
        "Volumes of pods here, by plugin: those that are to be there, and those that are",
        family,
    );
}

/// Streams, which last as long as somebody watches.
fn long_running(root: &str) -> &'static str {
    match root {
        "exec" | "attach" | "portForward" | "debug" => "true",
        _ => "false",
    }
}

fn build(registry: &mut Registry) {
    let info = Family::<BuildLabels, Gauge>::default();
    let version = crate::defaults::KUBELET_VERSION;
    let mut numbers = version.trim_start_matches('v').split('.');
    let mut number = || numbers.next().unwrap_or_default().to_owned();
    let labels = BuildLabels {
        build_date: "",
        compiler: "rustc",
        git_commit: "",
        git_tree_state: "",
        git_version: version,
        go_version: "",
        major: number(),
        minor: number(),
        platform: format!(
            "linux/{}",
            crate::node::machine::go_architecture(std::env::consts::ARCH)
        ),
    };
    info.get_or_create(&labels).set(1);
    registry.register("kubernetes_build_info", "What this is, always 1", info);
}

fn written(registry: &Registry) -> String {
    let mut text = String::new();
    match encode(&mut text, registry) {
        Ok(()) => text,
        Err(_) => String::new(),
    }
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
    gauge(
        "process_start_time_seconds",
        "Start of the process, seconds since 1970",
        boot_time() + field(19) / super::node::TICKS,
    );
    gauge("process_max_fds", "Most file descriptors", max_fds());
    gauge("process_threads", "Threads", field(17));
    let cpu = Counter::<f64, AtomicU64>::default();
    cpu.inc_by((field(11) + field(12)) / super::node::TICKS);
    registry.register("process_cpu_seconds", "CPU time", cpu);
}

/// Seconds since 1970.
fn boot_time() -> f64 {
    let stat = std::fs::read_to_string("/proc/stat").unwrap_or_default();
    let line = stat.lines().find_map(|l| l.strip_prefix("btime "));
    line.and_then(|l| l.trim().parse().ok()).unwrap_or_default()
}

fn max_fds() -> f64 {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    limit.current.unwrap_or(u64::MAX) as f64
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
        let text = metrics.encode("n1", &[], (&[], &Totals::new()));
        let line = "kubelet_http_requests_total{long_running=\"false\",method=\"GET\",path=\"containerLogs\",server_type=\"readwrite\"} 2";
        assert!(text.contains(line), "{text}");
        assert!(text.contains("kubelet_node_name{node=\"n1\"} 1"), "{text}");
        assert!(text.contains("process_cpu_seconds_total"), "{text}");
    }
}
