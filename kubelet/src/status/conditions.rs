//! The kubelet's conditions of a pod; those of others are left alone. Pure.

use super::pod::{Look, seconds};
use crate::pod::lifecycle::{Why, Work, may_reset, restartable_init};
use crate::pod::resize;
use crate::pod::spec::host_network;
use k8s_openapi::api::core::v1::{ContainerStatus, PodCondition, PodSpec};

/// Conditions that are taken away when they are not so any more.
pub(super) const PASSING: [&str; 2] = [RESIZE_PENDING, RESIZE_IN_PROGRESS];
const RESIZE_PENDING: &str = "PodResizePending";
const RESIZE_IN_PROGRESS: &str = "PodResizeInProgress";

/// What conditions are drawn from.
pub(super) struct Facts<'a> {
    pub phase: &'a str,
    pub init: &'a [ContainerStatus],
    pub app: &'a [ContainerStatus],
}

struct Finding {
    status: bool,
    reason: Option<&'static str>,
    message: Option<String>,
}

impl Finding {
    fn yes() -> Self {
        Self {
            status: true,
            reason: None,
            message: None,
        }
    }

    fn no(reason: &'static str, message: Option<String>) -> Self {
        Self {
            status: false,
            reason: Some(reason),
            message,
        }
    }
}

pub(super) fn build(look: &Look<'_>, spec: &PodSpec, facts: &Facts<'_>) -> Vec<PodCondition> {
    let containers = containers_ready(spec, facts);
    let ready = ready(look, spec, &containers);
    let mut found = vec![
        // The scheduler's, but for the generation.
        condition(look, "PodScheduled", Finding::yes()),
        condition(look, "PodReadyToStartContainers", sandbox(look)),
        condition(look, "Initialized", initialized(spec, facts)),
        condition(look, "Ready", ready),
        condition(look, "ContainersReady", containers),
    ];
    if may_reset(spec) {
        found.push(condition(look, "AllContainersRestarting", resetting(look)));
    }
    found.extend(resize_pending(look));
    found.extend(resize_in_progress(look));
    if let Some(Why::Rejected(verdict)) = look.why()
        && verdict.disrupts
    {
        let ended = Finding {
            reason: Some("TerminationByKubelet"),
            message: Some(verdict.message.clone()),
            ..Finding::yes()
        };
        found.push(condition(look, "DisruptionTarget", ended));
    }
    found
}

fn resetting(look: &Look<'_>) -> Finding {
    if look.why().is_none() && look.state.memory.resetting {
        return Finding {
            reason: Some("RestartAllContainersStarted"),
            message: Some("container exited with restart policy rule".to_owned()),
            ..Finding::yes()
        };
    }
    Finding {
        status: false,
        ..Finding::yes()
    }
}

/// There only while it is so.
fn resize_pending(look: &Look<'_>) -> Option<PodCondition> {
    let pending = look
        .seen
        .pending
        .as_ref()
        .filter(|_| look.why().is_none())?;
    let waits = Finding {
        reason: Some(pending.refusal.name()),
        message: Some(pending.message.clone()),
        ..Finding::yes()
    };
    Some(PodCondition {
        observed_generation: pending.generation,
        ..condition(look, RESIZE_PENDING, waits)
    })
}

/// There only while it is so; with the reason `Error` when the last try failed.
fn resize_in_progress(look: &Look<'_>) -> Option<PodCondition> {
    let runs = look.why().is_none() && resize::in_progress(look.pod(), look.seen);
    let failure = look.seen.failed.get(&Work::Resize);
    runs.then(|| {
        let on = Finding {
            reason: failure.map(|_| "Error"),
            message: failure.map(|f| f.message.clone()),
            ..Finding::yes()
        };
        condition(look, RESIZE_IN_PROGRESS, on)
    })
}

/// Texts: kubernetes v1.37 pkg/kubelet/types/constants.go.
fn sandbox(look: &Look<'_>) -> Finding {
    let not_ready = |message: &str| Finding::no("PodSandboxNotReady", Some(message.to_owned()));
    let seen = look.seen;
    let Some(newest) = seen.sandbox() else {
        return not_ready("no pod sandbox exists");
    };
    if !newest.ready || seen.stopped.contains(&newest.id) {
        return not_ready("pod sandbox is not ready");
    }
    if newest.ips.is_empty() && !host_network(look.pod()) {
        return not_ready("pod sandbox has no IP address");
    }
    // The sandbox is made while volumes are; containers wait for both.
    if !seen.volumes && seen.containers.is_empty() {
        return not_ready("volumes are not mounted");
    }
    Finding::yes()
}

fn names(statuses: &[&ContainerStatus]) -> String {
    let names: Vec<&str> = statuses.iter().map(|s| s.name.as_str()).collect();
    format!("[{}]", names.join(" "))
}

fn initialized(spec: &PodSpec, facts: &Facts<'_>) -> Finding {
    if facts.phase == "Succeeded" {
        return Finding {
            reason: Some("PodCompleted"),
            ..Finding::yes()
        };
    }
    let sidecar = |name: &str| {
        let mut init = spec.init_containers.iter().flatten();
        init.any(|c| c.name == name && restartable_init(c))
    };
    // Once an app container was made, initialization has been.
    let begun = facts.app.iter().any(|c| c.container_id.is_some());
    let incomplete: Vec<&ContainerStatus> = facts
        .init
        .iter()
        .filter(|s| {
            if sidecar(&s.name) {
                s.started != Some(true)
            } else {
                !s.ready
            }
        })
        .collect();
    if begun || incomplete.is_empty() {
        return Finding::yes();
    }
    let message = format!("containers with incomplete status: {}", names(&incomplete));
    Finding::no("ContainersNotInitialized", Some(message))
}

fn containers_ready(spec: &PodSpec, facts: &Facts<'_>) -> Finding {
    match facts.phase {
        "Succeeded" => return Finding::no("PodCompleted", None),
        "Failed" => return Finding::no("PodFailed", None),
        _ => {}
    }
    let sidecar = |name: &str| {
        let mut init = spec.init_containers.iter().flatten();
        init.any(|c| c.name == name && restartable_init(c))
    };
    let sidecars = facts.init.iter().filter(|s| sidecar(&s.name));
    let unready: Vec<&ContainerStatus> = sidecars.chain(facts.app).filter(|s| !s.ready).collect();
    if unready.is_empty() {
        return Finding::yes();
    }
    let message = format!("containers with unready status: {}", names(&unready));
    Finding::no("ContainersNotReady", Some(message))
}

/// Containers, and whatever else the pod says its readiness depends on.
fn ready(look: &Look<'_>, spec: &PodSpec, containers: &Finding) -> Finding {
    if !containers.status {
        return Finding::no(
            containers.reason.unwrap_or("ContainersNotReady"),
            containers.message.clone(),
        );
    }
    let mut missing = Vec::new();
    for gate in spec.readiness_gates.iter().flatten() {
        let kind = &gate.condition_type;
        match of_api(look, kind) {
            Some(c) if c.status == "True" => {}
            Some(c) => missing.push(format!(
                "the status of pod readiness gate {kind:?} is not \"True\", but {}",
                c.status
            )),
            None => missing.push(format!(
                "corresponding condition of pod readiness gate {kind:?} does not exist."
            )),
        }
    }
    if missing.is_empty() {
        return Finding::yes();
    }
    Finding::no("ReadinessGatesNotReady", Some(missing.join(", ")))
}

fn of_api<'a>(look: &Look<'a>, kind: &str) -> Option<&'a PodCondition> {
    let conditions = look.pod().status.as_ref()?.conditions.as_ref()?;
    conditions.iter().find(|c| c.type_ == kind)
}

fn condition(look: &Look<'_>, kind: &str, finding: Finding) -> PodCondition {
    let status = if finding.status { "True" } else { "False" };
    let published = look
        .before
        .and_then(|b| b.conditions.as_ref())
        .into_iter()
        .flatten();
    let before = published
        .rev()
        .find(|c| c.type_ == kind)
        .or_else(|| of_api(look, kind))
        .filter(|c| c.status == status);
    let since = before.and_then(|c| c.last_transition_time.clone());
    PodCondition {
        type_: kind.to_owned(),
        status: status.to_owned(),
        reason: finding.reason.map(str::to_owned),
        message: finding.message,
        last_transition_time: since.or(Some(seconds(look.now))),
        observed_generation: look.pod().metadata.generation,
        ..PodCondition::default()
    }
}
