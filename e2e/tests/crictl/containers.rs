//! create, start, run, ps, inspect, update, checkpoint, stop, rm.

use crate::cases;
use crate::kit::{BUSYBOX, Kit, ids};
use anyhow::{Context, Result, ensure};
use serde_json::json;

cases![
    create_start_stop_and_rm_go_through_every_state,
    run_makes_a_pod_and_a_container,
    ps_is_filtered,
    inspect_shows_what_was_asked_for,
    stop_sends_the_signal_and_keeps_the_grace,
    update_changes_limits,
    cdi_devices_are_given,
    checkpoint_is_refused_in_a_sentence,
];

fn create_start_stop_and_rm_go_through_every_state(kit: &Kit) -> Result<()> {
    let pod = kit.pod()?;
    let id = pod.create(&["sleep", "600"], json!({}))?;
    let state = || -> Result<String> {
        let all = kit.json(&["inspect", &id])?;
        Ok(all["status"]["state"]
            .as_str()
            .unwrap_or_default()
            .to_owned())
    };
    ensure!(state()? == "CONTAINER_CREATED");
    kit.ok(&["start", &id])?;
    ensure!(state()? == "CONTAINER_RUNNING");
    let said = kit.fails(&["rm", &id])?;
    ensure!(said.contains("running"), "{said}");
    kit.ok(&["stop", "--timeout=1", &id])?;
    ensure!(state()? == "CONTAINER_EXITED");
    kit.fails(&["start", &id])?;
    kit.ok(&["rm", &id])?;
    kit.fails(&["inspect", &id])?;
    let second = pod.start(&["sleep", "600"])?;
    kit.ok(&["rm", "--force", &second])?;
    kit.fails(&["inspect", &second])?;
    Ok(())
}

fn run_makes_a_pod_and_a_container(kit: &Kit) -> Result<()> {
    let (pod, name) = kit.pod_config(json!({}))?;
    let container = kit.container_config(&["sleep", "600"], json!({}))?;
    let id = kit.word(&["run", &container, &pod])?;
    let all = kit.json(&["inspect", &id])?;
    let found = kit.word(&["pods", "--quiet", "--no-trunc", "--name", &name])?;
    let running = all["status"]["state"] == "CONTAINER_RUNNING";
    kit.ok(&["rmp", "--force", &found])?;
    ensure!(running, "{all}");
    Ok(())
}

fn ps_is_filtered(kit: &Kit) -> Result<()> {
    let pod = kit.pod()?;
    let labels = json!({"labels": {"crictl-case": "ps"}});
    let running = pod.start_with(&["sleep", "600"], labels)?;
    let ended = pod.start(&["true"])?;
    pod.wait_exited(&ended)?;
    let list = |args: &[&str]| -> Result<String> {
        let own = ["ps", "--quiet", "--no-trunc", "--pod", &pod.id];
        kit.ok(&[&own[..], args].concat())
    };
    ensure!(ids(&list(&[])?) == [&*running], "running only, by default");
    ensure!(ids(&list(&["--state", "exited"])?) == [&*ended]);
    ensure!(ids(&list(&["--label", "crictl-case=ps"])?) == [&*running]);
    ensure!(ids(&list(&["--id", &running[..13]])?) == [&*running]);
    ensure!(ids(&list(&["--image", BUSYBOX])?) == [&*running]);
    let all = list(&["--all"])?;
    ensure!(ids(&all) == [&*ended, &*running], "the newest first: {all}");
    let latest = list(&["--all", "--latest"])?;
    ensure!(ids(&latest) == [&*ended], "{latest}");
    let table = kit.ok(&["ps", "--pod", &pod.id])?;
    ensure!(
        table.contains("Running") && table.contains(&pod.id[..13]),
        "{table}"
    );
    Ok(())
}

fn inspect_shows_what_was_asked_for(kit: &Kit) -> Result<()> {
    let pod = kit.pod()?;
    let more = json!({
        "labels": {"a": "b"}, "annotations": {"c": "d"},
        "mounts": [{"host_path": "/tmp", "container_path": "/host-tmp", "readonly": true}],
    });
    let id = pod.start_with(&["sh", "-c", "exit 7"], more)?;
    let all = pod.wait_exited(&id)?;
    let status = &all["status"];
    ensure!(
        status["exitCode"] == 7 && status["reason"] == "Error",
        "{status}"
    );
    ensure!(
        status["labels"]["a"] == "b" && status["annotations"]["c"] == "d",
        "{status}"
    );
    ensure!(
        status["mounts"][0]["containerPath"] == "/host-tmp",
        "{status}"
    );
    ensure!(status["mounts"][0]["readonly"] == true, "{status}");
    ensure!(
        status["image"]["image"].is_string() && status["imageRef"].is_string(),
        "{status}"
    );
    let path = status["logPath"].as_str().context("no logPath")?;
    ensure!(
        path.starts_with(&format!("/var/log/pods/{}/", pod.name)),
        "{path}"
    );
    ensure!(all["info"].is_object(), "no info");
    Ok(())
}

fn stop_sends_the_signal_and_keeps_the_grace(kit: &Kit) -> Result<()> {
    let pod = kit.pod()?;
    let polite = "trap 'exit 42' TERM; while :; do sleep 0.1; done";
    let polite = pod.start(&["sh", "-c", polite])?;
    kit.ok(&["exec", &polite, "true"])?;
    kit.ok(&["stop", "--timeout=10", &polite])?;
    let all = kit.json(&["inspect", &polite])?;
    ensure!(all["status"]["exitCode"] == 42, "{}", all["status"]);
    // pid 1 without a handler ignores TERM: after the grace it is killed.
    let deaf = pod.start(&["sh", "-c", "trap '' TERM; while :; do sleep 0.1; done"])?;
    kit.ok(&["exec", &deaf, "true"])?;
    kit.ok(&["stop", "--timeout=1", &deaf])?;
    let all = kit.json(&["inspect", &deaf])?;
    ensure!(all["status"]["exitCode"] == 137, "{}", all["status"]);
    Ok(())
}

fn update_changes_limits(kit: &Kit) -> Result<()> {
    let pod = kit.pod()?;
    let limits = json!({"linux": {"resources": {
        "memory_limit_in_bytes": 33_554_432, "cpu_shares": 128, "cpu_quota": 20_000,
        "cpu_period": 100_000}}});
    let id = pod.start_with(&["sleep", "600"], limits)?;
    let flags = ["--memory=67108864", "--cpu-share=512", "--cpu-quota=50000"];
    kit.ok(&[&["update"], &flags[..], &[&id]].concat())?;
    let all = kit.json(&["inspect", &id])?;
    let linux = &all["status"]["resources"]["linux"];
    ensure!(linux["memoryLimitInBytes"] == "67108864", "{linux}");
    ensure!(
        linux["cpuShares"] == "512" && linux["cpuQuota"] == "50000",
        "{linux}"
    );
    // v1 and v2 name the same file differently.
    let read = "cat /sys/fs/cgroup/memory.max 2>/dev/null \
                || cat /sys/fs/cgroup/memory/memory.limit_in_bytes";
    let inside = kit.ok(&["exec", &id, "sh", "-c", read])?;
    ensure!(inside.trim() == "67108864", "memory limit inside: {inside}");
    Ok(())
}

fn cdi_devices_are_given(kit: &Kit) -> Result<()> {
    let vendor = json!({
        "cdiVersion": "0.6.0", "kind": "bed.test/thing",
        "containerEdits": {"env": ["CDI=given"]},
        "devices": [{"name": "one", "containerEdits": {
            "deviceNodes": [
                {"path": "/dev/cdi-zero", "hostPath": "/dev/zero"},
                {"path": "/dev/cdi-loop", "hostPath": "/dev/loop-control", "permissions": "r"}],
            "mounts": [{"hostPath": "/etc/cdi", "containerPath": "/cdi", "options": ["rbind", "ro"]}],
        }}],
    });
    let machine = &kit.stand.machine;
    machine.write("/etc/cdi/bed.json", &vendor.to_string())?;
    let pod = kit.pod()?;
    let asked = |name: &str| json!({"CDI_devices": [{"name": name}]});
    let id = pod.start_with(&["sleep", "600"], asked("bed.test/thing=one"))?;
    let look = "echo $CDI; head -c 3 /dev/cdi-zero | wc -c; ls /cdi; touch /cdi/x 2>&1 || true; \
                : < /dev/cdi-loop && echo opened && : > /dev/cdi-loop";
    let out = kit.output(&["exec", &id, "sh", "-c", look])?;
    let said = String::from_utf8_lossy(&out.stdout);
    ensure!(said.starts_with("given\n3\nbed.json\n"), "{said}");
    ensure!(said.contains("Read-only file system"), "{said}");
    ensure!(said.ends_with("opened\n"), "{said}");
    ensure!(!out.status.success(), "the device could be written");
    let config = kit.container_config(&["true"], asked("bed.test/thing=two"))?;
    let said = kit.fails(&["create", &pod.id, &config, &pod.config])?;
    ensure!(said.contains("bed.test/thing=two"), "{said}");
    Ok(())
}

fn checkpoint_is_refused_in_a_sentence(kit: &Kit) -> Result<()> {
    let pod = kit.pod()?;
    let id = pod.start(&["sleep", "600"])?;
    let said = kit.fails(&["checkpoint", "--export=/tmp/checkpoint.tar", &id])?;
    if kit.is_lighter() {
        ensure!(said.contains("Unimplemented"), "{said}");
        ensure!(said.to_lowercase().contains("checkpoint"), "{said}");
    }
    let all = kit.json(&["inspect", &id])?;
    ensure!(all["status"]["state"] == "CONTAINER_RUNNING", "{all}");
    Ok(())
}
