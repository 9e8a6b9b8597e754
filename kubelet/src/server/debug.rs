//! Small handlers for people who look into a node.

use super::Refusal;
use super::routes::State;
use axum::extract::{Path, State as Extract};
use axum::http::StatusCode;
use axum::response::Json;
use cri_proto::v1::CheckpointContainerRequest;
use serde_json::{Value, json};
use std::sync::Arc;

/// The configuration as it was written, without what was left out.
pub(super) async fn configz(Extract(state): Extract<Arc<State>>) -> Json<Value> {
    let mut config = json!(state.config.raw);
    if let Value::Object(fields) = &mut config {
        fields.retain(|_, value| !value.is_null());
    }
    Json(json!({ "kubeletconfig": config }))
}

pub(super) async fn disabled() -> Refusal {
    Refusal(
        StatusCode::METHOD_NOT_ALLOWED,
        "Debug endpoints are disabled.".to_owned(),
    )
}

pub(super) async fn logs_disabled() -> Refusal {
    Refusal(
        StatusCode::METHOD_NOT_ALLOWED,
        "logs endpoint is disabled.".to_owned(),
    )
}

/// The runtime says what it thinks of checkpoints; ours refuses.
pub(super) async fn checkpoint(
    Extract(state): Extract<Arc<State>>,
    Path((namespace, pod, container)): Path<(String, String, String)>,
) -> Result<Json<Value>, Refusal> {
    let found = super::pods::find(&state, &namespace, &pod)?;
    let id = super::pods::container_id(&state, &found, &container)?;
    let now = jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ");
    let name = format!("checkpoint-{pod}_{namespace}-{container}-{now}.tar");
    let location = state.root_dir.join("checkpoints").join(name);
    let request = CheckpointContainerRequest {
        container_id: id,
        location: location.display().to_string(),
        timeout: 0,
    };
    state.cri.checkpoint_container(request).await?;
    Ok(Json(json!({ "items": [location] })))
}
