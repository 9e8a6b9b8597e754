//! A pod's way from the API server and back, and the Node.

use crate::kit::{FOREVER, Space, has, phase, pod, restarts, same, status, with};
use anyhow::{Result, ensure};
use e2e::node::Maker;
use serde_json::{Value, json};
use std::cell::Cell;

crate::tests!(
    a_pod_runs_logs_and_goes,
    events_tell_a_pods_start,
    a_failed_container_shows_its_exit_code_and_message,
    a_failed_container_is_restarted_by_policy,
    a_crashing_container_backs_off,
    a_job_completes,
    a_pod_past_its_deadline_fails,
    node_tells_what_it_is,
    node_renews_its_lease,
    a_static_pod_runs_and_shows_in_the_api,
    an_edited_static_pod_has_a_new_mirror_that_never_fails,
    top_shows_usage_of_node_and_pods,
);

fn a_pod_runs_logs_and_goes(t: &Space) -> Result<()> {
    t.run(&pod("b", "echo hello; echo oops >&2; sleep 1000"))?;
    let logs = t.logs("b")?;
    has(&logs, "hello\n")?;
    has(&logs, "oops\n")?;
    let seen = t.pod("b")?;
    ensure!(
        seen["status"]["podIP"]
            .as_str()
            .is_some_and(|ip| ip.starts_with("10.244.")),
        "{seen}"
    );
    has(
        status(&seen)["imageID"].as_str().unwrap_or_default(),
        "sha256:",
    )?;
    has(
        status(&seen)["containerID"].as_str().unwrap_or_default(),
        "://",
    )?;
    t.kubectl(&["delete", "pod", "b", "--wait=false"])?;
    t.wait_gone("b")
}

fn events_tell_a_pods_start(t: &Space) -> Result<()> {
    t.run(&pod("b", FOREVER))?;
    for reason in ["Scheduled", "Pulled", "Created", "Started"] {
        t.wait_event("b", &[reason])?;
    }
    Ok(())
}

fn a_failed_container_shows_its_exit_code_and_message(t: &Space) -> Result<()> {
    let fails = pod("f", "echo -n the-reason > /dev/termination-log; exit 3");
    t.apply(&with(fails, json!({ "restartPolicy": "Never" })))?;
    t.wait("f", "Failed", |p| phase(p) == "Failed")?;
    let seen = t.pod("f")?;
    let ended = &status(&seen)["state"]["terminated"];
    same(ended["exitCode"].as_i64(), Some(3))?;
    same(ended["message"].as_str(), Some("the-reason"))?;
    same(ended["reason"].as_str(), Some("Error"))
}

fn a_failed_container_is_restarted_by_policy(t: &Space) -> Result<()> {
    let script = "[ -e /d/once ] && sleep 1000; touch /d/once; exit 1";
    let mut flaky = pod("f", script);
    flaky = with(
        flaky,
        json!({ "restartPolicy": "OnFailure", "volumes": [{ "name": "d", "emptyDir": {} }] }),
    );
    flaky = crate::kit::with_main(
        flaky,
        json!({ "volumeMounts": [{ "name": "d", "mountPath": "/d" }] }),
    );
    t.apply(&flaky)?;
    t.wait("f", "restarted once", |p| restarts(p) == 1)?;
    t.wait_ready("f")
}

fn a_crashing_container_backs_off(t: &Space) -> Result<()> {
    t.apply(&pod("c", "exit 1"))?;
    let looks = Cell::new(0);
    t.wait_for("c", "CrashLoopBackOff", 60, |p| {
        // The stock kubelet says so only when something has it look at the pod between two tries.
        if t.suite.kind().kubelet() == Maker::Stock && restarts(p) > 0 {
            looks.set(looks.get() + 1);
            let label = format!("look={}", looks.get());
            let _ = t.kubectl(&["label", "pod", "c", "--overwrite", &label]);
        }
        crate::kit::waiting(p) == "CrashLoopBackOff"
    })?;
    t.wait_event("c", &["BackOff", "restarting failed container"])
}

fn a_job_completes(t: &Space) -> Result<()> {
    t.apply(&json!({
        "apiVersion": "batch/v1", "kind": "Job", "metadata": { "name": "j" },
        "spec": { "completions": 3, "parallelism": 3, "template": { "spec": {
            "restartPolicy": "Never", "containers": [crate::kit::container("main", "echo done")],
        }}},
    }))?;
    t.kubectl(&["wait", "job/j", "--for=condition=Complete", "--timeout=60s"])
        .map(drop)
}

fn a_pod_past_its_deadline_fails(t: &Space) -> Result<()> {
    t.apply(&with(
        pod("d", "sleep 1000"),
        json!({ "activeDeadlineSeconds": 2 }),
    ))?;
    t.wait("d", "Failed", |p| phase(p) == "Failed")?;
    same(
        t.pod("d")?["status"]["reason"].as_str(),
        Some("DeadlineExceeded"),
    )
}

fn node_tells_what_it_is(t: &Space) -> Result<()> {
    let name = &t.node().name;
    let node: Value = serde_json::from_str(&t.kubectl(&["get", "node", name, "-o", "json"])?)?;
    let info = &node["status"]["nodeInfo"];
    for field in [
        "kernelVersion",
        "osImage",
        "containerRuntimeVersion",
        "kubeletVersion",
        "machineID",
    ] {
        ensure!(
            info[field].as_str().is_some_and(|v| !v.is_empty()),
            "nodeInfo.{field} is empty"
        );
    }
    has(info["kubeletVersion"].as_str().unwrap_or_default(), "v1.37")?;
    for resource in ["cpu", "memory", "pods", "ephemeral-storage"] {
        ensure!(
            node["status"]["capacity"][resource].is_string(),
            "no capacity.{resource}"
        );
        ensure!(
            node["status"]["allocatable"][resource].is_string(),
            "no allocatable.{resource}"
        );
    }
    let addresses = node["status"]["addresses"].to_string();
    has(&addresses, &t.node().ip)?;
    let images = || t.kubectl(&["get", "node", name, "-o", "jsonpath={.status.images}"]);
    e2e::progress::wait_for(
        "images in the Node",
        std::time::Duration::from_secs(90),
        || {
            std::thread::sleep(std::time::Duration::from_millis(500));
            Ok(images()?.contains("busybox").then_some(()))
        },
    )?;
    let text = t.kubectl(&["describe", "node", name])?;
    for part in [
        "MemoryPressure",
        "DiskPressure",
        "PIDPressure",
        "KubeletReady",
        "Allocated resources",
    ] {
        has(&text, part)?;
    }
    Ok(())
}

fn node_renews_its_lease(t: &Space) -> Result<()> {
    let read = || {
        let path = "jsonpath={.spec.renewTime}";
        t.kubectl(&[
            "-n",
            "kube-node-lease",
            "get",
            "lease",
            &t.node().name,
            "-o",
            path,
        ])
    };
    let limit = std::time::Duration::from_secs(40);
    // A stock kubelet makes it only after its node is Ready.
    let first = e2e::progress::wait_for("the node's lease", limit, || {
        Ok(read().ok().filter(|time| !time.is_empty()))
    })?;
    e2e::progress::wait_for("renewal of the node's lease", limit, || {
        std::thread::sleep(std::time::Duration::from_millis(500));
        Ok((read()? != first).then_some(()))
    })
}

fn a_static_pod_runs_and_shows_in_the_api(t: &Space) -> Result<()> {
    let mut manifest = pod("still", FOREVER);
    manifest["metadata"]["namespace"] = json!(t.name);
    let path = format!("/etc/kubernetes/manifests/{}.json", t.name);
    t.node().write(&path, &manifest.to_string())?;
    let mirror = format!("still-{}", t.node().name);
    t.wait_ready(&mirror)?;
    let seen = t.pod(&mirror)?;
    ensure!(
        seen["metadata"]["annotations"]["kubernetes.io/config.mirror"].is_string(),
        "no mirror mark"
    );
    std::fs::remove_file(t.node().path(&path))?;
    t.wait_gone(&mirror)
}

fn an_edited_static_pod_has_a_new_mirror_that_never_fails(t: &Space) -> Result<()> {
    let path = format!("/etc/kubernetes/manifests/{}.json", t.name);
    let write = |version: &str| {
        // The end of the old version is a failure, which must not show in the new one.
        let script = format!("trap 'exit 3' TERM; echo {version}; while :; do sleep 0.2; done");
        let mut manifest = pod("still", &script);
        manifest["metadata"]["namespace"] = json!(t.name);
        t.node().write(&path, &manifest.to_string())
    };
    let mirror = format!("still-{}", t.node().name);
    write("first")?;
    t.wait_ready(&mirror)?;
    let uid = |p: &Value| p["metadata"]["uid"].as_str().map(str::to_owned);
    let first = uid(&t.pod(&mirror)?);
    let watch = t.background(&[
        "get",
        "pod",
        &mirror,
        "--watch",
        "-o",
        "custom-columns=U:.metadata.uid,P:.status.phase",
        "--no-headers",
    ])?;
    // It has begun: kubectl asks for the pod first, and gives up when there is none.
    watch.wait_text(first.as_deref().unwrap_or("(no uid)"))?;
    write("second")?;
    t.wait(&mirror, "another mirror, Running", |p| {
        uid(p).is_some() && uid(p) != first && phase(p) == "Running"
    })?;
    t.wait_log(&mirror, "second")?;
    // What the old version still had to say would have come by now.
    t.wait_ready(&mirror)?;
    std::thread::sleep(std::time::Duration::from_secs(3));
    let second = uid(&t.pod(&mirror)?).unwrap_or_default();
    let said = watch.text();
    let phases: Vec<&str> = said.lines().filter(|l| l.starts_with(&second)).collect();
    ensure!(!phases.is_empty(), "the watch saw no new mirror: {said:?}");
    let wrong = phases.iter().find(|l| l.contains("Failed"));
    ensure!(wrong.is_none(), "the new mirror failed: {said:?}");
    std::fs::remove_file(t.node().path(&path))?;
    t.wait_gone(&mirror)
}

fn top_shows_usage_of_node_and_pods(t: &Space) -> Result<()> {
    e2e::cluster::addons::apply_file(&t.suite.bed, t.cluster(), "metrics-server.yaml")?;
    t.run(&pod("busy", "while :; do :; done"))?;
    let limit = std::time::Duration::from_secs(100);
    e2e::progress::wait_for("kubectl top", limit, || {
        std::thread::sleep(std::time::Duration::from_secs(1));
        let node = t.output(&["top", "node", "--no-headers"])?;
        let pods = t.output(&["top", "pod", "busy", "--no-headers"])?;
        let text = String::from_utf8_lossy(&pods.stdout).into_owned();
        let cpu = text
            .split_whitespace()
            .nth(1)
            .and_then(|c| c.strip_suffix('m')?.parse::<u64>().ok());
        Ok((node.status.success() && cpu.is_some_and(|c| c > 50)).then_some(()))
    })?;
    t.kubectl(&["delete", "pod", "busy", "--wait=false"])
        .map(drop)
}
