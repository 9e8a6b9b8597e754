//! What init containers had and those after them may have. Pure.

use crate::memory::policy::Reusable as ReusableMemory;
use crate::memory::table::Blocks;
use crate::pod::lifecycle::restartable_init;
use crate::topology::{CpuSet, NodeMask};
use k8s_openapi::api::core::v1::{Container, Pod};
use std::collections::{BTreeMap, BTreeSet};

/// Of one pod, while it is served.
#[derive(Debug, Clone, Default)]
pub struct Reusable {
    /// By resource.
    pub devices: BTreeMap<String, BTreeSet<String>>,
    pub cpus: CpuSet,
    /// Bytes by nodes and type.
    pub memory: ReusableMemory,
}

/// Whether a container ends before the others begin.
pub fn passes_on(pod: &Pod, container: &Container) -> bool {
    let spec = pod.spec.as_ref();
    let mut init = spec
        .into_iter()
        .flat_map(|s| s.init_containers.iter().flatten());
    init.any(|c| c.name == container.name && !restartable_init(c))
}

impl Reusable {
    /// A container has these devices: the next may have them too, or may not any more.
    pub fn devices(&mut self, passes_on: bool, resource: String, ids: &BTreeSet<String>) {
        let pool = self.devices.entry(resource).or_default();
        match passes_on {
            true => pool.extend(ids.iter().cloned()),
            false => pool.retain(|id| !ids.contains(id)),
        }
    }

    /// The same with CPUs.
    pub fn cpus(&mut self, passes_on: bool, cpus: &CpuSet) {
        self.cpus = match passes_on {
            true => self.cpus.or(cpus),
            false => self.cpus.without(cpus),
        };
    }

    /// The same with memory: that of one init container after the other.
    pub fn memory(&mut self, passes_on: bool, blocks: &Blocks) {
        for block in blocks {
            let nodes = NodeMask::of(block.nodes.iter().copied());
            let slot = self.memory.entry((nodes, block.kind.clone())).or_default();
            *slot = match passes_on {
                true => (*slot).max(block.size),
                false => slot.saturating_sub(block.size),
            };
        }
    }
}
