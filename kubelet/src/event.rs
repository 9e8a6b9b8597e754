//! Events as `kubectl describe` shows them.

use k8s_openapi::api::core::v1::ObjectReference;

/// `type` of an Event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum EventType {
    Normal,
    Warning,
}

/// Where events go: to the API server, aggregated and rate-limited, or to a
/// terminal under `play`. Never blocks and never fails.
pub trait Recorder: Send + Sync + 'static {
    /// `reason` is one of the kubelet's own words (`Pulled`, `BackOff`, …).
    fn record(&self, about: &ObjectReference, kind: EventType, reason: &str, message: &str);
}
