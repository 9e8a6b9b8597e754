//! Where wanted pods come from.
//!
//! [`ApiPods`] follows the API server, [`StaticPods`] a folder; [`Mirrors`] shows
//! static pods to the API server, and keeps what it shows from being taken for
//! a pod of its own.

mod api;
mod defaulting;
mod file;
mod manifest;
mod mirror;
pub mod yaml;

pub use api::ApiPods;
pub use defaulting::{default_pod, default_pod_spec};
pub use file::StaticPods;
pub use mirror::Mirrors;

use k8s_openapi::api::core::v1::Pod;
use std::sync::Arc;

/// Whether the pod is not the API server's.
#[must_use]
pub fn is_static(pod: &Pod) -> bool {
    let annotations = pod.metadata.annotations.as_ref();
    let source = annotations.and_then(|a| a.get(CONFIG_SOURCE));
    source.is_some_and(|s| s != Source::Api.as_str())
}

/// A source of pods; `kubernetes.io/config.source`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum Source {
    Api,
    File,
    Play,
}

/// kubernetes v1.36 pkg/kubelet/types/pod_update.go `ConfigSourceAnnotationKey`.
pub const CONFIG_SOURCE: &str = "kubernetes.io/config.source";
/// pod_update.go `ConfigFirstSeenAnnotationKey`.
pub const CONFIG_SEEN: &str = "kubernetes.io/config.seen";
/// pod_update.go `ConfigHashAnnotationKey`.
pub const CONFIG_HASH: &str = "kubernetes.io/config.hash";
/// pod_update.go `ConfigMirrorAnnotationKey`.
pub const CONFIG_MIRROR: &str = "kubernetes.io/config.mirror";

impl Source {
    /// As `kubernetes.io/config.source` says it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Source::Api => "api",
            Source::File => "file",
            Source::Play => "play",
        }
    }
}

/// What a source says. Pods are identified by `metadata.uid`.
#[derive(Debug, Clone)]
pub enum PodUpdate {
    /// Wanted so from now on: new, changed, or with a deletionTimestamp.
    Set(Source, Arc<Pod>),
    /// No longer there (deleted, or force deleted): end it.
    Remove(Source, String),
    /// Everything this source wants has been sent once: only from now on may
    /// pods that nobody wants be removed.
    Synced(Source),
}
