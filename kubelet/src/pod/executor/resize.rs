//! Running containers given other resources, without a restart.

use super::{Context, Executor, Failed, Report, rpc};
use crate::pod::resize::{self, Granted};
use crate::pod::spec::resources;
use cri_proto::v1::{self, LinuxContainerResources};
use k8s_openapi::api::core::v1::{Container, Pod};
use tonic::Code;

const FAILED: &str = "ResizeError";

impl Executor {
    /// The pod's cgroup grows first and shrinks last, so that its containers are
    /// never allowed more than it is.
    pub(super) async fn resize(&self, context: &Context) -> Result<Report, Failed> {
        let result = self.try_resize(context).await;
        let subject = self.subject(&context.pod);
        match &result {
            Ok(_) => subject.normal(
                "ResizeCompleted",
                &resize::told("completed", &context.pod, None),
            ),
            Err(failed) => {
                let message = resize::told("error", &context.pod, Some(&failed.message));
                subject.warning(FAILED, &message);
            }
        }
        result
    }

    async fn try_resize(&self, context: &Context) -> Result<Report, Failed> {
        let (pod, seen) = (context.pod.as_ref(), &context.seen);
        let after = resize::for_cgroup(pod, seen);
        let new = self.of_pod(pod, &after);
        let old = self.of_pod(pod, seen.pod_applied.as_ref().unwrap_or(&after));
        self.update_sandbox(context, wider(&old, &new)).await?;
        let mut given = Vec::new();
        for container in resize::resizable(pod) {
            let newest = seen.newest(&container.name);
            let Some(newest) = newest.filter(|_| resize::running_due(container, seen)) else {
                continue;
            };
            self.update_container(context, container, &newest.id)
                .await?;
            let resources = container.resources.clone().unwrap_or_default();
            given.push((newest.id.clone(), resources));
        }
        self.update_sandbox(context, new).await?;
        Ok(Report::Resized(given, after))
    }

    /// The pod's cgroup, if its containers had these.
    fn of_pod(&self, pod: &Pod, granted: &Granted) -> LinuxContainerResources {
        let spec = resize::with(pod, granted).spec.unwrap_or_default();
        let mut limits = resources::of_pod(&spec, &self.deps.options);
        self.deps.allocations.pin_pod(pod, &mut limits);
        limits
    }

    async fn update_sandbox(
        &self,
        context: &Context,
        wanted: LinuxContainerResources,
    ) -> Result<(), Failed> {
        let Some(sandbox) = context.seen.sandbox() else {
            return Ok(());
        };
        let request = v1::UpdatePodSandboxResourcesRequest {
            pod_sandbox_id: sandbox.id.clone(),
            resources: Some(wanted),
            overhead: None,
        };
        match self.deps.cri.update_pod_sandbox_resources(request).await {
            Ok(_) => Ok(()),
            // A runtime that leaves pods' cgroups to others.
            Err(status) if status.code() == Code::Unimplemented => Ok(()),
            Err(status) => Err(Failed::new(FAILED, rpc(&status))),
        }
    }

    async fn update_container(
        &self,
        context: &Context,
        container: &Container,
        id: &str,
    ) -> Result<(), Failed> {
        let deps = &self.deps;
        let capacity = deps.node.memory_capacity;
        let pod = &context.pod;
        let mut wanted = resources::of_container(pod, container, &deps.options, capacity);
        deps.allocations.pin(pod, &container.name, &mut wanted);
        self.room_to_shrink(container, id, wanted.memory_limit_in_bytes)
            .await?;
        let request = v1::UpdateContainerResourcesRequest {
            container_id: id.to_owned(),
            linux: Some(wanted),
            ..v1::UpdateContainerResourcesRequest::default()
        };
        let answer = deps.cri.update_container_resources(request).await;
        answer
            .map(drop)
            .map_err(|status| Failed::new(FAILED, rpc(&status)))
    }

    /// A limit below what is used would have the kernel kill the container.
    /// kubernetes v1.37 pkg/kubelet/kuberuntime/kuberuntime_manager.go
    /// `validateMemoryResizeAction`.
    async fn room_to_shrink(
        &self,
        container: &Container,
        id: &str,
        limit: i64,
    ) -> Result<(), Failed> {
        let Some(limit) = u64::try_from(limit).ok().filter(|limit| *limit > 0) else {
            return Ok(());
        };
        let request = v1::ContainerStatsRequest {
            container_id: id.to_owned(),
        };
        let answer = self.deps.cri.container_stats(request).await;
        let answer = answer.map_err(|status| Failed::new(FAILED, rpc(&status)))?;
        let memory = answer.stats.and_then(|s| s.memory);
        let used = memory.and_then(|m| m.usage_bytes).map_or(0, |v| v.value);
        if used < limit {
            return Ok(());
        }
        let message = format!(
            "attempting to set container {:?} memory limit ({limit}) below current usage ({used})",
            container.name
        );
        Err(Failed::new(FAILED, message))
    }
}

/// The more generous of two; 0 is no limit.
fn wider(old: &LinuxContainerResources, new: &LinuxContainerResources) -> LinuxContainerResources {
    let limit = |old: i64, new: i64| {
        if old < 0 || new < 0 {
            -1
        } else if old == 0 || new == 0 {
            0
        } else {
            old.max(new)
        }
    };
    LinuxContainerResources {
        cpu_shares: old.cpu_shares.max(new.cpu_shares),
        cpu_quota: limit(old.cpu_quota, new.cpu_quota),
        memory_limit_in_bytes: limit(old.memory_limit_in_bytes, new.memory_limit_in_bytes),
        ..new.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wider_of_two_has_no_limit_that_one_has_not() {
        let of = |cpu_shares, cpu_quota, memory_limit_in_bytes| LinuxContainerResources {
            cpu_shares,
            cpu_quota,
            memory_limit_in_bytes,
            ..LinuxContainerResources::default()
        };
        assert_eq!(wider(&of(2, 100, 0), &of(5, 50, 7)), of(5, 100, 0));
    }
}
