//! Whom a critical pod drives out, when the node has no room for it. Pure.
//! kubernetes v1.37 pkg/kubelet/preemption/preemption.go.

use super::lifecycle::Verdict;
use super::spec::qos::{self, Qos};
use super::spec::resources::asked;
use super::spec::uid;
use crate::eviction::critical;
use k8s_openapi::api::core::v1::Pod;

/// What is missing of one resource, counted as in [`crate::quantity::Amount::counted`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Missing {
    pub kind: &'static str,
    pub amount: i64,
}

/// The fewest and least deserving of `pods` whose end makes room; `None` if not even all of
/// them would.
pub(super) fn victims<'a>(
    preemptor: &Pod,
    pods: &[&'a Pod],
    missing: &[Missing],
) -> Option<Vec<&'a Pod>> {
    let of = |class: Qos| -> Vec<&'a Pod> {
        let pods = pods.iter().copied();
        pods.filter(|p| qos::of(p) == class && preemptable(preemptor, p))
            .collect()
    };
    let (best_effort, burstable, guaranteed) =
        (of(Qos::BestEffort), of(Qos::Burstable), of(Qos::Guaranteed));
    // Of each class only what all of the classes below could not give.
    let below = [best_effort.as_slice(), &burstable].concat();
    let guaranteed = closest(guaranteed, less(missing, &below))?;
    let others = [best_effort.as_slice(), &guaranteed].concat();
    let burstable = closest(burstable, less(missing, &others))?;
    let others = [burstable.as_slice(), &guaranteed].concat();
    let best_effort = closest(best_effort, less(missing, &others))?;
    Some([best_effort, burstable, guaranteed].concat())
}

fn preemptable(preemptor: &Pod, pod: &Pod) -> bool {
    let priority = |p: &Pod| p.spec.as_ref().and_then(|s| s.priority);
    (critical(preemptor) && !critical(pod))
        || priority(preemptor)
            .zip(priority(pod))
            .is_some_and(|(own, other)| own > other)
}

fn request(pod: &Pod, kind: &str) -> i64 {
    match kind {
        "pods" => 1,
        kind => pod
            .spec
            .as_ref()
            .map_or(0, |s| asked(s, kind).counted(kind)),
    }
}

/// What is still missing once these are gone.
fn less(missing: &[Missing], gone: &[&Pod]) -> Vec<Missing> {
    let left = missing.iter().map(|m| Missing {
        amount: m.amount - gone.iter().map(|p| request(p, m.kind)).sum::<i64>(),
        ..*m
    });
    left.filter(|m| m.amount > 0).collect()
}

/// Takes, again and again, the pod that comes closest to what is missing; of two, the one
/// that asks for less.
fn closest(mut pods: Vec<&Pod>, mut missing: Vec<Missing>) -> Option<Vec<&Pod>> {
    let mut taken = Vec::new();
    while !missing.is_empty() {
        let distance = |pod: &Pod| -> f64 {
            let of = |m: &Missing| {
                let left = (m.amount - request(pod, m.kind)).max(0);
                (left as f64 / m.amount as f64).powi(2)
            };
            missing.iter().map(of).sum()
        };
        let size = |pod: &Pod| (request(pod, "memory"), request(pod, "cpu"));
        let best = pods.iter().enumerate().min_by(|(_, a), (_, b)| {
            let nearer = distance(a).total_cmp(&distance(b));
            nearer.then_with(|| size(a).cmp(&size(b)))
        });
        let pod = pods.remove(best?.0);
        missing = less(&missing, &[pod]);
        taken.push(pod);
    }
    Some(taken)
}

/// What becomes of a victim, in upstream's words.
pub(super) fn verdict() -> Verdict {
    Verdict {
        reason: "Preempting".to_owned(),
        message: "Preempted in order to admit critical pod".to_owned(),
        grace: None,
        disrupts: true,
    }
}

/// For tests and logs.
pub(super) fn uids(pods: &[&Pod]) -> Vec<String> {
    pods.iter().map(|p| uid(p).to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn pod(name: &str, priority: i64, resources: Value) -> Pod {
        let container = json!({"name": "c", "resources": resources});
        let spec = json!({"priority": priority, "containers": [container]});
        serde_json::from_value(json!({"metadata": {"uid": name}, "spec": spec})).unwrap()
    }

    fn burstable(name: &str, cpu: &str) -> Pod {
        pod(name, 0, json!({"requests": {"cpu": cpu}}))
    }

    fn chosen(pods: &[Pod], cpu: i64) -> Option<Vec<String>> {
        let all: Vec<&Pod> = pods.iter().collect();
        let preemptor = pod("critical", 2_000_000_000, json!({}));
        let missing = [Missing {
            kind: "cpu",
            amount: cpu,
        }];
        victims(&preemptor, &all, &missing).map(|v| uids(&v))
    }

    #[test]
    fn pod_that_frees_enough_and_asks_for_least_goes() {
        let pods = [
            burstable("large", "900m"),
            burstable("fits", "300m"),
            burstable("small", "100m"),
            pod("idle", 0, json!({})),
        ];
        assert_eq!(chosen(&pods, 250), Some(vec!["fits".to_owned()]));
        assert_eq!(
            chosen(&pods, 1250),
            Some(vec![
                "large".to_owned(),
                "fits".to_owned(),
                "small".to_owned()
            ])
        );
        assert_eq!(chosen(&pods, 1301), None);
    }

    #[test]
    fn guaranteed_pods_go_last_and_critical_ones_never() {
        let both = json!({"limits": {"cpu": "500m", "memory": "1Mi"}, "requests": {"cpu": "500m", "memory": "1Mi"}});
        let pods = [
            pod("guaranteed", 0, both.clone()),
            pod("other critical", 2_000_000_000, both),
            burstable("burstable", "500m"),
        ];
        assert_eq!(chosen(&pods, 400), Some(vec!["burstable".to_owned()]));
        assert_eq!(chosen(&pods, 900).map(|v| v.len()), Some(2));
        assert_eq!(chosen(&pods, 1100), None);
    }
}
