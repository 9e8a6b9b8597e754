//! What pods are given that others can't have at the same time: devices.
//!
//! Decided once, before anything of a pod is made, and for all its containers;
//! taken back when nothing of it runs any more.

use crate::device::{Devices, Given, Wanted};
use crate::pod::lifecycle::restartable_init;
use k8s_openapi::api::core::v1::{Container, ContainerStatus, Pod, PodStatus};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

/// Why a pod can't be taken: `status.reason` and `status.message`.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Refused {
    pub reason: &'static str,
    pub message: String,
}

impl Refused {
    /// kubernetes v1.37 pkg/kubelet/cm/admission/errors.go `GetPodAdmitResult`.
    fn unexpected(error: &dyn std::error::Error) -> Refused {
        Refused {
            reason: "UnexpectedAdmissionError",
            message: format!("Allocate failed due to {error}, which is unexpected"),
        }
    }
}

/// All that can be given.
pub struct Allocations {
    /// Of device plugins.
    pub devices: Arc<Devices>,
    /// Pods are served one after the other.
    order: tokio::sync::Mutex<()>,
}

impl Allocations {
    /// With what earlier agents gave, kept below `root` (`/var/lib/kubelet`).
    pub fn new(root: &Path) -> Arc<Allocations> {
        Allocations::of(Devices::new(root))
    }

    fn of(devices: Arc<Devices>) -> Arc<Allocations> {
        Arc::new(Allocations {
            devices,
            order: tokio::sync::Mutex::default(),
        })
    }

    /// Where there is nothing to give: `play`, tests.
    pub fn none() -> Arc<Allocations> {
        Allocations::of(Devices::none())
    }

    /// Whether a pod wants any of it.
    pub fn concerns(&self, pod: &Pod) -> bool {
        containers(pod).any(|c| !self.devices.asked(c).is_empty())
    }

    /// Gives a pod of which nothing runs what it wants. What was given before is
    /// not given again.
    ///
    /// # Errors
    /// When it can't have it: the pod has failed then.
    pub async fn allocate(&self, pod: &Pod) -> Result<(), Refused> {
        let _turn = self.order.lock().await;
        let uid = crate::pod::spec::uid(pod);
        let mut reusable = BTreeMap::new();
        for container in containers(pod) {
            let wanted = Wanted {
                pod: uid,
                container,
                affinity: None,
            };
            let done = self.devices.allocate(&wanted, &reusable).await;
            done.map_err(|e| Refused::unexpected(&e))?;
            self.reuse(pod, container, &mut reusable);
        }
        Ok(())
    }

    /// What an init container had, the containers after it may have.
    fn reuse(
        &self,
        pod: &Pod,
        container: &Container,
        reusable: &mut BTreeMap<String, BTreeSet<String>>,
    ) {
        let spec = pod.spec.as_ref();
        let mut init = spec
            .into_iter()
            .flat_map(|s| s.init_containers.iter().flatten());
        let passes_on = init.any(|c| c.name == container.name && !restartable_init(c));
        let uid = crate::pod::spec::uid(pod);
        for (resource, allocation) in self.devices.of(uid, &container.name) {
            let pool: &mut BTreeSet<String> = reusable.entry(resource).or_default();
            match passes_on {
                true => pool.extend(allocation.ids),
                false => pool.retain(|id| !allocation.ids.contains(id)),
            }
        }
    }

    /// What a container needs for what it was given, made ready.
    ///
    /// # Errors
    /// When a device plugin that wants to be asked first says no.
    pub async fn given(&self, pod: &Pod, container: &str) -> Result<Given, tonic::Status> {
        let uid = crate::pod::spec::uid(pod);
        self.devices.given(uid, container).await
    }

    /// Nothing of a pod runs any more.
    pub fn release(&self, uid: &str) {
        self.devices.release(|pod| pod != uid);
    }

    /// No other pods than these are on the node.
    pub fn keep_only(&self, uids: &BTreeSet<String>) {
        self.devices.release(|pod| uids.contains(pod));
    }

    /// Says in a pod's status how its devices are.
    pub fn annotate(&self, uid: &str, status: &mut PodStatus) {
        let app = status.container_statuses.iter_mut().flatten();
        let init = status.init_container_statuses.iter_mut().flatten();
        for container in app.chain(init) {
            self.annotate_container(uid, container);
        }
    }

    fn annotate_container(&self, uid: &str, status: &mut ContainerStatus) {
        let health = self.devices.health(uid, &status.name);
        if !health.is_empty() {
            status.allocated_resources_status = Some(health);
        }
    }
}

/// Init containers first, as they are started.
fn containers(pod: &Pod) -> impl Iterator<Item = &Container> {
    let spec = pod.spec.as_ref();
    spec.into_iter()
        .flat_map(|s| s.init_containers.iter().flatten().chain(&s.containers))
}
