//! What the summary says of the node as a whole.

use super::figures::{of_network, put, time};
use crate::server::metrics::NodeUsage;
use cri_proto::v1;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

/// Ours: a share of the cores is told over at least this long.
const SAMPLE_MS: i64 = 10_000;

/// kubernetes v1.37 pkg/kubelet/stats/helper.go `defaultNetworkInterfaceName`.
const DEFAULT_INTERFACE: &str = "eth0";
/// cadvisor v0.53 lib/container/libcontainer/handler.go `ignoredDevicePrefixes`.
const IGNORED: [&str; 4] = ["lo", "veth", "docker", "nerdctl"];

/// What was used when, by the node and by what else is told of: a share of the cores is told
/// from two of them.
#[derive(Debug)]
pub struct CpuSamples(Mutex<BTreeMap<&'static str, [(i64, f64); 2]>>);

/// Among the samples.
const NODE: &str = "node";

impl Default for CpuSamples {
    fn default() -> Self {
        let now = NodeUsage::read();
        let node = [(now.at_ms, now.cpu_seconds); 2];
        CpuSamples(Mutex::new(BTreeMap::from([(NODE, node)])))
    }
}

impl CpuSamples {
    /// Nanoseconds of cores a second since an earlier sample, if there is one.
    pub(super) fn of(&self, who: &'static str, at_ms: i64, seconds: f64) -> Option<u64> {
        let mut samples = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let samples = samples.entry(who).or_insert([(at_ms, seconds); 2]);
        if at_ms - samples[1].0 >= SAMPLE_MS {
            *samples = [samples[1], (at_ms, seconds)];
        }
        let (then, used) = samples[0];
        let passed = at_ms - then;
        (passed > 0).then(|| ((seconds - used).max(0.0) * 1e12 / passed as f64) as u64)
    }
}

pub(super) fn of_node(name: &str, samples: &CpuSamples, brief: bool) -> Value {
    let usage = NodeUsage::read();
    let text = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let mut node = of_usage(name, &usage);
    let cores = samples.of(NODE, usage.at_ms, usage.cpu_seconds);
    put(&mut node["cpu"], "usageNanoCores", cores.map(|n| json!(n)));
    for kind in ["cpu", "memory"] {
        put(&mut node[kind], "psi", pressure(&text(&file(kind))));
    }
    if brief {
        return node;
    }
    let at = time(usage.at_ms);
    let io = pressure(&text(&file("io")));
    put(
        &mut node,
        "io",
        io.map(|psi| json!({"time": at, "psi": psi})),
    );
    let network = network(usage.at_ms, &text("/proc/net/dev"));
    put(&mut node, "network", Some(of_network(&network)));
    let limit = rlimit(&text("/proc/loadavg"), &text("/proc/sys/kernel/pid_max"));
    put(
        &mut node,
        "rlimit",
        limit.map(|(now, max)| json!({"time": at, "maxpid": max, "curproc": now})),
    );
    node
}

fn file(kind: &str) -> String {
    format!("/proc/pressure/{kind}")
}

fn of_usage(name: &str, usage: &NodeUsage) -> Value {
    let at = time(usage.at_ms);
    json!({
        "nodeName": name,
        "startTime": time(booted_ms(usage.at_ms)),
        "cpu": {"time": at, "usageCoreNanoSeconds": (usage.cpu_seconds * 1e9) as u64},
        "memory": {
            "time": at,
            "availableBytes": usage.memory_available,
            "usageBytes": usage.memory_usage,
            "workingSetBytes": usage.memory_working_set,
            "rssBytes": usage.memory_rss,
            "pageFaults": usage.page_faults,
            "majorPageFaults": usage.major_page_faults,
        },
        "swap": {
            "time": at,
            "swapUsageBytes": usage.swap_usage,
            "swapAvailableBytes": usage.swap_available,
        },
    })
}

fn booted_ms(now_ms: i64) -> i64 {
    let uptime = std::fs::read_to_string("/proc/uptime").unwrap_or_default();
    let seconds = uptime.split(' ').next().and_then(|s| s.parse::<f64>().ok());
    now_ms - (seconds.unwrap_or_default() * 1e3) as i64
}

/// Of /proc/loadavg's `1/234` the second number is every thread there is.
fn rlimit(loadavg: &str, pid_max: &str) -> Option<(u64, u64)> {
    let threads = loadavg.split_whitespace().nth(3)?.split_once('/')?.1;
    Some((threads.parse().ok()?, pid_max.trim().parse().ok()?))
}

/// Of the namespace that this process is in.
fn network(at_ms: i64, dev: &str) -> v1::NetworkUsage {
    let (default, others) = dev
        .lines()
        .filter_map(interface)
        .partition::<Vec<_>, _>(|i| i.name == DEFAULT_INTERFACE);
    v1::NetworkUsage {
        timestamp: at_ms * 1_000_000,
        default_interface: default.into_iter().next(),
        interfaces: others,
    }
}

/// A line of /proc/net/dev: eight numbers received, then eight sent.
fn interface(line: &str) -> Option<v1::NetworkInterfaceUsage> {
    let (name, numbers) = line.split_once(':')?;
    let name = name.trim();
    if IGNORED.iter().any(|prefix| name.starts_with(prefix)) {
        return None;
    }
    let numbers: Vec<u64> = numbers
        .split_whitespace()
        .filter_map(|n| n.parse().ok())
        .collect();
    let nth = |n: usize| numbers.get(n).map(|&value| v1::UInt64Value { value });
    Some(v1::NetworkInterfaceUsage {
        name: name.to_owned(),
        rx_bytes: nth(0),
        rx_errors: nth(2),
        tx_bytes: nth(8),
        tx_errors: nth(10),
    })
}

/// Of /proc/pressure/* or of a cgroup, where the kernel has it: in microseconds, which the API
/// wants as nanoseconds.
pub(super) fn pressure(text: &str) -> Option<Value> {
    let mut told = json!({});
    for line in text.lines() {
        let (kind, fields) = line.split_once(' ')?;
        let mut data = json!({});
        for (name, number) in fields.split(' ').filter_map(|f| f.split_once('=')) {
            let number = match name {
                "total" => json!(number.parse::<u64>().ok()?.saturating_mul(1000)),
                _ => json!(number.parse::<f64>().ok()?),
            };
            put(&mut data, name, Some(number));
        }
        put(&mut told, kind, Some(data));
    }
    told.get("some").is_some().then_some(told)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn share_of_the_cores_is_told_over_the_last_samples() {
        let samples = CpuSamples(Mutex::default());
        let cores = |at_ms, seconds| samples.of("pods", at_ms, seconds);
        assert_eq!(cores(0, 100.0), None);
        assert_eq!(cores(2000, 103.0), Some(1_500_000_000));
        assert_eq!(cores(10_000, 110.0), Some(1_000_000_000));
        assert_eq!(cores(30_000, 110.0), Some(0));
        assert_eq!(samples.of("kubelet", 30_000, 1.0), None);
    }

    #[test]
    fn interfaces_are_told_without_those_of_pods() {
        let dev = "Inter-|   Receive\n face |bytes packets\n    lo: 1 2 3 4 5 6 7 8 9 10 11 12\n  \
                   eth0: 10 2 1 0 0 0 0 0 20 3 2 0\nveth1: 1 1 1 1 1 1 1 1 1 1 1 1\n  cni0: 5 0 0 0 0 0 0 0 6 0 0 0\n";
        let told = of_network(&network(1000, dev));
        assert_eq!(
            (&told["name"], &told["txErrors"]),
            (&json!("eth0"), &json!(2))
        );
        let names: Vec<_> = told["interfaces"]
            .as_array()
            .unwrap()
            .iter()
            .map(|i| &i["name"])
            .collect();
        assert_eq!(names, [&json!("eth0"), &json!("cni0")]);
    }

    #[test]
    fn pressure_is_read_as_the_kernel_writes_it() {
        let text = "some avg10=73.91 avg60=36.15 avg300=25.32 total=19536802662\n\
                    full avg10=0.00 avg60=0.00 avg300=0.00 total=0\n";
        let told = pressure(text).unwrap();
        assert_eq!(told["some"]["avg10"], 73.91);
        assert_eq!(told["some"]["total"], 19_536_802_662_000_u64);
        assert_eq!(pressure(""), None);
    }
}
