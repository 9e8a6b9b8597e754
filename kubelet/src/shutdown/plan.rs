//! Who ends when, and how long each may take. Pure.
//! kubernetes v1.37 pkg/kubelet/nodeshutdown/nodeshutdown_manager.go.

use crate::config::ShutdownGrace;
use crate::pod::lifecycle::Verdict;
use k8s_openapi::api::core::v1::Pod;
use std::sync::Arc;
use std::time::Duration;

const REASON: &str = "Terminated";
const MESSAGE: &str = "Pod was terminated in response to imminent node shutdown.";

/// Pods that end together.
#[derive(Debug, PartialEq)]
pub struct Group {
    /// How long all of them may take; the next group waits for that at most.
    pub limit: Duration,
    /// By uid.
    pub pods: Vec<(String, Verdict)>,
}

/// The longest that an orderly end takes.
pub fn requested(periods: &[ShutdownGrace]) -> Duration {
    let seconds = periods.iter().map(|p| p.seconds.unsigned_abs());
    Duration::from_secs(seconds.sum())
}

/// The order in which pods end: those of the lowest priority first. `periods` are in that order;
/// groups of nobody are left out.
pub fn groups(periods: &[ShutdownGrace], pods: &[Arc<Pod>]) -> Vec<Group> {
    let mut groups: Vec<Group> = periods
        .iter()
        .map(|p| Group {
            limit: Duration::from_secs(p.seconds.unsigned_abs()),
            pods: Vec::new(),
        })
        .collect();
    for pod in pods {
        let priority = pod.spec.as_ref().and_then(|s| s.priority).unwrap_or(0);
        let (Some(index), Some(uid)) = (place(periods, priority), &pod.metadata.uid) else {
            continue;
        };
        let verdict = verdict(pod, periods[index].seconds);
        groups[index].pods.push((uid.clone(), verdict));
    }
    groups.retain(|group| !group.pods.is_empty());
    groups
}

/// The last period whose priority the pod reaches; the first, where it reaches none.
fn place(periods: &[ShutdownGrace], priority: i32) -> Option<usize> {
    let reached = periods.iter().rposition(|p| p.priority <= priority);
    reached.or((!periods.is_empty()).then_some(0))
}

fn verdict(pod: &Pod, limit: i64) -> Verdict {
    let own = pod.spec.as_ref();
    let own = own.and_then(|s| s.termination_grace_period_seconds);
    Verdict {
        reason: REASON.to_owned(),
        message: MESSAGE.to_owned(),
        grace: Some(own.unwrap_or(limit).min(limit)),
        disrupts: true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::PodSpec;

    fn pod(uid: &str, priority: Option<i32>, grace: i64) -> Arc<Pod> {
        let mut pod = Pod::default();
        pod.metadata.uid = Some(uid.to_owned());
        pod.spec = Some(PodSpec {
            priority,
            termination_grace_period_seconds: Some(grace),
            ..PodSpec::default()
        });
        Arc::new(pod)
    }

    fn period(priority: i32, seconds: i64) -> ShutdownGrace {
        ShutdownGrace { priority, seconds }
    }

    fn who(groups: &[Group]) -> Vec<(u64, Vec<(&str, i64)>)> {
        let one =
            |(uid, verdict): &'_ (String, Verdict)| (uid.clone(), verdict.grace.unwrap_or(-1));
        groups
            .iter()
            .map(|g| {
                let pods = g.pods.iter().map(one).collect::<Vec<_>>();
                let names = g.pods.iter().map(|(uid, _)| uid.as_str());
                let graces = pods.iter().map(|(_, grace)| *grace);
                (g.limit.as_secs(), names.zip(graces).collect())
            })
            .collect()
    }

    #[test]
    fn pods_end_by_priority_with_the_shorter_of_two_graces() {
        let periods = [period(0, 20), period(2_000_000_000, 10)];
        let pods = [
            pod("critical", Some(2_000_001_000), 30),
            pod("plain", None, 30),
            pod("quick", Some(5), 3),
            pod("low", Some(-7), 30),
        ];
        let groups = groups(&periods, &pods);
        assert_eq!(
            who(&groups),
            [
                (20, vec![("plain", 20), ("quick", 3), ("low", 20)]),
                (10, vec![("critical", 10)]),
            ]
        );
        assert_eq!(requested(&periods).as_secs(), 30);
    }

    #[test]
    fn pod_belongs_to_the_highest_priority_that_it_reaches() {
        let periods = [period(10, 1), period(100, 2), period(1000, 3)];
        let place = |priority| place(&periods, priority);
        let places = [5, 10, 99, 100, 999, 1000, 5000].map(place);
        let expected = [0, 0, 0, 1, 1, 2, 2].map(Some);
        assert_eq!(places, expected);
        assert_eq!(super::place(&[], 1), None);
    }

    #[test]
    fn groups_of_nobody_take_no_time() {
        let periods = [period(0, 20), period(100, 10)];
        let groups = groups(&periods, &[pod("a", Some(100), 1)]);
        assert_eq!(who(&groups), [(10, vec![("a", 1)])]);
    }
}
