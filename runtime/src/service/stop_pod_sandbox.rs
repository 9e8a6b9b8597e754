//! StopPodSandbox and RemovePodSandbox. Every step may be repeated; what is
//! gone already is no error.

use super::VerbError;
use super::core::Core;
use super::flights::detached;
use crate::container::State as ContainerState;
use crate::sandbox::{Identified, Sandbox, State};
use cri_proto::Status;
use cri_proto::v1::{
    ContainerEventType, RemovePodSandboxRequest, RemovePodSandboxResponse, StopPodSandboxRequest,
    StopPodSandboxResponse,
};
use futures::future::join_all;
use std::sync::Arc;
use std::time::Duration;
use tracing::Instrument;

pub(super) async fn stop_pod_sandbox(
    core: Arc<Core>,
    request: StopPodSandboxRequest,
) -> Result<StopPodSandboxResponse, Status> {
    let Some(sandbox) = core.find_sandbox(&request.pod_sandbox_id)? else {
        return Ok(StopPodSandboxResponse {});
    };
    let span = tracing::info_span!("stop_pod_sandbox", id = &sandbox.id()[..13]);
    let work = async move { Ok(core.stop_sandbox(&sandbox).await?) };
    detached(work.instrument(span)).await?;
    Ok(StopPodSandboxResponse {})
}

pub(super) async fn remove_pod_sandbox(
    core: Arc<Core>,
    request: RemovePodSandboxRequest,
) -> Result<RemovePodSandboxResponse, Status> {
    let Some(sandbox) = core.find_sandbox(&request.pod_sandbox_id)? else {
        return Ok(RemovePodSandboxResponse {});
    };
    let span = tracing::info_span!("remove_pod_sandbox", id = &sandbox.id()[..13]);
    let work = async move { Ok(core.remove_sandbox(&sandbox).await?) };
    detached(work.instrument(span)).await?;
    Ok(RemovePodSandboxResponse {})
}

impl Core {
    /// Ends the containers, then the sandbox. It stays listed, NOTREADY.
    async fn stop_sandbox(self: &Arc<Self>, sandbox: &Arc<Sandbox>) -> Result<(), VerbError> {
        let containers = self.containers_of(sandbox.id());
        let stops = containers
            .iter()
            .map(|container| self.end_container(container, Duration::ZERO));
        for stopped in join_all(stops).await {
            stopped?;
        }
        self.end_sandbox(sandbox).await
    }

    /// Gives the network back, ends the monitor and whatever it left behind. CNI DEL
    /// wants the network namespace while it lives: the monitor's handle keeps it, and a
    /// path for foreign plugins.
    pub(super) async fn end_sandbox(
        self: &Arc<Self>,
        sandbox: &Arc<Sandbox>,
    ) -> Result<(), VerbError> {
        let _ending = sandbox.ending.lock().await;
        let engine = sandbox.engine();
        // What runs yet is killed with a monitor that is there, and lost with one that was not.
        let end = match &engine {
            Some(_) => super::events::killed(),
            None => super::events::lost(),
        };
        let network = self
            .unwire(sandbox)
            .instrument(tracing::info_span!("network"));
        let monitor = async {
            match &engine {
                Some(engine) => engine.shutdown().await,
                None => Ok(()),
            }
        };
        let monitor = monitor.instrument(tracing::info_span!("monitor"));
        let (unwired, ended) = tokio::join!(network, monitor);
        match ended {
            Ok(()) | Err(crate::process::ProcessError::MonitorGone { .. }) => {}
            Err(error) => return Err(error.into()),
        }
        sandbox.set_engine(None);
        self.engine.forget(sandbox.id());
        for container in self.containers_of(sandbox.id()) {
            // One that was never started has not ended: it stays CREATED until it is removed.
            if container.state() == ContainerState::Running {
                self.container_ended(&container, end);
            }
            self.remove_cgroup(&container).await?;
        }
        self.discard_first_container(sandbox).await?;
        // A sandbox whose network stays is not stopped; the next call tries again.
        unwired?;
        if sandbox.read(|r| r.state) == State::Ready {
            sandbox.settle(|record| record.state = State::NotReady);
            self.emit(
                ContainerEventType::ContainerStoppedEvent,
                sandbox.id(),
                sandbox,
            );
        }
        Ok(())
    }

    async fn unwire(&self, sandbox: &Sandbox) -> Result<(), VerbError> {
        let Some(network) = sandbox.read(|r| r.network.clone()) else {
            return Ok(());
        };
        if network.released {
            return Ok(());
        }
        let netns = sandbox.engine().map(|engine| engine.netns());
        self.network
            .del(&network.pod, netns.as_deref(), network.attachment.as_ref())
            .await?;
        sandbox.settle(|record| {
            if let Some(network) = &mut record.network {
                network.released = true;
            }
        });
        Ok(())
    }

    async fn remove_sandbox(self: &Arc<Self>, sandbox: &Arc<Sandbox>) -> Result<(), VerbError> {
        self.stop_sandbox(sandbox).await?;
        let containers = self.containers_of(sandbox.id());
        let removals = containers
            .iter()
            .map(|container| self.take_container(container));
        for removed in join_all(removals).await {
            removed?;
        }
        let _ending = sandbox.ending.lock().await;
        if self.sandboxes.get(sandbox.id()).is_none() {
            return Ok(());
        }
        self.sandboxes.remove(sandbox.id());
        self.leave_cgroup(sandbox);
        super::core::delete(sandbox.dir());
        self.samples.forget(sandbox.id());
        self.emit(
            ContainerEventType::ContainerDeletedEvent,
            sandbox.id(),
            sandbox,
        );
        Ok(())
    }

    /// Removes the levels that were made for the pod, unless others use them.
    pub(super) fn leave_cgroup(&self, sandbox: &Sandbox) {
        let cgroup = sandbox.read(|r| r.cgroup.clone());
        self.pod_cgroups.leave(&self.cgroups, sandbox.id(), &cgroup);
    }
}
