//! Does what [`super::lifecycle::decide`] asked for; knows no policy.
//!
//! Every effect may be asked for again: what is done already is found done.

mod create;
mod env_files;
mod image;
mod logs;
mod resize;
mod sandbox;
mod stop;
mod userns;

pub use userns::UserNamespaces;

use super::Deps;
use super::lifecycle::Effect;
use super::observe::{self, PodSeen};
use super::observed::{ContainerSeen, ImageReady, Observed, SandboxSeen};
use super::probe::Target;
use super::resize::Granted;
use super::spec;
use super::subject::Subject;
use crate::event::EventType;
use crate::metrics::{CONTAINER, EPHEMERAL_CONTAINER, INIT_CONTAINER};
use crate::panics;
use crate::volume::PodVolumes;
use cri_proto::{Status, v1};
use k8s_openapi::api::core::v1::{Container, Pod, ResourceRequirements};
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::mpsc::UnboundedSender;
use tokio_util::sync::CancellationToken;

/// The pod as an effect finds it.
#[derive(Clone)]
pub struct Context {
    /// The newest object.
    pub pod: Arc<Pod>,
    /// Its volumes, once mounted.
    pub volumes: Arc<PodVolumes>,
    /// Everything known of it.
    pub seen: Arc<Observed>,
    /// Containers whose preStop hook was begun.
    pub pre_stopped: Arc<Mutex<BTreeSet<String>>>,
    /// What is seen before an effect is over.
    pub progress: UnboundedSender<PodSeen>,
    /// Ends what is only for starting.
    pub abandon: CancellationToken,
}

impl Context {
    /// Addresses of the pod; the host's with hostNetwork.
    fn ips(&self, deps: &Deps) -> Vec<String> {
        if spec::host_network(&self.pod) {
            return deps.node.ips.texts();
        }
        self.seen
            .sandbox()
            .map(|s| s.ips.clone())
            .unwrap_or_default()
    }

    fn tell_container(&self, seen: ContainerSeen) {
        let _ = self.progress.send(PodSeen {
            containers: vec![seen],
            ..PodSeen::default()
        });
    }

    fn tell_sandbox(&self, seen: SandboxSeen) {
        let _ = self.progress.send(PodSeen {
            sandboxes: vec![seen],
            ..PodSeen::default()
        });
    }

    fn container(&self, name: &str) -> Result<Container, Failed> {
        let found = self.pod.spec.as_ref().and_then(|s| spec::find(s, name));
        found.ok_or_else(|| Failed::new("ContainerNotFound", format!("no container {name:?}")))
    }
}

/// What became of an effect.
#[derive(Debug)]
#[allow(missing_docs)]
pub enum Report {
    Done,
    Volumes(PodVolumes),
    Sandbox(SandboxSeen),
    Image(String, ImageReady),
    Container(Box<ContainerSeen>),
    /// Containers by id, and what the pod's cgroup is for.
    Resized(Vec<(String, ResourceRequirements)>, Granted),
}

/// Why an effect failed: reason and message as the API shows them.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason}: {message}")]
pub struct Failed {
    /// One of the kubelet's own words.
    pub reason: &'static str,
    /// For people.
    pub message: String,
}

impl Failed {
    fn new(reason: &'static str, message: impl Into<String>) -> Self {
        let message = message.into();
        Self { reason, message }
    }

    fn rpc(reason: &'static str, status: &Status) -> Self {
        Self::new(reason, rpc(status))
    }
}

/// A gRPC status as Go prints it; people search for that.
fn rpc(status: &Status) -> String {
    format!(
        "rpc error: code = {:?} desc = {}",
        status.code(),
        status.message()
    )
}

/// Runs effects of every pod.
pub struct Executor {
    deps: Deps,
    pulls: image::Pulls,
    userns: UserNamespaces,
}

impl Executor {
    /// Over these.
    #[must_use]
    pub fn new(deps: Deps) -> Self {
        let pulls = image::Pulls::new(&deps.options);
        let userns = UserNamespaces::new(deps.options.user_namespaces, &deps.node.kubelet_root);
        Self {
            deps,
            pulls,
            userns,
        }
    }

    /// What it works with.
    #[must_use]
    pub fn deps(&self) -> &Deps {
        &self.deps
    }

    /// Does one thing for one pod.
    ///
    /// # Errors
    /// Whatever keeps it from being done; the events about it are sent.
    pub async fn run(&self, effect: &Effect, context: &Context) -> Result<Report, Failed> {
        // Whatever it has left half done is found so by the next try.
        let done = panics::spare(self.run_in_time(effect, context)).await;
        done.unwrap_or_else(|panic| Err(self.panicked(effect, context, &panic)))
    }

    /// A mistake of ours costs no more than this try of this pod.
    fn panicked(&self, effect: &Effect, context: &Context, panic: &str) -> Failed {
        let message = format!("{effect} panicked: {panic}");
        tracing::error!(pod = spec::uid(&context.pod), "{message}");
        let text = format!("error syncing pod, trying again: {message}");
        self.subject(&context.pod).warning(PANICKED, &text);
        Failed::new(PANICKED, message)
    }

    async fn run_in_time(&self, effect: &Effect, context: &Context) -> Result<Report, Failed> {
        let Some(limit) = self.limit(effect) else {
            return self.perform(effect, context).await;
        };
        match tokio::time::timeout(limit, self.perform(effect, context)).await {
            Ok(result) => result,
            Err(_) => {
                let message = format!("the runtime did not answer within {limit:?}");
                tracing::warn!(pod = spec::uid(&context.pod), ?effect, "{message}");
                Err(Failed::new("DeadlineExceeded", message))
            }
        }
    }

    /// `runtimeRequestTimeout`, twice for what makes or ends a network, none
    /// for what may rightly take long: pulls, stops with their grace, hooks.
    fn limit(&self, effect: &Effect) -> Option<Duration> {
        let one = self.deps.options.runtime_request_timeout;
        match effect {
            Effect::RunSandbox { .. } | Effect::StopSandbox { .. } => Some(one.saturating_mul(2)),
            Effect::CreateContainer { .. }
            | Effect::Resize
            | Effect::RemoveContainer { .. }
            | Effect::RemoveSandbox { .. } => Some(one),
            Effect::Abandon
            | Effect::Allocate
            | Effect::PrepareResources
            | Effect::MountVolumes
            | Effect::EnsureImage { .. }
            | Effect::StartContainer { .. }
            | Effect::StopContainer { .. }
            | Effect::UnmountVolumes
            | Effect::ReportBackOff { .. }
            | Effect::ReportPullBackOff { .. } => None,
        }
    }

    async fn perform(&self, effect: &Effect, context: &Context) -> Result<Report, Failed> {
        match effect {
            Effect::Abandon | Effect::ReportBackOff { .. } | Effect::ReportPullBackOff { .. } => {
                Ok(Report::Done)
            }
            Effect::Allocate => self.allocate(context).await,
            Effect::PrepareResources => self.prepare_resources(context).await,
            Effect::MountVolumes => self.mount(context).await,
            Effect::RunSandbox { attempt, because } => {
                self.run_sandbox(context, *attempt, because.as_deref())
                    .await
            }
            Effect::EnsureImage { container, attempt } => {
                self.ensure_image(context, container, *attempt).await
            }
            Effect::CreateContainer {
                container,
                attempt,
                sandbox,
                ..
            } => self.create(context, container, *attempt, sandbox).await,
            Effect::Resize => self.resize(context).await,
            Effect::StartContainer { container, id } => self.start(context, container, id).await,
            Effect::StopContainer {
                container,
                id,
                until,
                reason,
            } => self.stop(context, container, id, (*until, reason)).await,
            Effect::StopSandbox { id } => self.stop_sandbox(context, id).await,
            Effect::RemoveContainer { id } => self.remove_container(context, id).await,
            Effect::RemoveSandbox { id } => self.remove_sandbox(id).await,
            Effect::UnmountVolumes => self.unmount(context).await,
        }
    }

    /// Removes what only the pod's end makes needless: logs, ids.
    pub fn sweep(&self, pod: &Pod) {
        self.userns.release(spec::uid(pod));
        logs::remove_pod(pod, &self.deps.node);
    }

    /// The user namespace of a pod that runs already is not given away.
    pub fn adopt(&self, pod: &Pod) {
        self.userns.adopt(spec::uid(pod));
    }

    fn subject(&self, pod: &Arc<Pod>) -> Subject {
        Subject::new(pod.clone(), self.deps.events.clone())
    }

    /// A pod that can't have what it wants has failed, and is told so.
    async fn allocate(&self, context: &Context) -> Result<Report, Failed> {
        let given = self.deps.allocations.allocate(&context.pod).await;
        given.map(|()| Report::Done).map_err(|refused| {
            let subject = self.subject(&context.pod);
            subject.warning(refused.reason, &refused.message);
            let message = format!("Pod was rejected: {}", refused.message);
            Failed::new(refused.reason, message)
        })
    }

    /// What drivers don't make ready is asked for again later.
    async fn prepare_resources(&self, context: &Context) -> Result<Report, Failed> {
        let prepared = self.deps.allocations.dra.prepare(&context.pod).await;
        prepared.map(|()| Report::Done).map_err(|why| {
            let message = format!("Failed to prepare dynamic resources: {why}");
            let subject = self.subject(&context.pod);
            subject.warning("FailedPrepareDynamicResources", &message);
            Failed::new("FailedPrepareDynamicResources", message)
        })
    }

    async fn mount(&self, context: &Context) -> Result<Report, Failed> {
        let subject = self.subject(&context.pod);
        let mount = self.deps.volumes.mount(&context.pod);
        let result = tokio::select! {
            result = mount => result,
            () = context.abandon.cancelled() => return Err(Failed::new(ABANDONED, "")),
        };
        result.map(Report::Volumes).map_err(|error| {
            let message = error.to_string();
            subject.warning("FailedMount", &message);
            Failed::new("FailedMount", message)
        })
    }

    async fn unmount(&self, context: &Context) -> Result<Report, Failed> {
        let uid = spec::uid(&context.pod);
        self.deps.allocations.release(uid);
        if let Err(why) = self.deps.allocations.dra.unprepare(uid).await {
            tracing::warn!(pod = uid, why, "claims are not given back");
            return Err(Failed::new("FailedUnprepareDynamicResources", why));
        }
        match self.deps.volumes.unmount(uid).await {
            Ok(()) => {
                self.deps.objects.unregister(uid);
                Ok(Report::Done)
            }
            Err(error) => {
                tracing::warn!(pod = uid, %error, "unmount volumes");
                Err(Failed::new("FailedUnmount", error.to_string()))
            }
        }
    }

    /// Starts a container and sees its postStart hook through.
    async fn start(&self, context: &Context, name: &str, id: &str) -> Result<Report, Failed> {
        let container = context.container(name)?;
        let subject = self.subject(&context.pod);
        let warn = |reason: &str, message: &str| {
            subject.of_container(name, EventType::Warning, reason, message);
        };
        let request = v1::StartContainerRequest {
            container_id: id.to_owned(),
        };
        if let Err(status) = self.deps.cri.start_container(request).await {
            // It may have been started before, by an agent that died since.
            let seen = self.look(context, id).await?;
            if !seen.running() {
                warn("Failed", &format!("Error: {}", status.message()));
                let kind = container_type(&context.pod, name);
                let metrics = &self.deps.metrics;
                metrics.container_started(kind, Some("RunContainerError"));
                context.tell_container(seen);
                return Err(Failed::new("RunContainerError", status.message()));
            }
        }
        let seen = self.look(context, id).await?;
        let kind = container_type(&context.pod, name);
        self.deps.metrics.container_started(kind, None);
        logs::link(&context.pod, &seen, &self.deps.node);
        subject.of_container(name, EventType::Normal, "Started", "Container started");
        let hook = container
            .lifecycle
            .as_ref()
            .and_then(|l| l.post_start.clone());
        if let Some(hook) = hook {
            context.tell_container(seen.clone());
            let target = self.target(context, &container, id);
            let result = tokio::select! {
                result = super::hook::run(&target, &hook, None) => result,
                () = context.abandon.cancelled() => return Ok(Report::Container(Box::new(seen))),
            };
            if let Err(error) = result {
                warn(
                    "FailedPostStartHook",
                    &format!("PostStartHook failed: {error}"),
                );
                return Err(Failed::new("PostStartHookError", error.to_string()));
            }
        }
        Ok(Report::Container(Box::new(seen)))
    }

    async fn look(&self, context: &Context, id: &str) -> Result<ContainerSeen, Failed> {
        let sandbox = context
            .seen
            .sandbox()
            .map(|s| s.id.as_str())
            .unwrap_or_default();
        let found = observe::container_status(self.deps.cri.as_ref(), id, sandbox).await;
        let found = found.map_err(|status| Failed::rpc("ContainerStatus", &status))?;
        found.ok_or_else(|| Failed::new("ContainerStatus", format!("container {id} is gone")))
    }

    fn target(&self, context: &Context, container: &Container, id: &str) -> Target {
        Target {
            cri: self.deps.cri.clone(),
            id: id.to_owned(),
            container: Arc::new(container.clone()),
            pod_ip: context
                .ips(&self.deps)
                .into_iter()
                .next()
                .unwrap_or_default(),
        }
    }
}

/// Reason of what was given up because the pod ends.
pub const ABANDONED: &str = "Abandoned";

/// Reason of an effect that panicked. kubernetes v1.37 pkg/kubelet/events/event.go `FailedSync`.
pub const PANICKED: &str = "FailedSync";

/// A lock that a panic elsewhere does not take away.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// As metrics name the lists of a pod's containers.
fn container_type(pod: &Pod, name: &str) -> &'static str {
    let Some(spec) = pod.spec.as_ref() else {
        return CONTAINER;
    };
    let mut init = spec.init_containers.iter().flatten();
    let mut ephemeral = spec.ephemeral_containers.iter().flatten();
    if init.any(|c| c.name == name) {
        INIT_CONTAINER
    } else if ephemeral.any(|c| c.name == name) {
        EPHEMERAL_CONTAINER
    } else {
        CONTAINER
    }
}
