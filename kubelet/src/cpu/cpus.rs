//! The CPUs of a node and who has them, kept over restarts.

use super::options::StaticOptions;
use super::policy::{self, CpuError, Reserved, State, Static, Wanted};
use super::state;
use crate::checkpoint::CheckpointError;
use crate::metrics::Metrics;
use crate::topology::{CpuSet, CpuTopology, Hint, Level, NodeMask, TopologyError};
use k8s_openapi::api::core::v1::{Container, Pod};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::watch;

/// What `cpuManagerPolicy` and its fellows say.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CpuPolicy {
    /// `None`: policy none.
    pub exclusive: Option<StaticOptions>,
    /// `reservedSystemCPUs`.
    pub reserved_cpus: Option<CpuSet>,
    /// Thousandths of a CPU that the system and the kubelet keep.
    pub reserved_millis: u64,
    /// The topology manager's policy is single-numa-node.
    pub single_numa_node: bool,
}

/// Why CPUs can't be given to anybody.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum CpuStartError {
    #[error(transparent)]
    Topology(#[from] TopologyError),
    #[error(
        "cpuManagerPolicy static needs CPU that is kept for the system: set reservedSystemCPUs, or \
         systemReserved.cpu or kubeReserved.cpu above zero"
    )]
    NothingReserved,
    #[error("the CPUs to be reserved ({wanted}) are not all on this machine, which has {online}")]
    ReservedMissing { wanted: String, online: CpuSet },
    #[error("cpuManagerPolicyOptions: {0}")]
    Options(String),
    #[error(transparent)]
    State(#[from] CheckpointError),
}

/// Given to containers for themselves, or shared.
pub struct Cpus {
    policy: Option<Static>,
    state: Mutex<State>,
    path: PathBuf,
    changed: watch::Sender<()>,
    metrics: Metrics,
}

const NONE: &str = "none";
const STATIC: &str = "static";

impl Cpus {
    /// With what an earlier kubelet gave, kept below `root` (`/var/lib/kubelet`); `sys`
    /// is usually /sys/devices/system.
    ///
    /// # Errors
    /// When the policy does not fit the machine or what was written down.
    pub fn new(
        wanted: &CpuPolicy,
        root: &Path,
        sys: &Path,
        metrics: Metrics,
    ) -> Result<Arc<Cpus>, CpuStartError> {
        let path = root.join(state::FILE);
        let Some(options) = wanted.exclusive else {
            let found = state::read(&path, NONE)?;
            if found.is_none() {
                state::write(&path, NONE, &State::default())?;
            }
            return Ok(Cpus::made_of(None, State::default(), path, metrics));
        };
        let policy = policy_of(wanted, options, CpuTopology::read(sys)?)?;
        let mut state = state::read(&path, STATIC)?.unwrap_or_default();
        policy
            .check(&mut state)
            .map_err(|e| CheckpointError::Misfit {
                path: path.clone(),
                why: e.to_string(),
            })?;
        state::write(&path, STATIC, &state)?;
        let reserved = policy.topology().all().without(&policy.allocatable());
        tracing::info!(%reserved, shared = %state.shared, "CPUs are given to Guaranteed containers");
        let cpus = Cpus::made_of(Some(policy), state, path, metrics);
        cpus.show();
        Ok(cpus)
    }

    /// Everybody has all of them.
    pub fn none() -> Arc<Cpus> {
        Cpus::made_of(None, State::default(), PathBuf::new(), Metrics::default())
    }

    fn made_of(policy: Option<Static>, state: State, path: PathBuf, metrics: Metrics) -> Arc<Cpus> {
        Arc::new(Cpus {
            policy,
            state: Mutex::new(state),
            path,
            changed: watch::channel(()).0,
            metrics,
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hears of every change of who has what.
    pub fn changes(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// Whether a pod gets any for itself.
    pub fn concerns(&self, pod: &Pod) -> bool {
        self.policy.is_some() && policy::wanted_by_pod(pod) > 0
    }

    /// Whether CPUs are given away at all.
    pub fn are_given(&self) -> bool {
        self.policy.is_some()
    }

    /// Gives a container of a pod its CPUs; what it has stays.
    ///
    /// # Errors
    /// When there are too few of them.
    pub fn allocate(
        &self,
        (pod, container): (&Pod, &Container),
        affinity: Option<NodeMask>,
        reusable: &CpuSet,
    ) -> Result<(), CpuError> {
        let count = policy::wanted(pod, container);
        let (Some(policy), true) = (&self.policy, count > 0) else {
            return Ok(());
        };
        let wanted = Wanted {
            pod: crate::pod::spec::uid(pod),
            container: &container.name,
            count,
            affinity,
            reusable,
        };
        let full = policy.options().full_pcpus_only;
        let mut state = self.state();
        let allocated = policy.allocate(&mut state, &wanted);
        self.metrics.cpus_pinned(allocated.is_ok(), full);
        allocated?;
        let cpus = state.of(wanted.pod, wanted.container).cloned();
        tracing::debug!(pod = wanted.pod, container = wanted.container, cpus = %cpus.unwrap_or_default(), "CPUs given");
        self.save(&state);
        drop(state);
        self.tell();
        Ok(())
    }

    fn save(&self, state: &State) {
        if let Err(error) = state::write(&self.path, STATIC, state) {
            let why = crate::join::report::chain(&error);
            tracing::warn!(why, "CPUs given are not written down");
        }
    }

    fn tell(&self) {
        self.show();
        self.changed.send_replace(());
    }

    fn show(&self) {
        let Some(policy) = &self.policy else { return };
        let state = self.state();
        let taken = state.taken();
        let topology = policy.topology();
        let nodes = topology.ids(Level::Node).into_iter();
        let per_node = nodes.map(|n| (n, topology.within(Level::Node, n, &taken).len()));
        self.metrics
            .cpus_held(policy.available(&state).len(), taken.len(), per_node);
    }

    /// What a container has for itself.
    pub fn of(&self, pod: &str, container: &str) -> Option<CpuSet> {
        self.state().of(pod, container).cloned()
    }

    /// Whether any container of a pod has CPUs for itself.
    pub fn any_of(&self, pod: &str) -> bool {
        self.state().exclusive.contains_key(pod)
    }

    /// Where a container runs; `None`: anywhere.
    pub fn place(&self, pod: &str, container: &str) -> Option<CpuSet> {
        self.policy.as_ref()?;
        let state = self.state();
        let own = state.of(pod, container).cloned();
        Some(own.unwrap_or_else(|| state.shared.clone()))
    }

    /// All that may ever be given away.
    pub fn allocatable(&self) -> CpuSet {
        let policy = self.policy.as_ref();
        policy.map(Static::allocatable).unwrap_or_default()
    }

    /// Takes back what pods have that do not stay, by uid.
    pub fn release(&self, keep: impl Fn(&str) -> bool) {
        let mut state = self.state();
        if !state.release(keep) {
            return;
        }
        self.save(&state);
        drop(state);
        self.tell();
    }

    /// Where a container could have its CPUs; `None`: it wants none for itself.
    pub fn hints(
        &self,
        (pod, container): (&Pod, &Container),
        reusable: &CpuSet,
    ) -> Option<Vec<Hint>> {
        let count = policy::wanted(pod, container);
        let policy = self.policy.as_ref().filter(|_| count > 0)?;
        let wanted = Wanted {
            pod: crate::pod::spec::uid(pod),
            container: &container.name,
            count,
            affinity: None,
            reusable,
        };
        Some(policy.hints(&self.state(), &wanted))
    }

    /// The same for all containers of a pod.
    pub fn hints_of_pod(&self, pod: &Pod) -> Option<Vec<Hint>> {
        let count = policy::wanted_by_pod(pod);
        let policy = self.policy.as_ref().filter(|_| count > 0)?;
        let state = self.state();
        let own = state.exclusive.get(crate::pod::spec::uid(pod));
        let had = own.into_iter().flat_map(BTreeMap::values);
        let had = had.fold(CpuSet::default(), |sum, cpus| sum.or(cpus));
        Some(policy.hints_of_pod(&state, &had, count))
    }
}

fn policy_of(
    wanted: &CpuPolicy,
    options: StaticOptions,
    topology: CpuTopology,
) -> Result<Static, CpuStartError> {
    let check = options.check(&topology, wanted.single_numa_node);
    check.map_err(CpuStartError::Options)?;
    let online = topology.all();
    let count = usize::try_from(wanted.reserved_millis.div_ceil(1000)).unwrap_or(usize::MAX);
    let reserved = match &wanted.reserved_cpus {
        Some(cpus) => Reserved::Cpus(cpus.clone()),
        None => Reserved::Count(count),
    };
    let text = match &reserved {
        Reserved::Cpus(cpus) if cpus.is_empty() => return Err(CpuStartError::NothingReserved),
        Reserved::Count(0) => return Err(CpuStartError::NothingReserved),
        Reserved::Cpus(cpus) => cpus.to_string(),
        Reserved::Count(count) => format!("{count} of them"),
    };
    let made = Static::new(topology, options, reserved);
    made.ok_or(CpuStartError::ReservedMissing {
        wanted: text,
        online,
    })
}
