//! A pod's status from what is seen of it. Pure.

use super::conditions::{self, Facts};
use super::{container, resources};
use crate::pod::NodeFacts;
use crate::pod::lifecycle::{
    Desired, Stage, Terminal, Why, WorkerState, completed, restartable_init,
};
use crate::pod::observed::Observed;
use crate::pod::spec::{host_network, qos};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    Container, ContainerState, ContainerStatus, HostIP, Pod, PodIP, PodSpec, PodStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

/// All that a status is made from.
#[derive(Clone, Copy)]
pub struct Look<'a> {
    /// What is wanted.
    pub want: &'a Desired,
    /// How far it is.
    pub state: &'a WorkerState,
    /// What is seen.
    pub seen: &'a Observed,
    /// The node.
    pub node: &'a NodeFacts,
    /// `Version.runtimeName`: the scheme of container ids.
    pub runtime: &'a str,
    /// What was published last: conditions keep their times.
    pub before: Option<&'a PodStatus>,
    /// The clock.
    pub now: Timestamp,
}

impl<'a> Look<'a> {
    /// The pod as wanted.
    #[must_use]
    pub fn pod(&self) -> &'a Pod {
        &self.want.pod
    }

    /// Its spec; an empty one for pods known only from what runs.
    #[must_use]
    pub fn spec(&self) -> PodSpec {
        self.pod().spec.clone().unwrap_or_default()
    }

    /// No container will run any more.
    #[must_use]
    pub fn over(&self) -> bool {
        match self.state.stage {
            Stage::Syncing | Stage::Terminating { .. } => false,
            Stage::Terminated { .. } | Stage::Finished { .. } => true,
        }
    }

    /// Why it ends, if it does.
    #[must_use]
    pub fn why(&self) -> Option<&'a Why> {
        match &self.state.stage {
            Stage::Syncing => None,
            Stage::Terminating { why, .. }
            | Stage::Terminated { why, .. }
            | Stage::Finished { why } => Some(why),
        }
    }
}

/// The status to be reported now.
#[must_use]
pub fn build(look: &Look<'_>) -> PodStatus {
    if let Some(kept) = settled_before(look) {
        return kept;
    }
    let spec = look.spec();
    let (reason, message) = explain(look);
    let mut status = PodStatus {
        phase: Some(phase(look, &spec, &[]).to_owned()),
        reason,
        message,
        qos_class: Some(qos::of(look.pod()).name().to_owned()),
        start_time: look.state.memory.start_time.map(seconds),
        observed_generation: look.pod().metadata.generation,
        ..PodStatus::default()
    };
    if never_accepted(look) {
        return status;
    }
    addresses(look, &mut status);
    let (init, app, ephemeral) = containers(look, &spec);
    status.phase = Some(phase(look, &spec, &app).to_owned());
    let facts = Facts {
        phase: status.phase.as_deref().unwrap_or_default(),
        init: &init,
        app: &app,
    };
    status.conditions = Some(conditions::build(look, &spec, &facts));
    resources::fill(look, &spec, &mut status);
    status.init_container_statuses = some(init);
    status.container_statuses = some(by_name(app));
    status.ephemeral_container_statuses = some(by_name(ephemeral));
    status
}

/// kubernetes v1.37 pkg/kubelet/kubelet_pods.go `convertToAPIContainerStatuses`: init containers
/// alone are told in the order of the spec.
fn by_name(mut list: Statuses) -> Statuses {
    list.sort_by(|a, b| a.name.cmp(&b.name));
    list
}

fn some(list: Vec<ContainerStatus>) -> Option<Vec<ContainerStatus>> {
    (!list.is_empty()).then_some(list)
}

type Statuses = Vec<ContainerStatus>;

fn containers(look: &Look<'_>, spec: &PodSpec) -> (Statuses, Statuses, Statuses) {
    let waiting = if spec.init_containers.as_ref().is_some_and(|i| !i.is_empty()) {
        "PodInitializing"
    } else {
        "ContainerCreating"
    };
    let of = |c: &Container, kind| container::status(look, c, kind, waiting);
    let init = spec.init_containers.iter().flatten().map(|c| {
        let kind = match restartable_init(c) {
            true => container::Kind::Sidecar,
            false => container::Kind::Init,
        };
        of(c, kind)
    });
    let init: Statuses = init.collect();
    let app = spec.containers.iter().map(|c| of(c, container::Kind::App));
    let app: Statuses = app.collect();
    let ephemeral = spec.ephemeral_containers.iter().flatten().map(|e| {
        let plain = crate::pod::spec::ephemeral_as_container(e);
        container::status(
            look,
            &plain,
            container::Kind::Ephemeral,
            "ContainerCreating",
        )
    });
    (init, app, ephemeral.collect())
}

/// It was over before this agent's time, and nothing is left to look at.
fn settled_before(look: &Look<'_>) -> Option<PodStatus> {
    let nothing = look.seen.sandboxes.is_empty() && look.seen.containers.is_empty();
    let over = matches!(look.why(), Some(Why::ApiTerminal(_)));
    (nothing && over)
        .then(|| look.pod().status.clone())
        .flatten()
}

/// Rejected before anything was made for it.
fn never_accepted(look: &Look<'_>) -> bool {
    matches!(look.why(), Some(Why::Rejected(_))) && look.seen.sandboxes.is_empty() && !ran(look)
}

/// The API server knows of containers from before.
fn ran(look: &Look<'_>) -> bool {
    let before = look.pod().status.as_ref();
    let containers = before.and_then(|s| s.container_statuses.as_ref());
    containers.is_some_and(|c| c.iter().any(|s| s.container_id.is_some()))
}

fn explain(look: &Look<'_>) -> (Option<String>, Option<String>) {
    let of = |reason: &str, message: &str| (Some(reason.to_owned()), Some(message.to_owned()));
    match look.why() {
        Some(Why::Rejected(verdict)) => of(&verdict.reason, &verdict.message),
        Some(Why::DeadlineExceeded) => of(
            "DeadlineExceeded",
            "Pod was active on the node longer than the specified deadline",
        ),
        Some(Why::ApiTerminal(_)) => {
            let before = look.pod().status.clone().unwrap_or_default();
            (before.reason, before.message)
        }
        Some(Why::Deleted | Why::Completed) | None => (None, None),
    }
}

/// Running once every app container has run, whatever it does now.
fn phase(look: &Look<'_>, spec: &PodSpec, app: &[ContainerStatus]) -> &'static str {
    if let Some(Why::ApiTerminal(terminal)) = look.why() {
        return name(*terminal);
    }
    if look.over() {
        return name(end(look, spec));
    }
    let has_run = |s: &ContainerStatus| {
        let ended = |c: &ContainerState| c.terminated.is_some();
        let now = s.state.as_ref();
        now.is_some_and(|c| c.running.is_some() || ended(c))
            || s.last_state.as_ref().is_some_and(ended)
    };
    match !app.is_empty() && app.iter().all(has_run) {
        true => "Running",
        false => "Pending",
    }
}

fn name(terminal: Terminal) -> &'static str {
    match terminal {
        Terminal::Succeeded => "Succeeded",
        Terminal::Failed => "Failed",
    }
}

/// How a pod ended whose containers are gone.
fn end(look: &Look<'_>, spec: &PodSpec) -> Terminal {
    match look.why() {
        Some(Why::ApiTerminal(terminal)) => *terminal,
        Some(Why::Rejected(_) | Why::DeadlineExceeded) => Terminal::Failed,
        Some(Why::Completed | Why::Deleted) | None => {
            completed(spec, look.seen).unwrap_or_else(|| all_succeeded(look, spec))
        }
    }
}

fn all_succeeded(look: &Look<'_>, spec: &PodSpec) -> Terminal {
    let ok = |c: &Container| {
        let exit = look.seen.newest(&c.name).and_then(|n| n.exit());
        exit.is_some_and(|e| e.code == 0)
    };
    match !spec.containers.is_empty() && spec.containers.iter().all(ok) {
        true => Terminal::Succeeded,
        false => Terminal::Failed,
    }
}

fn addresses(look: &Look<'_>, status: &mut PodStatus) {
    let host: Vec<String> = look.node.ips.texts();
    let own = match host_network(look.pod()) {
        true if look.seen.sandbox().is_some() => host.clone(),
        true => Vec::new(),
        false => look
            .seen
            .sandbox()
            .map(|s| s.ips.clone())
            .unwrap_or_default(),
    };
    status.host_ip = host.first().cloned();
    status.host_ips = Some(host.into_iter().map(|ip| HostIP { ip }).collect());
    status.pod_ip = own.first().cloned();
    if !own.is_empty() {
        status.pod_ips = Some(own.into_iter().map(|ip| PodIP { ip }).collect());
    }
}

/// A time as the API keeps it: whole seconds.
pub(super) fn seconds(at: Timestamp) -> Time {
    Time(Timestamp::from_second(at.as_second()).unwrap_or(at))
}
