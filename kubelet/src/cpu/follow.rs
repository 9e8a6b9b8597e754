//! Running containers moved to the CPUs that they are to run on.
//!
//! Whenever somebody is given CPUs for himself, or gives them back, and now and then.

use super::Cpus;
use crate::pod::{PodView, spec};
use crate::topology::CpuSet;
use cri_proto::{Cri, v1};
use k8s_openapi::api::core::v1::ContainerStatus;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// Follows who has which CPUs.
pub struct Follower {
    /// The runtime.
    pub cri: Arc<dyn Cri>,
    /// Whose containers they are.
    pub pods: Arc<dyn PodView>,
    /// Who has what.
    pub cpus: Arc<Cpus>,
    /// `cpuManagerReconcilePeriod`.
    pub period: Duration,
}

impl Follower {
    /// Until `shutdown`.
    pub async fn run(self, shutdown: CancellationToken) {
        if !self.cpus.are_given() {
            return;
        }
        let mut changes = self.cpus.changes();
        let mut applied = HashMap::new();
        loop {
            self.apply(&mut applied).await;
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep(self.period) => {}
                _ = changes.changed() => {}
            }
        }
    }

    async fn apply(&self, applied: &mut HashMap<String, CpuSet>) {
        let running = self.running();
        applied.retain(|id, _| running.contains_key(id));
        for (id, cpus) in running {
            if applied.get(&id) == Some(&cpus) {
                continue;
            }
            let resources = v1::LinuxContainerResources {
                cpuset_cpus: cpus.to_string(),
                ..v1::LinuxContainerResources::default()
            };
            let request = v1::UpdateContainerResourcesRequest {
                container_id: id.clone(),
                linux: Some(resources),
                ..v1::UpdateContainerResourcesRequest::default()
            };
            match self.cri.update_container_resources(request).await {
                Ok(_) => drop(applied.insert(id, cpus)),
                Err(status) => {
                    let why = status.message();
                    tracing::warn!(container = id, %cpus, why, "container is not moved to other CPUs");
                }
            }
        }
    }

    /// Containers that run, by id, and where they are to.
    fn running(&self) -> HashMap<String, CpuSet> {
        let mut all = HashMap::new();
        for known in self.pods.pods() {
            let uid = spec::uid(&known.pod);
            let app = known.status.container_statuses.iter().flatten();
            let init = known.status.init_container_statuses.iter().flatten();
            for status in app.chain(init) {
                if let (Some(id), Some(cpus)) =
                    (running(status), self.cpus.place(uid, &status.name))
                    && !cpus.is_empty()
                {
                    all.insert(id.to_owned(), cpus);
                }
            }
        }
        all
    }
}

/// The runtime's id of a container that runs.
fn running(status: &ContainerStatus) -> Option<&str> {
    status.state.as_ref()?.running.as_ref()?;
    let (_, id) = status.container_id.as_deref()?.split_once("://")?;
    Some(id)
}
