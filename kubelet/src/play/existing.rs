//! Pods that an earlier play of the same file left running.

use super::PLAY_LABEL;
use crate::source::default_pod;
use cri_proto::{Cri, Status, v1};
use k8s_openapi::api::core::v1::{Container, Pod, PodSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::core::ObjectMeta;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

/// Pods of the play by UID, as far as the runtime knows them.
pub async fn of_play(cri: &Arc<dyn Cri>, id: &str) -> Result<BTreeMap<String, Pod>, Status> {
    let filter = v1::PodSandboxFilter {
        label_selector: HashMap::from([(PLAY_LABEL.to_owned(), id.to_owned())]),
        ..Default::default()
    };
    let request = v1::ListPodSandboxRequest {
        filter: Some(filter),
    };
    let sandboxes = cri.list_pod_sandbox(request).await?.items;
    let mut pods = BTreeMap::new();
    for sandbox in sandboxes {
        let request = v1::ListContainersRequest {
            filter: Some(v1::ContainerFilter {
                pod_sandbox_id: sandbox.id.clone(),
                ..Default::default()
            }),
        };
        let containers = cri.list_containers(request).await?.containers;
        let pod = recalled(sandbox, &containers);
        pods.insert(pod.metadata.uid.clone().unwrap_or_default(), pod);
    }
    Ok(pods)
}

/// Enough of a pod to end it.
fn recalled(sandbox: v1::PodSandbox, containers: &[v1::Container]) -> Pod {
    let meta = sandbox.metadata.unwrap_or_default();
    let container = |c: &v1::Container| Container {
        name: c.metadata.clone().unwrap_or_default().name,
        image: c.image.clone().map(|i| i.image),
        ..Container::default()
    };
    let mut containers: Vec<Container> = containers.iter().map(container).collect();
    containers.sort_by(|a, b| a.name.cmp(&b.name));
    containers.dedup_by(|a, b| a.name == b.name);
    let mut pod = Pod {
        metadata: ObjectMeta {
            name: Some(meta.name),
            namespace: Some(meta.namespace),
            uid: Some(meta.uid),
            labels: Some(sandbox.labels.into_iter().collect()),
            ..ObjectMeta::default()
        },
        spec: Some(PodSpec {
            containers,
            ..PodSpec::default()
        }),
        status: None,
    };
    default_pod(&mut pod);
    pod
}

/// The pod as the API server would show it after a deletion.
pub fn deleted(mut pod: Pod) -> Pod {
    let grace = pod
        .spec
        .as_ref()
        .and_then(|s| s.termination_grace_period_seconds);
    pod.metadata.deletion_timestamp = Some(Time(jiff::Timestamp::now()));
    pod.metadata.deletion_grace_period_seconds = Some(grace.unwrap_or(30));
    pod
}
