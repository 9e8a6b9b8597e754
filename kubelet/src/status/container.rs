//! One container's status. Pure.

use super::pod::{Look, seconds};
use crate::pod::lifecycle::{Stage, Work, back_off_message, started};
use crate::pod::observed::{ContainerSeen, Exit, Failure, Run};
use k8s_openapi::api::core::v1::{
    Container, ContainerState, ContainerStateRunning, ContainerStateTerminated,
    ContainerStateWaiting, ContainerStatus, ContainerUser, LinuxContainerUser,
    ResourceRequirements, VolumeMountStatus,
};

/// Which list of the spec a container stands in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Init,
    Sidecar,
    App,
    Ephemeral,
}

/// `default_reason` is why a container waits of which nothing is known yet.
pub(super) fn status(
    look: &Look<'_>,
    container: &Container,
    kind: Kind,
    default_reason: &str,
) -> ContainerStatus {
    let newest = look.seen.newest(&container.name);
    if newest.is_none()
        && let Some(kept) = known_to_api(look, &container.name, kind)
    {
        return kept;
    }
    let (state, last) = states(look, container, newest, default_reason);
    let up = newest.filter(|_| state.running.is_some());
    let started = up.is_some_and(|c| started(look.seen, container, c));
    ContainerStatus {
        name: container.name.clone(),
        ready: ready(look, container, newest, kind, started),
        started: Some(started),
        restart_count: restart_count(look, container, newest),
        image: newest
            .map(|c| c.image.clone())
            .filter(|i| !i.is_empty())
            .or_else(|| container.image.clone())
            .unwrap_or_default(),
        image_id: newest.map(|c| c.image_id.clone()).unwrap_or_default(),
        container_id: newest.map(|c| id(look, c)),
        state: Some(state),
        last_state: Some(last),
        resources: up.and_then(|c| resources(container, look.seen.applied.get(&c.id))),
        allocated_resources: up
            .and(container.resources.as_ref())
            .and_then(|r| r.requests.clone()),
        volume_mounts: mounts(container),
        user: up.and_then(|c| c.user.as_ref()).map(|u| ContainerUser {
            linux: Some(LinuxContainerUser {
                uid: u.uid,
                gid: u.gid,
                supplemental_groups: Some(u.groups.clone()),
            }),
        }),
        ..ContainerStatus::default()
    }
}

/// What it runs with. Limits that it has by its pod alone are told where it has any of its own.
///
/// kubernetes v1.37 pkg/kubelet/kubelet_pods.go `convertContainerStatusResources`.
fn resources(
    container: &Container,
    applied: Option<&ResourceRequirements>,
) -> Option<ResourceRequirements> {
    let own = container.resources.as_ref();
    let mut all = applied.or(own).cloned()?;
    if own.is_none_or(|own| own.limits.is_none()) {
        all.limits = None;
    }
    Some(all)
}

fn id(look: &Look<'_>, seen: &ContainerSeen) -> String {
    format!("{}://{}", look.runtime, seen.id)
}

/// The end of a container that the runtime has forgotten since.
fn known_to_api(look: &Look<'_>, name: &str, kind: Kind) -> Option<ContainerStatus> {
    let before = look.pod().status.as_ref()?;
    let list = match kind {
        Kind::Init | Kind::Sidecar => &before.init_container_statuses,
        Kind::App => &before.container_statuses,
        Kind::Ephemeral => &before.ephemeral_container_statuses,
    };
    let found = list.iter().flatten().find(|c| c.name == name)?;
    let ended = found.state.as_ref().is_some_and(|s| s.terminated.is_some());
    (ended && look.state.stage != Stage::Syncing).then(|| found.clone())
}

fn states(
    look: &Look<'_>,
    container: &Container,
    newest: Option<&ContainerSeen>,
    default_reason: &str,
) -> (ContainerState, ContainerState) {
    let none = ContainerState::default;
    let last = look.seen.previous(&container.name);
    let last = last.or_else(|| look.state.memory.reset.get(&container.name));
    let last = last
        .and_then(|c| Some(terminated(look, c, c.exit()?)))
        .unwrap_or_else(none);
    let Some(seen) = newest else {
        return (absent(look, container, default_reason), last);
    };
    match &seen.run {
        // It never began, and never will.
        Run::Created if look.over() => (absent(look, container, default_reason), last),
        Run::Created => (created(look, seen), last),
        Run::Running { .. } if hook_runs(look, container, seen) => {
            (waiting("ContainerCreating", None), last)
        }
        Run::Running { started } => (running(*started), last),
        Run::Exited(exit) => match again(look, container, exit) {
            Some(state) => (state, terminated(look, seen, exit)),
            None => (terminated(look, seen, exit), last),
        },
    }
}

fn hook_runs(look: &Look<'_>, container: &Container, seen: &ContainerSeen) -> bool {
    let hook = container
        .lifecycle
        .as_ref()
        .is_some_and(|l| l.post_start.is_some());
    hook && look.seen.busy.contains(&Work::Start(seen.id.clone()))
}

fn waiting(reason: &str, message: Option<String>) -> ContainerState {
    ContainerState {
        waiting: Some(ContainerStateWaiting {
            reason: Some(reason.to_owned()),
            message,
        }),
        ..ContainerState::default()
    }
}

fn running(started: jiff::Timestamp) -> ContainerState {
    ContainerState {
        running: Some(ContainerStateRunning {
            started_at: Some(seconds(started)),
        }),
        ..ContainerState::default()
    }
}

fn terminated(look: &Look<'_>, seen: &ContainerSeen, exit: &Exit) -> ContainerState {
    ContainerState {
        terminated: Some(ContainerStateTerminated {
            container_id: Some(id(look, seen)),
            exit_code: exit.code,
            reason: Some(exit.reason.clone()),
            message: (!exit.message.is_empty()).then(|| exit.message.clone()),
            started_at: exit.started.map(seconds),
            finished_at: Some(seconds(exit.finished)),
            signal: None,
        }),
        ..ContainerState::default()
    }
}

/// Never made: it waits, or, if the pod is over, it never will be.
fn absent(look: &Look<'_>, container: &Container, default_reason: &str) -> ContainerState {
    if let Some(state) = trouble(look, container) {
        return state;
    }
    let initialized = default_reason != "PodInitializing" || init_over(look);
    if look.over() && initialized {
        return ContainerState {
            terminated: Some(ContainerStateTerminated {
                exit_code: 137,
                reason: Some("ContainerStatusUnknown".into()),
                message: Some(
                    "The container could not be located when the pod was terminated".into(),
                ),
                ..ContainerStateTerminated::default()
            }),
            ..ContainerState::default()
        };
    }
    waiting(default_reason, None)
}

fn init_over(look: &Look<'_>) -> bool {
    let spec = look.pod().spec.as_ref();
    let mut init = spec
        .and_then(|s| s.init_containers.as_ref())
        .into_iter()
        .flatten();
    init.all(|c| {
        let exit = look.seen.newest(&c.name).and_then(|n| n.exit());
        exit.is_some_and(|e| e.code == 0)
    })
}

/// What keeps the next start from happening.
fn trouble(look: &Look<'_>, container: &Container) -> Option<ContainerState> {
    if look.over() {
        return None;
    }
    let of = |work: Work| look.seen.failed.get(&work);
    let name = container.name.clone();
    let failure = of(Work::Create(name.clone())).or_else(|| of(Work::Image(name)))?;
    Some(waiting(&failure.reason, Some(message(container, failure))))
}

fn message(container: &Container, failure: &Failure) -> String {
    if failure.reason != "ImagePullBackOff" {
        return failure.message.clone();
    }
    let image = container.image.as_deref().unwrap_or_default();
    format!(
        "Back-off pulling image {image:?}: ErrImagePull: {}",
        failure.message
    )
}

fn created(look: &Look<'_>, seen: &ContainerSeen) -> ContainerState {
    match look.seen.failed.get(&Work::Start(seen.id.clone())) {
        Some(failure) => waiting(&failure.reason, Some(failure.message.clone())),
        None => waiting("ContainerCreating", None),
    }
}

/// A container that ended and waits for its next start.
fn again(look: &Look<'_>, container: &Container, exit: &Exit) -> Option<ContainerState> {
    if look.state.stage != Stage::Syncing {
        return None;
    }
    if let Some(state) = trouble(look, container) {
        return Some(state);
    }
    let backoff = look.state.memory.backoffs.get(&container.name)?;
    backoff.waits(exit.finished, look.now).then(|| {
        let message = back_off_message(backoff.delay, &container.name, look.pod());
        waiting("CrashLoopBackOff", Some(message))
    })
}

fn ready(
    look: &Look<'_>,
    container: &Container,
    newest: Option<&ContainerSeen>,
    kind: Kind,
    started: bool,
) -> bool {
    match kind {
        Kind::Init => newest.and_then(|c| c.exit()).is_some_and(|e| e.code == 0),
        Kind::Ephemeral => false,
        Kind::App | Kind::Sidecar => {
            let verdict = newest.and_then(|c| look.seen.probes.get(&c.id));
            let asked = container.readiness_probe.is_some();
            started && (!asked || verdict.is_some_and(|v| v.readiness == Some(true)))
        }
    }
}

fn restart_count(look: &Look<'_>, container: &Container, newest: Option<&ContainerSeen>) -> i32 {
    let remembered = look.state.memory.attempts.get(&container.name);
    let attempt = newest
        .map(|c| c.attempt)
        .or(remembered.map(|n| n.saturating_sub(1)));
    i32::try_from(attempt.unwrap_or(0)).unwrap_or(i32::MAX)
}

fn mounts(container: &Container) -> Option<Vec<VolumeMountStatus>> {
    let own = container.volume_mounts.as_ref().filter(|m| !m.is_empty())?;
    let of = |m: &k8s_openapi::api::core::v1::VolumeMount| VolumeMountStatus {
        name: m.name.clone(),
        mount_path: m.mount_path.clone(),
        read_only: m.read_only,
        recursive_read_only: m.read_only.unwrap_or(false).then(|| {
            let wish = m.recursive_read_only.as_deref();
            match wish {
                Some("Enabled" | "IfPossible") => "Enabled".to_owned(),
                Some(_) | None => "Disabled".to_owned(),
            }
        }),
        ..VolumeMountStatus::default()
    };
    Some(own.iter().map(of).collect())
}
