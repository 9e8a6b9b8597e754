//! How much of the machine's swap a container may have. Pure.
//!
//! Rules: kubernetes v1.37 pkg/kubelet/kuberuntime/kuberuntime_container_linux.go (KEP 2400).

use super::qos::{self, Qos};
use super::quantity::amount;
use crate::eviction::critical;
use cri_proto::v1::LinuxContainerResources;
use k8s_openapi::api::core::v1::{Container, Pod};

/// What there is to share, and whether it is shared.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Swap {
    /// `memorySwap.swapBehavior` is `LimitedSwap`; else nobody gets any.
    pub limited: bool,
    /// The kernel counts it by cgroup.
    pub counted: bool,
    /// Bytes that the machine has.
    pub capacity: u64,
}

/// Writes what a container may have to its limits. `memory` is the machine's, in bytes.
pub fn limit(
    limits: &mut LinuxContainerResources,
    (pod, container): (&Pod, &Container),
    swap: Swap,
    (cgroup_v2, memory): (bool, u64),
) {
    match (swap.counted, cgroup_v2) {
        (true, true) => {
            let bytes = share(pod, container, swap, memory);
            let file = "memory.swap.max".to_owned();
            limits.unified.insert(file, bytes.to_string());
        }
        // Memory and swap together: who has no limit of memory has none of swap.
        (true, false) => limits.memory_swap_limit_in_bytes = limits.memory_limit_in_bytes,
        (false, _) => {}
    }
}

/// Whether a container gets any at all.
#[must_use]
pub fn has_some(pod: &Pod, container: &Container, swap: Swap) -> bool {
    let own = container.resources.as_ref();
    let request = amount(own.and_then(|r| r.requests.as_ref()), "memory").unwrap_or_default();
    let limit = amount(own.and_then(|r| r.limits.as_ref()), "memory").unwrap_or_default();
    // Who asks for nothing and has no limit either has both the same.
    let some = swap.limited && swap.counted && request != limit;
    some && qos::of(pod) == Qos::Burstable && !critical(pod)
}

/// Bytes: the part of swap that the request is of memory.
fn share(pod: &Pod, container: &Container, swap: Swap, memory: u64) -> u64 {
    if !has_some(pod, container, swap) {
        return 0;
    }
    let requests = container
        .resources
        .as_ref()
        .and_then(|r| r.requests.as_ref());
    let request = amount(requests, "memory").unwrap_or_default().units();
    match u64::try_from(request) {
        Ok(request) if request <= memory && memory > 0 => {
            let part = request as f64 / memory as f64;
            (part * swap.capacity as f64) as u64
        }
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    const MIB: u64 = 1 << 20;
    const SOME: Swap = Swap {
        limited: true,
        counted: true,
        capacity: 1024 * MIB,
    };

    fn pod(resources: Value, beside: Value) -> Pod {
        let mut pod = json!({
            "metadata": {"name": "p"},
            "spec": {"containers": [{"name": "a", "resources": resources}]},
        });
        if let (Value::Object(spec), Value::Object(more)) = (&mut pod["spec"], beside) {
            spec.extend(more);
        }
        serde_json::from_value(pod).unwrap()
    }

    /// memory.swap.max of a pod's only container, of 4 GiB.
    fn max(pod: &Pod, swap: Swap) -> Option<String> {
        let mut limits = LinuxContainerResources::default();
        let container = &pod.spec.as_ref().unwrap().containers[0];
        limit(&mut limits, (pod, container), swap, (true, 4096 * MIB));
        assert_eq!(limits.memory_swap_limit_in_bytes, 0);
        limits.unified.remove("memory.swap.max")
    }

    fn burstable(request: &str) -> Pod {
        pod(json!({"requests": {"memory": request}}), json!({}))
    }

    #[test]
    fn burstable_container_has_the_part_of_swap_that_it_asks_for_of_memory() {
        let of = |request: &str| max(&burstable(request), SOME).unwrap();
        assert_eq!(of("1Gi"), (256 * MIB).to_string());
        assert_eq!(of("100Mi"), (25 * MIB).to_string());
        // More than there is can't be shared.
        assert_eq!(of("5Gi"), "0");
    }

    #[test]
    fn others_have_none() {
        let equal = json!({"requests": {"memory": "1Gi"}, "limits": {"memory": "1Gi"}});
        let cpu = json!({"requests": {"cpu": "1"}});
        let critical = json!({"priority": 2_000_000_000});
        let guaranteed = json!({"requests": {"memory": "1Gi", "cpu": "1"},
            "limits": {"memory": "1Gi", "cpu": "1"}});
        for (resources, beside) in [
            (equal, json!({})),
            (cpu, json!({})),
            (guaranteed, json!({})),
            (json!({}), json!({})),
            (json!({"requests": {"memory": "1Gi"}}), critical),
        ] {
            let pod = pod(resources, beside);
            assert_eq!(max(&pod, SOME).as_deref(), Some("0"), "{pod:?}");
        }
    }

    #[test]
    fn nobody_has_any_unless_it_is_shared() {
        let none = Swap {
            limited: false,
            ..SOME
        };
        assert_eq!(max(&burstable("1Gi"), none).as_deref(), Some("0"));
        // A kernel that does not count has no file for it.
        let uncounted = Swap {
            counted: false,
            ..SOME
        };
        assert_eq!(max(&burstable("1Gi"), uncounted), None);
    }

    #[test]
    fn on_cgroup_v1_memory_and_swap_are_limited_together() {
        let pod = burstable("1Gi");
        let container = &pod.spec.as_ref().unwrap().containers[0];
        let of = |swap| {
            let mut limits = LinuxContainerResources {
                memory_limit_in_bytes: 7,
                ..LinuxContainerResources::default()
            };
            limit(&mut limits, (&pod, container), swap, (false, 4096 * MIB));
            assert!(limits.unified.is_empty());
            limits.memory_swap_limit_in_bytes
        };
        assert_eq!(of(SOME), 7);
        assert_eq!(of(Swap::default()), 0);
    }
}
