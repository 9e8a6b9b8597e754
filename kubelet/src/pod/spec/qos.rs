//! QoS classes and what the OOM killer is told.

use super::quantity::amount;
use super::resources::total_requests;
use crate::pod::lifecycle::restartable_init;
use crate::quantity::Amount;
use k8s_openapi::api::core::v1::{Container, Pod, PodSpec, ResourceRequirements};

/// `status.qosClass`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Qos {
    Guaranteed,
    Burstable,
    BestEffort,
}

impl Qos {
    /// As the API writes it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Qos::Guaranteed => "Guaranteed",
            Qos::Burstable => "Burstable",
            Qos::BestEffort => "BestEffort",
        }
    }
}

/// The class that the API server gave, or what it would give.
#[must_use]
pub fn of(pod: &Pod) -> Qos {
    match pod.status.as_ref().and_then(|s| s.qos_class.as_deref()) {
        Some("Guaranteed") => Qos::Guaranteed,
        Some("Burstable") => Qos::Burstable,
        Some("BestEffort") => Qos::BestEffort,
        Some(_) | None => pod.spec.as_ref().map_or(Qos::BestEffort, of_spec),
    }
}

fn of_spec(spec: &PodSpec) -> Qos {
    if let Some(own) = spec.resources.as_ref().filter(|r| asks(r)) {
        return if both_equal(own) {
            Qos::Guaranteed
        } else {
            Qos::Burstable
        };
    }
    let init = spec.init_containers.iter().flatten();
    let all: Vec<&Container> = spec.containers.iter().chain(init).collect();
    let resources = |c: &Container| c.resources.clone().unwrap_or_default();
    if !all.iter().any(|c| asks(&resources(c))) {
        return Qos::BestEffort;
    }
    if all.iter().all(|c| both_equal(&resources(c))) {
        return Qos::Guaranteed;
    }
    Qos::Burstable
}

/// Asks for cpu or memory at all.
fn asks(resources: &ResourceRequirements) -> bool {
    ["cpu", "memory"].iter().any(|kind| {
        [resources.requests.as_ref(), resources.limits.as_ref()]
            .into_iter()
            .any(|list| amount(list, kind).is_some_and(|a| a > Amount::default()))
    })
}

/// Limits for cpu and memory, and requests, where given, equal to them.
fn both_equal(resources: &ResourceRequirements) -> bool {
    ["cpu", "memory"].iter().all(|kind| {
        let limit = amount(resources.limits.as_ref(), kind);
        let request = amount(resources.requests.as_ref(), kind);
        limit.is_some_and(|l| l > Amount::default() && request.unwrap_or(l) == l)
    })
}

/// kubernetes v1.36 pkg/kubelet/qos/policy.go `guaranteedOOMScoreAdj`.
const GUARANTEED: i64 = -997;
const BEST_EFFORT: i64 = 1000;

/// The container's oom_score_adj: the more of the machine's memory it asked
/// for, the later it is chosen.
///
/// kubernetes v1.36 pkg/kubelet/qos/policy.go `GetContainerOOMScoreAdjust`.
#[must_use]
pub fn oom_score_adj(pod: &Pod, container: &Container, memory_capacity: u64) -> i64 {
    let critical = pod
        .spec
        .as_ref()
        .and_then(|s| s.priority_class_name.as_deref());
    if critical == Some("system-node-critical") {
        return GUARANTEED;
    }
    match of(pod) {
        Qos::Guaranteed => GUARANTEED,
        Qos::BestEffort => BEST_EFFORT,
        Qos::Burstable => burstable(pod, container, memory_capacity),
    }
}

/// A sidecar is not chosen before the app containers it serves; what a pod asks for beyond its
/// containers counts for each of them in equal parts.
fn burstable(pod: &Pod, container: &Container, memory_capacity: u64) -> i64 {
    let mut request = asked(container);
    if let Some(spec) = &pod.spec {
        if restartable_init(container) {
            let least = spec.containers.iter().map(asked).min();
            request = request.max(least.unwrap_or_default());
        }
        request += spare(spec);
    }
    let capacity = i128::from(memory_capacity.max(1));
    let adjust = i64::try_from(1000 - 1000 * request / capacity).unwrap_or(BEST_EFFORT);
    adjust.clamp(1000 + GUARANTEED, BEST_EFFORT - 1)
}

fn asked(container: &Container) -> i128 {
    let own = container.resources.as_ref();
    let request = amount(own.and_then(|r| r.requests.as_ref()), "memory");
    let request = request.or_else(|| amount(own.and_then(|r| r.limits.as_ref()), "memory"));
    request.unwrap_or_default().units().into()
}

/// Of each container.
fn spare(spec: &PodSpec) -> i128 {
    let own = spec.resources.as_ref().and_then(|r| r.requests.as_ref());
    let Some(own) = amount(own, "memory") else {
        return 0;
    };
    let of_containers = total_requests(spec, "memory");
    let count = spec.containers.len() + spec.init_containers.as_ref().map_or(0, Vec::len);
    let left = i128::from((own - of_containers).units()).max(0);
    left / i128::try_from(count.max(1)).unwrap_or(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
    use std::collections::BTreeMap;

    fn list(pairs: &[(&str, &str)]) -> Option<BTreeMap<String, Quantity>> {
        let entry = |(k, v): &(&str, &str)| ((*k).to_owned(), Quantity((*v).to_owned()));
        Some(pairs.iter().map(entry).collect())
    }

    fn pod(requests: &[(&str, &str)], limits: &[(&str, &str)]) -> Pod {
        let container = Container {
            resources: Some(ResourceRequirements {
                requests: list(requests),
                limits: list(limits),
                ..ResourceRequirements::default()
            }),
            ..Container::default()
        };
        Pod {
            spec: Some(PodSpec {
                containers: vec![container],
                ..PodSpec::default()
            }),
            ..Pod::default()
        }
    }

    #[test]
    fn pod_is_guaranteed_only_when_both_limits_equal_the_requests() {
        let both = [("cpu", "1"), ("memory", "1Gi")];
        assert_eq!(of(&pod(&both, &both)), Qos::Guaranteed);
        assert_eq!(of(&pod(&[], &both)), Qos::Guaranteed);
        assert_eq!(of(&pod(&both, &[("cpu", "1")])), Qos::Burstable);
        assert_eq!(of(&pod(&[("cpu", "500m")], &both)), Qos::Burstable);
        assert_eq!(of(&pod(&[], &[])), Qos::BestEffort);
    }

    #[test]
    fn oom_score_falls_with_the_share_of_memory_and_stays_in_bounds() {
        const GIB: u64 = 1 << 30;
        let score = |memory: &str| {
            let pod = pod(&[("memory", memory)], &[]);
            let spec = pod.spec.clone().unwrap_or_default();
            oom_score_adj(&pod, &spec.containers[0], 4 * GIB)
        };
        assert_eq!(score("1Gi"), 750);
        assert_eq!(score("1"), 999);
        assert_eq!(score("4Gi"), 3);
    }

    #[test]
    fn oom_score_counts_what_the_pod_asks_for_itself_and_keeps_sidecars_behind() {
        let asks = |memory: &str| serde_json::json!({"requests": {"memory": memory}});
        let mut pod: Pod = serde_json::from_value(serde_json::json!({"spec": {
            "initContainers": [{"name": "side", "restartPolicy": "Always"}],
            "containers": [
                {"name": "a", "resources": asks("1Gi")}, {"name": "b", "resources": asks("2Gi")}
            ]
        }}))
        .unwrap();
        let scores = |pod: &Pod| {
            let spec = pod.spec.clone().unwrap_or_default();
            let all = spec
                .init_containers
                .iter()
                .flatten()
                .chain(&spec.containers);
            let score = |c: &Container| oom_score_adj(pod, c, 10 << 30);
            all.map(score).collect::<Vec<_>>()
        };
        assert_eq!(scores(&pod), [900, 900, 800]);
        pod.spec.as_mut().unwrap().resources = serde_json::from_value(asks("6Gi")).unwrap();
        assert_eq!(scores(&pod), [800, 800, 700]);
        pod.spec.as_mut().unwrap().resources = serde_json::from_value(asks("1Gi")).unwrap();
        assert_eq!(
            scores(&pod),
            [900, 900, 800],
            "no less than its containers'"
        );
    }
}
