//! ListMetricDescriptors and ListPodSandboxMetrics: what dashboards made for
//! cAdvisor look for, under its names and labels.

mod descriptors;
mod processes;

use self::descriptors::{BASE_LABELS, DESCRIPTORS};
use super::core::{Core, now};
use super::stats::net_dev;
use crate::cgroup::{CgroupPath, Stats};
use crate::container::{Container, Record, State};
use crate::sandbox::{Identified, Sandbox};
use cri_proto::v1::*;

pub(super) fn list_metric_descriptors() -> ListMetricDescriptorsResponse {
    let descriptors = DESCRIPTORS.iter().map(|(name, help, labels)| {
        let keys = BASE_LABELS.iter().chain(labels.iter());
        MetricDescriptor {
            name: (*name).to_owned(),
            help: (*help).to_owned(),
            label_keys: keys.map(|key| (*key).to_owned()).collect(),
        }
    });
    ListMetricDescriptorsResponse {
        descriptors: descriptors.collect(),
    }
}

pub(super) fn list_pod_sandbox_metrics(core: &Core) -> ListPodSandboxMetricsResponse {
    let mut sandboxes = core.sandboxes.list();
    sandboxes.retain(|sandbox| sandbox.is_ready());
    ListPodSandboxMetricsResponse {
        pod_metrics: sandboxes.iter().map(|s| of_sandbox(core, s)).collect(),
    }
}

/// Samples of one container or pod.
struct Samples {
    at: i64,
    /// Values of [`BASE_LABELS`].
    base: [String; 6],
    metrics: Vec<Metric>,
}

impl Samples {
    fn add(&mut self, name: &str, value: u64) {
        self.add_with(name, &[], value);
    }

    /// `labels` are the values of the descriptor's own.
    fn add_with(&mut self, name: &str, labels: &[&str], value: u64) {
        let kind = if name.ends_with("_total") {
            MetricType::Counter
        } else {
            MetricType::Gauge
        };
        let labels = labels.iter().map(|label| (*label).to_owned());
        self.metrics.push(Metric {
            name: name.to_owned(),
            timestamp: self.at,
            metric_type: kind.into(),
            label_values: self.base.iter().cloned().chain(labels).collect(),
            value: Some(UInt64Value { value }),
        });
    }
}

fn of_sandbox(core: &Core, sandbox: &Sandbox) -> PodSandboxMetrics {
    let record = sandbox.record();
    let pod = record.metadata();
    let mut samples = Samples {
        at: now(),
        base: [
            String::new(),
            record.cgroup.as_str().to_owned(),
            String::new(),
            record.id.clone(),
            pod.namespace,
            pod.name,
        ],
        metrics: Vec::new(),
    };
    usage(&mut samples, &stats(core, &record.cgroup));
    network(&mut samples, sandbox);
    let mut containers = core.containers_of(sandbox.id());
    containers.retain(|c| c.state() == State::Running);
    PodSandboxMetrics {
        pod_sandbox_id: record.id,
        metrics: samples.metrics,
        container_metrics: containers.iter().map(|c| of_container(core, c)).collect(),
    }
}

fn of_container(core: &Core, container: &Container) -> ContainerMetrics {
    let record = container.record();
    let pod = container.sandbox.read(|r| r.metadata());
    let image = record.config.image.clone().unwrap_or_default();
    let name = record.config.metadata.clone().unwrap_or_default().name;
    let mut samples = Samples {
        at: now(),
        base: [
            name,
            record.cgroup.as_str().to_owned(),
            image.image,
            record.id.clone(),
            pod.namespace,
            pod.name,
        ],
        metrics: Vec::new(),
    };
    let stats = stats(core, &record.cgroup);
    usage(&mut samples, &stats);
    samples.add("container_start_time_seconds", seconds(record.started_at));
    limits(&mut samples, &record, &stats);
    file_system(&mut samples, container);
    processes(&mut samples, &core.cgroups.pids(&record.cgroup), &stats);
    ContainerMetrics {
        container_id: record.id,
        metrics: samples.metrics,
    }
}

fn stats(core: &Core, cgroup: &CgroupPath) -> Stats {
    core.cgroups.stats(cgroup).unwrap_or_default()
}

fn seconds(nanoseconds: i64) -> u64 {
    u64::try_from(nanoseconds / 1_000_000_000).unwrap_or(0)
}

fn usage(samples: &mut Samples, stats: &Stats) {
    let whole = |ns: u64| ns / 1_000_000_000;
    samples.add("container_last_seen", seconds(samples.at));
    samples.add("container_cpu_cfs_periods_total", stats.cpu_periods);
    samples.add(
        "container_cpu_cfs_throttled_periods_total",
        stats.cpu_throttled_periods,
    );
    samples.add(
        "container_cpu_cfs_throttled_seconds_total",
        whole(stats.cpu_throttled_ns),
    );
    samples.add(
        "container_cpu_system_seconds_total",
        whole(stats.cpu_system_ns),
    );
    samples.add("container_cpu_user_seconds_total", whole(stats.cpu_user_ns));
    samples.add_with(
        "container_cpu_usage_seconds_total",
        &["total"],
        whole(stats.cpu_usage_ns),
    );
    samples.add("container_memory_cache", stats.cache);
    samples.add("container_memory_failcnt", stats.memory_failcnt);
    samples.add("container_memory_kernel_usage", stats.kernel_memory);
    samples.add("container_memory_mapped_file", stats.mapped_file);
    samples.add("container_memory_max_usage_bytes", stats.memory_max_usage);
    samples.add("container_memory_rss", stats.rss);
    samples.add("container_memory_swap", stats.swap_usage);
    samples.add("container_memory_usage_bytes", stats.memory_usage);
    samples.add("container_memory_working_set_bytes", stats.working_set);
    for scope in ["container", "hierarchy"] {
        let faults = [
            ("pgfault", stats.page_faults),
            ("pgmajfault", stats.major_page_faults),
        ];
        for (kind, value) in faults {
            samples.add_with("container_memory_failures_total", &[kind, scope], value);
        }
    }
    samples.add("container_oom_events_total", stats.oom_kills);
    block_io(samples, stats);
    pressure(samples, stats);
}

fn block_io(samples: &mut Samples, stats: &Stats) {
    for (device, operation, bytes) in &stats.io_bytes {
        let (major, minor) = device.split_once(':').unwrap_or((device, ""));
        let labels = [device.as_str(), major, minor, operation];
        samples.add_with("container_blkio_device_usage_total", &labels, *bytes);
        let name = match operation.as_str() {
            "Read" => "container_fs_reads_bytes_total",
            _ => "container_fs_writes_bytes_total",
        };
        samples.add_with(name, &[device], *bytes);
    }
    for (device, operation, count) in &stats.io_operations {
        let name = match operation.as_str() {
            "Read" => "container_fs_reads_total",
            _ => "container_fs_writes_total",
        };
        samples.add_with(name, &[device], *count);
    }
}

/// cgroup v2 only.
fn pressure(samples: &mut Samples, stats: &Stats) {
    let all = [
        ("cpu", stats.cpu_pressure),
        ("io", stats.io_pressure),
        ("memory", stats.memory_pressure),
    ];
    for (resource, pressure) in all {
        let Some(pressure) = pressure else { continue };
        let name = |kind| format!("container_pressure_{resource}_{kind}_seconds_total");
        samples.add(&name("waiting"), pressure.some.total / 1_000_000);
        samples.add(&name("stalled"), pressure.full.total / 1_000_000);
    }
}

/// Limits as they are; 0 = none, as cAdvisor has it.
fn limits(samples: &mut Samples, record: &Record, stats: &Stats) {
    let resources = &record.resources;
    let positive = |value: i64| u64::try_from(value).unwrap_or(0);
    let or = |value: i64, default: u64| match positive(value) {
        0 => default,
        value => value,
    };
    // Documentation/admin-guide/cgroup-v1 and kernel/sched/core.c: what the
    // kernel has when nobody has said otherwise.
    samples.add(
        "container_spec_cpu_period",
        or(resources.cpu_period, 100_000),
    );
    samples.add("container_spec_cpu_shares", or(resources.cpu_shares, 1024));
    if resources.cpu_quota > 0 {
        samples.add("container_spec_cpu_quota", positive(resources.cpu_quota));
    }
    let memory = stats.memory_limit.unwrap_or(0);
    samples.add("container_spec_memory_limit_bytes", memory);
    let swap = stats
        .swap_limit
        .map_or(0, |swap| swap.saturating_add(memory));
    samples.add("container_spec_memory_swap_limit_bytes", swap);
    samples.add("container_threads_max", stats.pids_max.unwrap_or(0));
}

fn file_system(samples: &mut Samples, container: &Container) {
    let Ok(fs) = rustix::fs::statvfs(container.layer()) else {
        return;
    };
    let device = container.layer().display().to_string();
    let labels = [device.as_str()];
    let (used, _) = container.writable_usage();
    samples.add_with("container_fs_inodes_free", &labels, fs.f_ffree);
    samples.add_with("container_fs_inodes_total", &labels, fs.f_files);
    samples.add_with(
        "container_fs_limit_bytes",
        &labels,
        fs.f_blocks * fs.f_frsize,
    );
    samples.add_with("container_fs_usage_bytes", &labels, used);
}

fn processes(samples: &mut Samples, pids: &[i32], stats: &Stats) {
    let counted = processes::count(pids);
    samples.add("container_processes", pids.len() as u64);
    samples.add("container_threads", counted.threads.max(stats.pids));
    samples.add("container_file_descriptors", counted.descriptors);
    samples.add("container_sockets", counted.sockets);
}

fn network(samples: &mut Samples, sandbox: &Sandbox) {
    // proc(5), `/proc/net/dev`: position of each counter.
    const COUNTERS: [(&str, usize); 8] = [
        ("receive_bytes", 0),
        ("receive_packets", 1),
        ("receive_errors", 2),
        ("receive_packets_dropped", 3),
        ("transmit_bytes", 8),
        ("transmit_packets", 9),
        ("transmit_errors", 10),
        ("transmit_packets_dropped", 11),
    ];
    for (interface, numbers) in net_dev(sandbox).unwrap_or_default() {
        for (what, at) in COUNTERS {
            let name = format!("container_network_{what}_total");
            let value = numbers.get(at).copied().unwrap_or(0);
            samples.add_with(&name, &[&interface], value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cgroup::Pressure;

    #[test]
    fn every_sample_has_a_descriptor_and_a_value_for_each_of_its_labels() {
        let mut samples = Samples {
            at: now(),
            base: Default::default(),
            metrics: Vec::new(),
        };
        let io = |operation: &str| ("8:0".to_owned(), operation.to_owned(), 1);
        let stats = Stats {
            io_bytes: vec![io("Read"), io("Write")],
            io_operations: vec![io("Read"), io("Write")],
            cpu_pressure: Some(Pressure::default()),
            memory_pressure: Some(Pressure::default()),
            io_pressure: Some(Pressure::default()),
            ..Stats::default()
        };
        usage(&mut samples, &stats);
        processes(&mut samples, &[], &stats);
        let described = list_metric_descriptors().descriptors;
        assert!(samples.metrics.len() > 30);
        for metric in &samples.metrics {
            let of = |d: &&MetricDescriptor| d.name == metric.name;
            let descriptor = described.iter().find(of).expect(&metric.name);
            assert_eq!(
                descriptor.label_keys.len(),
                metric.label_values.len(),
                "{}",
                metric.name
            );
        }
    }

    #[test]
    fn descriptors_are_named_once_and_explained() {
        let mut names: Vec<&str> = DESCRIPTORS.iter().map(|(name, ..)| *name).collect();
        let all = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), all);
        assert!(DESCRIPTORS.iter().all(|(_, help, _)| !help.is_empty()));
    }
}
