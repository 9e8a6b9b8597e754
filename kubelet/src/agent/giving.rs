//! Makes what gives pods devices, CPUs and memory.

use super::{AgentError, AgentOptions};
use crate::allocation::{Allocations, Givers};
use crate::config::{Config, Signal};
use crate::cpu::Cpus;
use crate::device::Devices;
use crate::dra::{Dra, Drivers};
use crate::memory::Memory;
use crate::memory::table::Sizes;
use crate::metrics::Metrics;
use crate::node::machine::Machine;
use crate::node::resources;
use crate::topology::Numa;
use crate::topology::policy::{Aligner, Alignment};
use std::path::Path;
use std::sync::Arc;

/// Where the kernel tells of CPUs and NUMA nodes.
const SYS: &str = "/sys/devices/system";

/// With what earlier agents, or a stock kubelet, gave.
///
/// # Errors
/// When the policies do not fit the machine or what was written down.
pub fn allocations(
    options: &AgentOptions,
    metrics: &Metrics,
    (client, drivers): (kube::Client, Arc<Drivers>),
) -> Result<Arc<Allocations>, AgentError> {
    let config = &options.config.config;
    let managers = &config.managers;
    let (root, sys) = (&options.root_dir, Path::new(SYS));
    let numa = Numa::read(sys);
    let policy = managers.topology;
    let (nodes, most) = (numa.count(), policy.max_allowable_numa_nodes);
    if policy.alignment != Alignment::None && nodes > most {
        return Err(AgentError::NumaNodes { nodes, most });
    }
    Ok(Allocations::new(Givers {
        devices: Devices::new(root),
        cpus: Cpus::new(&managers.cpu, root, sys, metrics.clone())?,
        memory: Memory::new(
            &managers.memory,
            &kept(config),
            (root, sys),
            metrics.clone(),
        )?,
        dra: Dra::new(root, client, drivers, metrics.clone())?,
        aligner: Aligner { policy, numa },
        metrics: metrics.clone(),
    }))
}

/// Memory and huge pages that pods don't get: kubeReserved, systemReserved, evictionHard.
fn kept(config: &Config) -> Sizes {
    let reserved = config.allocatable.reserved.iter();
    let reserved = reserved.filter(|(kind, _)| *kind == "memory" || kind.starts_with("hugepages-"));
    let mut kept: Sizes = reserved.map(|(kind, size)| (kind.clone(), *size)).collect();
    let all = i64::try_from(Machine::read().memory).unwrap_or(i64::MAX);
    let free = resources::eviction_reserve(config, Signal::MemoryAvailable, all);
    *kept.entry("memory".to_owned()).or_default() += u64::try_from(free).unwrap_or(0);
    kept
}
