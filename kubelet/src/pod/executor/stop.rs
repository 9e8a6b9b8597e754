//! Containers stopped and removed.

use super::{Context, Executor, Failed, Report, lock, logs, rpc};
use crate::defaults::MINIMUM_GRACE_PERIOD_SECONDS;
use crate::event::EventType;
use crate::pod::lifecycle::StopReason;
use cri_proto::v1;
use jiff::Timestamp;
use std::time::Duration;

impl Executor {
    /// preStop, then the stop signal, then SIGKILL at `until`.
    pub(super) async fn stop(
        &self,
        context: &Context,
        name: &str,
        id: &str,
        (until, reason): (Timestamp, &StopReason),
    ) -> Result<Report, Failed> {
        let first = lock(&context.pre_stopped).insert(id.to_owned());
        if first {
            let message = killing(name, reason);
            let subject = self.subject(&context.pod);
            subject.of_container(name, EventType::Normal, "Killing", &message);
            self.pre_stop(context, name, id, remaining(until)).await;
        }
        let left = i64::try_from(remaining(until).as_secs()).unwrap_or(i64::MAX);
        let least = if first && *reason != StopReason::Reset {
            MINIMUM_GRACE_PERIOD_SECONDS
        } else {
            0
        };
        let request = v1::StopContainerRequest {
            container_id: id.to_owned(),
            timeout: left.max(least),
        };
        if let Err(status) = self.deps.cri.stop_container(request).await {
            let message = format!("error killing container {name}: {}", rpc(&status));
            self.subject(&context.pod)
                .warning("FailedKillPod", &message);
            return Err(Failed::new("FailedKillPod", message));
        }
        Ok(Report::Container(Box::new(self.look(context, id).await?)))
    }

    async fn pre_stop(&self, context: &Context, name: &str, id: &str, limit: Duration) {
        let Ok(container) = context.container(name) else {
            return;
        };
        let hook = container
            .lifecycle
            .as_ref()
            .and_then(|l| l.pre_stop.clone());
        let Some(hook) = hook.filter(|_| !limit.is_zero()) else {
            return;
        };
        let target = self.target(context, &container, id);
        if let Err(error) = crate::pod::hook::run(&target, &hook, Some(limit)).await {
            let message = format!("PreStopHook failed: {error}");
            let subject = self.subject(&context.pod);
            subject.of_container(name, EventType::Warning, "FailedPreStopHook", &message);
        }
    }

    pub(super) async fn remove_container(
        &self,
        context: &Context,
        id: &str,
    ) -> Result<Report, Failed> {
        let seen = self.look(context, id).await.ok();
        let request = v1::RemoveContainerRequest {
            container_id: id.to_owned(),
        };
        let answer = self.deps.cri.remove_container(request).await;
        answer.map_err(|status| Failed::rpc("FailedRemoveContainer", &status))?;
        if let Some(seen) = seen {
            logs::remove(&context.pod, &seen, &self.deps.node);
        }
        Ok(Report::Done)
    }
}

/// Whole seconds, rounded up, so that a grace of 1 s is not cut to none.
fn remaining(until: Timestamp) -> Duration {
    let left = until.duration_since(Timestamp::now());
    let millis = u64::try_from(left.as_millis()).unwrap_or(0);
    Duration::from_secs(millis.div_ceil(1000))
}

/// kubernetes v1.36 pkg/kubelet/kuberuntime/kuberuntime_manager.go.
fn killing(name: &str, reason: &StopReason) -> String {
    match reason {
        StopReason::PodEnds | StopReason::SandboxGone | StopReason::Reset => {
            format!("Stopping container {name}")
        }
        StopReason::DefinitionChanged => {
            format!("Container {name} definition changed, will be restarted")
        }
        StopReason::Resized => format!("Container {name} resize requires restart"),
        StopReason::LivenessFailed => {
            format!("Container {name} failed liveness probe, will be restarted")
        }
        StopReason::StartupFailed => {
            format!("Container {name} failed startup probe, will be restarted")
        }
        StopReason::PostStartFailed => format!("FailedPostStartHook: stopping container {name}"),
    }
}
