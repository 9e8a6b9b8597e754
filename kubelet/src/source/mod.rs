//! Where wanted pods come from.

use k8s_openapi::api::core::v1::Pod;
use std::sync::Arc;

/// A source of pods; `kubernetes.io/config.source`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum Source {
    Api,
    File,
    Play,
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
