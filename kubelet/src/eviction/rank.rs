//! Who goes first. Pure.

use super::usage::Used;
use crate::config::Signal;
use crate::node::Shortage;
use crate::pod::lifecycle::Verdict;
use crate::pod::spec::resources::asked;
use crate::source::{CONFIG_MIRROR, CONFIG_SOURCE};
use k8s_openapi::api::core::v1::Pod;
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
pub fn exempt(pod: &Pod) -> bool {
    let annotation = |key| pod.metadata.annotations.as_ref().and_then(|a| a.get(key));
    let is_static = annotation(CONFIG_SOURCE).is_some_and(|s| s != "api");
    let priority = pod.spec.as_ref().and_then(|s| s.priority);
    is_static || annotation(CONFIG_MIRROR).is_some() || priority.is_some_and(|p| p >= CRITICAL)
}

/// Who goes first: those that use more than they asked for, then the least important, then
/// the one that is most over what it asked for.
pub(super) fn first(pods: Vec<(Arc<Pod>, Used)>, resource: Resource) -> Option<(Arc<Pod>, Used)> {
    let mut pods: Vec<_> = pods.into_iter().filter(|(pod, _)| !exempt(pod)).collect();
    pods.sort_by_key(|(pod, used)| {
        let (used, asked) = (
            i128::from(resource.used(used)),
            i128::from(resource.asked(pod)),
        );
        let priority = pod.spec.as_ref().and_then(|s| s.priority).unwrap_or(0);
        (used <= asked, priority, Reverse(used - asked))
    });
    pods.into_iter().next()
}

/// In upstream's words.
pub(super) fn verdict(pod: &Pod, used: &Used, shortage: &Shortage) -> Verdict {
    let resource = Resource::of(shortage.signal);
    let amount = |n: u64| match resource {
        Resource::Memory | Resource::Storage => format!("{}Ki", n / 1024),
        Resource::Inodes | Resource::Pids => n.to_string(),
    };
    let (name, uses, asked) = (resource.name(), resource.used(used), resource.asked(pod));
    let mut message = format!(
        "The node was low on resource: {name}. Threshold quantity: {}, available: {}. ",
        amount(shortage.threshold),
        amount(shortage.available)
    );
    if uses > asked {
        message += &format!(
            "The pod was using {}, request is {}, has larger consumption of {name}. ",
            amount(uses),
            amount(asked)
        );
    }
    Verdict {
        reason: EVICTED.to_owned(),
        message,
        grace: Some(GRACE),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn pod(name: &str, priority: i32, memory: &str, mebibytes: u64) -> (Arc<Pod>, Used) {
        let container = json!({"name": "c", "resources": {"requests": {"memory": memory}}});
        let object: Value = json!({
            "metadata": {"name": name},
            "spec": {"priority": priority, "containers": [container]}
        });
        let used = Used {
            memory: mebibytes << 20,
            ..Used::default()
        };
        (Arc::new(serde_json::from_value(object).unwrap()), used)
    }

    fn order(mut pods: Vec<(Arc<Pod>, Used)>) -> Vec<String> {
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
        let shortage = Shortage {
            signal: Signal::MemoryAvailable,
            available: 50 << 20,
            threshold: 100 << 20,
        };
        let (pod, used) = pod("p", 0, "10Mi", 20);
        let said = verdict(&pod, &used, &shortage);
        assert_eq!((said.reason.as_str(), said.grace), ("Evicted", Some(1)));
        assert_eq!(
            said.message,
            "The node was low on resource: memory. Threshold quantity: 102400Ki, available: \
             51200Ki. The pod was using 20480Ki, request is 10240Ki, has larger consumption of \
             memory. "
        );
    }
}
