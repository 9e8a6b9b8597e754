//! StopContainer and RemoveContainer.

use super::VerbError;
use super::core::Core;
use super::flights::detached;
use super::prepare_container::owner;
use crate::container::{Container, State};
use crate::process::ProcessError;
use crate::sandbox::Identified;
use cri_proto::Status;
use cri_proto::v1::{
    ContainerEventType, RemoveContainerRequest, RemoveContainerResponse, StopContainerRequest,
    StopContainerResponse,
};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::time::timeout;
use tracing::Instrument;

const SIGKILL: i32 = 9;

/// How long the kernel may take to end a killed process before the call says
/// what holds it up; the kubelet then calls again.
const KILL_PATIENCE: Duration = Duration::from_secs(30);

pub(super) async fn stop_container(
    core: Arc<Core>,
    request: StopContainerRequest,
) -> Result<StopContainerResponse, Status> {
    let Some(container) = core.find_container(&request.container_id)? else {
        return Ok(StopContainerResponse {});
    };
    let grace = Duration::from_secs(u64::try_from(request.timeout).unwrap_or(0));
    let span = tracing::info_span!("stop_container", id = &container.id()[..13]);
    let work = async move { Ok(core.end_container(&container, grace).await?) };
    detached(work.instrument(span)).await?;
    Ok(StopContainerResponse {})
}

pub(super) async fn remove_container(
    core: Arc<Core>,
    request: RemoveContainerRequest,
) -> Result<RemoveContainerResponse, Status> {
    let Some(container) = core.find_container(&request.container_id)? else {
        return Ok(RemoveContainerResponse {});
    };
    let span = tracing::info_span!("remove_container", id = &container.id()[..13]);
    let work = async move {
        core.end_container(&container, Duration::ZERO).await?;
        Ok(core.take_container(&container).await?)
    };
    detached(work.instrument(span)).await?;
    Ok(RemoveContainerResponse {})
}

impl Core {
    /// Asks the container to end, and after `grace` makes it. A second call
    /// with less grace does not wait for the first.
    pub(super) async fn end_container(
        &self,
        container: &Container,
        grace: Duration,
    ) -> Result<(), VerbError> {
        // A start under way decides first whether there is something to end.
        drop(timeout(KILL_PATIENCE, container.changing.lock()).await);
        if container.state() != State::Running {
            return Ok(());
        }
        if !grace.is_zero() {
            if !container.stop_sent.swap(true, Ordering::SeqCst) {
                let signal = container.read(|r| r.stop_signal);
                self.signal(container, signal).await?;
            }
            if timeout(grace, container.wait()).await.is_ok() {
                return Ok(());
            }
        }
        // Its end may be told before the signal's answer, which then is not waited for.
        let killed = async {
            match self.signal(container, SIGKILL).await {
                Ok(()) => std::future::pending().await,
                Err(error) => error,
            }
        };
        tokio::select! {
            ended = timeout(KILL_PATIENCE, container.wait()) => {
                ended.map_err(|_| self.wont_end(container))
            }
            error = killed => Err(error),
        }
    }

    /// A dead monitor's containers are killed by cgroup; their end is reported
    /// by whoever finds the monitor dead.
    async fn signal(&self, container: &Container, signal: i32) -> Result<(), VerbError> {
        if signal == SIGKILL {
            self.cgroups.kill(&container.read(|r| r.cgroup.clone()));
        }
        let Some(engine) = container.sandbox.engine() else {
            return Ok(());
        };
        match engine.signal(container.id(), signal).await {
            Ok(())
            | Err(
                ProcessError::MonitorGone { .. }
                | ProcessError::NotRunning { .. }
                | ProcessError::NotFound { .. },
            ) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    fn wont_end(&self, container: &Container) -> VerbError {
        let pids = self.cgroups.pids(&container.read(|r| r.cgroup.clone()));
        let pid = pids.first().copied().unwrap_or(0);
        let wchan = std::fs::read_to_string(format!("/proc/{pid}/wchan"));
        VerbError::WontEnd {
            id: container.id().to_owned(),
            seconds: KILL_PATIENCE.as_secs(),
            pid,
            wchan: wchan.unwrap_or_else(|_| "an unknown place".to_owned()),
        }
    }

    /// Removes what there is of a container that does not run.
    pub(super) async fn take_container(&self, container: &Container) -> Result<(), VerbError> {
        let _changing = container.changing.lock().await;
        if self.containers.get(container.id()).is_none() {
            return Ok(());
        }
        if let Some(engine) = container.sandbox.engine() {
            match engine.remove_container(container.id()).await {
                Ok(()) | Err(ProcessError::MonitorGone { .. } | ProcessError::NotFound { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        self.remove_cgroup(container)
            .instrument(tracing::info_span!("cgroup"))
            .await?;
        self.containers.remove(container.id());
        self.release_layers(container.id());
        self.discard_layer(container.layer());
        super::core::delete(container.dir());
        self.samples.forget(container.id());
        self.emit(
            ContainerEventType::ContainerDeletedEvent,
            container.id(),
            &container.sandbox,
        );
        Ok(())
    }

    /// Lets go of the image layers that a container held.
    pub(super) fn release_layers(&self, id: &str) {
        let held = self.images.owners();
        let mine =
            |o: &&String| **o == *id || o.strip_prefix(id).is_some_and(|r| r.starts_with('-'));
        for owner in held.iter().filter(mine) {
            if let Err(error) = self.images.release(owner) {
                tracing::warn!(owner, %error, "image layers stay held until the next start");
            }
        }
        debug_assert_eq!(owner(id, 0), id);
    }
}
