//! The end of a pod: containers, network, mounts, and, if it is to vanish, all else.

use super::plan::{Plan, later};
use super::restart::restartable_init;
use super::types::{Effect, Stage, StopReason, Why, Work};
use crate::defaults::TERMINATION_GRACE_PERIOD_SECONDS;
use crate::pod::observed::ContainerSeen;
use jiff::{SignedDuration, Timestamp};

/// One step towards the end: stop, give the network back, unmount, remove.
pub(super) fn plan(plan: &mut Plan<'_>, why: Why, since: Timestamp) -> Stage {
    let until = later(since, SignedDuration::from_secs(grace(plan, &why)));
    if stop_containers(plan, until) || arriving(plan) {
        return Stage::Terminating { why, since };
    }
    if stop_sandboxes(plan) || unmount(plan) {
        return Stage::Terminating { why, since };
    }
    if !vanishes(plan) {
        return Stage::Terminated { why, since };
    }
    if remove_sandboxes(plan) {
        return Stage::Terminated { why, since };
    }
    Stage::Finished { why }
}

/// It is to be gone from the node, not only at rest.
fn vanishes(plan: &Plan<'_>) -> bool {
    plan.want.removed || plan.want.pod.metadata.deletion_timestamp.is_some()
}

/// Seconds from the beginning of the end; at least one, as upstream.
fn grace(plan: &Plan<'_>, why: &Why) -> i64 {
    let verdict = match why {
        Why::Rejected(verdict) => verdict.grace,
        Why::Deleted | Why::Completed | Why::DeadlineExceeded | Why::ApiTerminal(_) => None,
    };
    let own = plan.spec.termination_grace_period_seconds;
    let deletion = plan.want.pod.metadata.deletion_grace_period_seconds;
    let least = [verdict, deletion].into_iter().flatten().min();
    least
        .or(own)
        .unwrap_or(TERMINATION_GRACE_PERIOD_SECONDS)
        .max(1)
}

/// Sidecars end after all others and in reverse order; when time is up, at
/// once. Answers whether something still runs.
fn stop_containers(plan: &mut Plan<'_>, until: Timestamp) -> bool {
    let seen = plan.seen;
    let running: Vec<&ContainerSeen> = seen.containers.iter().filter(|c| c.running()).collect();
    if running.is_empty() {
        return false;
    }
    plan.wake(until);
    let order = sidecar_order(plan);
    let rank = |c: &ContainerSeen| order.iter().position(|name| *name == c.name);
    let (sidecars, others): (Vec<_>, Vec<_>) = running.into_iter().partition(|c| rank(c).is_some());
    let urgent = plan.now >= until;
    for container in &others {
        plan.stop(container, until, StopReason::PodEnds);
    }
    if urgent {
        for container in &sidecars {
            plan.stop(container, until, StopReason::PodEnds);
        }
    } else if others.is_empty()
        && let Some(last) = sidecars.iter().max_by_key(|c| rank(c))
    {
        plan.stop(last, until, StopReason::PodEnds);
    }
    true
}

fn sidecar_order(plan: &Plan<'_>) -> Vec<String> {
    let init = plan.spec.init_containers.as_deref().unwrap_or_default();
    let sidecars = init.iter().filter(|c| restartable_init(c));
    sidecars.map(|c| c.name.clone()).collect()
}

/// Something may appear yet: what creates it is under way.
fn arriving(plan: &Plan<'_>) -> bool {
    plan.seen.busy.iter().any(|work| match work {
        Work::Allocate
        | Work::PrepareResources
        | Work::Sandbox
        | Work::Create(_)
        | Work::Start(_)
        | Work::Volumes => true,
        Work::Image(_)
        | Work::Resize
        | Work::Stop(..)
        | Work::StopSandbox(_)
        | Work::RemoveContainer(_)
        | Work::RemoveSandbox(_)
        | Work::Unmount => false,
    })
}

fn stop_sandboxes(plan: &mut Plan<'_>) -> bool {
    let seen = plan.seen;
    let mut left = false;
    for sandbox in seen.sandboxes.iter().filter(|s| s.ready) {
        if !seen.stopped.contains(&sandbox.id) {
            left = true;
            plan.request(Effect::StopSandbox {
                id: sandbox.id.clone(),
            });
        }
    }
    left
}

fn unmount(plan: &mut Plan<'_>) -> bool {
    if !plan.seen.unmounted {
        plan.request(Effect::UnmountVolumes);
    }
    !plan.seen.unmounted
}

fn remove_sandboxes(plan: &mut Plan<'_>) -> bool {
    let seen = plan.seen;
    for sandbox in &seen.sandboxes {
        plan.request(Effect::RemoveSandbox {
            id: sandbox.id.clone(),
        });
    }
    !seen.sandboxes.is_empty()
}
