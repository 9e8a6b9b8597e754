//! Whether the node takes a pod that was bound to it. Pure.
//!
//! The scheduler has asked the same before, but others bind pods too, and two
//! may have been bound at once.

use super::lifecycle::Verdict;
use super::preempt::{self, Missing};
use super::spec::qos::{self, Qos};
use super::spec::quantity::amount;
use super::spec::resources::asked;
use super::spec::sandbox::host_ports;
use super::spec::{host_network, name, namespace, uid};
use super::{Known, NodeFacts, Options};
use crate::eviction::{EVICTED, critical};
use crate::node::selector;
use crate::quantity::Amount;
use crate::source::is_static;
use crate::status::is_over;
use k8s_openapi::api::core::v1::{ContainerPort, Pod, Taint, Toleration};
use std::collections::BTreeMap;

/// The API server says that it is over, or on its way out: no question any more.
#[must_use]
pub fn settled(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|s| s.phase.as_deref());
    matches!(phase, Some("Succeeded" | "Failed")) || pod.metadata.deletion_timestamp.is_some()
}

/// What the node says to a pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// It may run.
    Take,
    /// It may run once these have ended, by uid: it is critical, and they are not.
    After(Vec<String>),
    /// It may not.
    Refuse(Verdict),
}

/// Whether the node takes it.
#[must_use]
pub fn ask(pod: &Pod, others: &[Known], node: &NodeFacts, options: &Options) -> Answer {
    if node.labels.going_down() {
        let message = "Pod was rejected as the node is shutting down.";
        return Answer::Refuse(rejected("NodeShutdown", message.to_owned()));
    }
    let active = active(pod, others);
    let short = lacking(pod, &active, node, options);
    let never = || pressure(pod, &node.labels.pressures()).or_else(|| system(pod));
    if let Some(verdict) = never() {
        return Answer::Refuse(verdict);
    }
    let other = || {
        affinity(pod, &node.labels.labels())
            .or_else(|| ports(pod, &active))
            .or_else(|| tainted(pod, &node.labels.taints()))
            .or_else(|| sysctls(pod, &options.allowed_unsafe_sysctls))
            .or_else(|| features(pod))
    };
    let Some(first) = short.first() else {
        return other().map_or(Answer::Take, Answer::Refuse);
    };
    if !critical(pod) {
        return Answer::Refuse(first.verdict());
    }
    // A critical pod is refused for other reasons only.
    if let Some(verdict) = other() {
        return Answer::Refuse(verdict);
    }
    let missing: Vec<Missing> = short.iter().map(Lack::missing).collect();
    match preempt::victims(pod, &active, &missing) {
        Some(victims) => Answer::After(preempt::uids(&victims)),
        None => Answer::Refuse(rejected(
            "UnexpectedAdmissionError",
            format!(
                "Unexpected error while attempting to recover from admission failure: \
                 preemption: error finding a set of pods to preempt: no set of running pods \
                 found to reclaim resources: [{}]",
                missing
                    .iter()
                    .map(|m| format!("(res: {}, q: {}), ", m.kind, m.amount))
                    .collect::<String>()
            ),
        )),
    }
}

/// A resource of which less is left than a pod asks for.
struct Lack {
    kind: &'static str,
    wanted: i64,
    used: i64,
    capacity: i64,
}

impl Lack {
    fn verdict(&self) -> Verdict {
        let Lack {
            kind,
            wanted,
            used,
            capacity,
        } = self;
        let message = format!(
            "Node didn't have enough resource: {kind}, requested: {wanted}, used: {used}, capacity: {capacity}"
        );
        rejected(&format!("OutOf{kind}"), message)
    }

    fn missing(&self) -> Missing {
        Missing {
            kind: self.kind,
            amount: self.wanted - (self.capacity - self.used),
        }
    }
}

/// Under memory pressure only BestEffort pods are refused, and not those that tolerate it;
/// under any other, all but critical ones.
/// kubernetes v1.37 pkg/kubelet/eviction/eviction_manager.go `Admit`.
fn pressure(pod: &Pod, pressures: &[String]) -> Option<Verdict> {
    if pressures.is_empty() || critical(pod) {
        return None;
    }
    if pressures == ["MemoryPressure"] {
        let mut tolerations = pod.spec.iter().flat_map(|s| s.tolerations.iter().flatten());
        let tolerated = tolerations.any(|t| {
            let key = t.key.as_deref().unwrap_or_default();
            let effect = t.effect.as_deref().unwrap_or_default();
            matches!(effect, "" | "NoSchedule")
                && (key == "node.kubernetes.io/memory-pressure"
                    || (key.is_empty() && t.operator.as_deref() == Some("Exists")))
        });
        if tolerated || qos::of(pod) != Qos::BestEffort {
            return None;
        }
    }
    let message = format!("The node had condition: [{}]. ", pressures.join(", "));
    Some(rejected(EVICTED, message))
}

fn rejected(reason: &str, message: String) -> Verdict {
    Verdict {
        reason: reason.to_owned(),
        message,
        grace: None,
        disrupts: false,
    }
}

/// Why a pod has no room beside the others of its node, whatever it has now.
#[must_use]
pub fn room_beside(pod: &Pod, others: &[Known], node: &NodeFacts) -> Option<Verdict> {
    let short = scarce(pod, &active(pod, others), node);
    short.first().map(Lack::verdict)
}

/// Who has how much of the cpu, for the log of a refusal: the Event has upstream's sentence,
/// which names nobody.
#[must_use]
pub fn holders(pod: &Pod, others: &[Known]) -> String {
    let of = |p: &&Pod| {
        let cpu = p.spec.as_ref().map(|s| asked(s, "cpu").counted("cpu"))?;
        (cpu > 0).then(|| {
            let ends = p.metadata.deletion_timestamp.is_some();
            let ending = if ends { " (terminating)" } else { "" };
            format!("{}/{} {cpu}m{ending}", namespace(p), name(p))
        })
    };
    let found: Vec<String> = active(pod, others).iter().filter_map(of).collect();
    found.join(", ")
}

/// The other pods that are not over, and that their source still has: the scheduler gave away
/// the room of the rest.
fn active<'a>(pod: &Pod, others: &'a [Known]) -> Vec<&'a Pod> {
    let beside = |k: &&Known| uid(&k.pod) != uid(pod) && !is_over(&k.status) && !k.removed;
    others
        .iter()
        .filter(beside)
        .map(|k| k.pod.as_ref())
        .collect()
}

fn lacking(pod: &Pod, active: &[&Pod], node: &NodeFacts, options: &Options) -> Vec<Lack> {
    let count = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
    let mut found = Vec::new();
    if active.len() >= options.max_pods {
        found.push(Lack {
            kind: "pods",
            wanted: 1,
            used: count(active.len()),
            capacity: count(options.max_pods),
        });
    }
    found.extend(scarce(pod, active, node));
    found
}

fn scarce(pod: &Pod, active: &[&Pod], node: &NodeFacts) -> Vec<Lack> {
    let one = |kind: &'static str| {
        let capacity = amount(Some(&node.allocatable), kind)?;
        let of = |p: &Pod| {
            p.spec
                .as_ref()
                .map_or(Amount::default(), |s| asked(s, kind))
        };
        let used = active.iter().fold(Amount::default(), |sum, p| sum + of(p));
        let wanted = of(pod);
        (wanted > Amount::default() && used + wanted > capacity).then(|| Lack {
            kind,
            wanted: wanted.counted(kind),
            used: used.counted(kind),
            capacity: capacity.counted(kind),
        })
    };
    let kinds = ["cpu", "memory", "ephemeral-storage"];
    kinds.into_iter().filter_map(one).collect()
}

fn affinity(pod: &Pod, labels: &BTreeMap<String, String>) -> Option<Verdict> {
    let spec = pod.spec.as_ref()?;
    // While the Node is not known there is nothing to compare with.
    if labels.is_empty() {
        return None;
    }
    let selector = spec.node_selector.as_ref();
    let selected = selector.is_none_or(|s| s.iter().all(|(k, v)| labels.get(k) == Some(v)));
    let affinity = spec
        .affinity
        .as_ref()
        .and_then(|a| a.node_affinity.as_ref());
    let required = affinity.and_then(|a| {
        a.required_during_scheduling_ignored_during_execution
            .as_ref()
    });
    if selected && required.is_none_or(|r| selector::matches(r, labels)) {
        return None;
    }
    let message =
        "Predicate NodeAffinity failed: node(s) didn't match Pod's node affinity/selector";
    Some(rejected("NodeAffinity", message.to_owned()))
}

fn ports(pod: &Pod, active: &[&Pod]) -> Option<Verdict> {
    let wanted = taken(pod);
    let used: Vec<_> = active.iter().flat_map(|p| taken(p)).collect();
    let clash = wanted.iter().any(|w| used.iter().any(|u| conflicts(w, u)));
    clash.then(|| {
        let message = "Predicate NodePorts failed: node(s) didn't have free ports for the requested pod ports";
        rejected("NodePorts", message.to_owned())
    })
}

/// The kubelet minds `NoExecute` alone: the rest is for the scheduler, which others pass by.
/// kubernetes v1.37 pkg/kubelet/lifecycle/predicate.go `generalFilter`.
fn tainted(pod: &Pod, taints: &[Taint]) -> Option<Verdict> {
    if is_static(pod) {
        return None;
    }
    let tolerations: Vec<&Toleration> = pod
        .spec
        .iter()
        .flat_map(|s| s.tolerations.iter().flatten())
        .collect();
    let untolerated = taints
        .iter()
        .filter(|taint| taint.effect == "NoExecute")
        .any(|taint| !tolerations.iter().any(|t| tolerates(t, taint)));
    untolerated.then(|| {
        let message =
            "Predicate TaintToleration failed: node(s) had taints that the pod didn't tolerate";
        rejected("TaintToleration", message.to_owned())
    })
}

fn tolerates(toleration: &Toleration, taint: &Taint) -> bool {
    let all_or = |field: &Option<String>, wanted: &str| {
        field.as_deref().is_none_or(|f| f.is_empty() || f == wanted)
    };
    let value = match toleration.operator.as_deref().unwrap_or_default() {
        "" | "Equal" => {
            toleration.value.as_deref().unwrap_or_default()
                == taint.value.as_deref().unwrap_or_default()
        }
        operator => operator == "Exists",
    };
    value && all_or(&toleration.effect, &taint.effect) && all_or(&toleration.key, &taint.key)
}

/// hostIP, protocol and port of everything a pod takes from the host.
fn taken(pod: &Pod) -> Vec<(String, String, i32)> {
    let of = |p: &ContainerPort| {
        let ip = p.host_ip.clone().filter(|ip| !ip.is_empty() && ip != "::");
        let port = p.host_port.unwrap_or(p.container_port);
        let protocol = p.protocol.clone().unwrap_or_else(|| "TCP".into());
        (ip.unwrap_or_else(|| "0.0.0.0".into()), protocol, port)
    };
    host_ports(pod).into_iter().map(of).collect()
}

fn conflicts(one: &(String, String, i32), other: &(String, String, i32)) -> bool {
    let all = |ip: &str| ip == "0.0.0.0";
    one.1 == other.1 && one.2 == other.2 && (one.0 == other.0 || all(&one.0) || all(&other.0))
}

/// kubernetes v1.37 pkg/kubelet/sysctl/safe_sysctls.go: each has a namespace of
/// its own and harms nobody else on the node.
const SAFE_SYSCTLS: &[&str] = &[
    "kernel.shm_rmid_forced",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.tcp_syncookies",
    "net.ipv4.ping_group_range",
    "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.tcp_keepalive_time",
    "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes",
    "net.ipv4.tcp_rmem",
    "net.ipv4.tcp_wmem",
    "net.ipv4.tcp_slow_start_after_idle",
    "net.ipv4.tcp_notsent_lowat",
];

fn sysctls(pod: &Pod, allowed: &[String]) -> Option<Verdict> {
    let context = pod.spec.as_ref()?.security_context.as_ref()?;
    let permits = |pattern: &String, name: &str| match pattern.strip_suffix('*') {
        Some(start) => name.starts_with(start),
        None => pattern == name,
    };
    let forbidden = context.sysctls.iter().flatten().find(|s| {
        let name = s.name.replace('/', ".");
        let safe = SAFE_SYSCTLS.contains(&name.as_str());
        !safe && !allowed.iter().any(|p| permits(p, &name))
    })?;
    let message = format!("forbidden sysctl: {:?} not allowlisted", forbidden.name);
    Some(rejected("SysctlForbidden", message))
}

fn system(pod: &Pod) -> Option<Verdict> {
    let labels = pod.metadata.labels.as_ref();
    let label = labels.and_then(|l| l.get("kubernetes.io/os"));
    if label.is_some_and(|os| os != "linux") {
        let message =
            "Failed to admit pod as the `kubernetes.io/os` label doesn't match node label";
        let reason = "PodOSSelectorNodeLabelDoesNotMatch";
        return Some(rejected(reason, message.to_owned()));
    }
    let os = pod.spec.as_ref()?.os.as_ref()?;
    (os.name != "linux").then(|| {
        let message = "Failed to admit pod as the OS field doesn't match node OS";
        rejected("PodOSNotSupported", message.to_owned())
    })
}

/// What the scheduler would have sent to another node. Of all that Kubernetes lets a pod ask
/// for, only this is not declared here.
/// kubernetes v1.37 component-helpers/nodedeclaredfeatures.
fn features(pod: &Pod) -> Option<Verdict> {
    let spec = pod.spec.as_ref()?;
    (host_network(pod) && spec.host_users == Some(false)).then(|| {
        let message = "Pod requires node features that are not available: \
                       UserNamespacesHostNetworkSupport";
        rejected("PodFeatureUnsupported", message.to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pod::spec::testing::node;
    use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
    use serde_json::{Value, json};
    use std::sync::Arc;

    fn pod(name: &str, spec: Value) -> Pod {
        serde_json::from_value(json!({"metadata": {"name": name, "uid": name}, "spec": spec}))
            .unwrap_or_default()
    }

    fn known(pod: Pod, phase: &str) -> Known {
        let status = serde_json::from_value(json!({"phase": phase})).unwrap_or_default();
        Known {
            pod: Arc::new(pod),
            status,
            removed: false,
        }
    }

    #[test]
    fn room_of_a_pod_is_free_as_soon_as_its_source_has_it_no_more() {
        let cpu = |amount: &str| json!({"containers": [{"name": "c", "resources": {"requests": {"cpu": amount}}}]});
        let wants = pod("new", cpu("1500m"));
        let mut other = known(pod("old", cpu("1500m")), "Running");
        let mut facts = node();
        facts.allocatable.insert("cpu".into(), Quantity("2".into()));
        assert!(room_beside(&wants, std::slice::from_ref(&other), &facts).is_some());
        other.removed = true;
        assert_eq!(room_beside(&wants, &[other], &facts), None);
    }

    fn port(number: i32, ip: &str) -> Value {
        json!({"containers": [{"name": "c", "ports": [
            {"containerPort": 80, "hostPort": number, "hostIP": ip}
        ]}]})
    }

    fn reason(pod: &Pod, others: &[Known]) -> Option<String> {
        refused(ask(pod, others, &node(), &Options::default()))
    }

    fn refused(answer: Answer) -> Option<String> {
        match answer {
            Answer::Refuse(verdict) => Some(verdict.reason),
            Answer::Take | Answer::After(_) => None,
        }
    }

    #[test]
    fn pod_is_rejected_when_its_host_port_is_taken_by_a_living_pod() {
        let wish = pod("b", port(8080, "127.0.0.1"));
        let node_ports = Some("NodePorts".to_owned());
        assert_eq!(
            reason(&wish, &[known(pod("a", port(8080, "")), "Running")]),
            node_ports
        );
        assert_eq!(
            reason(&wish, &[known(pod("a", port(8080, "")), "Failed")]),
            None
        );
        assert_eq!(
            reason(&wish, &[known(pod("a", port(8080, "10.0.0.1")), "Running")]),
            None
        );
    }

    #[test]
    fn pod_is_rejected_when_it_asks_for_more_than_is_left() {
        let of = |name: &str, cpu: &str| {
            let resources = json!({"requests": {"cpu": cpu}});
            pod(
                name,
                json!({"containers": [{"name": "c", "resources": resources}]}),
            )
        };
        let other = known(of("a", "1500m"), "Running");
        assert_eq!(
            reason(&of("b", "1"), std::slice::from_ref(&other)),
            Some("OutOfcpu".into())
        );
        assert_eq!(reason(&of("b", "500m"), &[other]), None);
    }

    #[test]
    fn pod_is_rejected_when_the_node_is_not_what_it_selects() {
        let selector = |value: &str| {
            pod(
                "b",
                json!({"containers": [], "nodeSelector": {"disk": value}}),
            )
        };
        assert_eq!(reason(&selector("tape"), &[]), Some("NodeAffinity".into()));
        assert_eq!(reason(&selector("ssd"), &[]), None);
    }

    #[test]
    fn taint_of_no_execute_keeps_out_who_does_not_tolerate_it_but_static_pods() {
        let taint = |effect: &str| Taint {
            key: "k".into(),
            value: Some("v".into()),
            effect: effect.into(),
            ..Taint::default()
        };
        let tolerant =
            |toleration: Value| pod("p", json!({"containers": [], "tolerations": [toleration]}));
        let refused =
            |pod: &Pod| tainted(pod, &[taint("NoSchedule"), taint("NoExecute")]).is_some();
        assert!(refused(&pod("p", json!({"containers": []}))));
        assert!(refused(&tolerant(json!({"key": "k"}))));
        assert!(refused(&tolerant(
            json!({"operator": "Exists", "effect": "NoSchedule"})
        )));
        assert!(!refused(&tolerant(json!({"operator": "Exists"}))));
        assert!(!refused(&tolerant(
            json!({"key": "k", "value": "v", "effect": "NoExecute"})
        )));
        assert_eq!(
            tainted(&pod("p", json!({"containers": []})), &[taint("NoSchedule")]),
            None
        );
        let mut fixed = pod("p", json!({"containers": []}));
        let source = (crate::source::CONFIG_SOURCE.to_owned(), "file".to_owned());
        fixed.metadata.annotations = Some(BTreeMap::from([source]));
        assert!(!refused(&fixed));
    }

    #[test]
    fn pod_with_an_unsafe_sysctl_is_rejected_unless_the_node_allows_it() {
        let of = |name: &str| {
            let context = json!({"sysctls": [{"name": name, "value": "1"}]});
            pod("b", json!({"containers": [], "securityContext": context}))
        };
        assert_eq!(reason(&of("kernel.shm_rmid_forced"), &[]), None);
        let unsafe_one = of("kernel.msgmax");
        assert_eq!(reason(&unsafe_one, &[]), Some("SysctlForbidden".into()));
        let options = Options {
            allowed_unsafe_sysctls: vec!["kernel.msg*".into()],
            ..Options::default()
        };
        assert_eq!(ask(&unsafe_one, &[], &node(), &options), Answer::Take);
    }

    #[test]
    fn under_pressure_only_who_can_bear_it_is_taken() {
        let refused = |spec: Value, pressures: &[&str]| {
            let pressures: Vec<String> = pressures.iter().map(|p| (*p).to_owned()).collect();
            pressure(&pod("p", spec), &pressures).is_some()
        };
        let best_effort = || json!({"containers": [{"name": "c"}]});
        let burstable =
            || json!({"containers": [{"name": "c", "resources": {"requests": {"memory": "1Mi"}}}]});
        let mut tolerant = best_effort();
        tolerant["tolerations"] =
            json!([{"key": "node.kubernetes.io/memory-pressure", "operator": "Exists"}]);
        let mut important = best_effort();
        important["priority"] = json!(2_000_001_000);
        assert!(!refused(best_effort(), &[]));
        assert!(refused(best_effort(), &["MemoryPressure"]));
        assert!(!refused(burstable(), &["MemoryPressure"]));
        assert!(!refused(tolerant, &["MemoryPressure"]));
        assert!(refused(burstable(), &["DiskPressure"]));
        assert!(!refused(important, &["DiskPressure", "MemoryPressure"]));
    }

    #[test]
    fn critical_pod_is_taken_after_others_have_made_room_for_it() {
        let of = |name: &str, cpu: &str, priority: i64| {
            let resources = json!({"requests": {"cpu": cpu}});
            pod(
                name,
                json!({"priority": priority, "containers": [{"name": "c", "resources": resources}]}),
            )
        };
        let others = [known(of("a", "1500m", 0), "Running")];
        let ask = |pod| ask(&pod, &others, &node(), &Options::default());
        let important = |cpu| of("b", cpu, 2_000_000_000);
        assert_eq!(ask(important("500m")), Answer::Take);
        assert_eq!(ask(important("1")), Answer::After(vec!["a".into()]));
        assert_eq!(
            refused(ask(important("3"))),
            Some("UnexpectedAdmissionError".into())
        );
    }

    #[test]
    fn static_pod_counts_as_critical_when_room_is_missing() {
        let of = |name: &str, cpu: &str| {
            let resources = json!({"requests": {"cpu": cpu}});
            pod(
                name,
                json!({"containers": [{"name": "c", "resources": resources}]}),
            )
        };
        let others = [known(of("a", "1500m"), "Running")];
        let ask = |cpu: &str| {
            let mut pod = of("b", cpu);
            let source = (crate::source::CONFIG_SOURCE.to_owned(), "file".to_owned());
            pod.metadata.annotations = Some(BTreeMap::from([source]));
            ask(&pod, &others, &node(), &Options::default())
        };
        assert_eq!(ask("500m"), Answer::Take);
        assert_eq!(ask("1"), Answer::After(vec!["a".into()]));
        assert_eq!(refused(ask("3")), Some("UnexpectedAdmissionError".into()));
    }

    #[test]
    fn pod_is_refused_when_it_needs_what_the_node_does_not_declare() {
        let wish = pod(
            "b",
            json!({"containers": [], "hostNetwork": true, "hostUsers": false}),
        );
        assert_eq!(reason(&wish, &[]), Some("PodFeatureUnsupported".into()));
    }
}
