//! What is reported of a pod, and who is told.

mod api;
mod conditions;
mod container;
mod patch;
mod pod;
mod resources;
#[cfg(test)]
mod tests;

pub use api::ApiStatus;
pub use pod::{Look, build};

use k8s_openapi::api::core::v1::{Pod, PodStatus};
use std::sync::Arc;

/// Whether a pod has ended for good.
#[must_use]
pub fn is_over(status: &PodStatus) -> bool {
    matches!(status.phase.as_deref(), Some("Succeeded" | "Failed"))
}

/// Who is told of a pod's status: the API server (patches only on change), a
/// terminal (`play`).
pub trait StatusSink: Send + Sync + 'static {
    /// The newest status; older ones not yet written may be dropped.
    fn publish(&self, pod: &Arc<Pod>, status: PodStatus);
    /// The pod is over and everything of it is gone from the node: the API
    /// object may go (DELETE with grace 0 and a UID precondition).
    fn finished(&self, pod: &Arc<Pod>, status: PodStatus);
    /// Whether the end of a pod that is over is still to be told to somebody who keeps it.
    fn owes(&self, pod_uid: &str) -> bool {
        let _ = pod_uid;
        false
    }
    /// The pod is gone from its source and from the node: nothing more comes.
    fn forget(&self, pod: &Arc<Pod>) {
        let _ = pod;
    }
}
