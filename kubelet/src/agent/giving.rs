//! Makes what gives pods devices, CPUs and memory.

use super::{AgentError, AgentOptions};
use crate::allocation::{Allocations, Givers};
use crate::cpu::Cpus;
use crate::device::Devices;
use crate::metrics::Metrics;
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
) -> Result<Arc<Allocations>, AgentError> {
    let managers = &options.config.config.managers;
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
        aligner: Aligner { policy, numa },
        metrics: metrics.clone(),
    }))
}
