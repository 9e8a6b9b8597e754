//! Events about a pod or one of its containers.

use super::spec::{name, namespace, uid};
use crate::event::{EventType, Recorder};
use k8s_openapi::api::core::v1::{ObjectReference, Pod};
use std::sync::Arc;

/// Whom events are about, and where they go.
#[derive(Clone)]
pub struct Subject {
    pod: Arc<Pod>,
    recorder: Arc<dyn Recorder>,
}

impl Subject {
    /// Events about this pod.
    #[must_use]
    pub fn new(pod: Arc<Pod>, recorder: Arc<dyn Recorder>) -> Self {
        Self { pod, recorder }
    }

    /// Whom they are about.
    #[must_use]
    pub fn pod(&self) -> &Pod {
        &self.pod
    }

    /// About the pod, as nothing is wrong.
    pub fn normal(&self, reason: &str, message: &str) {
        self.record(None, EventType::Normal, reason, message);
    }

    /// About the pod.
    pub fn warning(&self, reason: &str, message: &str) {
        self.record(None, EventType::Warning, reason, message);
    }

    /// About a container.
    pub fn of_container(&self, container: &str, kind: EventType, reason: &str, message: &str) {
        self.record(Some(container), kind, reason, message);
    }

    fn record(&self, container: Option<&str>, kind: EventType, reason: &str, message: &str) {
        let about = self.reference(container);
        self.recorder.record(&about, kind, reason, message);
    }

    fn reference(&self, container: Option<&str>) -> ObjectReference {
        let pod = &self.pod;
        ObjectReference {
            api_version: Some("v1".into()),
            kind: Some("Pod".into()),
            namespace: Some(namespace(pod).to_owned()),
            name: Some(name(pod).to_owned()),
            uid: Some(uid(pod).to_owned()),
            resource_version: pod.metadata.resource_version.clone(),
            field_path: container.map(|c| field_path(pod, c)),
        }
    }
}

/// `spec.containers{web}`.
fn field_path(pod: &Pod, container: &str) -> String {
    let spec = pod.spec.as_ref();
    let init = spec
        .and_then(|s| s.init_containers.as_ref())
        .into_iter()
        .flatten();
    let ephemeral = spec
        .and_then(|s| s.ephemeral_containers.as_ref())
        .into_iter()
        .flatten();
    let list = if init.clone().any(|c| c.name == container) {
        "initContainers"
    } else if ephemeral.clone().any(|c| c.name == container) {
        "ephemeralContainers"
    } else {
        "containers"
    };
    format!("spec.{list}{{{container}}}")
}
