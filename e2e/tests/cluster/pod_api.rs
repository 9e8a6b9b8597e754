//! Younger parts of the Pod API: variables from files, rules of restart, preemption.

use crate::kit::{
    FOREVER, Space, condition, container, phase, pod, same, status, waiting, with, with_main,
};
use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

crate::tests!(
    variable_comes_from_a_file_that_another_container_wrote,
    file_that_says_nothing_of_a_variable_is_told_unless_it_is_optional,
    container_that_asks_for_it_has_the_whole_pod_begin_anew,
    pod_is_ready_to_start_containers_as_long_as_it_has_a_sandbox,
    critical_pod_is_admitted_once_others_have_made_room: alone,
    static_pod_is_admitted_once_others_have_made_room: alone,
);

fn from_file(key: &str, optional: bool) -> Value {
    json!({ "name": "GIVEN", "valueFrom": { "fileKeyRef": {
        "volumeName": "shared", "path": "made/env", "key": key, "optional": optional,
    } } })
}

/// The first container writes a file of variables, the second one is given one of them; it
/// has no look into the volume itself.
fn writer_and_reader(name: &str, variable: Value) -> Value {
    let write =
        "mkdir /shared/made; printf \"# made\\nA='one'\\nB='two\\nlines'\\n\" >/shared/made/env";
    let mut writer = container("writer", write);
    writer["volumeMounts"] = json!([{ "name": "shared", "mountPath": "/shared" }]);
    let reader = format!("echo \"$GIVEN\"; {FOREVER}");
    with_main(
        with(
            pod(name, &reader),
            json!({
                "initContainers": [writer],
                "volumes": [{ "name": "shared", "emptyDir": {} }],
            }),
        ),
        json!({ "env": [variable] }),
    )
}

fn variable_comes_from_a_file_that_another_container_wrote(t: &Space) -> Result<()> {
    t.run(&writer_and_reader("given", from_file("B", false)))?;
    t.wait_log("given", "two\nlines")
}

fn file_that_says_nothing_of_a_variable_is_told_unless_it_is_optional(t: &Space) -> Result<()> {
    t.apply(&writer_and_reader("missing", from_file("C", false)))?;
    t.run(&writer_and_reader("optional", from_file("C", true)))?;
    same(t.logs("optional")?.as_str(), "\n")?;
    t.wait("missing", "CreateContainerConfigError", |p| {
        waiting(p) == "CreateContainerConfigError"
    })?;
    t.wait_event(
        "missing",
        &["Failed", "environment variable key \"C\" not found"],
    )
}

fn container_that_asks_for_it_has_the_whole_pod_begin_anew(t: &Space) -> Result<()> {
    let mounts = json!([{ "name": "d", "mountPath": "/d" }]);
    let mut init = container("init", "echo again >>/d/runs");
    init["volumeMounts"] = mounts.clone();
    let once = format!("test $(wc -l </d/runs) = 2 || exit 42; {FOREVER}");
    let mut asking = container("asking", &once);
    asking["volumeMounts"] = mounts;
    asking["restartPolicy"] = "Never".into();
    asking["restartPolicyRules"] = json!([{
        "action": "RestartAllContainers",
        "exitCodes": { "operator": "In", "values": [42] },
    }]);
    let mut whole = with(
        pod("whole", FOREVER),
        json!({
            "restartPolicy": "Never",
            "initContainers": [init],
            "volumes": [{ "name": "d", "emptyDir": {} }],
        }),
    );
    if let Some(containers) = whole["spec"]["containers"].as_array_mut() {
        containers.push(asking);
    }
    t.apply(&whole)?;
    let counts = |p: &Value| -> Vec<u64> {
        let of = |list: &str| p["status"][list].as_array().cloned().unwrap_or_default();
        let all = [of("initContainerStatuses"), of("containerStatuses")].concat();
        all.iter()
            .filter_map(|c| c["restartCount"].as_u64())
            .collect()
    };
    t.wait("whole", "everything started twice", |p| {
        counts(p) == [1, 1, 1] && condition(p, "Ready") == Some("True")
    })?;
    let seen = t.pod("whole")?;
    same(condition(&seen, "AllContainersRestarting"), Some("False"))?;
    same(phase(&seen), "Running")?;
    same(t.kubectl(&["logs", "whole", "-c", "asking"])?.as_str(), "")
}

const READY_TO_START: &str = "PodReadyToStartContainers";

fn since<'a>(pod: &'a Value, kind: &str) -> &'a str {
    let mut conditions = pod["status"]["conditions"].as_array().into_iter().flatten();
    let found = conditions.find(|c| c["type"] == kind);
    found
        .and_then(|c| c["lastTransitionTime"].as_str())
        .unwrap_or_default()
}

fn pod_is_ready_to_start_containers_as_long_as_it_has_a_sandbox(t: &Space) -> Result<()> {
    // One whose volume is missing has no sandbox; one whose variable is missing has one.
    let volume = json!([{ "name": "v", "configMap": { "name": "late" } }]);
    let mount = json!([{ "name": "v", "mountPath": "/v" }]);
    let no_volume = with(pod("no-volume", FOREVER), json!({ "volumes": volume }));
    t.apply(&with_main(no_volume, json!({ "volumeMounts": mount })))?;
    let key = json!({ "configMapKeyRef": { "name": "late", "key": "k" } });
    let variable = json!({ "env": [{ "name": "V", "valueFrom": key }] });
    t.apply(&with_main(pod("no-variable", FOREVER), variable))?;
    t.wait("no-variable", "CreateContainerConfigError", |p| {
        waiting(p) == "CreateContainerConfigError"
    })?;
    t.wait("no-variable", "a sandbox", |p| {
        condition(p, READY_TO_START) == Some("True")
    })?;
    t.wait_event("no-volume", &["FailedMount"])?;
    let waits = t.pod("no-volume")?;
    same(condition(&waits, READY_TO_START), Some("False"))?;
    // Times are in seconds.
    std::thread::sleep(std::time::Duration::from_secs(1));
    t.kubectl(&["create", "configmap", "late", "--from-literal=k=v"])?;
    // The stock kubelet tries volumes again after up to two minutes.
    t.wait_for("no-volume", "Ready", 150, |p| {
        condition(p, "Ready") == Some("True")
    })?;
    let ready = t.pod("no-volume")?;
    same(condition(&ready, READY_TO_START), Some("True"))?;
    let (before, then) = (since(&waits, READY_TO_START), since(&ready, READY_TO_START));
    ensure!(
        before < then && then <= since(&ready, "Ready"),
        "{}",
        ready["status"]
    );
    let ends = with(pod("ends", "true"), json!({ "restartPolicy": "Never" }));
    t.apply(&ends)?;
    t.wait("ends", "no sandbox any more", |p| {
        phase(p) == "Succeeded" && condition(p, READY_TO_START) == Some("False")
    })
}

/// Of the node's CPUs.
fn allocatable_millis(t: &Space) -> Result<u64> {
    let node = t.kubectl(&["get", "node", &t.node().name, "-o", "json"])?;
    let node: Value = serde_json::from_str(&node)?;
    let cpus = node["status"]["allocatable"]["cpu"].as_str();
    cpus.and_then(|c| match c.strip_suffix('m') {
        Some(millis) => millis.parse::<u64>().ok(),
        None => c.parse::<u64>().ok().map(|n| n * 1000),
    })
    .context("allocatable cpu")
}

fn asks(millis: u64) -> Value {
    json!({ "resources": { "requests": { "cpu": format!("{millis}m") } } })
}

/// One that ended with 0 would count as Succeeded on the stock node.
const HOLD: &str = "while :; do sleep 0.2; done";

fn critical_pod_is_admitted_once_others_have_made_room(t: &Space) -> Result<()> {
    let millis = allocatable_millis(t)?;
    t.run(&with_main(pod("modest", FOREVER), asks(10)))?;
    t.run(&with_main(pod("filler", HOLD), asks(600)))?;
    // Past the scheduler, which would end others itself.
    let bound = |name: &str, millis: u64| {
        let pod = with_main(pod(name, FOREVER), asks(millis));
        with(pod, json!({ "nodeName": t.node().name }))
    };
    t.apply(&bound("ordinary", millis - 500))?;
    t.wait("ordinary", "OutOfcpu", |p| {
        p["status"]["reason"] == "OutOfcpu"
    })?;
    let critical = json!({ "priorityClassName": "system-cluster-critical" });
    t.run(&with(bound("critical", millis - 500), critical.clone()))?;
    let filler = t.pod("filler")?;
    same(phase(&filler), "Failed")?;
    same(filler["status"]["reason"].as_str(), Some("Preempting"))?;
    same(condition(&filler, "DisruptionTarget"), Some("True"))?;
    t.wait_event("filler", &["Preempting", "in order to admit critical pod"])?;
    same(phase(&t.pod("modest")?), "Running")?;
    // Nobody is ended in vain.
    t.apply(&with(bound("impossible", millis + 1), critical))?;
    t.wait("impossible", "Failed", |p| phase(p) == "Failed")?;
    let impossible = t.pod("impossible")?;
    let reason = impossible["status"]["reason"].as_str();
    same(reason, Some("UnexpectedAdmissionError"))?;
    ensure!(status(&impossible).is_null(), "it was started");
    same(phase(&t.pod("modest")?), "Running")
}

fn static_pod_is_admitted_once_others_have_made_room(t: &Space) -> Result<()> {
    let millis = allocatable_millis(t)?;
    t.run(&with_main(pod("modest", FOREVER), asks(10)))?;
    t.run(&with_main(pod("filler", HOLD), asks(600)))?;
    let mut manifest = with_main(pod("still", FOREVER), asks(millis - 500));
    manifest["metadata"]["namespace"] = json!(t.name);
    let path = format!("/etc/kubernetes/manifests/{}.json", t.name);
    t.node().write(&path, &manifest.to_string())?;
    let mirror = format!("still-{}", t.node().name);
    let result = t.wait_ready(&mirror).and_then(|()| {
        let filler = t.pod("filler")?;
        same(phase(&filler), "Failed")?;
        same(filler["status"]["reason"].as_str(), Some("Preempting"))?;
        same(phase(&t.pod("modest")?), "Running")
    });
    std::fs::remove_file(t.node().path(&path))?;
    result.and(t.wait_gone(&mirror))
}
