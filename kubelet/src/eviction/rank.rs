//! Who goes first. Pure.

use super::usage::{PodUsed, Used};
use crate::config::Signal;
use crate::node::Shortage;
use crate::pod::lifecycle::Verdict;
use crate::pod::spec::resources::asked;
use crate::quantity::{Amount, binary, decimal};
use crate::source::{CONFIG_MIRROR, is_static};
use k8s_openapi::api::core::v1::{Pod, ResourceRequirements};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use std::cmp::Reverse;
use std::sync::Arc;

/// kubernetes v1.37 pkg/kubelet/eviction/helpers.go `Reason`.
pub const EVICTED: &str = "Evicted";
/// pkg/apis/scheduling/types.go `SystemCriticalPriority`.
const CRITICAL: i32 = 2_000_000_000;
/// Of a hard threshold: eviction_manager.go `immediateEvictionGracePeriodSeconds`.
const GRACE: i64 = 1;

/// What a signal is about, as pods ask for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Resource {
    Memory,
    Storage,
    Inodes,
    Pids,
}

impl Resource {
    pub(super) fn of(signal: Signal) -> Self {
        match signal {
            Signal::MemoryAvailable => Self::Memory,
            Signal::PidAvailable => Self::Pids,
            Signal::NodefsAvailable | Signal::ImagefsAvailable | Signal::ContainerfsAvailable => {
                Self::Storage
            }
            Signal::NodefsInodesFree
            | Signal::ImagefsInodesFree
            | Signal::ContainerfsInodesFree => Self::Inodes,
        }
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Storage => "ephemeral-storage",
            Self::Inodes => "inodes",
            Self::Pids => "pids",
        }
    }

    fn used(self, used: &Used) -> u64 {
        match self {
            Self::Memory => used.memory,
            Self::Storage => used.storage,
            Self::Inodes => used.inodes,
            Self::Pids => used.pids,
        }
    }

    fn amount(self, n: u64) -> String {
        match self {
            Self::Memory | Self::Storage => binary(n).0,
            Self::Inodes | Self::Pids => decimal(n).0,
        }
    }

    /// Nobody asks for inodes or process ids.
    fn asked(self, pod: &Pod) -> u64 {
        let spec = pod.spec.as_ref();
        let asked = |kind| spec.map_or(0, |s| asked(s, kind).units());
        let units = match self {
            Self::Memory => asked("memory"),
            Self::Storage => asked("ephemeral-storage"),
            Self::Inodes | Self::Pids => 0,
        };
        u64::try_from(units).unwrap_or(0)
    }
}

/// Static and critical pods stay whatever happens.
#[must_use]
pub fn critical(pod: &Pod) -> bool {
    let annotations = pod.metadata.annotations.as_ref();
    let is_mirror = annotations.is_some_and(|a| a.contains_key(CONFIG_MIRROR));
    let priority = pod.spec.as_ref().and_then(|s| s.priority);
    is_static(pod) || is_mirror || priority.is_some_and(|p| p >= CRITICAL)
}

/// Who goes first: those that use more than they asked for, then the least important, then
/// the one that is most over what it asked for.
pub(super) fn first(
    pods: Vec<(Arc<Pod>, PodUsed)>,
    resource: Resource,
) -> Option<(Arc<Pod>, PodUsed)> {
    let mut pods: Vec<_> = pods.into_iter().filter(|(pod, _)| !critical(pod)).collect();
    pods.sort_by_key(|(pod, used)| {
        let (used, asked) = (
            i128::from(resource.used(&used.pod)),
            i128::from(resource.asked(pod)),
        );
        let priority = pod.spec.as_ref().and_then(|s| s.priority).unwrap_or(0);
        (used <= asked, priority, Reverse(used - asked))
    });
    pods.into_iter().next()
}

/// In upstream's words. At a soft threshold a pod has its own grace period, up to `max_grace`.
pub(super) fn verdict(pod: &Pod, used: &PodUsed, short: &Shortage, max_grace: i64) -> Verdict {
    let resource = Resource::of(short.signal);
    let name = resource.name();
    let mut message = format!(
        "The node was low on resource: {name}. Threshold quantity: {}, available: {}. ",
        resource.amount(short.threshold),
        resource.amount(short.available)
    );
    for (who, uses, asked) in greedy(pod, used, resource) {
        message += &format!(
            "{who} was using {}, request is {}, has larger consumption of {name}. ",
            binary(uses).0,
            asked.0
        );
    }
    let own = pod.spec.as_ref();
    let own = own.and_then(|s| s.termination_grace_period_seconds);
    Verdict {
        reason: EVICTED.to_owned(),
        message,
        grace: Some(match short.soft {
            true => own.map_or(max_grace, |own| own.min(max_grace)),
            false => GRACE,
        }),
        disrupts: true,
    }
}

/// Whoever asked for less than it uses: the pod, if it asks as one, and its containers.
fn greedy(pod: &Pod, used: &PodUsed, resource: Resource) -> Vec<(String, u64, Quantity)> {
    let (Resource::Memory | Resource::Storage, Some(spec)) = (resource, &pod.spec) else {
        return Vec::new();
    };
    let request = |resources: Option<&ResourceRequirements>| {
        let list = resources.and_then(|r| r.requests.as_ref());
        list.and_then(|l| l.get(resource.name())).cloned()
    };
    let mut found = Vec::new();
    if resource == Resource::Memory
        && let Some(asked) = request(spec.resources.as_ref())
    {
        let name = pod.metadata.name.as_deref().unwrap_or_default();
        found.push((format!("Pod {name}"), used.pod.memory, asked));
    }
    let init = spec.init_containers.iter().flatten();
    for container in spec.containers.iter().chain(init) {
        let Some(used) = used.containers.get(&container.name) else {
            continue;
        };
        let asked = request(container.resources.as_ref());
        let asked = asked.unwrap_or_else(|| Quantity("0".to_owned()));
        let least = u64::try_from(Amount::from(&asked).units()).unwrap_or(0);
        if resource.used(used) > least {
            let who = format!("Container {}", container.name);
            found.push((who, resource.used(used), asked));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn pod(name: &str, priority: i32, memory: &str, mebibytes: u64) -> (Arc<Pod>, PodUsed) {
        let container = json!({"name": "c", "resources": {"requests": {"memory": memory}}});
        let object: Value = json!({
            "metadata": {"name": name},
            "spec": {
                "priority": priority, "containers": [container],
                "terminationGracePeriodSeconds": 30,
            }
        });
        let used = Used {
            memory: mebibytes << 20,
            ..Used::default()
        };
        let used = PodUsed {
            pod: used,
            containers: [("c".to_owned(), used)].into(),
            ..PodUsed::default()
        };
        (Arc::new(serde_json::from_value(object).unwrap()), used)
    }

    fn order(mut pods: Vec<(Arc<Pod>, PodUsed)>) -> Vec<String> {
        let mut names = Vec::new();
        while let Some((next, _)) = first(pods.clone(), Resource::Memory) {
            pods.retain(|(p, _)| p.metadata.name != next.metadata.name);
            names.extend(next.metadata.name.clone());
        }
        names
    }

    #[test]
    fn whoever_uses_more_than_it_asked_for_goes_first_then_the_least_important() {
        let pods = vec![
            pod("modest", -5, "100Mi", 50),
            pod("greedy and important", 10, "10Mi", 500),
            pod("a little over", 0, "10Mi", 11),
            pod("far over", 0, "10Mi", 90),
            pod("critical", CRITICAL, "0", 900),
        ];
        assert_eq!(
            order(pods),
            [
                "far over",
                "a little over",
                "greedy and important",
                "modest"
            ]
        );
    }

    #[test]
    fn the_message_says_what_was_short_and_by_how_much() {
        let (pod, used) = pod("p", 0, "10Mi", 20);
        let said = verdict(&pod, &used, &short(false), 5);
        assert_eq!((said.reason.as_str(), said.grace), ("Evicted", Some(1)));
        assert_eq!(
            said.message,
            "The node was low on resource: memory. Threshold quantity: 100Mi, available: \
             50Mi. Container c was using 20Mi, request is 10Mi, has larger consumption of \
             memory. "
        );
    }

    #[test]
    fn soft_threshold_leaves_a_pod_its_grace_up_to_the_nodes_maximum() {
        let (pod, used) = pod("p", 0, "10Mi", 20);
        let grace = |most| verdict(&pod, &used, &short(true), most).grace;
        assert_eq!((grace(5), grace(60)), (Some(5), Some(30)));
    }

    fn short(soft: bool) -> Shortage {
        Shortage {
            signal: Signal::MemoryAvailable,
            available: 50 << 20,
            threshold: 100 << 20,
            soft,
        }
    }
}
