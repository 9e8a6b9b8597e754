//! Small handlers for people who look into a node.

use super::Refusal;
use super::routes::State;
use axum::body::Bytes;
use axum::extract::{Path, State as Extract};
use axum::http::{Method, StatusCode};
use axum::response::Json;
use cri_proto::v1::CheckpointContainerRequest;
use serde_json::{Value, json};
use std::sync::Arc;

/// The configuration, complete.
pub(super) async fn configz(Extract(state): Extract<Arc<State>>) -> Json<Value> {
    Json(json!({ "kubeletconfig": state.config.told() }))
}

const FOR_PEOPLE: &str = "Warning: for people, not for programs: the form may change.\n";

/// What this is, and since when.
pub(super) async fn statusz(Extract(state): Extract<Arc<State>>) -> String {
    let now = jiff::Timestamp::now();
    let up = now.duration_since(state.started).as_secs();
    let (hours, minutes, seconds) = (up / 3600, up / 60 % 60, up % 60);
    let started = state.started.strftime("%a %b %d %H:%M:%S UTC %Y");
    let version = crate::defaults::KUBELET_VERSION.trim_start_matches('v');
    format!(
        "\nkubelet statusz\n{FOR_PEOPLE}\nStarted= {started}\nUp= {hours} hr {minutes:02} min \
         {seconds:02} sec\nBinary version= {version}\nPaths= /configz /flagz /healthz /metrics\n"
    )
}

/// The settings, under the names of the kubelet's flags.
pub(super) async fn flagz(Extract(state): Extract<Arc<State>>) -> String {
    let config = state.config.told();
    let fields = config.as_object().into_iter().flatten();
    let line = |(name, value): (&String, &Value)| {
        let value = value
            .as_str()
            .map_or_else(|| value.to_string(), str::to_owned);
        format!("{}: {value}\n", flag(name))
    };
    let lines: String = fields.map(line).collect();
    format!("\nkubelet flagz\n{FOR_PEOPLE}{lines}")
}

/// `maxPods` as `max-pods`; what is written in capitals is a word: `podCIDR`, `eventRecordQPS`.
fn flag(field: &str) -> String {
    let mut flag = String::new();
    let mut before = '-';
    for c in field.chars() {
        if c.is_ascii_uppercase() && before.is_ascii_lowercase() {
            flag.push('-');
        }
        flag.push(c.to_ascii_lowercase());
        before = c;
    }
    flag
}

/// Changes how much the log says, while the process runs.
pub trait Verbosity: std::fmt::Debug + Send + Sync {
    /// To klog's level: the kubelet's `--v`.
    ///
    /// # Errors
    /// A sentence, when there is no log any more.
    fn set(&self, level: i32) -> Result<(), String>;
}

/// `/debug/flags/v`: answers as k8s.io/component-base/logs `GlogSetter` does.
pub(super) async fn set_verbosity(
    Extract(state): Extract<Arc<State>>,
    method: Method,
    body: Bytes,
) -> Result<String, Refusal> {
    if method != Method::PUT {
        let why = "unsupported http method".to_owned();
        return Err(Refusal(StatusCode::NOT_ACCEPTABLE, why));
    }
    let value = String::from_utf8_lossy(&body);
    let failed = |code, why: &str| {
        let text = format!("failed set klog.logging.verbosity {value}: {why}");
        Err(Refusal(code, text))
    };
    let Ok(level) = value.parse::<i32>() else {
        let why = format!("{value:?} is no number from {} to {}", i32::MIN, i32::MAX);
        return failed(StatusCode::BAD_REQUEST, &why);
    };
    let Some(verbosity) = &state.verbosity else {
        let why = "the log of this process has one level";
        return failed(StatusCode::NOT_IMPLEMENTED, why);
    };
    if let Err(why) = verbosity.set(level) {
        return failed(StatusCode::INTERNAL_SERVER_ERROR, &why);
    }
    Ok(format!(
        "successfully set klog.logging.verbosity to {value}\n"
    ))
}

fn switched_off(what: &str) -> Refusal {
    Refusal(StatusCode::METHOD_NOT_ALLOWED, what.to_owned())
}

pub(super) async fn disabled() -> Refusal {
    switched_off("Debug endpoints are disabled.")
}

pub(super) async fn logs_disabled() -> Refusal {
    switched_off("logs endpoint is disabled.")
}

pub(super) async fn profiling_disabled() -> Refusal {
    switched_off("profiling endpoint is disabled.")
}

pub(super) async fn flags_disabled() -> Refusal {
    switched_off("flags endpoint is disabled.")
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
    let made = state.cri.checkpoint_container(request).await;
    made.map_err(|status| {
        let message = status.message();
        let why = format!("checkpointing of {namespace}/{pod}/{container} failed: {message}");
        Refusal(StatusCode::INTERNAL_SERVER_ERROR, why)
    })?;
    Ok(Json(json!({ "items": [location] })))
}

#[cfg(test)]
mod tests {
    #[test]
    fn fields_have_the_names_of_flags() {
        for (field, flag) in [
            ("maxPods", "max-pods"),
            ("podCIDR", "pod-cidr"),
            ("clusterDNS", "cluster-dns"),
            ("failCgroupV1", "fail-cgroup-v1"),
        ] {
            assert_eq!(super::flag(field), flag);
        }
    }
}
