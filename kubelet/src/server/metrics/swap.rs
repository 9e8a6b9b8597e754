//! Swap of containers and pods.
//!
//! kubernetes v1.37 pkg/kubelet/metrics/collectors/resource_metrics.go: told wherever it is
//! counted, nothing used too; the limit where there is one.

use super::text::{Family, containers, ms, value};
use super::usage::Usage;

pub fn swap(usage: &Usage) -> String {
    let mut of_container = Family::new(
        "container_swap_usage_bytes",
        "gauge",
        "[ALPHA] Current amount of the container swap usage in bytes",
    );
    let mut limit = Family::new(
        "container_swap_limit_bytes",
        "gauge",
        "[ALPHA] Current amount of the container swap limit in bytes",
    );
    let mut of_pod = Family::new(
        "pod_swap_usage_bytes",
        "gauge",
        "[ALPHA] Current amount of the pod swap usage in bytes",
    );
    for (pod, container) in containers(usage) {
        let Some(swap) = container.stats.swap else {
            continue;
        };
        let labels = [
            ("container", container.name.as_str()),
            ("namespace", &pod.namespace),
            ("pod", &pod.name),
        ];
        let (used, left) = (
            value(swap.swap_usage_bytes),
            value(swap.swap_available_bytes),
        );
        let at = ms(swap.timestamp);
        if let Some(used) = used {
            of_container.sample(&labels, used as f64, at);
        }
        if let Some(left) = left {
            let most = left.saturating_add(used.unwrap_or_default());
            limit.sample(&labels, most as f64, at);
        }
    }
    for pod in &usage.pods {
        let swap = pod.swap();
        let used = swap.and_then(|s| Some((value(s.swap_usage_bytes)?, ms(s.timestamp))));
        if let Some((used, at)) = used {
            let labels = [("namespace", pod.namespace.as_str()), ("pod", &pod.name)];
            of_pod.sample(&labels, used as f64, at);
        }
    }
    [of_container, limit, of_pod].map(|f| f.text).concat()
}

#[cfg(test)]
mod tests {
    use super::super::usage::{ContainerUsage, PodUsage};
    use super::*;
    use cri_proto::v1;

    fn container(name: &str, swap: Option<(u64, Option<u64>)>) -> ContainerUsage {
        let some = |value| v1::UInt64Value { value };
        let swap = swap.map(|(used, left)| v1::SwapUsage {
            timestamp: 5_000_000_000,
            swap_usage_bytes: Some(some(used)),
            swap_available_bytes: left.map(some),
        });
        ContainerUsage {
            name: name.into(),
            stats: v1::ContainerStats {
                swap,
                ..Default::default()
            },
            ..Default::default()
        }
    }

    fn told(containers: Vec<ContainerUsage>) -> String {
        let pod = PodUsage {
            namespace: "ns".into(),
            name: "p".into(),
            containers,
            ..Default::default()
        };
        let text = swap(&Usage {
            pods: vec![pod],
            error: None,
        });
        let lines = text.lines().filter(|l| !l.starts_with('#'));
        lines.collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn limit_is_what_is_used_and_what_is_left_and_the_pods_is_its_containers() {
        let both = vec![
            container("a", Some((7, Some(3)))),
            container("b", Some((0, None))),
        ];
        let wanted = "\
            container_swap_usage_bytes{container=\"a\",namespace=\"ns\",pod=\"p\"} 7 5000\n\
            container_swap_usage_bytes{container=\"b\",namespace=\"ns\",pod=\"p\"} 0 5000\n\
            container_swap_limit_bytes{container=\"a\",namespace=\"ns\",pod=\"p\"} 10 5000\n\
            pod_swap_usage_bytes{namespace=\"ns\",pod=\"p\"} 7 5000";
        assert_eq!(told(both), wanted);
    }

    #[test]
    fn swap_that_nobody_counts_is_not_told() {
        assert_eq!(told(vec![container("a", None)]), "");
    }
}
