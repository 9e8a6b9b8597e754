//! The static policy: who has which NUMA nodes' memory. Pure.
//!
//! As kubernetes v1.37 pkg/kubelet/cm/memorymanager/policy_static.go decides.

use super::table::{Block, Blocks, Sizes, State};
use crate::pod::lifecycle::restartable_init;
use crate::pod::spec::qos::{self, Qos};
use crate::quantity::Amount;
use crate::topology::{Hint, NodeMask};
use k8s_openapi::api::core::v1::{Container, Pod};
use std::collections::BTreeMap;

/// Why a container does not get its memory.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs)]
pub enum MemoryError {
    #[error(
        "[memorymanager] failed to get the default NUMA affinity, no NUMA nodes with enough memory is available"
    )]
    TooLittle,
    #[error("[memorymanager] failed to find the default preferred hint")]
    NotPreferred,
    #[error("[memorymanager] failed to find NUMA nodes to extend the current topology hint")]
    NotExtended,
    #[error("[memorymanager] failed to find the extended preferred hint")]
    ExtendedNotPreferred,
    #[error("[memorymanager] preferred hint violates NUMA node allocation")]
    Mixed,
}

/// What init containers of a pod had: by nodes and type of memory.
pub type Reusable = BTreeMap<(NodeMask, String), u64>;

/// What a container asks for: memory and huge pages of Guaranteed pods.
pub fn wanted(pod: &Pod, container: &Container) -> Sizes {
    let own = pod.spec.as_ref().and_then(|s| s.resources.as_ref());
    let pod_level = own.is_some_and(|r| r.requests.is_some() || r.limits.is_some());
    if pod_level || qos::of(pod) != Qos::Guaranteed {
        return Sizes::new();
    }
    let resources = container.resources.as_ref();
    let requests = resources.and_then(|r| r.requests.as_ref());
    let limits = resources.and_then(|r| r.limits.as_ref());
    let listed = limits.into_iter().chain(requests).flatten();
    let kinds = listed.filter(|(name, _)| *name == "memory" || name.starts_with("hugepages-"));
    let sized = kinds.filter_map(|(name, quantity)| {
        let size = u64::try_from(Amount::from(quantity).units()).ok()?;
        (size > 0).then(|| (name.clone(), size))
    });
    sized.collect()
}

/// What a whole pod asks for: its greatest moment.
pub fn wanted_by_pod(pod: &Pod) -> Sizes {
    let spec = pod.spec.as_ref();
    let (mut running, mut starting) = (Sizes::new(), Sizes::new());
    for container in spec
        .into_iter()
        .flat_map(|s| s.init_containers.iter().flatten())
    {
        for (kind, size) in wanted(pod, container) {
            let beside = running.entry(kind.clone()).or_default();
            if restartable_init(container) {
                *beside += size;
            } else {
                let slot = starting.entry(kind).or_default();
                *slot = (*slot).max(*beside + size);
            }
        }
    }
    for container in spec.into_iter().flat_map(|s| &s.containers) {
        for (kind, size) in wanted(pod, container) {
            *running.entry(kind).or_default() += size;
        }
    }
    for (kind, size) in starting {
        let slot = running.entry(kind).or_default();
        *slot = (*slot).max(size);
    }
    running
}

/// Where so much could be had.
pub fn hints(state: &State, wanted: &Sizes, reusable: &Reusable) -> Vec<Hint> {
    let all = NodeMask::of(state.machine.keys().copied());
    let mut fewest = all.count();
    let mut found = Vec::new();
    for nodes in all.subsets() {
        let sum = |of: fn(&super::table::Table) -> u64, kind: &str| state.sum(nodes, kind, of);
        if wanted
            .iter()
            .any(|(kind, size)| sum(|t| t.allocatable, kind) < *size)
        {
            continue;
        }
        fewest = fewest.min(nodes.count());
        if !state.may_be_used_together(nodes) {
            continue;
        }
        let had = |kind: &String| reusable.get(&(nodes, kind.clone())).copied().unwrap_or(0);
        let enough = |(kind, size): (&String, &u64)| sum(|t| t.free, kind) + had(kind) >= *size;
        if wanted.iter().all(enough) {
            found.push(nodes);
        }
    }
    let hint = |nodes: NodeMask| Hint {
        nodes: Some(nodes),
        preferred: nodes.count() == fewest,
    };
    found.into_iter().map(hint).collect()
}

/// What a container has already, as a hint; `None` if that is not what it asks for.
pub fn hints_again(had: &Blocks, wanted: &Sizes) -> Option<Vec<Hint>> {
    let same =
        had.len() == wanted.len() && had.iter().all(|b| wanted.get(&b.kind) == Some(&b.size));
    let first = had.first().filter(|_| same)?;
    Some(vec![Hint {
        nodes: Some(NodeMask::of(first.nodes.iter().copied())),
        preferred: true,
    }])
}

/// Which nodes a container's memory is on, near those of `affinity` as far as they have
/// enough; what is to be preferred must be.
///
/// # Errors
/// When no nodes have it, or only such as others use otherwise.
pub fn choose(
    state: &State,
    wanted: &Sizes,
    affinity: Hint,
    reusable: &Reusable,
) -> Result<NodeMask, MemoryError> {
    let all = hints(state, wanted, reusable);
    let place = match affinity.nodes {
        Some(place) => place,
        None => {
            let best = best(&all).ok_or(MemoryError::TooLittle)?;
            if affinity.preferred && !best.preferred {
                return Err(MemoryError::NotPreferred);
            }
            best.nodes.unwrap_or_default()
        }
    };
    let enough = |(kind, size): (&String, &u64)| {
        let had = reusable.get(&(place, kind.clone())).copied().unwrap_or(0);
        state.sum(place, kind, |t| t.free) + had >= *size
    };
    let place = if wanted.iter().all(enough) {
        place
    } else {
        let wider = all
            .into_iter()
            .filter(|h| h.nodes.is_some_and(|n| n.covers(place)));
        let best = best(&wider.collect::<Vec<_>>()).ok_or(MemoryError::NotExtended)?;
        if affinity.preferred && !best.preferred {
            return Err(MemoryError::ExtendedNotPreferred);
        }
        best.nodes.unwrap_or_default()
    };
    match place.count() > 1 && !state.may_be_used_together(place) {
        true => Err(MemoryError::Mixed),
        false => Ok(place),
    }
}

fn best(hints: &[Hint]) -> Option<Hint> {
    let key = |h: &&Hint| {
        let nodes = h.nodes.unwrap_or_default();
        (!h.preferred, nodes.count(), nodes)
    };
    hints.iter().min_by_key(key).copied()
}

/// Gives it to a container: what init containers had there is not taken again.
pub fn give(
    state: &mut State,
    (pod, container): (&Pod, &Container),
    nodes: NodeMask,
    wanted: &Sizes,
    reusable: &Reusable,
) {
    let uid = crate::pod::spec::uid(pod);
    let blocks: Blocks = wanted
        .iter()
        .map(|(kind, size)| Block {
            nodes: nodes.nodes().collect(),
            kind: kind.clone(),
            size: *size,
        })
        .collect();
    for block in &blocks {
        let had = reusable
            .get(&(nodes, block.kind.clone()))
            .copied()
            .unwrap_or(0);
        state.take(nodes, &block.kind, block.size.saturating_sub(had));
        pass_on(state, pod, container, block);
    }
    let own = state.entries.entry(uid.to_owned()).or_default();
    own.insert(container.name.clone(), blocks);
}

/// What a container uses again counts for the init containers before it no more, so that
/// all blocks together are what was taken.
fn pass_on(state: &mut State, pod: &Pod, container: &Container, block: &Block) {
    let uid = crate::pod::spec::uid(pod);
    let spec = pod.spec.as_ref();
    let init = spec
        .into_iter()
        .flat_map(|s| s.init_containers.iter().flatten());
    let mut left = block.size;
    for before in init.take_while(|c| c.name != container.name) {
        let own = state
            .entries
            .get_mut(uid)
            .and_then(|p| p.get_mut(&before.name));
        let same = |b: &&mut Block| b.kind == block.kind && b.nodes == block.nodes;
        for old in own.into_iter().flatten().filter(same) {
            if !restartable_init(before) {
                let used = old.size.min(left);
                old.size -= used;
                left -= used;
            }
        }
    }
}

#[cfg(test)]
#[path = "policy_tests.rs"]
mod tests;
