//! The life of one pod.
//!
//! `lifecycle::decide` says what is to be done, `executor` does it, `worker`
//! brings the two together, one task a pod.

mod admit;
mod engine;
mod executor;
mod hook;
pub mod image;
mod kept;
pub mod lifecycle;
pub mod observe;
pub mod observed;
mod preempt;
mod probe;
mod prober;
mod registry;
mod replacing;
pub mod resize;
mod settings;
pub mod spec;
mod subject;
mod termination_message;
mod worker;

pub use engine::Engine;
pub use settings::{CgroupDriver, Deps, IdRange, NodeFacts, NodeLabels, Options};

use k8s_openapi::api::core::v1::{Pod, PodStatus};
use std::sync::Arc;

/// A pod on this node and its newest status, for the server, eviction, `lighter ps`.
#[derive(Debug, Clone)]
pub struct Known {
    /// As wanted.
    pub pod: Arc<Pod>,
    /// As seen.
    pub status: PodStatus,
    /// Its source has it no more; it may still be ending.
    pub removed: bool,
}

/// A look at the pods of this node; never blocks.
pub trait PodView: Send + Sync + 'static {
    /// Every pod that the node knows, terminating ones included.
    fn pods(&self) -> Vec<Known>;
    /// One of them; one that stays rather than one of that name that still ends.
    fn pod(&self, namespace: &str, name: &str) -> Option<Known> {
        let named = |k: &Known| {
            k.pod.metadata.namespace.as_deref() == Some(namespace)
                && k.pod.metadata.name.as_deref() == Some(name)
        };
        let stays = |k: &Known| k.pod.metadata.deletion_timestamp.is_none();
        self.pods().into_iter().filter(named).max_by_key(stays)
    }
    /// The CRI id of a container (init, app or ephemeral) of a pod: of its
    /// current attempt, or with `previous` of the one before.
    fn container_id(&self, pod_uid: &str, container: &str, previous: bool) -> Option<String>;
    /// The CRI id of the pod's sandbox, if it has a ready one.
    fn sandbox_id(&self, pod_uid: &str) -> Option<String>;
}
