//! What of a pod's life is counted for `/metrics`.

use super::Worker;
use super::start_time::{self, Pulls};
use crate::metrics::{CONTAINER, EPHEMERAL_CONTAINER, INIT_CONTAINER};
use crate::pod::lifecycle::{Desired, Effect};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ContainerStatus, PodStatus};
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

/// What has been counted of this pod.
pub(super) struct Counted {
    /// When the pod was first seen here.
    since: Instant,
    /// It ran once, perhaps under an earlier agent.
    ran: bool,
    /// All of its containers have run at the same time, or it is known from before.
    started: bool,
    pulls: Pulls,
    /// A start with a user namespace met an error; counted once.
    mapped_failed: bool,
    /// Ids of the containers whose end is counted.
    ended: BTreeSet<String>,
}

impl Counted {
    /// What the API server knows already was counted by an earlier agent.
    pub(super) fn new(want: &Desired) -> Counted {
        let status = want.pod.status.as_ref();
        let phase = status.and_then(|s| s.phase.as_deref());
        let mut ended = BTreeSet::new();
        for (_, container) in status.into_iter().flat_map(containers) {
            ended.extend(ends(container).map(|(id, ..)| id.to_owned()));
        }
        Counted {
            since: Instant::now(),
            ran: !matches!(phase, None | Some("Pending")),
            // Of those that another agent has begun with nobody knows the pulls.
            started: status.is_some_and(|s| s.start_time.is_some()),
            pulls: Pulls::default(),
            mapped_failed: false,
            ended,
        }
    }

    /// As `operation_type` of a pod's work has it.
    fn operation(&self) -> &'static str {
        if self.ran { "sync" } else { "create" }
    }
}

impl Worker {
    /// A piece of work was done.
    pub(super) fn count_work(&mut self, effect: &Effect, took: Duration, failed: bool) {
        if let (Effect::EnsureImage { .. }, false) = (effect, self.counted.started) {
            let now = Instant::now();
            let begun = now.checked_sub(took).unwrap_or(now);
            self.counted.pulls.add(begun, now);
        }
        let metrics = &self.executor.deps().metrics;
        metrics.pod_worked(self.counted.operation(), took);
        let spec = self.want.pod.spec.as_ref();
        let mapped = spec.is_some_and(|s| s.host_users == Some(false));
        if failed && mapped && !self.counted.ran && !self.counted.mapped_failed {
            self.counted.mapped_failed = true;
            metrics.userns_pod_failed();
        }
    }

    /// A status is about to be told.
    pub(super) fn count(&mut self, status: &PodStatus, now: Timestamp) {
        let metrics = &self.executor.deps().metrics;
        if !self.counted.ran && status.phase.as_deref() == Some("Running") {
            self.counted.ran = true;
            metrics.pod_runs(self.counted.since.elapsed());
        }
        if !self.counted.started && start_time::all_run(status) {
            self.counted.started = true;
            let pulls = std::mem::take(&mut self.counted.pulls);
            let pod = &self.want.pod;
            if let (Some(created), Some(spec)) = (&pod.metadata.creation_timestamp, &pod.spec) {
                let total = Duration::try_from(now.duration_since(created.0)).unwrap_or_default();
                let indicator = start_time::indicator(total, &pulls, spec, status);
                metrics.pod_started(total, indicator, spec.host_network == Some(true));
            }
        }
        for (kind, container) in containers(status) {
            for (id, code, reason) in ends(container) {
                if self.counted.ended.insert(id.to_owned()) {
                    metrics.container_terminated(kind, code, reason);
                }
            }
        }
    }
}

fn containers(status: &PodStatus) -> Vec<(&'static str, &ContainerStatus)> {
    let all = [
        (INIT_CONTAINER, &status.init_container_statuses),
        (CONTAINER, &status.container_statuses),
        (EPHEMERAL_CONTAINER, &status.ephemeral_container_statuses),
    ];
    let of = all
        .into_iter()
        .flat_map(|(kind, list)| list.iter().flatten().map(move |c| (kind, c)));
    of.collect()
}

/// Id, exit code and reason of the ends that a container's status tells.
fn ends(container: &ContainerStatus) -> impl Iterator<Item = (&str, i32, &str)> {
    let states = [&container.state, &container.last_state];
    let ended = states
        .into_iter()
        .filter_map(|s| s.as_ref()?.terminated.as_ref());
    ended.filter_map(|t| {
        let reason = t.reason.as_deref().unwrap_or_default();
        Some((t.container_id.as_deref()?, t.exit_code, reason))
    })
}
