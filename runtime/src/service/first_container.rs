//! What is made of a pod's first container before it is asked for.
//!
//! Its writable layer may have waited with the sandbox. Its cgroups are made as soon as the pod's
//! is there, beside the rest of RunPodSandbox and while the caller reads the answer: on a v1 host,
//! of ten hierarchies, they take longer than anything else of CreateContainer. The sandbox's
//! record names the container, so that a start after a crash undoes both.

use super::core::Core;
use crate::cgroup::{CgroupError, CgroupPath, Cgroups};
use crate::process::ContainerCgroups;
use crate::sandbox::{FirstContainer, Sandbox, State};
use std::sync::Arc;
use tokio::sync::oneshot;

/// The container that the sandbox's record names. Its pod's cgroup is there.
pub(super) fn begin(core: &Arc<Core>, sandbox: &Sandbox) {
    let Some(id) = sandbox.read(|r| r.first_container.clone()) else {
        return;
    };
    let (made, cgroups) = oneshot::channel();
    let cgroup = sandbox.read(|r| core.cgroups.of_container(&r.cgroup, &id));
    sandbox.set_first_container(FirstContainer { id, cgroups });
    // Without, CreateContainer makes them.
    if core.cgroups.may_wait(&cgroup) {
        let core = core.clone();
        tokio::task::spawn_blocking(move || made.send(make_cgroups(&core.cgroups, &cgroup)));
    }
}

/// After a crash: what was made for a pod whose RunPodSandbox did not end is there to be undone.
/// Of other pods the container may have come and gone.
pub(super) fn reclaim(sandbox: &Sandbox) {
    let record = sandbox.record();
    if let (State::Creating, Some(id)) = (record.state, record.first_container) {
        let (_, cgroups) = oneshot::channel();
        sandbox.set_first_container(FirstContainer { id, cgroups });
    }
}

/// A container's cgroups, without limits.
///
/// # Errors
/// The directory that can't be made or opened. What has been made stays.
pub(super) fn make_cgroups(
    cgroups: &Cgroups,
    path: &CgroupPath,
) -> Result<ContainerCgroups, CgroupError> {
    cgroups.create(path)?;
    Ok(ContainerCgroups {
        doors: cgroups.doors(path)?,
        views: cgroups.views(path)?,
    })
}

impl Core {
    /// There will be no first container.
    pub(super) async fn discard_first_container(
        &self,
        sandbox: &Sandbox,
    ) -> Result<(), CgroupError> {
        let Some(first) = sandbox.take_first_container() else {
            return Ok(());
        };
        // To its end: nothing is made any more when the removal begins.
        drop(first.cgroups.await);
        self.discard_layer(&self.layers_dir().join(&first.id));
        let cgroup = sandbox.read(|r| self.cgroups.of_container(&r.cgroup, &first.id));
        self.cgroups.kill_and_remove(&cgroup).await
    }
}
