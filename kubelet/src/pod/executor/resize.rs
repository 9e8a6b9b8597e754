//! Running containers given other resources, without a restart.

use super::{Context, Executor, Failed, Report, rpc};
use crate::pod::resize::{self, Granted};
use crate::pod::spec::quantity::amount;
use crate::pod::spec::resources;
use crate::quantity::Amount;
use cri_proto::v1::{self, LinuxContainerResources};
use k8s_openapi::api::core::v1::{Container, Pod, ResourceRequirements};
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
        let due: Vec<&Container> = resize::resizable(pod)
            .filter(|c| resize::running_due(pod, c, seen))
            .collect();
        self.room_to_shrink(context, (&old, &new), &due).await?;
        self.update_sandbox(context, wider(&old, &new)).await?;
        let mut given = Vec::new();
        for container in due {
            let Some(newest) = seen.newest(&container.name) else {
                continue;
            };
            self.update_container(context, container, &newest.id)
                .await?;
            let resources = resize::given(pod, &container.name).unwrap_or_default();
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

    /// A limit below what is used would have the kernel kill what runs. All are told at once, and
    /// before anything is changed.
    ///
    /// kubernetes v1.37 pkg/kubelet/kuberuntime/kuberuntime_manager.go
    /// `validateMemoryResizeAction`.
    async fn room_to_shrink(
        &self,
        context: &Context,
        (old, new): (&LinuxContainerResources, &LinuxContainerResources),
        due: &[&Container],
    ) -> Result<(), Failed> {
        let mut short = Vec::new();
        if let Some(limit) = shrunk(old.memory_limit_in_bytes, new.memory_limit_in_bytes) {
            let used = self.memory_of_pod(context).await?;
            short.extend(below("pod", limit, used));
        }
        let seen = &context.seen;
        for container in due {
            let Some(newest) = seen.newest(&container.name) else {
                continue;
            };
            let before = seen.applied.get(&newest.id);
            let after = resize::given(&context.pod, &container.name);
            let Some(limit) = shrunk(memory(before), memory(after.as_ref())) else {
                continue;
            };
            let used = self.memory_of(&newest.id).await?;
            short.extend(below(
                &format!("container {:?}", container.name),
                limit,
                used,
            ));
        }
        let why = match short.as_slice() {
            [] => return Ok(()),
            [one] => one.clone(),
            all => format!("[{}]", all.join(", ")),
        };
        let message = format!("cannot decrease memory limits: {why}");
        Err(Failed::new(FAILED, message))
    }

    async fn memory_of(&self, id: &str) -> Result<u64, Failed> {
        let request = v1::ContainerStatsRequest {
            container_id: id.to_owned(),
        };
        let answer = self.deps.cri.container_stats(request).await;
        let answer = answer.map_err(|status| Failed::new(FAILED, rpc(&status)))?;
        Ok(used(answer.stats.and_then(|s| s.memory)))
    }

    async fn memory_of_pod(&self, context: &Context) -> Result<u64, Failed> {
        let Some(sandbox) = context.seen.sandbox() else {
            return Ok(0);
        };
        let request = v1::PodSandboxStatsRequest {
            pod_sandbox_id: sandbox.id.clone(),
        };
        let answer = self.deps.cri.pod_sandbox_stats(request).await;
        let answer = answer.map_err(|status| Failed::new(FAILED, rpc(&status)))?;
        let linux = answer.stats.and_then(|s| s.linux);
        Ok(used(linux.and_then(|l| l.memory)))
    }
}

fn used(memory: Option<v1::MemoryUsage>) -> u64 {
    memory.and_then(|m| m.usage_bytes).map_or(0, |v| v.value)
}

/// Bytes; 0 is no limit.
fn memory(of: Option<&ResourceRequirements>) -> i64 {
    let limit = amount(of.and_then(|r| r.limits.as_ref()), "memory");
    limit.map_or(0, Amount::units)
}

/// The new limit, if it is one that is less than the old.
fn shrunk(old: i64, new: i64) -> Option<u64> {
    let less = new > 0 && (old <= 0 || new < old);
    u64::try_from(new).ok().filter(|_| less)
}

fn below(what: &str, limit: u64, used: u64) -> Option<String> {
    (used >= limit).then(|| {
        format!("attempting to set {what} memory limit ({limit}) below current usage ({used})")
    })
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
    fn only_a_limit_that_is_less_than_the_old_shrinks() {
        assert_eq!(shrunk(0, 5), Some(5), "there was none");
        assert_eq!((shrunk(7, 5), shrunk(5, 5)), (Some(5), None));
        assert_eq!((shrunk(5, 7), shrunk(5, 0)), (None, None));
        assert_eq!(below("pod", 5, 4), None);
        assert!(below("pod", 5, 5).is_some());
    }

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
