//! What pods are given that others can't have at the same time: devices, CPUs, memory.
//!
//! Decided once, before anything of a pod is made, and for all its containers;
//! taken back when nothing of it runs any more.

mod refused;
mod reusable;

pub use refused::Refused;

use crate::cpu::Cpus;
use crate::device::{Devices, Given, Wanted};
use crate::dra::Dra;
use crate::memory::Memory;
use crate::metrics::Metrics;
use crate::pod::spec;
use crate::topology::Hint;
use crate::topology::policy::{Aligner, Alignment, Scope};
use cri_proto::v1::LinuxContainerResources;
use k8s_openapi::api::core::v1::{Container, ContainerStatus, Pod, PodStatus};
use reusable::Reusable;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Instant;

/// All that can be given.
pub struct Allocations {
    /// Of device plugins.
    pub devices: Arc<Devices>,
    /// For containers alone.
    pub cpus: Arc<Cpus>,
    /// Of NUMA nodes.
    pub memory: Arc<Memory>,
    /// Of drivers that the scheduler allocates.
    pub dra: Arc<Dra>,
    aligner: Aligner,
    metrics: Metrics,
    /// Pods are served one after the other.
    order: tokio::sync::Mutex<()>,
}

/// What an [`Allocations`] is made of.
#[allow(missing_docs)]
pub struct Givers {
    pub devices: Arc<Devices>,
    pub cpus: Arc<Cpus>,
    pub memory: Arc<Memory>,
    pub dra: Arc<Dra>,
    pub aligner: Aligner,
    pub metrics: Metrics,
}

impl Allocations {
    /// Of these.
    pub fn new(givers: Givers) -> Arc<Allocations> {
        Arc::new(Allocations {
            devices: givers.devices,
            cpus: givers.cpus,
            memory: givers.memory,
            dra: givers.dra,
            aligner: givers.aligner,
            metrics: givers.metrics,
            order: tokio::sync::Mutex::default(),
        })
    }

    /// Where there is nothing to give: `play`, tests.
    pub fn none() -> Arc<Allocations> {
        Allocations::new(Givers {
            devices: Devices::none(),
            cpus: Cpus::none(),
            memory: Memory::none(),
            dra: Dra::none(),
            aligner: Aligner::default(),
            metrics: Metrics::default(),
        })
    }

    /// Whether a pod wants any of it.
    pub fn concerns(&self, pod: &Pod) -> bool {
        let devices = || containers(pod).any(|c| !self.devices.asked(c).is_empty());
        self.cpus.concerns(pod) || self.memory.concerns(pod) || devices()
    }

    /// Gives a pod of which nothing runs what it wants. What was given before is
    /// not given again.
    ///
    /// # Errors
    /// When it can't have it: the pod has failed then.
    pub async fn allocate(&self, pod: &Pod) -> Result<(), Refused> {
        let _turn = self.order.lock().await;
        let began = Instant::now();
        let done = self.allocate_all(pod).await;
        self.metrics
            .topology_admitted(done.is_ok(), began.elapsed());
        done
    }

    async fn allocate_all(&self, pod: &Pod) -> Result<(), Refused> {
        let whole = match self.aligner.policy.scope {
            Scope::Pod => Some(self.place_of_pod(pod)?),
            Scope::Container => None,
        };
        let mut reusable = Reusable::default();
        for container in containers(pod) {
            let affinity = match whole {
                Some(place) => place,
                None => self.place(pod, container, &reusable)?,
            };
            let wanted = Wanted {
                pod: spec::uid(pod),
                container,
                affinity: affinity.nodes,
            };
            let done = self.devices.allocate(&wanted, &reusable.devices).await;
            done.map_err(|e| Refused::unexpected(&e))?;
            let own = (pod, container);
            let done = self.cpus.allocate(own, affinity.nodes, &reusable.cpus);
            done.map_err(Refused::cpu)?;
            let done = self.memory.allocate(own, affinity, &reusable.memory);
            done.map_err(|e| Refused::unexpected(&e))?;
            self.reuse(pod, container, &mut reusable);
        }
        if whole.is_some() {
            self.metrics
                .aligned("pod", "numa_node", self.guaranteed(), true);
        }
        Ok(())
    }

    /// Whether all of a container comes from one NUMA node or it does not run.
    fn guaranteed(&self) -> bool {
        self.aligner.policy.alignment == Alignment::SingleNumaNode
    }

    /// Where all that a container asks for had better be.
    fn place(
        &self,
        pod: &Pod,
        container: &Container,
        reusable: &Reusable,
    ) -> Result<Hint, Refused> {
        let mut hints = self
            .devices
            .hints(spec::uid(pod), container, &reusable.devices);
        let own = (pod, container);
        hints.push(self.cpus.hints(own, &reusable.cpus));
        hints.push(self.memory.hints(own, &reusable.memory));
        let place = self.aligner.place(hints);
        let guaranteed = self.guaranteed();
        self.metrics
            .aligned("container", "numa_node", guaranteed, place.is_some());
        place.ok_or_else(Refused::topology)
    }

    fn place_of_pod(&self, pod: &Pod) -> Result<Hint, Refused> {
        let mut hints = self.devices.hints_of_pod(pod);
        hints.push(self.cpus.hints_of_pod(pod));
        hints.push(self.memory.hints_of_pod(pod));
        let place = self.aligner.place(hints);
        if place.is_none() {
            self.metrics
                .aligned("pod", "numa_node", self.guaranteed(), false);
        }
        place.ok_or_else(Refused::topology)
    }

    /// What an init container had, the containers after it may have.
    fn reuse(&self, pod: &Pod, container: &Container, reusable: &mut Reusable) {
        let uid = spec::uid(pod);
        let passes_on = reusable::passes_on(pod, container);
        for (resource, allocation) in self.devices.of(uid, &container.name) {
            reusable.devices(passes_on, resource, &allocation.ids);
        }
        let cpus = self.cpus.of(uid, &container.name).unwrap_or_default();
        reusable.cpus(passes_on, &cpus);
        reusable.memory(passes_on, &self.memory.of(uid, &container.name));
    }

    /// What a container needs for what it was given, made ready.
    ///
    /// # Errors
    /// When a device plugin that wants to be asked first says no, or a claim was not made ready.
    pub async fn given(&self, pod: &Pod, container: &Container) -> Result<Given, tonic::Status> {
        let uid = spec::uid(pod);
        let mut given = self.devices.given(uid, &container.name).await?;
        let claimed = self.dra.cdi(pod, container);
        for name in claimed.map_err(tonic::Status::internal)? {
            given.add_cdi(&name);
        }
        Ok(given)
    }

    /// Where a container runs; one that has its CPUs for itself is not throttled.
    ///
    /// kubernetes v1.37 `DisableCPUQuotaWithExclusiveCPUs`.
    pub fn pin(&self, pod: &Pod, container: &str, resources: &mut LinuxContainerResources) {
        let uid = spec::uid(pod);
        if let Some(cpus) = self.cpus.place(uid, container) {
            resources.cpuset_cpus = cpus.to_string();
        }
        if let Some(nodes) = self.memory.place(uid, container) {
            resources.cpuset_mems = nodes.to_string();
        }
        if self.cpus.of(uid, container).is_some() {
            resources.cpu_quota = UNLIMITED;
        }
    }

    /// The same of a pod's cgroup.
    pub fn pin_pod(&self, pod: &Pod, resources: &mut LinuxContainerResources) {
        if self.cpus.any_of(spec::uid(pod)) {
            resources.cpu_quota = UNLIMITED;
        }
    }

    /// What a Guaranteed pod can't be given more or less of while it runs: resource, manager
    /// and policy.
    pub fn fixed_kinds(&self) -> Vec<(&'static str, &'static str, &'static str)> {
        let cpu = self.cpus.are_given().then_some(("cpu", "CPU", "static"));
        let memory = self.memory.is_given();
        let memory = memory.then_some(("memory", "Memory", "Static"));
        cpu.into_iter().chain(memory).collect()
    }

    /// Nothing of a pod runs any more.
    pub fn release(&self, uid: &str) {
        self.devices.release(|pod| pod != uid);
        self.cpus.release(|pod| pod != uid);
        self.memory.release(|pod| pod != uid);
    }

    /// No other pods than these are on the node.
    pub fn keep_only(&self, uids: &BTreeSet<String>) {
        self.devices.release(|pod| uids.contains(pod));
        self.cpus.release(|pod| uids.contains(pod));
        self.memory.release(|pod| uids.contains(pod));
        tokio::spawn(self.dra.clone().keep_only(uids.clone()));
    }

    /// Says in a pod's status how its devices are.
    pub fn annotate(&self, pod: &Pod, status: &mut PodStatus) {
        let app = status.container_statuses.iter_mut().flatten();
        let init = status.init_container_statuses.iter_mut().flatten();
        for container in app.chain(init) {
            self.annotate_container(pod, container);
        }
    }

    fn annotate_container(&self, pod: &Pod, status: &mut ContainerStatus) {
        let mut health = self.devices.health(spec::uid(pod), &status.name);
        let app = pod.spec.iter().flat_map(|s| &s.containers);
        for container in app.filter(|c| c.name == status.name) {
            health.extend(self.dra.health(pod, container));
        }
        if !health.is_empty() {
            status.allocated_resources_status = Some(health);
        }
    }
}

/// CRI's word for no quota.
const UNLIMITED: i64 = -1;

/// Init containers first, as they are started.
fn containers(pod: &Pod) -> impl Iterator<Item = &Container> {
    let spec = pod.spec.as_ref();
    spec.into_iter()
        .flat_map(|s| s.init_containers.iter().flatten().chain(&s.containers))
}
