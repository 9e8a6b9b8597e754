//! UpdateContainerResources, UpdatePodSandboxResources, ReopenContainerLog.

use super::VerbError;
use super::core::Core;
use super::flights::detached;
use crate::cgroup::Limits;
use crate::container::State;
use crate::sandbox::Identified;
use cri_proto::Status;
use cri_proto::v1::*;
use std::sync::Arc;

/// All limits, or none.
pub(super) fn update_container_resources(
    core: &Core,
    request: UpdateContainerResourcesRequest,
) -> Result<UpdateContainerResourcesResponse, Status> {
    let container = core.container(&request.container_id)?;
    let wanted = request.linux.unwrap_or_default();
    if matches!(container.state(), State::Exited | State::Creating) {
        let id = container.id().to_owned();
        return Err(VerbError::NotRunning { id }.into());
    }
    let (cgroup, old) = container.read(|r| (r.cgroup.clone(), r.resources.clone()));
    core.cgroups
        .apply(&cgroup, &Limits::from(&wanted))
        .map_err(VerbError::from)?;
    let merged = merge(old, wanted);
    container
        .update(|record| record.resources = merged)
        .map_err(VerbError::from)?;
    Ok(UpdateContainerResourcesResponse {})
}

/// What is not given stays.
fn merge(old: LinuxContainerResources, new: LinuxContainerResources) -> LinuxContainerResources {
    let number = |new: i64, old: i64| if new == 0 { old } else { new };
    let text = |new: String, old: String| if new.is_empty() { old } else { new };
    let mut unified = old.unified;
    unified.extend(new.unified);
    LinuxContainerResources {
        cpu_period: number(new.cpu_period, old.cpu_period),
        cpu_quota: number(new.cpu_quota, old.cpu_quota),
        cpu_shares: number(new.cpu_shares, old.cpu_shares),
        memory_limit_in_bytes: number(new.memory_limit_in_bytes, old.memory_limit_in_bytes),
        memory_swap_limit_in_bytes: number(
            new.memory_swap_limit_in_bytes,
            old.memory_swap_limit_in_bytes,
        ),
        oom_score_adj: old.oom_score_adj,
        cpuset_cpus: text(new.cpuset_cpus, old.cpuset_cpus),
        cpuset_mems: text(new.cpuset_mems, old.cpuset_mems),
        hugepage_limits: if new.hugepage_limits.is_empty() {
            old.hugepage_limits
        } else {
            new.hugepage_limits
        },
        unified,
    }
}

/// Best effort: where a kubelet made the pod's cgroup it has set it already.
pub(super) fn update_pod_sandbox_resources(
    core: &Core,
    request: UpdatePodSandboxResourcesRequest,
) -> Result<UpdatePodSandboxResourcesResponse, Status> {
    let sandbox = core.sandbox(&request.pod_sandbox_id)?;
    let (cgroup, ours) = sandbox.read(|r| (r.cgroup.clone(), r.cgroup_made.is_some()));
    if let (true, Some(resources)) = (ours, &request.resources) {
        core.cgroups
            .apply(&cgroup, &Limits::of_pod(resources))
            .map_err(VerbError::from)?;
    }
    sandbox
        .update(|record| {
            let linux = record.config.linux.get_or_insert_default();
            linux.resources = request.resources.or(linux.resources.take());
            linux.overhead = request.overhead.or(linux.overhead.take());
        })
        .map_err(VerbError::from)?;
    Ok(UpdatePodSandboxResourcesResponse {})
}

pub(super) async fn reopen_container_log(
    core: Arc<Core>,
    request: ReopenContainerLogRequest,
) -> Result<ReopenContainerLogResponse, Status> {
    let container = core.container(&request.container_id)?;
    let not_running = || VerbError::NotRunning {
        id: container.id().to_owned(),
    };
    if container.state() != State::Running {
        return Err(not_running().into());
    }
    let engine = container.sandbox.engine().ok_or_else(not_running)?;
    let id = container.id().to_owned();
    detached(async move { Ok(engine.reopen_log(&id).await.map_err(VerbError::from)?) }).await?;
    Ok(ReopenContainerLogResponse {})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn update_keeps_what_it_does_not_name() {
        let old = LinuxContainerResources {
            cpu_shares: 512,
            memory_limit_in_bytes: 1 << 20,
            ..Default::default()
        };
        let new = LinuxContainerResources {
            cpu_shares: 1024,
            ..Default::default()
        };
        let merged = merge(old, new);
        assert_eq!(
            (merged.cpu_shares, merged.memory_limit_in_bytes),
            (1024, 1 << 20)
        );
    }
}
