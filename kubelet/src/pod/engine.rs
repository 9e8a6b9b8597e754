//! All pods of the node: one worker each.

use super::{Deps, Known, PodView};
use crate::source::PodUpdate;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// Runs pods. Cheap to share; does nothing until [`Engine::run`].
pub struct Engine {
    #[expect(dead_code, reason = "the workers' in the next commit")]
    deps: Deps,
}

/// One step of a pod's start, for a waterfall.
#[derive(Debug, Clone, PartialEq)]
pub struct Step {
    /// `MountVolumes`, `RunSandbox`, `EnsureImage web`, ….
    pub name: String,
    /// From the moment the node heard of the pod.
    pub start: Duration,
    /// How long it took.
    pub took: Duration,
    /// What went wrong, if it did.
    pub error: Option<String>,
}

impl Engine {
    /// An engine over these.
    #[must_use]
    pub fn new(deps: Deps) -> Arc<Self> {
        Arc::new(Self { deps })
    }

    /// Observes what runs, then follows `updates` until `shutdown`.
    ///
    /// Containers are left running when it returns.
    pub async fn run(
        self: Arc<Self>,
        mut updates: mpsc::Receiver<PodUpdate>,
        shutdown: CancellationToken,
    ) {
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                update = updates.recv() => if update.is_none() { return },
            }
        }
    }

    /// The steps a pod's start took so far, in order of their beginning.
    #[must_use]
    pub fn timeline(&self, pod_uid: &str) -> Vec<Step> {
        let _ = pod_uid;
        Vec::new()
    }
}

impl PodView for Engine {
    fn pods(&self) -> Vec<Known> {
        Vec::new()
    }

    fn container_id(&self, _pod_uid: &str, _container: &str, _previous: bool) -> Option<String> {
        None
    }

    fn sandbox_id(&self, _pod_uid: &str) -> Option<String> {
        None
    }
}
