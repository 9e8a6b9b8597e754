//! StartContainer.

use super::VerbError;
use super::core::{Core, now};
use super::error::chain;
use super::flights::detached;
use crate::container::{Container, State};
use crate::process::{Exit, ProcessError};
use crate::sandbox::Identified;
use cri_proto::Status;
use cri_proto::v1::{ContainerEventType, StartContainerRequest, StartContainerResponse};
use std::sync::Arc;
use tracing::Instrument;

/// containerd v2 internal/cri/server `errorStartExitCode`, `errorStartReason`.
const START_ERROR: (i32, &str) = (128, "StartError");

pub(super) async fn start_container(
    core: Arc<Core>,
    request: StartContainerRequest,
) -> Result<StartContainerResponse, Status> {
    let container = core.container(&request.container_id)?;
    let (id, sandbox) = (&container.id()[..13], &container.sandbox.id()[..13]);
    let span = tracing::info_span!("start_container", id, sandbox);
    let work = async move { Ok(start(&core, &container).await?) };
    detached(work.instrument(span)).await?;
    Ok(StartContainerResponse {})
}

async fn start(core: &Arc<Core>, container: &Container) -> Result<(), VerbError> {
    let starting = core.starting();
    let _changing = container.changing.lock().await;
    let state = container.state();
    // Asked for a second time, by one who has not seen the first answer.
    if state == State::Running {
        return Ok(());
    }
    if state != State::Created {
        return Err(VerbError::NotCreated {
            id: container.id().to_owned(),
            state,
        });
    }
    let sandbox = &container.sandbox;
    let engine = sandbox.engine().ok_or_else(|| VerbError::SandboxNotReady {
        id: sandbox.id().to_owned(),
    })?;
    if let Err(error) = engine.start_container(container.id()).await {
        fail(core, container, &error);
        return Err(error.into());
    }
    container.started(now());
    core.emit(
        ContainerEventType::ContainerStartedEvent,
        container.id(),
        sandbox,
    );
    drop(starting);
    core.pod_started();
    Ok(())
}

/// It has ended without having begun; its status says why.
fn fail(core: &Core, container: &Container, error: &ProcessError) {
    let exit = Exit {
        code: START_ERROR.0,
        finished_at: now(),
        unknown: false,
    };
    if container.exited(exit, START_ERROR.1, &chain(error)) {
        core.cgroups.kill(&container.read(|r| r.cgroup.clone()));
        core.emit(
            ContainerEventType::ContainerStoppedEvent,
            container.id(),
            &container.sandbox,
        );
    }
}
