//! The memory of a node and who has it, kept over restarts.

use super::policy::{self, MemoryError, Reusable};
use super::table::{Blocks, Sizes, State};
use super::{host, state};
use crate::checkpoint::CheckpointError;
use crate::metrics::Metrics;
use crate::topology::{Hint, NodeMask};
use k8s_openapi::api::core::v1::{Container, Pod};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What `memoryManagerPolicy` and `reservedMemory` say.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct MemoryPolicy {
    /// `None`: policy None. What the system keeps of each NUMA node, in bytes.
    pub reserved: Option<BTreeMap<u32, Sizes>>,
}

/// Why memory can't be given to anybody.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum MemoryStartError {
    #[error("reservedMemory: this machine has no NUMA node {node}")]
    NoNode { node: u32 },
    #[error(
        "reservedMemory: {reserved} bytes of {kind} in all, and kubeReserved, systemReserved and \
         evictionHard together keep {kept}: they must be the same"
    )]
    Unequal {
        kind: String,
        reserved: u64,
        kept: u64,
    },
    #[error(transparent)]
    State(#[from] CheckpointError),
}

/// Given to Guaranteed containers, on NUMA nodes.
pub struct Memory {
    given: bool,
    state: Mutex<State>,
    path: PathBuf,
    metrics: Metrics,
}

const NONE: &str = "None";
const STATIC: &str = "Static";

impl Memory {
    /// With what an earlier kubelet gave, kept below `root` (`/var/lib/kubelet`). `kept` is
    /// what the node keeps from pods, by type, in bytes.
    ///
    /// # Errors
    /// When the policy does not fit the machine or what was written down.
    pub fn new(
        wanted: &MemoryPolicy,
        kept: &Sizes,
        (root, sys): (&Path, &Path),
        metrics: Metrics,
    ) -> Result<Arc<Memory>, MemoryStartError> {
        let path = root.join(state::FILE);
        let Some(reserved) = &wanted.reserved else {
            if state::read(&path, NONE)?.is_none() {
                state::write(&path, NONE, &State::default())?;
            }
            return Ok(Memory::made_of(false, State::default(), path, metrics));
        };
        let machine = host::read(sys);
        check(reserved, kept, &machine)?;
        let fresh = State::new(machine.into_iter().map(|(node, total)| {
            let kept = reserved.get(&node).cloned().unwrap_or_default();
            (node, total, kept)
        }));
        let found = state::read(&path, STATIC)?.filter(|s| !s.machine.is_empty());
        let state = match found {
            None => fresh,
            Some(found) => match found.misfit(&fresh) {
                None => found,
                Some(why) => return Err(CheckpointError::Misfit { path, why }.into()),
            },
        };
        state::write(&path, STATIC, &state)?;
        Ok(Memory::made_of(true, state, path, metrics))
    }

    /// Nobody is given any.
    pub fn none() -> Arc<Memory> {
        Memory::made_of(false, State::default(), PathBuf::new(), Metrics::default())
    }

    fn made_of(given: bool, state: State, path: PathBuf, metrics: Metrics) -> Arc<Memory> {
        Arc::new(Memory {
            given,
            state: Mutex::new(state),
            path,
            metrics,
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether memory is given away at all.
    pub fn is_given(&self) -> bool {
        self.given
    }

    /// Whether a pod gets any.
    pub fn concerns(&self, pod: &Pod) -> bool {
        self.given && !policy::wanted_by_pod(pod).is_empty()
    }

    /// Gives a container of a pod its memory; what it has stays.
    ///
    /// # Errors
    /// When no NUMA nodes have it.
    pub fn allocate(
        &self,
        (pod, container): (&Pod, &Container),
        affinity: Hint,
        reusable: &Reusable,
    ) -> Result<(), MemoryError> {
        let wanted = policy::wanted(pod, container);
        if !self.given || wanted.is_empty() {
            return Ok(());
        }
        let mut state = self.state();
        let had = state.entries.get(crate::pod::spec::uid(pod));
        if had.is_some_and(|p| p.contains_key(&container.name)) {
            return Ok(());
        }
        let chosen = policy::choose(&state, &wanted, affinity, reusable);
        self.metrics.memory_pinned(chosen.is_ok());
        policy::give(&mut state, (pod, container), chosen?, &wanted, reusable);
        self.save(&state);
        Ok(())
    }

    fn save(&self, state: &State) {
        if let Err(error) = state::write(&self.path, STATIC, state) {
            let why = crate::join::report::chain(&error);
            tracing::warn!(why, "memory given is not written down");
        }
    }

    /// What a container has.
    pub fn of(&self, pod: &str, container: &str) -> Blocks {
        let state = self.state();
        let own = state.entries.get(pod).and_then(|p| p.get(container));
        own.cloned().unwrap_or_default()
    }

    /// Where a container's memory is; `None`: anywhere.
    pub fn place(&self, pod: &str, container: &str) -> Option<NodeMask> {
        let nodes = self.of(pod, container).into_iter().flat_map(|b| b.nodes);
        let nodes = NodeMask::of(nodes);
        (!nodes.is_empty()).then_some(nodes)
    }

    /// All that may ever be given away, by node.
    pub fn allocatable(&self) -> Blocks {
        let state = self.state();
        let of = |(id, node): (&u32, &super::table::Node)| {
            let id = *id;
            let tables = node.memory_map.iter().filter(|(_, t)| t.allocatable > 0);
            let block = move |(kind, t): (&String, &super::table::Table)| super::table::Block {
                nodes: vec![id],
                kind: kind.clone(),
                size: t.allocatable,
            };
            tables.map(block).collect::<Vec<_>>()
        };
        state.machine.iter().flat_map(of).collect()
    }

    /// Takes back what pods have that do not stay, by uid.
    pub fn release(&self, keep: impl Fn(&str) -> bool) {
        let mut state = self.state();
        if state.release(keep) {
            self.save(&state);
        }
    }

    /// Where a container could have its memory; `None`: it wants none.
    pub fn hints(
        &self,
        (pod, container): (&Pod, &Container),
        reusable: &Reusable,
    ) -> Option<Vec<Hint>> {
        let wanted = policy::wanted(pod, container);
        if !self.given || wanted.is_empty() {
            return None;
        }
        let had = self.of(crate::pod::spec::uid(pod), &container.name);
        match had.is_empty() {
            true => Some(policy::hints(&self.state(), &wanted, reusable)),
            false => policy::hints_again(&had, &wanted),
        }
    }

    /// The same for all containers of a pod.
    pub fn hints_of_pod(&self, pod: &Pod) -> Option<Vec<Hint>> {
        let wanted = policy::wanted_by_pod(pod);
        if !self.given || wanted.is_empty() {
            return None;
        }
        Some(policy::hints(&self.state(), &wanted, &Reusable::new()))
    }
}

/// What is reserved by node must be what the node keeps from pods in all.
fn check(
    reserved: &BTreeMap<u32, Sizes>,
    kept: &Sizes,
    machine: &BTreeMap<u32, Sizes>,
) -> Result<(), MemoryStartError> {
    if let Some(node) = reserved.keys().find(|n| !machine.contains_key(n)) {
        return Err(MemoryStartError::NoNode { node: *node });
    }
    let mut total = Sizes::new();
    for (kind, size) in reserved.values().flatten() {
        *total.entry(kind.clone()).or_default() += size;
    }
    let kinds = total.keys().chain(kept.keys());
    let of = |all: &Sizes, kind: &String| all.get(kind).copied().unwrap_or(0);
    let mut unequal = kinds.filter(|kind| of(&total, kind) != of(kept, kind));
    match unequal.next() {
        None => Ok(()),
        Some(kind) => Err(MemoryStartError::Unequal {
            kind: kind.clone(),
            reserved: of(&total, kind),
            kept: of(kept, kind),
        }),
    }
}
