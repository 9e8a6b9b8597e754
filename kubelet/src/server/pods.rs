//! `/pods`, `/runningpods/`, and how other handlers find a pod.

use super::Refusal;
use super::routes::State;
use crate::pod::Known;
use axum::extract::State as Extract;
use axum::http::StatusCode;
use axum::response::Json;
use cri_proto::v1;
use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;

/// A PodList of what the node is to run, with the statuses it sees.
pub(super) async fn pods(Extract(state): Extract<Arc<State>>) -> Json<Value> {
    let items: Vec<Pod> = state
        .pods
        .pods()
        .into_iter()
        .map(|known| Pod {
            status: Some(known.status),
            ..(*known.pod).clone()
        })
        .collect();
    Json(json!({"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": items}))
}

/// A PodList of what the runtime runs, whoever wanted it.
pub(super) async fn running(Extract(state): Extract<Arc<State>>) -> Result<Json<Value>, Refusal> {
    let filter = v1::ContainerFilter {
        state: Some(v1::ContainerStateValue {
            state: v1::ContainerState::ContainerRunning.into(),
        }),
        ..v1::ContainerFilter::default()
    };
    let request = v1::ListContainersRequest {
        filter: Some(filter),
    };
    let containers = state.cri.list_containers(request).await?.containers;
    let mut pods: BTreeMap<[String; 3], Vec<Value>> = BTreeMap::new();
    for container in containers {
        let label = |name: &str| container.labels.get(name).cloned().unwrap_or_default();
        let key = [
            label("io.kubernetes.pod.namespace"),
            label("io.kubernetes.pod.name"),
            label("io.kubernetes.pod.uid"),
        ];
        let name = container.metadata.map(|m| m.name).unwrap_or_default();
        let image = container.image.map(|i| i.image).unwrap_or_default();
        let entry = json!({"name": name, "image": image, "resources": {}});
        pods.entry(key).or_default().push(entry);
    }
    let pod = |([namespace, name, uid], containers): ([String; 3], Vec<Value>)| {
        json!({
            "metadata": {"namespace": namespace, "name": name, "uid": uid},
            "spec": {"containers": containers}, "status": {},
        })
    };
    let items: Vec<Value> = pods.into_iter().map(pod).collect();
    Ok(Json(
        json!({"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": items}),
    ))
}

pub(super) fn find(state: &State, namespace: &str, name: &str) -> Result<Known, Refusal> {
    let known = state.pods.pod(namespace, name);
    known.ok_or_else(|| Refusal(StatusCode::NOT_FOUND, format!("pod {name:?} not found")))
}

/// [`find`], when the caller also knows the UID.
pub(super) fn find_uid(
    state: &State,
    namespace: &str,
    name: &str,
    uid: Option<&str>,
) -> Result<Known, Refusal> {
    let known = find(state, namespace, name)?;
    match uid {
        Some(uid) if known.pod.metadata.uid.as_deref() != Some(uid) => Err(Refusal(
            StatusCode::NOT_FOUND,
            format!("pod {name:?} has another uid than {uid}"),
        )),
        _ => Ok(known),
    }
}

pub(super) fn uid(known: &Known) -> &str {
    known.pod.metadata.uid.as_deref().unwrap_or_default()
}

/// Of the running attempt.
pub(super) fn container_id(
    state: &State,
    known: &Known,
    container: &str,
) -> Result<String, Refusal> {
    let id = state.pods.container_id(uid(known), container, false);
    id.ok_or_else(|| {
        let pod = known.pod.metadata.name.as_deref().unwrap_or_default();
        Refusal(
            StatusCode::NOT_FOUND,
            format!("container not found (\"{container}\") in pod {pod:?}"),
        )
    })
}
