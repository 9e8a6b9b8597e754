//! A pod on its way to what is wanted, and kept there.

use super::plan::Plan;
use super::restart::app_restarts;
use super::types::{Effect, StopReason, Work};
use super::{gc, init, reset};
use crate::pod::observed::{ContainerSeen, Observed, Run};
use crate::pod::resize;
use crate::pod::spec::{ephemeral_as_container, hash};
use k8s_openapi::api::core::v1::{Container, Probe};

/// Volumes, sandbox and images at once, then containers in their order. Before
/// any of it the pod gets its devices: without them it fails.
pub(super) fn plan(plan: &mut Plan<'_>) {
    if plan.seen.unallocated {
        return plan.request(Effect::Allocate);
    }
    if !plan.seen.volumes {
        plan.request(Effect::MountVolumes);
    }
    let ready = plan.seen.ready_sandbox().map(|s| s.id.clone());
    if ready.is_none() && !replace_sandbox(plan) {
        return;
    }
    if ready.is_some() && reset::plan(plan) {
        return;
    }
    if init::plan(plan, ready.as_deref()) {
        app_containers(plan);
        resize(plan);
        if ready.is_some() {
            ephemeral_containers(plan);
        }
    }
    gc::plan(plan);
}

/// Ends what is left in a dead sandbox, then asks for a new one. Answers
/// whether the old one is out of the way.
fn replace_sandbox(plan: &mut Plan<'_>) -> bool {
    let seen = plan.seen;
    let Some(dead) = seen.sandbox() else {
        run_sandbox(plan, 0, None);
        return true;
    };
    let mut clear = true;
    for container in seen.containers.iter().filter(|c| c.running()) {
        clear = false;
        let until = plan.after(grace(plan, None));
        plan.stop(container, until, StopReason::SandboxGone);
    }
    if clear && !seen.stopped.contains(&dead.id) {
        clear = false;
        plan.request(Effect::StopSandbox {
            id: dead.id.clone(),
        });
    }
    if clear {
        let because = what_happened(seen, &dead.id);
        run_sandbox(plan, dead.attempt + 1, Some(because));
    }
    clear
}

/// Drivers make ready what the pod claims before each.
fn run_sandbox(plan: &mut Plan<'_>, attempt: u32, because: Option<String>) {
    plan.request(match plan.seen.unprepared {
        true => Effect::PrepareResources,
        false => Effect::RunSandbox { attempt, because },
    });
}

/// For the event: which sandbox, and what its containers said when it died.
fn what_happened(seen: &Observed, sandbox: &str) -> String {
    let short = sandbox.get(..12).unwrap_or(sandbox);
    let mut text = format!("sandbox {short} is no longer ready");
    for container in seen.containers.iter().filter(|c| c.sandbox == sandbox) {
        let Some(exit) = container.exit().filter(|e| e.code != 0) else {
            continue;
        };
        let (name, code, reason) = (&container.name, exit.code, &exit.reason);
        text.push_str(&format!(", container {name} ended with {code} ({reason})"));
    }
    text
}

fn app_containers(plan: &mut Plan<'_>) {
    let spec = plan.spec;
    for container in &spec.containers {
        app_container(plan, container);
    }
}

fn app_container(plan: &mut Plan<'_>, container: &Container) {
    let seen = plan.seen;
    let Some(newest) = seen.newest(&container.name) else {
        return first_start(plan, container);
    };
    match &newest.run {
        Run::Created if current(seen, newest) => start_created(plan, container, newest),
        // Made for a sandbox that died before it was started.
        Run::Created => first_start(plan, container),
        Run::Running { .. } => check_running(plan, container, newest),
        // The pod's cgroup has room for it first.
        Run::Exited(_) if resized(plan, container, newest) && crowded(plan) => {}
        Run::Exited(_) if redefined(container, newest) || resized(plan, container, newest) => {
            let attempt = plan.next_attempt(&container.name);
            plan.start(container, attempt);
        }
        Run::Exited(exit) if app_restarts(plan.spec, container, exit.code) => {
            plan.start_again(container, newest);
        }
        Run::Exited(_) => {}
    }
}

/// What runs with other resources than it was granted gets these, unless it has to
/// be started anew for them.
fn resize(plan: &mut Plan<'_>) {
    let (pod, seen) = (&plan.want.pod, plan.seen);
    let running = resize::resizable(pod).any(|c| resize::running_due(pod, c, seen));
    if running || resize::cgroup_due(pod, seen) {
        plan.request(Effect::Resize);
    }
}

/// It has to be started anew to get the resources it was granted.
fn resized(plan: &Plan<'_>, container: &Container, seen: &ContainerSeen) -> bool {
    let pod = &plan.want.pod;
    resize::restarts(pod, container, plan.seen.applied.get(&seen.id))
}

fn crowded(plan: &Plan<'_>) -> bool {
    resize::cgroup_due(&plan.want.pod, plan.seen)
}

fn current(seen: &Observed, container: &ContainerSeen) -> bool {
    seen.ready_sandbox()
        .is_some_and(|s| s.id == container.sandbox)
}

/// Ephemeral containers are started once, whatever becomes of them.
fn ephemeral_containers(plan: &mut Plan<'_>) {
    let spec = plan.spec;
    for ephemeral in spec.ephemeral_containers.as_deref().unwrap_or_default() {
        let container = ephemeral_as_container(ephemeral);
        match plan.seen.newest(&ephemeral.name) {
            None if plan.next_attempt(&ephemeral.name) == 0 => first_start(plan, &container),
            Some(c) if c.run == Run::Created && current(plan.seen, c) => {
                start_created(plan, &container, c);
            }
            None | Some(_) => {}
        }
    }
}

pub(super) fn first_start(plan: &mut Plan<'_>, container: &Container) {
    let attempt = plan.next_attempt(&container.name);
    plan.start(container, attempt);
}

pub(super) fn start_created(plan: &mut Plan<'_>, container: &Container, seen: &ContainerSeen) {
    plan.request(Effect::StartContainer {
        container: container.name.clone(),
        id: seen.id.clone(),
    });
}

/// Stops a running container that must not go on as it is.
pub(super) fn check_running(plan: &mut Plan<'_>, container: &Container, seen: &ContainerSeen) {
    let verdicts = plan.seen.probes.get(&seen.id).copied().unwrap_or_default();
    let (reason, probe) = if redefined(container, seen) {
        (StopReason::DefinitionChanged, None)
    } else if resized(plan, container, seen) {
        (StopReason::Resized, None)
    } else if plan.seen.failed.contains_key(&Work::Start(seen.id.clone())) {
        (StopReason::PostStartFailed, None)
    } else if verdicts.startup == Some(false) {
        (StopReason::StartupFailed, container.startup_probe.as_ref())
    } else if verdicts.liveness == Some(false) {
        (
            StopReason::LivenessFailed,
            container.liveness_probe.as_ref(),
        )
    } else {
        return;
    };
    let until = plan.after(grace(plan, probe));
    plan.stop(seen, until, reason);
}

/// Made from another definition than today's. One without a hash is taken as it is.
fn redefined(container: &Container, seen: &ContainerSeen) -> bool {
    !seen.hash.is_empty() && seen.hash != hash(container)
}

/// Seconds a container has to end when only it is stopped.
fn grace(plan: &Plan<'_>, probe: Option<&Probe>) -> i64 {
    probe
        .and_then(|p| p.termination_grace_period_seconds)
        .or(plan.spec.termination_grace_period_seconds)
        .unwrap_or(crate::defaults::TERMINATION_GRACE_PERIOD_SECONDS)
}

/// Whether a running container is `started`: hook done, startup probe passed.
pub(crate) fn started(seen: &Observed, container: &Container, found: &ContainerSeen) -> bool {
    let work = Work::Start(found.id.clone());
    let hook = container
        .lifecycle
        .as_ref()
        .is_some_and(|l| l.post_start.is_some());
    if hook && (seen.busy.contains(&work) || seen.failed.contains_key(&work)) {
        return false;
    }
    if container.startup_probe.is_none() {
        return true;
    }
    let verdicts = seen.probes.get(&found.id);
    verdicts.is_some_and(|v| v.startup == Some(true))
}
