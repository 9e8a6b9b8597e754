//! ContainerStats, ListContainerStats, PodSandboxStats, ListPodSandboxStats.

use super::core::{Core, now};
use super::lists::selected;
use crate::cgroup::{Pressure, PressureLine, Stats};
use crate::container::{Container, State};
use crate::sandbox::{Identified, Sandbox};
use cri_proto::Status;
use cri_proto::v1::*;

pub(super) fn container_stats(
    core: &Core,
    request: &ContainerStatsRequest,
) -> Result<ContainerStatsResponse, Status> {
    let container = core.container(&request.container_id)?;
    Ok(ContainerStatsResponse {
        stats: Some(of_container(core, &container)),
    })
}

pub(super) fn list_container_stats(
    core: &Core,
    request: ListContainerStatsRequest,
) -> ListContainerStatsResponse {
    let filter = request.filter.unwrap_or_default();
    let mut wanted = core.containers.list();
    wanted.retain(|c| {
        c.id().starts_with(&filter.id)
            && c.read(|r| {
                r.sandbox_id.starts_with(&filter.pod_sandbox_id)
                    && selected(&r.config.labels, &filter.label_selector)
                    && r.state != State::Exited
            })
    });
    let stats = wanted.iter().map(|c| of_container(core, c)).collect();
    ListContainerStatsResponse { stats }
}

pub(super) fn pod_sandbox_stats(
    core: &Core,
    request: &PodSandboxStatsRequest,
) -> Result<PodSandboxStatsResponse, Status> {
    let sandbox = core.sandbox(&request.pod_sandbox_id)?;
    Ok(PodSandboxStatsResponse {
        stats: Some(of_sandbox(core, &sandbox)),
    })
}

pub(super) fn list_pod_sandbox_stats(
    core: &Core,
    request: ListPodSandboxStatsRequest,
) -> ListPodSandboxStatsResponse {
    let filter = request.filter.unwrap_or_default();
    let mut wanted = core.sandboxes.list();
    wanted.retain(|s| {
        s.id().starts_with(&filter.id)
            && s.is_ready()
            && s.read(|r| selected(&r.config.labels, &filter.label_selector))
    });
    let stats = wanted.iter().map(|s| of_sandbox(core, s)).collect();
    ListPodSandboxStatsResponse { stats }
}

fn of_container(core: &Core, container: &Container) -> ContainerStats {
    let record = container.record();
    let at = now();
    let stats = core.cgroups.stats(&record.cgroup).unwrap_or_default();
    let limit = u64::try_from(record.resources.memory_limit_in_bytes).ok();
    ContainerStats {
        attributes: Some(ContainerAttributes {
            id: record.id.clone(),
            metadata: record.config.metadata.clone(),
            labels: record.config.labels.clone(),
            annotations: record.config.annotations.clone(),
        }),
        cpu: Some(cpu(core, &record.id, at, &stats)),
        memory: Some(memory(at, &stats, limit.filter(|n| *n > 0))),
        writable_layer: Some(writable_layer(at, container)),
        swap: Some(swap(at, &stats)),
        io: stats.io_pressure.map(|p| IoUsage {
            timestamp: at,
            psi: Some(psi(p)),
        }),
    }
}

fn of_sandbox(core: &Core, sandbox: &Sandbox) -> PodSandboxStats {
    let record = sandbox.record();
    let at = now();
    let stats = core.cgroups.stats(&record.cgroup).unwrap_or_default();
    let mut containers = core.containers_of(sandbox.id());
    containers.retain(|c| c.state() == State::Running);
    let limit = stats.memory_limit;
    PodSandboxStats {
        attributes: Some(PodSandboxAttributes {
            id: record.id.clone(),
            metadata: record.config.metadata.clone(),
            labels: record.config.labels.clone(),
            annotations: record.config.annotations.clone(),
        }),
        linux: Some(LinuxPodSandboxStats {
            cpu: Some(cpu(core, &record.id, at, &stats)),
            memory: Some(memory(at, &stats, limit)),
            network: network(sandbox, at),
            process: Some(ProcessUsage {
                timestamp: at,
                process_count: value(stats.pids),
            }),
            containers: containers.iter().map(|c| of_container(core, c)).collect(),
            io: stats.io_pressure.map(|p| IoUsage {
                timestamp: at,
                psi: Some(psi(p)),
            }),
        }),
        windows: None,
    }
}

fn value(value: u64) -> Option<UInt64Value> {
    Some(UInt64Value { value })
}

fn cpu(core: &Core, id: &str, at: i64, stats: &Stats) -> CpuUsage {
    let nano_cores = core.samples.nano_cores(id, at, stats.cpu_usage_ns);
    CpuUsage {
        timestamp: at,
        usage_core_nano_seconds: value(stats.cpu_usage_ns),
        usage_nano_cores: nano_cores.map(|value| UInt64Value { value }),
        psi: stats.cpu_pressure.map(psi),
    }
}

fn memory(at: i64, stats: &Stats, limit: Option<u64>) -> MemoryUsage {
    let available = limit.map(|limit| limit.saturating_sub(stats.working_set));
    MemoryUsage {
        timestamp: at,
        working_set_bytes: value(stats.working_set),
        available_bytes: available.map(|value| UInt64Value { value }),
        usage_bytes: value(stats.memory_usage),
        rss_bytes: value(stats.rss),
        page_faults: value(stats.page_faults),
        major_page_faults: value(stats.major_page_faults),
        psi: stats.memory_pressure.map(psi),
    }
}

fn swap(at: i64, stats: &Stats) -> SwapUsage {
    let free = stats.swap_limit.map(|n| n.saturating_sub(stats.swap_usage));
    SwapUsage {
        timestamp: at,
        swap_available_bytes: free.map(|value| UInt64Value { value }),
        swap_usage_bytes: value(stats.swap_usage),
    }
}

fn psi(pressure: Pressure) -> PsiStats {
    // The kernel counts microseconds, CRI nanoseconds.
    let data = |line: PressureLine| PsiData {
        total: line.total * 1000,
        avg10: line.avg10,
        avg60: line.avg60,
        avg300: line.avg300,
    };
    PsiStats {
        full: Some(data(pressure.full)),
        some: Some(data(pressure.some)),
    }
}

/// What the container has written; walked at most every ten seconds.
fn writable_layer(at: i64, container: &Container) -> FilesystemUsage {
    let (bytes, inodes) = container.writable_usage();
    FilesystemUsage {
        timestamp: at,
        fs_id: Some(FilesystemIdentifier {
            mountpoint: container.layer().display().to_string(),
        }),
        used_bytes: value(bytes),
        inodes_used: value(inodes),
    }
}

fn network(sandbox: &Sandbox, at: i64) -> Option<NetworkUsage> {
    let interfaces: Vec<_> = net_dev(sandbox)?.into_iter().map(interface).collect();
    let default = interfaces.iter().find(|i| i.name == "eth0");
    Some(NetworkUsage {
        timestamp: at,
        default_interface: default.or(interfaces.first()).cloned(),
        interfaces: interfaces.clone(),
    })
}

/// proc(5), `/proc/net/dev`: eight numbers received, eight sent.
fn interface((name, numbers): (String, Vec<u64>)) -> NetworkInterfaceUsage {
    let at = |place: usize| value(numbers.get(place).copied().unwrap_or(0));
    NetworkInterfaceUsage {
        name,
        rx_bytes: at(0),
        rx_errors: at(2),
        tx_bytes: at(8),
        tx_errors: at(10),
    }
}

/// Counters of the pod's interfaces, read through its monitor, which lives in
/// the pod's network namespace; `None` on the host's.
pub(super) fn net_dev(sandbox: &Sandbox) -> Option<Vec<(String, Vec<u64>)>> {
    sandbox.read(|r| r.network.is_some()).then_some(())?;
    let pid = sandbox.engine()?.monitor_pid();
    let text = std::fs::read_to_string(format!("/proc/{pid}/net/dev")).ok()?;
    Some(parse_net_dev(&text))
}

fn parse_net_dev(text: &str) -> Vec<(String, Vec<u64>)> {
    let rows = text.lines().filter_map(|line| line.split_once(':'));
    let numbers = |text: &str| {
        text.split_whitespace()
            .filter_map(|n| n.parse().ok())
            .collect()
    };
    let all = rows.map(|(name, row)| (name.trim().to_owned(), numbers(row)));
    all.filter(|(name, _)| name != "lo").collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interface_counters_are_read_without_loopback() {
        let text = "Inter-|   Receive                                                |  Transmit\n\
 face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed\n\
    lo:  100 1 0 0 0 0 0 0 100 1 0 0 0 0 0 0\n\
  eth0: 1500 10 1 0 0 0 0 0 900 9 2 0 0 0 0 0\n";
        let found: Vec<_> = parse_net_dev(text).into_iter().map(interface).collect();
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].rx_bytes, value(1500));
        assert_eq!(found[0].tx_errors, value(2));
    }
}
