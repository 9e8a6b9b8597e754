//! ListPodSandbox, ListContainers and the two Status verbs.

use super::VerbError;
use super::core::{Core, now};
use crate::container::Container;
use crate::sandbox::{Identified, Sandbox};
use cri_proto::Status;
use cri_proto::v1::*;
use serde_json::json;
use std::collections::HashMap;
use std::sync::Arc;

/// Whether all of the selector's labels are there with the same values.
pub(super) fn selected(
    labels: &HashMap<String, String>,
    selector: &HashMap<String, String>,
) -> bool {
    selector
        .iter()
        .all(|(key, value)| labels.get(key) == Some(value))
}

pub(super) fn list_pod_sandbox(
    core: &Core,
    request: ListPodSandboxRequest,
) -> ListPodSandboxResponse {
    let filter = request.filter.unwrap_or_default();
    let wanted = |pod: &PodSandbox| {
        pod.id.starts_with(&filter.id)
            && filter.state.as_ref().is_none_or(|s| s.state == pod.state)
            && selected(&pod.labels, &filter.label_selector)
    };
    let all = core.sandboxes.list();
    let items = all.iter().map(|s| s.to_cri()).filter(wanted).collect();
    ListPodSandboxResponse { items }
}

pub(super) fn list_containers(
    core: &Core,
    request: ListContainersRequest,
) -> ListContainersResponse {
    let filter = request.filter.unwrap_or_default();
    let wanted = |c: &cri_proto::v1::Container| {
        c.id.starts_with(&filter.id)
            && c.pod_sandbox_id.starts_with(&filter.pod_sandbox_id)
            && filter.state.as_ref().is_none_or(|s| s.state == c.state)
            && selected(&c.labels, &filter.label_selector)
    };
    let all = core.containers.list();
    let containers = all.iter().map(|c| c.to_cri()).filter(wanted).collect();
    ListContainersResponse { containers }
}

pub(super) fn pod_sandbox_status(
    core: &Core,
    request: &PodSandboxStatusRequest,
) -> Result<PodSandboxStatusResponse, Status> {
    let sandbox = core.sandbox(&request.pod_sandbox_id)?;
    let containers = core.containers_of(sandbox.id());
    Ok(PodSandboxStatusResponse {
        status: Some(sandbox.status()),
        info: if request.verbose {
            sandbox_info(&sandbox)
        } else {
            HashMap::new()
        },
        containers_statuses: containers.iter().map(|c| c.status()).collect(),
        timestamp: now(),
    })
}

fn sandbox_info(sandbox: &Sandbox) -> HashMap<String, String> {
    let record = sandbox.record();
    let info = json!({
        "pid": sandbox.engine().map_or(0, |e| e.monitor_pid()),
        "processStatus": format!("{:?}", record.state).to_lowercase(),
        "cgroup": record.cgroup.as_str(),
        "network": record.network,
        "directory": sandbox.dir(),
    });
    HashMap::from([("info".to_owned(), info.to_string())])
}

pub(super) fn container_status(
    core: &Core,
    request: &ContainerStatusRequest,
) -> Result<ContainerStatusResponse, Status> {
    let container = core.container(&request.container_id)?;
    Ok(ContainerStatusResponse {
        status: Some(container.status()),
        info: if request.verbose {
            container_info(&container)
        } else {
            HashMap::new()
        },
    })
}

fn container_info(container: &Arc<Container>) -> HashMap<String, String> {
    let engine = container.sandbox.engine();
    let pid = engine.and_then(|e| e.container_pid(container.id()));
    let record = container.record();
    let info = json!({
        "sandboxID": record.sandbox_id,
        "pid": pid.unwrap_or(0),
        "cgroup": record.cgroup.as_str(),
        "directory": container.dir(),
        "runtimeSpec": *container.spec,
    });
    HashMap::from([("info".to_owned(), info.to_string())])
}

/// `Unimplemented` with a sentence.
pub(super) fn refuse<T>(sentence: &'static str) -> Result<T, Status> {
    Err(VerbError::Unsupported(sentence).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn selector_needs_every_label() {
        let labels = HashMap::from([
            ("app".to_owned(), "web".to_owned()),
            ("tier".to_owned(), "front".to_owned()),
        ]);
        let one = HashMap::from([("app".to_owned(), "web".to_owned())]);
        let other = HashMap::from([("app".to_owned(), "db".to_owned())]);
        assert!(selected(&labels, &one));
        assert!(selected(&labels, &HashMap::new()));
        assert!(!selected(&labels, &other));
        assert!(!selected(&HashMap::new(), &one));
    }
}
