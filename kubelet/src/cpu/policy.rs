//! The static policy: who has which CPUs for itself. Pure.
//!
//! As kubernetes v1.37 pkg/kubelet/cm/cpumanager/policy_static.go decides.

use super::distribute::{self, Even};
use super::options::StaticOptions;
use super::take::Taking;
use crate::pod::spec::qos::{self, Qos};
use crate::quantity::Amount;
use crate::topology::{CpuSet, CpuTopology, Hint, Level, NodeMask};
use k8s_openapi::api::core::v1::{Container, Pod};
use std::collections::BTreeMap;

/// Why a container does not get its CPUs.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs)]
pub enum CpuError {
    #[error(
        "not enough cpus available to satisfy request: requested={requested}, available={available}"
    )]
    TooFew { requested: usize, available: usize },
    #[error(
        "SMT Alignment Error: requested {requested} cpus not multiple cpus per core = {per_core}"
    )]
    Unaligned { requested: usize, per_core: usize },
    #[error(
        "SMT Alignment Error: not enough free physical CPUs: available physical CPUs = {available}, requested CPUs = {requested}, CPUs per core = {per_core}"
    )]
    TooFewCores {
        requested: usize,
        available: usize,
        per_core: usize,
    },
}

/// Why what was written down can't be gone on with.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs)]
pub enum StateError {
    #[error("default cpuset cannot be empty")]
    NoShared,
    #[error("not all reserved cpus: {reserved} are present in defaultCpuSet: {shared}")]
    ReservedGone { reserved: CpuSet, shared: CpuSet },
    #[error("some of strictly reserved cpus: {reserved} are present in defaultCpuSet: {shared}")]
    ReservedShared { reserved: CpuSet, shared: CpuSet },
    #[error(
        "pod: {pod}, container: {container} cpuset: {cpus} overlaps with default cpuset {shared}"
    )]
    Overlap {
        pod: String,
        container: String,
        cpus: CpuSet,
        shared: CpuSet,
    },
    #[error("current set of available CPUs {online} doesn't match with CPUs in state {known}")]
    OtherCpus { online: CpuSet, known: CpuSet },
}

/// Which CPUs are whose.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct State {
    /// Everybody's who has none of his own.
    pub shared: CpuSet,
    /// By pod's uid and container's name.
    pub exclusive: BTreeMap<String, BTreeMap<String, CpuSet>>,
}

impl State {
    /// What a container has for itself.
    pub fn of(&self, pod: &str, container: &str) -> Option<&CpuSet> {
        self.exclusive.get(pod)?.get(container)
    }

    /// All that containers have for themselves.
    pub fn taken(&self) -> CpuSet {
        let all = self.exclusive.values().flat_map(BTreeMap::values);
        all.fold(CpuSet::default(), |sum, cpus| sum.or(cpus))
    }

    /// Takes back what pods have that don't stay; whether there was any.
    pub fn release(&mut self, keep: impl Fn(&str) -> bool) -> bool {
        let before = self.taken();
        self.exclusive.retain(|pod, _| keep(pod));
        let freed = before.without(&self.taken());
        self.shared = self.shared.or(&freed);
        !freed.is_empty()
    }
}

/// The policy on one machine.
#[derive(Debug, Clone)]
pub struct Static {
    topology: CpuTopology,
    reserved: CpuSet,
    options: StaticOptions,
}

impl Static {
    /// With the CPUs that are set aside for the system: those named, or so many of
    /// the first cores. `None` when there are not so many.
    pub fn new(
        topology: CpuTopology,
        options: StaticOptions,
        reserved: Reserved,
    ) -> Option<Static> {
        let reserved = match reserved {
            Reserved::Cpus(cpus) => topology.all().covers(&cpus).then_some(cpus),
            Reserved::Count(count) => take(&topology, options, &topology.all(), count),
        }?;
        Some(Static {
            topology,
            reserved,
            options,
        })
    }

    /// CPUs that may ever be given away.
    pub fn allocatable(&self) -> CpuSet {
        self.topology.all().without(&self.reserved)
    }

    /// CPUs that may be given away now.
    pub fn available(&self, state: &State) -> CpuSet {
        state.shared.without(&self.reserved)
    }

    /// Looks whether what was written down fits this machine; begins anew if nothing was.
    ///
    /// # Errors
    /// When it does not fit: containers would share CPUs that are theirs alone.
    pub fn check(&self, state: &mut State) -> Result<(), StateError> {
        let strict = self.options.strict_cpu_reservation;
        let online = match strict {
            true => self.allocatable(),
            false => self.topology.all(),
        };
        if state.shared.is_empty() {
            if !state.exclusive.is_empty() {
                return Err(StateError::NoShared);
            }
            state.shared = online;
            return Ok(());
        }
        let shared = state.shared.clone();
        let reserved = self.reserved.and(&shared);
        if strict && !reserved.is_empty() {
            return Err(StateError::ReservedShared { reserved, shared });
        }
        if !strict && reserved != self.reserved {
            let reserved = self.reserved.clone();
            return Err(StateError::ReservedGone { reserved, shared });
        }
        for (pod, containers) in &state.exclusive {
            for (container, cpus) in containers {
                if !cpus.and(&shared).is_empty() {
                    return Err(StateError::Overlap {
                        pod: pod.clone(),
                        container: container.clone(),
                        cpus: cpus.clone(),
                        shared,
                    });
                }
            }
        }
        let known = shared.or(&state.taken());
        match known == online {
            true => Ok(()),
            false => Err(StateError::OtherCpus { online, known }),
        }
    }

    /// Gives a container so many CPUs for itself, those of the pod's init containers
    /// before others; what it has already stays.
    ///
    /// # Errors
    /// When there are too few.
    pub fn allocate(&self, state: &mut State, wanted: &Wanted<'_>) -> Result<(), CpuError> {
        if state.of(wanted.pod, wanted.container).is_some() {
            return Ok(());
        }
        self.check_cores(state, wanted.count)?;
        let free = self.available(state).or(wanted.reusable);
        let near = match wanted.affinity {
            Some(nodes) => self.near(nodes, &free),
            None => CpuSet::default(),
        };
        let too_few = || CpuError::TooFew {
            requested: wanted.count,
            available: free.len(),
        };
        let first = self.take(&near, wanted.count.min(near.len()));
        let first = first.ok_or_else(too_few)?;
        let rest = self.take(&free.without(&first), wanted.count - first.len());
        let cpus = first.or(&rest.ok_or_else(too_few)?);
        state.shared = state.shared.without(&cpus);
        let pod = state.exclusive.entry(wanted.pod.to_owned()).or_default();
        pod.insert(wanted.container.to_owned(), cpus);
        Ok(())
    }

    fn take(&self, free: &CpuSet, count: usize) -> Option<CpuSet> {
        take(&self.topology, self.options, free, count)
    }

    /// Those of `free` that are on these nodes, or on their sockets.
    fn near(&self, nodes: NodeMask, free: &CpuSet) -> CpuSet {
        let near = self.topology.on_nodes(nodes, &self.topology.all());
        if !self.options.align_by_socket {
            return near.and(free);
        }
        let sockets = self.topology.ids_of(Level::Socket, &near);
        let inside = sockets
            .into_iter()
            .map(|s| self.topology.within(Level::Socket, s, free));
        inside.fold(CpuSet::default(), |sum, cpus| sum.or(&cpus))
    }

    fn check_cores(&self, state: &State, requested: usize) -> Result<(), CpuError> {
        if !self.options.full_pcpus_only {
            return Ok(());
        }
        let per_core = self.topology.per(Level::Core);
        if !requested.is_multiple_of(per_core.max(1)) {
            return Err(CpuError::Unaligned {
                requested,
                per_core,
            });
        }
        // Of a core that is reserved in part nothing can be given.
        let cores = self.topology.ids_of(Level::Core, &self.reserved);
        let reserved = cores.into_iter().map(|core| {
            self.topology
                .within(Level::Core, core, &self.topology.all())
        });
        let reserved = reserved.fold(CpuSet::default(), |sum, cpus| sum.or(&cpus));
        let available = state.shared.without(&reserved).len();
        if requested > available {
            return Err(CpuError::TooFewCores {
                requested,
                available,
                per_core,
            });
        }
        Ok(())
    }

    /// On which NUMA nodes a container could have its CPUs. Nothing is nowhere.
    pub fn hints(&self, state: &State, wanted: &Wanted<'_>) -> Vec<Hint> {
        let had = state.of(wanted.pod, wanted.container);
        match had {
            Some(had) if had.len() != wanted.count => Vec::new(),
            Some(had) => self.hints_of(had, &CpuSet::default(), wanted.count),
            None => self.hints_of(&self.available(state), wanted.reusable, wanted.count),
        }
    }

    /// The same for a whole pod; `had` is what its containers have already.
    pub fn hints_of_pod(&self, state: &State, had: &CpuSet, count: usize) -> Vec<Hint> {
        match had.is_empty() {
            true => self.hints_of(&self.available(state), had, count),
            false if had.len() == count => self.hints_of(had, &CpuSet::default(), count),
            false => Vec::new(),
        }
    }

    fn hints_of(&self, available: &CpuSet, reusable: &CpuSet, count: usize) -> Vec<Hint> {
        let all = self.topology.all();
        let mut fewest = self.topology.nodes().count();
        let mut hints = Vec::new();
        for nodes in self.topology.nodes().subsets() {
            let of = |cpus: &CpuSet| self.topology.on_nodes(nodes, cpus).len();
            if of(&all) >= count {
                fewest = fewest.min(nodes.count());
            }
            let usable = available.or(reusable);
            if of(reusable) == reusable.len() && of(&usable) >= count {
                hints.push(nodes);
            }
        }
        let hint = |nodes: NodeMask| Hint {
            nodes: Some(nodes),
            preferred: nodes.count() == fewest || self.in_sockets(nodes, fewest),
        };
        hints.into_iter().map(hint).collect()
    }

    /// With align-by-socket nodes do as well that are in as few sockets as can be.
    fn in_sockets(&self, nodes: NodeMask, fewest: u32) -> bool {
        let count = |level| self.topology.ids(level).len();
        let per_socket = count(Level::Node) / count(Level::Socket).max(1);
        if !self.options.align_by_socket || per_socket == 0 {
            return false;
        }
        let cpus = self.topology.on_nodes(nodes, &self.topology.all());
        let sockets = self.topology.ids_of(Level::Socket, &cpus).len();
        sockets == (fewest as usize).div_ceil(per_socket)
    }

    /// The machine.
    pub fn topology(&self) -> &CpuTopology {
        &self.topology
    }

    /// As it was configured.
    pub fn options(&self) -> StaticOptions {
        self.options
    }
}

/// What the system keeps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reserved {
    /// `reservedSystemCPUs`.
    Cpus(CpuSet),
    /// So many.
    Count(usize),
}

/// What a container asks for.
#[derive(Debug, Clone, Copy)]
#[allow(missing_docs)]
pub struct Wanted<'a> {
    /// The pod's uid.
    pub pod: &'a str,
    pub container: &'a str,
    pub count: usize,
    /// Where they had better be.
    pub affinity: Option<NodeMask>,
    /// What init containers of the pod had.
    pub reusable: &'a CpuSet,
}

fn take(
    topology: &CpuTopology,
    options: StaticOptions,
    free: &CpuSet,
    count: usize,
) -> Option<CpuSet> {
    let how = Taking::new(topology, options);
    if !options.distribute_cpus_across_numa {
        return how.packed(free, count);
    }
    let group = match options.full_pcpus_only {
        true => topology.per(Level::Core).max(1),
        false => 1,
    };
    let even = Even {
        group,
        align_by_socket: options.align_by_socket,
    };
    distribute::distributed(how, even, free, count)
}

/// How many CPUs a container wants for itself: a Guaranteed pod's that asks for whole ones.
pub fn wanted(pod: &Pod, container: &Container) -> usize {
    // Pods with resources of their own share: PodLevelResourceManagers is off.
    let own = pod.spec.as_ref().and_then(|s| s.resources.as_ref());
    let pod_level = own.is_some_and(|r| r.requests.is_some() || r.limits.is_some());
    if pod_level || qos::of(pod) != Qos::Guaranteed {
        return 0;
    }
    let requests = container
        .resources
        .as_ref()
        .and_then(|r| r.requests.as_ref());
    let limits = container.resources.as_ref().and_then(|r| r.limits.as_ref());
    let asked = |list: Option<&BTreeMap<_, _>>| list.and_then(|l| l.get("cpu")).map(Amount::from);
    let cpu = asked(requests)
        .or_else(|| asked(limits))
        .unwrap_or_default();
    match cpu.millis() % 1000 {
        0 => usize::try_from(cpu.millis() / 1000).unwrap_or(0),
        _ => 0,
    }
}

/// How many a whole pod wants: its greatest moment.
pub fn wanted_by_pod(pod: &Pod) -> usize {
    let spec = pod.spec.as_ref();
    let init = spec
        .into_iter()
        .flat_map(|s| s.init_containers.iter().flatten());
    let (mut sidecars, mut starting) = (0, 0);
    for container in init {
        let own = wanted(pod, container);
        if crate::pod::lifecycle::restartable_init(container) {
            sidecars += own;
        } else {
            starting = starting.max(sidecars + own);
        }
    }
    let app = spec.into_iter().flat_map(|s| &s.containers);
    let running: usize = app.map(|c| wanted(pod, c)).sum();
    starting.max(sidecars + running)
}

#[cfg(test)]
#[path = "policy_tests.rs"]
mod tests;
