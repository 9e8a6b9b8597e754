//! In-place resize: what a pod is granted of the cpu and memory it asks for. Pure.
//!
//! Three things may differ: what the newest object asks for, what the node has
//! granted, and what the runtime was told (`Observed::applied`). A pod is
//! handled as if it asked for what it was granted; what is not granted is a
//! [`Pending`] beside it.

mod remembered;

pub use remembered::{GRANTED, record, remembered};

use super::lifecycle::restartable_init;
use super::observed::Observed;
use super::spec::qos;
use super::spec::quantity::amount;
use super::spec::resources::{asked, with_limits_of};
use super::spec::swap::{self, Swap};
use super::{Known, NodeFacts, admit};
use k8s_openapi::api::core::v1::{Container, Pod, ResourceRequirements};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use serde_json::json;
use std::collections::BTreeMap;

/// Resources by container; the pod's own stand under the empty name.
pub type Granted = BTreeMap<String, ResourceRequirements>;

type List = BTreeMap<String, Quantity>;

/// What can be resized: what a cgroup of a pod is given.
pub const KINDS: [&str; 2] = ["cpu", "memory"];

/// Why a resize is not granted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// Not now: others have what it would need.
    Deferred,
    /// Not ever: the node is too small.
    Infeasible,
}

impl Refusal {
    /// `reason` of the condition PodResizePending.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Refusal::Deferred => "Deferred",
            Refusal::Infeasible => "Infeasible",
        }
    }
}

/// A resize that waits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pending {
    /// For how long.
    pub refusal: Refusal,
    /// For people.
    pub message: String,
    /// `metadata.generation` of the object that asks.
    pub generation: Option<i64>,
}

/// What an object asks for.
#[must_use]
pub fn of(pod: &Pod) -> Granted {
    let own = pod.spec.as_ref().and_then(|s| s.resources.clone());
    let mut all: Granted = own.into_iter().map(|r| (String::new(), r)).collect();
    for container in containers(pod) {
        let resources = container.resources.clone().unwrap_or_default();
        all.insert(container.name.clone(), resources);
    }
    all
}

/// The object, asking for what was granted; the rest of it is as new.
#[must_use]
pub fn with(pod: &Pod, granted: &Granted) -> Pod {
    let mut pod = pod.clone();
    let Some(spec) = pod.spec.as_mut() else {
        return pod;
    };
    let none = ResourceRequirements::default();
    let own = granted.get("").unwrap_or(&none);
    spec.resources = spec.resources.as_ref().map(|new| merged(Some(new), own));
    let init = spec.init_containers.iter_mut().flatten();
    for container in init.chain(&mut spec.containers) {
        if let Some(own) = granted.get(&container.name) {
            container.resources = Some(merged(container.resources.as_ref(), own));
        }
    }
    pod
}

/// `new`, but for cpu and memory, which are `old`'s.
fn merged(new: Option<&ResourceRequirements>, old: &ResourceRequirements) -> ResourceRequirements {
    let mut result = new.cloned().unwrap_or_default();
    for kind in KINDS {
        let pairs = [
            (&mut result.requests, &old.requests),
            (&mut result.limits, &old.limits),
        ];
        for (into, from) in pairs {
            match from.as_ref().and_then(|list| list.get(kind)) {
                Some(quantity) => {
                    let list = into.get_or_insert_default();
                    list.insert(kind.to_owned(), quantity.clone());
                }
                None => {
                    if let Some(list) = into.as_mut() {
                        list.remove(kind);
                    }
                }
            }
        }
    }
    result
}

/// Whether the pod asks for other cpu or memory than it was granted.
#[must_use]
pub fn differs(pod: &Pod, granted: &Granted) -> bool {
    differ(&of(pod), granted)
}

fn differ(wanted: &Granted, granted: &Granted) -> bool {
    let none = ResourceRequirements::default();
    wanted.iter().any(|(name, new)| {
        let old = granted.get(name).unwrap_or(&none);
        KINDS.iter().any(|kind| changes(kind, new, old))
    })
}

/// What a container of the pod is given, by its name.
#[must_use]
pub fn given(pod: &Pod, container: &str) -> Option<ResourceRequirements> {
    let own = containers(pod).find(|c| c.name == container)?;
    Some(given_to(pod, own))
}

fn given_to(pod: &Pod, container: &Container) -> ResourceRequirements {
    let spec = pod.spec.as_ref();
    spec.map_or_else(Default::default, |spec| with_limits_of(spec, container))
}

/// Whether a container that runs with `applied` is to be given something else.
fn due(pod: &Pod, container: &Container, applied: Option<&ResourceRequirements>) -> bool {
    let new = given_to(pod, container);
    applied.is_some_and(|old| KINDS.iter().any(|kind| changes(kind, &new, old)))
}

/// Whether it must be started anew to get it: its `resizePolicy` says so of what changes.
#[must_use]
pub fn restarts(pod: &Pod, container: &Container, applied: Option<&ResourceRequirements>) -> bool {
    let Some(old) = applied else { return false };
    let new = given_to(pod, container);
    let policies = container.resize_policy.iter().flatten();
    let mut demanding = policies.filter(|p| p.restart_policy == "RestartContainer");
    demanding.any(|p| changes(&p.resource_name, &new, old))
}

fn changes(kind: &str, new: &ResourceRequirements, old: &ResourceRequirements) -> bool {
    amount(new.requests.as_ref(), kind) != amount(old.requests.as_ref(), kind)
        || amount(new.limits.as_ref(), kind) != amount(old.limits.as_ref(), kind)
}

/// Why the node does not grant what a pod asks for now; `None` if it does.
///
/// Texts: kubernetes v1.37 pkg/kubelet/allocation/allocation_manager.go and
/// pkg/kubelet/lifecycle/predicate.go.
#[must_use]
pub fn judge(pod: &Pod, others: &[Known], node: &NodeFacts) -> Option<Pending> {
    let pending = |refusal, message| Pending {
        refusal,
        message,
        generation: pod.metadata.generation,
    };
    let spec = pod.spec.as_ref()?;
    for kind in KINDS {
        let capacity = amount(Some(&node.allocatable), kind).unwrap_or_default();
        let wanted = asked(spec, kind);
        if wanted > capacity {
            let message = format!(
                "Node didn't have enough capacity: {kind}, requested: {}, capacity: {}",
                wanted.counted(kind),
                capacity.counted(kind)
            );
            return Some(pending(Refusal::Infeasible, message));
        }
    }
    let verdict = admit::room_beside(pod, others, node)?;
    Some(pending(Refusal::Deferred, verdict.message))
}

/// Why a Guaranteed pod keeps what it has for itself alone: `kinds` of resources are given
/// by a manager of this name whose policy is static.
///
/// kubernetes v1.37 pkg/kubelet/allocation/handlers.go.
#[must_use]
pub fn fixed(pod: &Pod, granted: &Granted, kinds: &[(&str, &str, &str)]) -> Option<Pending> {
    if qos::of(pod) != qos::Qos::Guaranteed {
        return None;
    }
    let none = ResourceRequirements::default();
    let changed = |kind: &str| {
        resizable(pod).any(|c| {
            let new = c.resources.as_ref().unwrap_or(&none);
            granted
                .get(&c.name)
                .is_some_and(|old| changes(kind, new, old))
        })
    };
    let (_, manager, policy) = kinds.iter().find(|(kind, ..)| changed(kind))?;
    Some(Pending {
        refusal: Refusal::Infeasible,
        message: format!(
            "Resize is infeasible for Guaranteed Pods alongside {manager} Manager policy {policy:?}"
        ),
        generation: pod.metadata.generation,
    })
}

/// Why a pod keeps what it was granted: swap is shared when a container is made.
///
/// kubernetes v1.37 pkg/kubelet/allocation/handlers.go `disallowResizeForSwappableContainers`.
#[must_use]
pub fn swappable(pod: &Pod, granted: &Pod, swap: Swap) -> Option<Pending> {
    let memory = |c: &Container| {
        let requests = c.resources.as_ref().and_then(|r| r.requests.as_ref());
        amount(requests, "memory")
    };
    let begins_anew = |c: &Container| {
        let mut policies = c.resize_policy.iter().flatten();
        policies.any(|p| p.resource_name == "memory" && p.restart_policy == "RestartContainer")
    };
    let mut pairs = resizable(pod).filter_map(|new| {
        let old = resizable(granted).find(|old| old.name == new.name)?;
        Some((new, old))
    });
    let held = pairs.any(|(new, old)| {
        let some = swap::has_some(pod, new, swap) || swap::has_some(granted, old, swap);
        some && memory(new) != memory(old) && !begins_anew(old)
    });
    held.then(|| Pending {
        refusal: Refusal::Infeasible,
        message: "In-place resize of containers with swap is not supported.".to_owned(),
        generation: pod.metadata.generation,
    })
}

/// What a container that runs was given.
fn applied<'a>(container: &Container, seen: &'a Observed) -> Option<&'a ResourceRequirements> {
    let newest = seen.newest(&container.name).filter(|c| c.running())?;
    seen.applied.get(&newest.id)
}

/// What the pod's cgroup is to be for now: what runs on until it is started anew still
/// has what it had.
#[must_use]
pub fn for_cgroup(pod: &Pod, seen: &Observed) -> Granted {
    let mut all = of(pod);
    for container in resizable(pod) {
        let held = applied(container, seen);
        if let Some(held) = held.filter(|_| restarts(pod, container, held)) {
            all.insert(container.name.clone(), held.clone());
        }
    }
    all
}

/// Whether the pod's cgroup is to be given something else.
#[must_use]
pub fn cgroup_due(pod: &Pod, seen: &Observed) -> bool {
    let given = seen.pod_applied.as_ref();
    given.is_some_and(|given| differ(&for_cgroup(pod, seen), given))
}

/// Whether a container that runs is to be given something else as it runs.
#[must_use]
pub fn running_due(pod: &Pod, container: &Container, seen: &Observed) -> bool {
    let applied = applied(container, seen);
    due(pod, container, applied) && !restarts(pod, container, applied)
}

/// Whether something that runs, or the pod's cgroup, has not got yet what was granted.
#[must_use]
pub fn in_progress(pod: &Pod, seen: &Observed) -> bool {
    let runs = resizable(pod).any(|c| due(pod, c, applied(c, seen)));
    runs || cgroup_due(pod, seen)
}

/// What an Event says of a resize. Shape: kubernetes v1.37 pkg/kubelet/events/resize.go.
#[must_use]
pub fn told(what: &str, pod: &Pod, error: Option<&str>) -> String {
    let of = |list: &[Container]| -> Vec<serde_json::Value> {
        let one = |c: &Container| json!({ "name": c.name, "resources": c.resources });
        list.iter().map(one).collect()
    };
    let mut summary = serde_json::Map::new();
    if let Some(spec) = &pod.spec {
        if let Some(init) = spec.init_containers.as_ref().filter(|i| !i.is_empty()) {
            summary.insert("initContainers".into(), of(init).into());
        }
        summary.insert("containers".into(), of(&spec.containers).into());
    }
    summary.insert("generation".into(), pod.metadata.generation.into());
    if let Some(error) = error {
        summary.insert("error".into(), error.into());
    }
    format!("Pod resize {what}: {}", serde_json::Value::from(summary))
}

fn containers(pod: &Pod) -> impl Iterator<Item = &Container> {
    let spec = pod.spec.iter();
    spec.flat_map(|s| s.init_containers.iter().flatten().chain(&s.containers))
}

/// Those that a resize reaches while they run: app containers and sidecars.
pub fn resizable(pod: &Pod) -> impl Iterator<Item = &Container> {
    let spec = pod.spec.iter();
    spec.flat_map(|s| {
        let init = s.init_containers.iter().flatten();
        init.filter(|c| restartable_init(c)).chain(&s.containers)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(cpu: &str, policy: &str) -> Pod {
        let resources = json!({ "requests": { "cpu": cpu, "x/y": "1" } });
        let resize = json!([{ "resourceName": "cpu", "restartPolicy": policy }]);
        serde_json::from_value(json!({
            "metadata": { "generation": 3, "uid": "u" },
            "spec": { "containers": [
                { "name": "a", "resources": resources, "resizePolicy": resize }
            ] }
        }))
        .unwrap()
    }

    fn node(cpu: &str) -> NodeFacts {
        let mut node = crate::pod::spec::testing::node();
        let quantity = |q: &str| Quantity(q.into());
        node.allocatable = [("cpu".to_owned(), quantity(cpu))].into();
        node.allocatable.insert("memory".into(), quantity("1Gi"));
        node
    }

    #[test]
    fn pod_asks_for_what_it_was_granted_and_keeps_all_else() {
        let (old, new) = (pod("1", "NotRequired"), pod("2", "NotRequired"));
        let granted = of(&old);
        assert!(differs(&new, &granted) && !differs(&old, &granted));
        let same = pod("1000m", "NotRequired");
        assert!(!differs(&same, &granted), "the same amount in other words");
        let held = with(&new, &granted);
        let requests = |p: &Pod| {
            let first = p.spec.as_ref().map(|s| s.containers[0].clone());
            first.and_then(|c| c.resources).and_then(|r| r.requests)
        };
        assert_eq!(requests(&held), requests(&old));
        assert_eq!(held.metadata.generation, Some(3));
    }

    #[test]
    fn only_a_policy_of_what_changes_starts_a_container_anew() {
        let container = |p: &Pod| p.spec.as_ref().unwrap().containers[0].clone();
        let old = pod("1", "RestartContainer");
        let applied = given(&old, "a");
        let both = |pod: &Pod, applied: Option<&ResourceRequirements>| {
            let container = container(pod);
            (
                due(pod, &container, applied),
                restarts(pod, &container, applied),
            )
        };
        let (must, need_not) = (pod("2", "RestartContainer"), pod("2", "NotRequired"));
        assert_eq!(both(&must, applied.as_ref()), (true, true));
        assert_eq!(both(&need_not, applied.as_ref()), (true, false));
        assert_eq!(both(&old, applied.as_ref()), (false, false));
        assert_eq!(both(&must, None), (false, false), "nothing is known of it");
    }

    #[test]
    fn container_without_a_limit_of_its_own_is_resized_with_its_pod() {
        let of = |cpu: &str, memory: &str| {
            let mut pod = pod("1", "RestartContainer");
            let own = json!({ "limits": { "cpu": cpu, "memory": memory } });
            pod.spec.as_mut().unwrap().resources = serde_json::from_value(own).unwrap();
            pod
        };
        let applied = given(&of("2", "1Gi"), "a");
        let now = |pod: &Pod| {
            let container = pod.spec.as_ref().unwrap().containers[0].clone();
            let applied = applied.as_ref();
            (
                due(pod, &container, applied),
                restarts(pod, &container, applied),
            )
        };
        assert_eq!(now(&of("2000m", "1024Mi")), (false, false));
        assert_eq!(now(&of("2", "2Gi")), (true, false));
        assert_eq!(now(&of("3", "1Gi")), (true, true));
    }

    #[test]
    fn pod_that_was_granted_nothing_of_its_own_asks_for_nothing_of_its_own() {
        let old = pod("1", "NotRequired");
        let mut new = old.clone();
        let own = json!({ "requests": { "cpu": "2" } });
        new.spec.as_mut().unwrap().resources = serde_json::from_value(own).unwrap();
        assert!(differs(&new, &of(&old)));
        let held = with(&new, &of(&old));
        assert!(!differs(&held, &of(&old)));
    }

    #[test]
    fn container_with_swap_is_resized_only_when_it_begins_anew() {
        let swap = |limited| Swap {
            limited,
            counted: true,
            capacity: 1 << 30,
        };
        let of = |memory: &str, policy: &str| {
            let mut pod = pod("1", "NotRequired");
            let container = &mut pod.spec.as_mut().unwrap().containers[0];
            let resources = json!({ "requests": { "memory": memory } });
            container.resources = serde_json::from_value(resources).unwrap();
            let policy = json!([{ "resourceName": "memory", "restartPolicy": policy }]);
            container.resize_policy = serde_json::from_value(policy).unwrap();
            pod
        };
        let (old, new) = (of("1Gi", "NotRequired"), of("2Gi", "NotRequired"));
        let refused = swappable(&new, &old, swap(true)).unwrap();
        assert_eq!(refused.refusal, Refusal::Infeasible);
        assert_eq!(swappable(&new, &old, swap(false)), None);
        assert_eq!(swappable(&old, &old, swap(true)), None);
        let anew = of("1Gi", "RestartContainer");
        assert_eq!(swappable(&new, &anew, swap(true)), None);
    }

    #[test]
    fn resize_is_infeasible_beyond_the_node_and_deferred_beside_others() {
        let other = Known {
            pod: std::sync::Arc::new(Pod {
                metadata: Default::default(),
                ..pod("1500m", "NotRequired")
            }),
            status: Default::default(),
            removed: false,
        };
        let wants = pod("1", "NotRequired");
        let refusal = |others: &[Known], cpu| judge(&wants, others, &node(cpu)).map(|p| p.refusal);
        assert_eq!(refusal(&[], "2"), None);
        assert_eq!(refusal(&[], "500m"), Some(Refusal::Infeasible));
        assert_eq!(refusal(&[other], "2"), Some(Refusal::Deferred));
    }
}
