//! The words that [`super::decide`] is spoken in.

use crate::pod::observed::ContainerSeen;
use crate::source::Source;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

/// What is wanted of a pod.
#[derive(Debug, Clone)]
pub struct Desired {
    /// The newest object.
    pub pod: Arc<Pod>,
    /// Who wants it.
    pub source: Source,
    /// Nobody wants it any more.
    pub removed: bool,
    /// The node won't have it: rejected at admission, or evicted later.
    pub verdict: Option<Verdict>,
}

/// Why the node ends a pod, or never starts it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// `status.reason`.
    pub reason: String,
    /// `status.message`.
    pub message: String,
    /// Seconds instead of the pod's own grace period.
    pub grace: Option<i64>,
    /// Told as the condition DisruptionTarget: the node was in need, the pod did no wrong.
    pub disrupts: bool,
}

/// Why a pod ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Why {
    /// It has a deletionTimestamp, or its source dropped it.
    Deleted,
    /// All its containers have ended and none will be started again.
    Completed,
    /// activeDeadlineSeconds are over.
    DeadlineExceeded,
    /// The node won't have it.
    Rejected(Verdict),
    /// The API server's status says that it is over.
    ApiTerminal(super::Terminal),
}

/// How far a pod is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stage {
    /// Brought to, and kept at, what is wanted.
    Syncing,
    /// Containers are being stopped.
    Terminating {
        /// For the status.
        why: Why,
        /// The grace period runs from here.
        since: Timestamp,
    },
    /// No process and no mount is left; waits to be deleted.
    Terminated {
        /// For the status.
        why: Why,
        /// When it began to terminate.
        since: Timestamp,
    },
    /// Nothing of it is left on the node.
    Finished {
        /// For the status.
        why: Why,
    },
}

/// What must be remembered because nobody can be asked.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Memory {
    /// Crash-loop back-off by container name.
    pub backoffs: BTreeMap<String, super::Backoff>,
    /// The attempt a container's next start has at least.
    pub attempts: BTreeMap<String, u32>,
    /// Containers being stopped, and when they are killed.
    pub stopping: BTreeMap<String, Timestamp>,
    /// All containers are being ended and removed, to begin anew.
    pub resetting: bool,
    /// What they were when they were removed for that, by name.
    pub reset: BTreeMap<String, ContainerSeen>,
    /// `status.startTime`: when the node took the pod.
    pub start_time: Option<Timestamp>,
}

/// All of a worker's state.
#[derive(Debug, Clone, PartialEq)]
pub struct WorkerState {
    /// How far.
    pub stage: Stage,
    /// What else must be remembered.
    pub memory: Memory,
}

/// Identity of a piece of work: never done twice at once.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Work {
    /// Give the pod its devices.
    Allocate,
    /// Have what it claims made ready.
    PrepareResources,
    /// Mount volumes.
    Volumes,
    /// Run a sandbox.
    Sandbox,
    /// Make the image of a container ready.
    Image(String),
    /// Create a container, by name.
    Create(String),
    /// Start a container, by id, and run its postStart hook.
    Start(String),
    /// Give running containers the resources they were granted.
    Resize,
    /// Stop a container, by id, until a moment.
    Stop(String, Timestamp),
    /// Give a sandbox's network back.
    StopSandbox(String),
    /// Remove a dead container.
    RemoveContainer(String),
    /// Remove a sandbox.
    RemoveSandbox(String),
    /// Unmount volumes.
    Unmount,
}

/// Why a container is stopped; becomes the message of its Killing event.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum StopReason {
    PodEnds,
    DefinitionChanged,
    Resized,
    LivenessFailed,
    StartupFailed,
    PostStartFailed,
    SandboxGone,
    Reset,
}

/// Something to do.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Effect {
    /// Give up what is only for starting: pulls, mounts that wait, hooks.
    Abandon,
    /// Give the pod what others can't have at the same time.
    Allocate,
    /// Have drivers make ready what the pod claims.
    PrepareResources,
    MountVolumes,
    RunSandbox {
        attempt: u32,
        /// What happened to the one before.
        because: Option<String>,
    },
    EnsureImage {
        container: String,
        attempt: u32,
    },
    CreateContainer {
        container: String,
        attempt: u32,
        sandbox: String,
        image_ref: String,
    },
    StartContainer {
        container: String,
        id: String,
    },
    /// Give running containers the resources they were granted.
    Resize,
    StopContainer {
        container: String,
        id: String,
        /// SIGKILL then.
        until: Timestamp,
        reason: StopReason,
    },
    StopSandbox {
        id: String,
    },
    RemoveContainer {
        id: String,
    },
    RemoveSandbox {
        id: String,
    },
    UnmountVolumes,
    /// Say that a container waits before its next start.
    ReportBackOff {
        container: String,
        attempt: u32,
    },
    /// Say that an image is waited for: `ErrImagePull` becomes `ImagePullBackOff`.
    ReportPullBackOff {
        container: String,
    },
}

impl fmt::Display for Effect {
    /// The verb, and of which container: `StartContainer web`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (verb, container) = match self {
            Effect::Abandon => ("Abandon", ""),
            Effect::Allocate => ("Allocate", ""),
            Effect::PrepareResources => ("PrepareResources", ""),
            Effect::MountVolumes => ("MountVolumes", ""),
            Effect::RunSandbox { .. } => ("RunSandbox", ""),
            Effect::EnsureImage { container, .. } => ("EnsureImage", container.as_str()),
            Effect::CreateContainer { container, .. } => ("CreateContainer", container.as_str()),
            Effect::StartContainer { container, .. } => ("StartContainer", container.as_str()),
            Effect::Resize => ("Resize", ""),
            Effect::StopContainer { container, .. } => ("StopContainer", container.as_str()),
            Effect::StopSandbox { .. } => ("StopSandbox", ""),
            Effect::RemoveContainer { .. } => ("RemoveContainer", ""),
            Effect::RemoveSandbox { .. } => ("RemoveSandbox", ""),
            Effect::UnmountVolumes => ("UnmountVolumes", ""),
            Effect::ReportBackOff { container, .. } => ("ReportBackOff", container.as_str()),
            Effect::ReportPullBackOff { container } => ("ReportPullBackOff", container.as_str()),
        };
        let blank = if container.is_empty() { "" } else { " " };
        write!(f, "{verb}{blank}{container}")
    }
}

impl Effect {
    /// The work it is; `None` for what is done at once.
    #[must_use]
    pub fn work(&self) -> Option<Work> {
        Some(match self {
            Effect::Abandon | Effect::ReportBackOff { .. } | Effect::ReportPullBackOff { .. } => {
                return None;
            }
            Effect::Allocate => Work::Allocate,
            Effect::PrepareResources => Work::PrepareResources,
            Effect::MountVolumes => Work::Volumes,
            Effect::RunSandbox { .. } => Work::Sandbox,
            Effect::EnsureImage { container, .. } => Work::Image(container.clone()),
            Effect::CreateContainer { container, .. } => Work::Create(container.clone()),
            Effect::StartContainer { id, .. } => Work::Start(id.clone()),
            Effect::Resize => Work::Resize,
            Effect::StopContainer { id, until, .. } => Work::Stop(id.clone(), *until),
            Effect::StopSandbox { id } => Work::StopSandbox(id.clone()),
            Effect::RemoveContainer { id } => Work::RemoveContainer(id.clone()),
            Effect::RemoveSandbox { id } => Work::RemoveSandbox(id.clone()),
            Effect::UnmountVolumes => Work::Unmount,
        })
    }
}

/// The answer of [`super::decide`].
#[derive(Debug, Clone, PartialEq)]
pub struct Decision {
    /// The state to be in from now on.
    pub next: WorkerState,
    /// To be run at once, all at the same time.
    pub effects: Vec<Effect>,
    /// Ask again then, even if nothing happens.
    pub wake_at: Option<Timestamp>,
}
