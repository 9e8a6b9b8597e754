//! Prometheus' text format, with times.

use super::node::NodeUsage;
use super::pressure::pressure;
use super::swap::swap;
use super::usage::{ContainerUsage, PodUsage, Usage};
use crate::node::machine::Machine;
use cri_proto::v1;
use std::collections::BTreeMap;
use std::fmt::Write;

/// Metrics of one name, written together as the format asks.
pub(super) struct Family {
    pub text: String,
    name: &'static str,
}

impl Family {
    pub fn new(name: &'static str, kind: &str, help: &str) -> Family {
        let text = format!("# HELP {name} {help}\n# TYPE {name} {kind}\n");
        Family { text, name }
    }

    pub fn sample(&mut self, labels: &[(&str, &str)], value: f64, at_ms: i64) {
        let labels: Vec<_> = labels
            .iter()
            .map(|(k, v)| format!("{k}=\"{}\"", escape(v)))
            .collect();
        let labels = match labels.is_empty() {
            true => String::new(),
            false => format!("{{{}}}", labels.join(",")),
        };
        let _ = writeln!(self.text, "{}{labels} {value} {at_ms}", self.name);
    }
}

fn escape(value: &str) -> String {
    value
        .replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('\n', "\\n")
}

pub(super) fn value(v: Option<v1::UInt64Value>) -> Option<u64> {
    v.map(|v| v.value)
}

pub(super) fn ms(nanos: i64) -> i64 {
    nanos / 1_000_000
}

/// CPU seconds and their time. Nothing used yet is left out: readers take a
/// zero for a broken figure and drop the whole pod.
fn cpu(cpu: Option<v1::CpuUsage>) -> Option<(f64, i64)> {
    let cpu = cpu?;
    let nanos = value(cpu.usage_core_nano_seconds).filter(|n| *n > 0)?;
    Some((nanos as f64 / 1e9, ms(cpu.timestamp)))
}

fn memory(memory: Option<v1::MemoryUsage>) -> Option<(f64, i64)> {
    let memory = memory?;
    let bytes = value(memory.working_set_bytes).filter(|b| *b > 0)?;
    Some((bytes as f64, ms(memory.timestamp)))
}

/// What metrics-server reads.
pub fn resource(usage: &Usage, node: &NodeUsage) -> String {
    let mut all = [
        Family::new(
            "container_cpu_usage_seconds_total",
            "counter",
            "[STABLE] Cumulative cpu time consumed by the container in core-seconds",
        ),
        Family::new(
            "container_memory_working_set_bytes",
            "gauge",
            "[STABLE] Current working set of the container in bytes",
        ),
        Family::new(
            "container_start_time_seconds",
            "gauge",
            "[STABLE] Start time of the container since unix epoch in seconds",
        ),
        Family::new(
            "pod_cpu_usage_seconds_total",
            "counter",
            "[STABLE] Cumulative cpu time consumed by the pod in core-seconds",
        ),
        Family::new(
            "pod_memory_working_set_bytes",
            "gauge",
            "[STABLE] Current working set of the pod in bytes",
        ),
    ];
    let [container_cpu, container_memory, start, pod_cpu, pod_memory] = &mut all;
    for (pod, container) in containers(usage) {
        let labels = [
            ("container", container.name.as_str()),
            ("namespace", &pod.namespace),
            ("pod", &pod.name),
        ];
        if let Some((seconds, at)) = cpu(container.stats.cpu) {
            container_cpu.sample(&labels, seconds, at);
        }
        if let Some((bytes, at)) = memory(container.stats.memory) {
            container_memory.sample(&labels, bytes, at);
        }
        if let Some(started) = container.started_ms {
            let at = container.stats.cpu.map_or(node.at_ms, |c| ms(c.timestamp));
            start.sample(&labels, started as f64 / 1e3, at);
        }
    }
    for pod in &usage.pods {
        let labels = [("namespace", pod.namespace.as_str()), ("pod", &pod.name)];
        if let Some((seconds, at)) = cpu(pod.cpu) {
            pod_cpu.sample(&labels, seconds, at);
        }
        if let Some((bytes, at)) = memory(pod.memory) {
            pod_memory.sample(&labels, bytes, at);
        }
    }
    let mut text = of_node(node, usage.error.is_some());
    all.iter().for_each(|family| text.push_str(&family.text));
    text + &swap(usage)
}

fn of_node(node: &NodeUsage, is_error: bool) -> String {
    let mut cpu = Family::new(
        "node_cpu_usage_seconds_total",
        "counter",
        "[STABLE] Cumulative cpu time consumed by the node in core-seconds",
    );
    cpu.sample(&[], node.cpu_seconds, node.at_ms);
    let mut memory = Family::new(
        "node_memory_working_set_bytes",
        "gauge",
        "[STABLE] Current working set of the node in bytes",
    );
    memory.sample(&[], node.memory_working_set as f64, node.at_ms);
    let mut swap = Family::new(
        "node_swap_usage_bytes",
        "gauge",
        "[ALPHA] Current swap usage of the node in bytes",
    );
    swap.sample(&[], node.swap_usage as f64, node.at_ms);
    let error = f64::from(u8::from(is_error));
    format!(
        "{}{}{}# HELP resource_scrape_error [STABLE] 1 if there was an error while getting container metrics, 0 otherwise\n\
         # TYPE resource_scrape_error gauge\nresource_scrape_error {error}\n",
        cpu.text, memory.text, swap.text,
    )
}

pub(super) fn containers(usage: &Usage) -> impl Iterator<Item = (&PodUsage, &ContainerUsage)> {
    usage
        .pods
        .iter()
        .flat_map(|pod| pod.containers.iter().map(move |c| (pod, c)))
}

const CPU: &str = "container_cpu_usage_seconds_total";

/// What a runtime's own metrics (ListPodSandboxMetrics) have beyond `written`:
/// those count whole numbers, so that seconds of CPU are better taken from statistics.
pub fn of_runtime(
    written: &str,
    descriptors: &[v1::MetricDescriptor],
    pods: &[v1::PodSandboxMetrics],
) -> String {
    let mut samples: BTreeMap<&str, Vec<&v1::Metric>> = BTreeMap::new();
    for pod in pods {
        let containers = pod.container_metrics.iter().flat_map(|c| &c.metrics);
        for metric in pod.metrics.iter().chain(containers) {
            samples.entry(&metric.name).or_default().push(metric);
        }
    }
    let mut text = String::new();
    for descriptor in descriptors {
        let name = &descriptor.name;
        let known = written.contains(&format!("# TYPE {name} "));
        let Some(metrics) = samples.remove(name.as_str()).filter(|_| !known) else {
            continue;
        };
        let counts = metrics[0].metric_type() == v1::MetricType::Counter;
        let kind = if counts { "counter" } else { "gauge" };
        let _ = writeln!(
            text,
            "# HELP {name} {}\n# TYPE {name} {kind}",
            descriptor.help
        );
        for metric in metrics {
            let labels = descriptor.label_keys.iter().zip(&metric.label_values);
            let labels: Vec<_> = labels
                .map(|(k, v)| format!("{k}=\"{}\"", escape(v)))
                .collect();
            let (labels, at) = (labels.join(","), ms(metric.timestamp));
            let value = value(metric.value).unwrap_or_default();
            let _ = writeln!(text, "{name}{{{labels}}} {value} {at}");
        }
    }
    text
}

/// The machine's own, under cAdvisor's names.
pub fn machine(machine: &Machine) -> String {
    let labels = format!(
        "boot_id=\"{}\",machine_id=\"{}\",system_uuid=\"{}\"",
        escape(&machine.boot_id),
        escape(&machine.machine_id),
        escape(&machine.system_uuid)
    );
    let rows = [
        (
            "machine_cpu_cores",
            "Number of logical CPU cores.",
            machine.cpus,
        ),
        (
            "machine_memory_bytes",
            "Amount of memory installed.",
            machine.memory,
        ),
        (
            "machine_swap_bytes",
            "Amount of swap memory available.",
            machine.swap,
        ),
    ];
    rows.map(|(name, help, value)| {
        format!("# HELP {name} {help}\n# TYPE {name} gauge\n{name}{{{labels}}} {value}\n")
    })
    .concat()
}

/// The families that dashboards use, from what CRI reports.
pub fn cadvisor(usage: &Usage) -> String {
    let mut all = [
        Family::new(CPU, "counter", "Cumulative cpu time consumed in seconds."),
        Family::new(
            "container_memory_working_set_bytes",
            "gauge",
            "Current working set in bytes.",
        ),
        Family::new(
            "container_memory_usage_bytes",
            "gauge",
            "Current memory usage in bytes, including all memory.",
        ),
        Family::new("container_memory_rss", "gauge", "Size of RSS in bytes."),
        Family::new(
            "container_fs_usage_bytes",
            "gauge",
            "Number of bytes that are consumed by the container.",
        ),
        Family::new(
            "container_start_time_seconds",
            "gauge",
            "Start time of the container since unix epoch in seconds.",
        ),
    ];
    for (pod, container) in containers(usage) {
        let labels = [
            ("container", container.name.as_str()),
            ("id", &container.id),
            ("image", &container.image),
            ("name", &container.id),
            ("namespace", &pod.namespace),
            ("pod", &pod.name),
        ];
        let stats = &container.stats;
        let memory_at = stats.memory.map_or(0, |m| ms(m.timestamp));
        let of_memory = |pick: fn(v1::MemoryUsage) -> Option<v1::UInt64Value>| {
            value(stats.memory.and_then(pick)).map(|b| (b as f64, memory_at))
        };
        let layer = stats.writable_layer.as_ref();
        let samples = [
            cpu(stats.cpu),
            memory(stats.memory),
            of_memory(|m| m.usage_bytes),
            of_memory(|m| m.rss_bytes),
            layer.and_then(|l| Some((value(l.used_bytes)? as f64, ms(l.timestamp)))),
            container.started_ms.map(|s| (s as f64 / 1e3, memory_at)),
        ];
        for (family, sample) in all.iter_mut().zip(samples) {
            if let Some((value, at)) = sample {
                // cAdvisor tells the sum of all CPUs by a label.
                let cpu = (family.name == CPU).then_some(("cpu", "total"));
                let labels: Vec<_> = labels.into_iter().chain(cpu).collect();
                family.sample(&labels, value, at);
            }
        }
    }
    all.iter()
        .map(|family| family.text.as_str())
        .collect::<String>()
        + &network(usage)
        + &pressure(usage)
}

fn network(usage: &Usage) -> String {
    let mut all = [
        Family::new(
            "container_network_receive_bytes_total",
            "counter",
            "Cumulative count of bytes received",
        ),
        Family::new(
            "container_network_receive_errors_total",
            "counter",
            "Cumulative count of errors encountered while receiving",
        ),
        Family::new(
            "container_network_transmit_bytes_total",
            "counter",
            "Cumulative count of bytes transmitted",
        ),
        Family::new(
            "container_network_transmit_errors_total",
            "counter",
            "Cumulative count of errors encountered while transmitting",
        ),
    ];
    for pod in &usage.pods {
        let Some(network) = &pod.network else {
            continue;
        };
        for interface in network.default_interface.iter().chain(&network.interfaces) {
            let labels = [
                ("container", "POD"),
                ("id", pod.sandbox_id.as_str()),
                ("image", "sandbox"),
                ("interface", &interface.name),
                ("name", &pod.sandbox_id),
                ("namespace", &pod.namespace),
                ("pod", &pod.name),
            ];
            let values = [
                interface.rx_bytes,
                interface.rx_errors,
                interface.tx_bytes,
                interface.tx_errors,
            ];
            for (family, sample) in all.iter_mut().zip(values) {
                if let Some(value) = value(sample) {
                    family.sample(&labels, value as f64, ms(network.timestamp));
                }
            }
        }
    }
    all.iter().map(|family| family.text.as_str()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn usage(cpu_nanos: u64) -> Usage {
        let some = |value| Some(v1::UInt64Value { value });
        let stats = v1::ContainerStats {
            cpu: Some(v1::CpuUsage {
                timestamp: 5_000_000_000,
                usage_core_nano_seconds: some(cpu_nanos),
                ..Default::default()
            }),
            memory: Some(v1::MemoryUsage {
                timestamp: 5_000_000_000,
                working_set_bytes: some(1024),
                ..Default::default()
            }),
            ..Default::default()
        };
        Usage {
            pods: vec![PodUsage {
                namespace: "ns".into(),
                name: "p".into(),
                containers: vec![ContainerUsage {
                    name: "c".into(),
                    started_ms: Some(1500),
                    stats,
                    ..Default::default()
                }],
                ..Default::default()
            }],
            error: None,
        }
    }

    #[test]
    fn resource_metrics_carry_milliseconds() {
        let text = resource(&usage(2_500_000_000), &NodeUsage::default());
        for line in [
            "container_cpu_usage_seconds_total{container=\"c\",namespace=\"ns\",pod=\"p\"} 2.5 5000\n",
            "container_memory_working_set_bytes{container=\"c\",namespace=\"ns\",pod=\"p\"} 1024 5000\n",
            "container_start_time_seconds{container=\"c\",namespace=\"ns\",pod=\"p\"} 1.5 5000\n",
            "resource_scrape_error 0\n",
        ] {
            assert!(text.contains(line), "{line} not in\n{text}");
        }
    }

    #[test]
    fn nothing_used_is_left_out() {
        let text = resource(&usage(0), &NodeUsage::default());
        assert!(
            !text.contains("container_cpu_usage_seconds_total{"),
            "{text}"
        );
    }

    #[test]
    fn labels_are_escaped() {
        assert_eq!(escape("a\"b\\c\nd"), "a\\\"b\\\\c\\nd");
    }
}
