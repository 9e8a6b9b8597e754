//! Pods that are bound past the scheduler to a node that does not suit them.

use crate::kit::{FOREVER, Space, phase, pod, same, status, with};
use anyhow::{Context, Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use std::time::Duration;

crate::tests!(
    pod_that_the_node_does_not_suit_fails_and_says_why,
    taint_of_no_execute_keeps_pods_out_that_do_not_tolerate_it: alone,
);

fn bound(t: &Space, name: &str, fields: Value) -> Value {
    let pod = with(pod(name, FOREVER), fields);
    with(pod, json!({ "nodeName": t.node().name }))
}

fn refused(t: &Space, pod: &Value, reason: &str, message: &str) -> Result<()> {
    let name = pod["metadata"]["name"].as_str().unwrap_or_default();
    t.apply(pod)?;
    t.wait(name, "Failed", |p| phase(p) == "Failed")?;
    let seen = t.pod(name)?;
    let said = |field: &str| seen["status"][field].as_str();
    same(said("reason"), Some(reason))?;
    let whole = format!("Pod was rejected: {message}");
    same(said("message"), Some(&whole))?;
    ensure!(status(&seen).is_null(), "it was started: {}", status(&seen));
    t.wait_event(name, &[reason, message])
}

fn pod_that_the_node_does_not_suit_fails_and_says_why(t: &Space) -> Result<()> {
    let term = |name: &str| {
        let here = json!({ "key": "kubernetes.io/hostname", "operator": "In", "values": [name] });
        json!({ "affinity": { "nodeAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": {
                "nodeSelectorTerms": [{ "matchExpressions": [here] }],
            },
        } } })
    };
    t.run(&bound(t, "suits", term(&t.node().name)))?;
    let elsewhere =
        "Predicate NodeAffinity failed: node(s) didn't match Pod's node affinity/selector";
    let other = "Failed to admit pod as the OS field doesn't match node OS";
    for (name, fields, reason, message) in [
        ("affinity", term("nowhere"), "NodeAffinity", elsewhere),
        (
            "selector",
            json!({ "nodeSelector": { "disk": "tape" } }),
            "NodeAffinity",
            elsewhere,
        ),
        (
            "os",
            json!({ "os": { "name": "windows" } }),
            "PodOSNotSupported",
            other,
        ),
    ] {
        refused(t, &bound(t, name, fields), reason, message)?;
    }
    let mut labelled = bound(t, "label", json!({}));
    labelled["metadata"]["labels"] = json!({ "kubernetes.io/os": "windows" });
    let message = "Failed to admit pod as the `kubernetes.io/os` label doesn't match node label";
    refused(t, &labelled, "PodOSSelectorNodeLabelDoesNotMatch", message)
}

fn taint_of_no_execute_keeps_pods_out_that_do_not_tolerate_it(t: &Space) -> Result<()> {
    t.run(&pod("before", FOREVER))?;
    taint(t, "test=t:NoSchedule")?;
    let result = t
        .run(&bound(t, "past-the-scheduler", json!({})))
        .and_then(|()| without_controllers(t, no_execute));
    taint(t, "test:NoSchedule-")?;
    result
}

fn no_execute(t: &Space) -> Result<()> {
    taint(t, "test=t:NoExecute")?;
    // Until the kubelet has seen it.
    std::thread::sleep(Duration::from_secs(1));
    let message =
        "Predicate TaintToleration failed: node(s) had taints that the pod didn't tolerate";
    let tolerates = json!({ "key": "test", "value": "t", "effect": "NoExecute" });
    let result = refused(
        t,
        &bound(t, "refused", json!({})),
        "TaintToleration",
        message,
    )
    .and_then(|()| {
        t.run(&bound(
            t,
            "tolerates",
            json!({ "tolerations": [tolerates] }),
        ))
    })
    // What runs is not the kubelet's to end.
    .and_then(|()| same(phase(&t.pod("before")?), "Running"));
    taint(t, "test:NoExecute-")?;
    result
}

fn taint(t: &Space, taint: &str) -> Result<()> {
    t.kubectl(&["taint", "node", &t.node().name, "--overwrite", taint])
        .map(drop)
}

/// They would delete all that does not tolerate the taint, before the kubelet has said anything.
fn without_controllers(t: &Space, test: impl FnOnce(&Space) -> Result<()>) -> Result<()> {
    let controllers = t
        .cluster()
        .service("control-plane", "kube-controller-manager");
    let controllers = Pid::from_raw(controllers.context("no controller manager")?.pid);
    kill(controllers, Signal::SIGSTOP)?;
    let result = test(t);
    kill(controllers, Signal::SIGCONT)?;
    result
}
