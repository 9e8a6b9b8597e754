//! `/containerLogs`: what a container wrote, as `kubectl logs` asks for it.
//!
//! [`line`] knows the format, [`options`] the question, [`reader`] the files
//! and their rotation, [`follow`] waits for more.

mod files;
mod follow;
mod line;
mod options;
mod reader;

use super::Refusal;
use super::pods::{find, uid};
use super::query::Params;
use super::routes::State;
use crate::pod::Known;
use axum::body::{Body, Bytes};
use axum::extract::{Path, State as Extract};
use axum::http::{StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use cri_proto::v1;
use k8s_openapi::api::core::v1::ContainerStatus;
use options::LogOptions;
use std::path::PathBuf;
use std::sync::Arc;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

/// Chunks on their way to a slow client.
const CHUNKS_AHEAD: usize = 4;

pub(super) async fn container_logs(
    Extract(state): Extract<Arc<State>>,
    Path((namespace, pod, container)): Path<(String, String, String)>,
    uri: Uri,
) -> Result<Response, Refusal> {
    let options = LogOptions::parse(&Params::of(&uri)?, jiff::Timestamp::now())?;
    let known = find(&state, &namespace, &pod)?;
    let id = find_attempt(&state, &known, &container, options.previous)?;
    let path = log_path(&state, &id).await?;
    let (sink, chunks) = mpsc::channel::<std::io::Result<Bytes>>(CHUNKS_AHEAD);
    tokio::spawn(follow::send(path, options, state.cri.clone(), id, sink));
    let plain = [(header::CONTENT_TYPE, "text/plain")];
    Ok((plain, Body::from_stream(ReceiverStream::new(chunks))).into_response())
}

/// The CRI id, or the sentence that `kubectl logs` prints in its place.
/// Wording: kubernetes v1.37 pkg/kubelet/kubelet_pods.go
/// `validateContainerLogStatus`.
fn find_attempt(
    state: &State,
    known: &Known,
    container: &str,
    previous: bool,
) -> Result<String, Refusal> {
    if let Some(id) = state.pods.container_id(uid(known), container, previous) {
        return Ok(id);
    }
    let pod = known.pod.metadata.name.as_deref().unwrap_or_default();
    let bad = |text| Err(Refusal(StatusCode::BAD_REQUEST, text));
    if previous {
        return bad(format!(
            "previous terminated container {container:?} in pod {pod:?} not found"
        ));
    }
    let spec = known.pod.spec.as_ref();
    if spec.is_none_or(|s| crate::pod::spec::find(s, container).is_none()) {
        let text = format!("container {container:?} not found in pod {pod:?}");
        return Err(Refusal(StatusCode::NOT_FOUND, text));
    }
    let status = status_of(known, container);
    let waiting = status.and_then(|s| s.state?.waiting?.reason);
    match waiting {
        Some(reason) if matches!(reason.as_str(), "ErrImagePull" | "ImagePullBackOff") => {
            bad(format!(
                "container {container:?} in pod {pod:?} is waiting to start: trying and failing to pull image"
            ))
        }
        Some(reason) => bad(format!(
            "container {container:?} in pod {pod:?} is waiting to start: {reason}"
        )),
        None => bad(format!(
            "container {container:?} in pod {pod:?} is not available"
        )),
    }
}

fn status_of(known: &Known, container: &str) -> Option<ContainerStatus> {
    let status = &known.status;
    let all = [
        &status.container_statuses,
        &status.init_container_statuses,
        &status.ephemeral_container_statuses,
    ];
    let mut all = all.into_iter().flatten().flatten();
    all.find(|s| s.name == container).cloned()
}

async fn log_path(state: &State, id: &str) -> Result<PathBuf, Refusal> {
    let request = v1::ContainerStatusRequest {
        container_id: id.to_owned(),
        verbose: false,
    };
    let status = state.cri.container_status(request).await?.status;
    let path = status.map(|s| s.log_path).unwrap_or_default();
    match path.is_empty() {
        true => Err(Refusal(
            StatusCode::NOT_FOUND,
            format!("container {id} has no log file"),
        )),
        false => Ok(path.into()),
    }
}
