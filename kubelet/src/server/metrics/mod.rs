//! `/metrics` and its sisters.
//!
//! What the kubelet counts of itself goes through a registry; what it reports
//! of containers is written as text from the runtime's figures at each scrape,
//! with the times at which they were taken.

mod node;
mod own;
mod pods;
mod pressure;
mod swap;
mod text;
pub(super) mod usage;

use super::Refusal;
use super::routes::State;
use axum::extract::State as Extract;
use axum::http::header;
use axum::response::{IntoResponse, Response};
pub use own::Metrics;
use std::sync::Arc;

const TEXT: [(header::HeaderName, &str); 1] = [(
    header::CONTENT_TYPE,
    "text/plain; version=0.0.4; charset=utf-8",
)];

pub(super) use node::NodeUsage;

/// The kubelet's own.
pub(super) async fn kubelet(Extract(state): Extract<Arc<State>>) -> Response {
    let pods = state.pods.pods();
    let mut volumes = Vec::new();
    for uid in pods.iter().filter_map(|p| p.pod.metadata.uid.as_deref()) {
        volumes.extend(state.volumes.usage(uid).await);
    }
    let totals = state.volumes.totals();
    let volumes = (volumes.as_slice(), &totals);
    let own = state.metrics.encode(&state.node_name, &pods, volumes);
    let plain = [(
        header::CONTENT_TYPE,
        "text/plain; version=0.0.4; charset=utf-8",
    )];
    (plain, own).into_response()
}

/// For metrics-server.
pub(super) async fn resource(Extract(state): Extract<Arc<State>>) -> Response {
    let usage = usage::gather(&state).await;
    (TEXT, text::resource(&usage, &NodeUsage::read())).into_response()
}

/// For dashboards.
pub(super) async fn cadvisor(Extract(state): Extract<Arc<State>>) -> Result<Response, Refusal> {
    let usage = usage::gather(&state).await;
    let mut written = text::cadvisor(&usage) + &text::machine(&state.machine);
    // A runtime that has none is asked no more of.
    let cri = &state.cri;
    let known = cri.list_metric_descriptors(Default::default()).await;
    if let Ok(known) = known
        && let Ok(answer) = cri.list_pod_sandbox_metrics(Default::default()).await
    {
        let further = text::of_runtime(&written, &known.descriptors, &answer.pod_metrics);
        written += &further;
    }
    Ok((TEXT, written).into_response())
}

/// Of the probes that are watched now.
pub(super) async fn probes(Extract(state): Extract<Arc<State>>) -> Response {
    (TEXT, state.metrics.encode_probes()).into_response()
}

/// Health checks of components as metrics.
pub(super) async fn slis() -> Response {
    (TEXT, "").into_response()
}
