//! What is made of a pod's first container before it is asked for.
//!
//! Its writable layer may have waited with the sandbox. Its cgroups are begun as soon as there is
//! a sandbox, and made while the caller reads the answer: on a v1 host, of ten hierarchies, they
//! take longer than anything else of CreateContainer. After a crash both are swept by the id in
//! their names, the cgroups below those of the sandboxes on record.

use super::core::Core;
use crate::cgroup::{CgroupError, CgroupPath, Cgroups};
use crate::process::ContainerCgroups;
use crate::sandbox::{FirstContainer, Sandbox};
use std::sync::Arc;
use tokio::sync::oneshot;

/// Of a sandbox that is on record as ready.
pub(super) fn begin(core: &Arc<Core>, sandbox: &Sandbox) {
    let Some(mut first) = sandbox.take_first_container() else {
        return;
    };
    let cgroup = sandbox.read(|r| core.cgroups.of_container(&r.cgroup, &first.id));
    // Without, CreateContainer makes them.
    if core.cgroups.may_wait(&cgroup) {
        let (made, cgroups) = oneshot::channel();
        first.cgroups = Some(cgroups);
        let core = core.clone();
        tokio::task::spawn_blocking(move || made.send(make_cgroups(&core.cgroups, &cgroup)));
    }
    sandbox.set_first_container(first);
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
        self.discard_layer(&self.layers_dir().join(&first.id));
        let Some(cgroups) = first.cgroups else {
            return Ok(());
        };
        // To its end: nothing is made any more when the removal begins.
        drop(cgroups.await);
        let cgroup = sandbox.read(|r| self.cgroups.of_container(&r.cgroup, &first.id));
        let removed = self.cgroups.kill_and_remove(&cgroup).await;
        if removed.is_err() {
            // The call that comes again has to find it.
            let (_, cgroups) = oneshot::channel();
            sandbox.set_first_container(FirstContainer {
                cgroups: Some(cgroups),
                ..first
            });
        }
        removed
    }
}
