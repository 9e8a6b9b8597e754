//! What a change of status means to a person.

use k8s_openapi::api::core::v1::{ContainerStatus, PodStatus};

/// Where a pod is on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Stage {
    /// Not all is up.
    #[default]
    Starting,
    /// Ready.
    Ready,
    /// Every container ended well.
    Succeeded,
    /// It will not run again, and it did not end well.
    Failed,
}

impl Stage {
    pub fn of(status: &PodStatus) -> Self {
        match status.phase.as_deref() {
            Some("Succeeded") => Stage::Succeeded,
            Some("Failed") => Stage::Failed,
            _ => {
                let mut conditions = status.conditions.iter().flatten();
                match conditions.any(|c| c.type_ == "Ready" && c.status == "True") {
                    true => Stage::Ready,
                    false => Stage::Starting,
                }
            }
        }
    }

    pub fn is_over(self) -> bool {
        matches!(self, Stage::Succeeded | Stage::Failed)
    }
}

/// Sentences about what is in `now` and was not in `before`.
pub fn sentences(before: &PodStatus, now: &PodStatus) -> Vec<String> {
    let mut said = Vec::new();
    for status in containers(now) {
        let old = containers(before).find(|c| c.name == status.name);
        said.extend(of_container(old, status));
    }
    let (was, is) = (Stage::of(before), Stage::of(now));
    if was != is {
        said.extend(match is {
            // An exit says enough.
            Stage::Starting => said.is_empty().then(|| "not ready".to_owned()),
            Stage::Ready => Some("ready".to_owned()),
            Stage::Succeeded => Some("completed".to_owned()),
            Stage::Failed => Some(failure(now)),
        });
    }
    said
}

fn containers(status: &PodStatus) -> impl Iterator<Item = &ContainerStatus> {
    let init = status.init_container_statuses.iter().flatten();
    init.chain(status.container_statuses.iter().flatten())
}

/// An end is seen in `state`, or in `lastState` when it runs again already.
fn of_container(old: Option<&ContainerStatus>, now: &ContainerStatus) -> Option<String> {
    let ended = |s: &ContainerStatus| {
        let current = s.state.as_ref().and_then(|s| s.terminated.clone());
        current.or_else(|| s.last_state.as_ref()?.terminated.clone())
    };
    let end = ended(now)?;
    let known = old.and_then(ended);
    if known.is_some_and(|k| k.container_id == end.container_id) {
        return None;
    }
    let reason = match end.reason.as_deref() {
        None | Some("Completed" | "Error") => String::new(),
        Some(reason) => format!(" ({reason})"),
    };
    Some(format!(
        "container {} exited with {}{reason}",
        now.name, end.exit_code
    ))
}

fn failure(status: &PodStatus) -> String {
    match (status.reason.as_deref(), status.message.as_deref()) {
        (Some(reason), Some(message)) => format!("failed: {reason}: {message}"),
        (Some(reason), None) => format!("failed: {reason}"),
        _ => "failed".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn status(value: serde_json::Value) -> PodStatus {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn each_exit_is_told_once_whether_or_not_it_runs_again() {
        let ended = json!({"containerID": "x", "exitCode": 3, "reason": "Error"});
        let down =
            status(json!({"containerStatuses": [{"name": "a", "state": {"terminated": ended}}]}));
        let again = status(json!({"containerStatuses": [{"name": "a",
            "state": {"running": {}}, "lastState": {"terminated": ended}}]}));
        let none = PodStatus::default();
        assert_eq!(sentences(&none, &down), ["container a exited with 3"]);
        assert_eq!(sentences(&none, &again), ["container a exited with 3"]);
        assert!(sentences(&down, &again).is_empty());
    }

    #[test]
    fn stages_are_told_when_they_change() {
        let ready = status(
            json!({"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}),
        );
        let failed =
            status(json!({"phase": "Failed", "reason": "DeadlineExceeded", "message": "too long"}));
        assert_eq!(sentences(&PodStatus::default(), &ready), ["ready"]);
        assert!(sentences(&ready, &ready).is_empty());
        assert_eq!(
            sentences(&ready, &failed),
            ["failed: DeadlineExceeded: too long"]
        );
    }
}
