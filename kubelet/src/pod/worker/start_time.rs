//! How long a pod's start took, pulls and init containers apart. Pure.
//!
//! The service level indicator "pod startup latency" of Kubernetes' SIG scalability: from the
//! pod's creation to when each of its containers has been reported as started, without the time
//! in which images are pulled and init containers run; told of pods that are not stateful.
//! Rules: kubernetes v1.37 pkg/kubelet/util/pod_startup_latency_tracker.go.

use k8s_openapi::api::core::v1::{ContainerState, PodSpec, PodStatus};
use std::time::{Duration, Instant};

/// When images were got ready for a pod.
#[derive(Debug, Default)]
pub(super) struct Pulls(Vec<(Instant, Instant)>);

impl Pulls {
    /// One more, which may have failed.
    pub(super) fn add(&mut self, begun: Instant, ended: Instant) {
        self.0.push((begun, ended));
    }

    /// The time in which there was at least one.
    fn total(&self) -> Duration {
        let mut all = self.0.clone();
        all.sort_unstable();
        let mut until: Option<Instant> = None;
        let mut total = Duration::ZERO;
        for (begun, ended) in all {
            let begun = until.map_or(begun, |until| begun.max(until));
            total += ended.saturating_duration_since(begun);
            until = Some(until.map_or(ended, |until| until.max(ended)));
        }
        total
    }
}

/// Whether each container has begun, and none has ended again.
pub(super) fn all_run(status: &PodStatus) -> bool {
    let runs = |state: &ContainerState| state.running.as_ref()?.started_at.clone();
    let mut all = status.container_statuses.iter().flatten().peekable();
    all.peek().is_some() && all.all(|c| c.state.as_ref().and_then(runs).is_some())
}

/// What of a start that took `total` counts; `None` for a pod whose start depends on storage.
pub(super) fn indicator(
    total: Duration,
    pulls: &Pulls,
    spec: &PodSpec,
    status: &PodStatus,
) -> Option<Duration> {
    let apart = pulls.total() + init_containers(status);
    (!is_stateful(spec)).then(|| total.saturating_sub(apart))
}

/// How long those ran that had to end before the others began.
fn init_containers(status: &PodStatus) -> Duration {
    let all = status.init_container_statuses.iter().flatten();
    let ended = all.filter_map(|c| c.state.as_ref()?.terminated.as_ref());
    let took = ended.filter_map(|t| {
        let (begun, ended) = (t.started_at.as_ref()?, t.finished_at.as_ref()?);
        Duration::try_from(ended.0.duration_since(begun.0)).ok()
    });
    took.sum()
}

fn is_stateful(spec: &PodSpec) -> bool {
    spec.volumes.iter().flatten().any(|volume| {
        volume.secret.is_none()
            && volume.config_map.is_none()
            && volume.downward_api.is_none()
            && volume.empty_dir.is_none()
            && volume.projected.is_none()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of<T: serde::de::DeserializeOwned>(json: serde_json::Value) -> T {
        serde_json::from_value(json).unwrap()
    }

    fn seconds(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    #[test]
    fn pulls_at_the_same_time_count_once() {
        let zero = Instant::now();
        let at = |n| zero + seconds(n);
        let mut pulls = Pulls::default();
        assert_eq!(pulls.total(), Duration::ZERO);
        // The longest ends last and was begun first.
        for (begun, ended) in [(2, 3), (2, 5), (8, 9), (1, 6), (20, 22)] {
            pulls.add(at(begun), at(ended));
        }
        assert_eq!(pulls.total(), seconds(5 + 1 + 2));
    }

    #[test]
    fn init_containers_and_pulls_do_not_count() {
        let status: PodStatus = of(serde_json::json!({"initContainerStatuses": [
            {"name": "a", "image": "", "imageID": "", "ready": true, "restartCount": 0, "state": {
                "terminated": {"exitCode": 0, "startedAt": "2026-01-01T00:00:00Z",
                               "finishedAt": "2026-01-01T00:00:04Z"}}},
            {"name": "sidecar", "image": "", "imageID": "", "ready": true, "restartCount": 0,
             "state": {"running": {"startedAt": "2026-01-01T00:00:04Z"}}},
        ]}));
        let zero = Instant::now();
        let mut pulls = Pulls::default();
        pulls.add(zero, zero + seconds(2));
        let spec = PodSpec::default();
        let counts = |total| indicator(seconds(total), &pulls, &spec, &status);
        assert_eq!(counts(10), Some(seconds(4)));
        // Whole seconds of the containers' times may be more than the start took.
        assert_eq!(counts(5), Some(Duration::ZERO));
    }

    #[test]
    fn pods_with_storage_have_no_indicator() {
        let indicator = |volume: serde_json::Value| {
            let spec = serde_json::json!({"containers": [], "volumes": [volume]});
            let status = PodStatus::default();
            indicator(seconds(1), &Pulls::default(), &of(spec), &status)
        };
        let light = serde_json::json!({"name": "v", "emptyDir": {}});
        assert_eq!(indicator(light), Some(seconds(1)));
        let storage = serde_json::json!({"name": "v", "hostPath": {"path": "/"}});
        assert_eq!(indicator(storage), None);
    }

    #[test]
    fn started_is_a_pod_whose_containers_all_run() {
        let status = |states: &[&str]| -> PodStatus {
            let state = |state: &&str| match *state {
                "running" => serde_json::json!({"running": {"startedAt": "2026-01-01T00:00:00Z"}}),
                other => serde_json::json!({other: {"exitCode": 0}}),
            };
            let container = |s: &&str| {
                serde_json::json!({"name": "c", "image": "", "imageID": "", "ready": true,
                                   "restartCount": 0, "state": state(s)})
            };
            let all: Vec<_> = states.iter().map(container).collect();
            of(serde_json::json!({"containerStatuses": all}))
        };
        assert!(all_run(&status(&["running", "running"])));
        assert!(!all_run(&status(&["running", "waiting"])));
        assert!(!all_run(&status(&["terminated"])));
        assert!(!all_run(&status(&[])));
    }
}
