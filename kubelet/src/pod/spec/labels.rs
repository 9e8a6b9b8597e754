//! Labels and annotations by which a pod is found again in the runtime.
//! Names: kubernetes v1.36 pkg/kubelet/kuberuntime/labels.go and
//! staging/src/k8s.io/kubelet/pkg/types/labels.go.

use super::{hash, name, namespace, uid};
use k8s_openapi::api::core::v1::{Container, Pod};
use std::collections::{BTreeMap, HashMap};

pub const POD_NAME: &str = "io.kubernetes.pod.name";
pub const POD_NAMESPACE: &str = "io.kubernetes.pod.namespace";
pub const POD_UID: &str = "io.kubernetes.pod.uid";
pub const CONTAINER_NAME: &str = "io.kubernetes.container.name";
pub const CONTAINER_HASH: &str = "io.kubernetes.container.hash";
pub const RESTART_COUNT: &str = "io.kubernetes.container.restartCount";
pub const MESSAGE_PATH: &str = "io.kubernetes.container.terminationMessagePath";
pub const MESSAGE_POLICY: &str = "io.kubernetes.container.terminationMessagePolicy";
const POD_GRACE: &str = "io.kubernetes.pod.terminationGracePeriod";
const POD_DELETION_GRACE: &str = "io.kubernetes.pod.deletionGracePeriod";
const PORTS: &str = "io.kubernetes.container.ports";
const PRE_STOP: &str = "io.kubernetes.container.preStopHandler";

/// Labels of a sandbox: the pod's own and those that name it.
#[must_use]
pub fn of_sandbox(pod: &Pod) -> HashMap<String, String> {
    let own = pod.metadata.labels.iter().flatten();
    let mut labels: HashMap<_, _> = own.map(|(k, v)| (k.clone(), v.clone())).collect();
    labels.extend(pairs(pod));
    labels
}

/// Annotations of a sandbox: the pod's own.
#[must_use]
pub fn sandbox_annotations(pod: &Pod) -> HashMap<String, String> {
    let own: Option<&BTreeMap<String, String>> = pod.metadata.annotations.as_ref();
    own.into_iter()
        .flatten()
        .map(|(k, v)| (k.clone(), v.clone()))
        .collect()
}

/// Labels of a container.
#[must_use]
pub fn of_container(pod: &Pod, container: &Container) -> HashMap<String, String> {
    let mut labels = HashMap::from(pairs(pod));
    labels.insert(CONTAINER_NAME.into(), container.name.clone());
    labels
}

fn pairs(pod: &Pod) -> [(String, String); 3] {
    [
        (POD_NAME.to_owned(), name(pod).to_owned()),
        (POD_NAMESPACE.to_owned(), namespace(pod).to_owned()),
        (POD_UID.to_owned(), uid(pod).to_owned()),
    ]
}

/// Annotations of a container: what it was made from.
#[must_use]
pub fn container_annotations(
    pod: &Pod,
    container: &Container,
    attempt: u32,
) -> HashMap<String, String> {
    let path = container.termination_message_path.as_deref();
    let policy = container.termination_message_policy.as_deref();
    let mut found = HashMap::from([
        (CONTAINER_HASH.to_owned(), hash(container)),
        (RESTART_COUNT.to_owned(), attempt.to_string()),
        (
            MESSAGE_PATH.to_owned(),
            path.unwrap_or("/dev/termination-log").to_owned(),
        ),
        (
            MESSAGE_POLICY.to_owned(),
            policy.unwrap_or("File").to_owned(),
        ),
    ]);
    if let Some(grace) = pod.metadata.deletion_grace_period_seconds {
        found.insert(POD_DELETION_GRACE.into(), grace.to_string());
    }
    let spec = pod.spec.as_ref();
    if let Some(grace) = spec.and_then(|s| s.termination_grace_period_seconds) {
        found.insert(POD_GRACE.into(), grace.to_string());
    }
    let hook = container
        .lifecycle
        .as_ref()
        .and_then(|l| l.pre_stop.as_ref());
    if let Some(json) = hook.and_then(|h| serde_json::to_string(h).ok()) {
        found.insert(PRE_STOP.into(), json);
    }
    let ports = container.ports.as_ref().filter(|p| !p.is_empty());
    if let Some(json) = ports.and_then(|p| serde_json::to_string(p).ok()) {
        found.insert(PORTS.into(), json);
    }
    found
}
