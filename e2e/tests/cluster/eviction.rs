//! A node that is short of something, and pods that take more than their share.

use crate::gc::crictl;
use crate::kit::{
    FOREVER, Space, condition, container, has, phase, pod, same, status, with, with_main,
};
use crate::survival::{agent_lives, kill_agent, start_agent, start_agent_as};
use anyhow::{Result, ensure};
use e2e::node::Maker;
use e2e::progress;
use serde_json::{Value, json};
use std::fs;
use std::time::Duration;

crate::tests!(
    pod_that_exceeds_a_limit_of_local_storage_is_evicted_and_told_which,
    a_node_short_of_memory_evicts_the_least_important_pod_and_refuses_more: alone: our_kubelet,
    soft_threshold_is_pressure_at_once_and_ends_pods_later_with_grace: alone: our_kubelet,
    a_node_short_of_disk_frees_images_then_evicts_and_refuses_pods: alone: our_kubelet,
    a_node_short_of_pids_evicts_and_refuses_pods: alone: our_kubelet,
    a_node_short_of_inodes_evicts_and_refuses_pods: alone,
    images_that_nobody_uses_go_when_the_disk_is_too_full: alone: our_kubelet: our_runtime,
);

pub const CONFIG: &str = "/var/lib/kubelet/config.yaml";
const THRESHOLD: &str = "memory.available: 100Mi";

/// Does not end by itself: a stock kubelet may call what it evicts Succeeded when that ends
/// with 0.
const HOLD: &str = "while :; do sleep 0.2; done";

fn pod_that_exceeds_a_limit_of_local_storage_is_evicted_and_told_which(t: &Space) -> Result<()> {
    let write =
        |file: &str| format!("dd if=/dev/zero of={file} bs=1M count=8 2>/dev/null; sync; {HOLD}");
    let limit = |size: &str| json!({ "resources": { "limits": { "ephemeral-storage": size } } });
    let cache = |source: Value| json!([{ "name": "cache", "emptyDir": source }]);
    let mount = json!({ "volumeMounts": [{ "name": "cache", "mountPath": "/cache" }] });
    // By its volume, which is looked at first.
    let volume = with(
        pod("volume", &write("/cache/a")),
        json!({ "volumes": cache(json!({ "sizeLimit": "2Mi" })) }),
    );
    // By all that it has, though the one container that has a limit writes nothing itself.
    let mut whole = with(pod("whole", HOLD), json!({ "volumes": cache(json!({})) }));
    whole = with_main(whole, limit("3Mi"));
    let mut writer = container("writer", &write("/cache/a"));
    writer["volumeMounts"] = mount["volumeMounts"].clone();
    if let Some(containers) = whole["spec"]["containers"].as_array_mut() {
        containers.push(writer);
    }
    // By a log: the sum of the limits is not reached.
    let chatty = format!("yes 0123456789012345678901234567890123456789 | head -c 8000000; {HOLD}");
    let mut logs = with_main(pod("logs", &chatty), limit("2Mi"));
    let mut modest = container("modest", HOLD);
    modest["resources"] = limit("100Mi")["resources"].clone();
    if let Some(containers) = logs["spec"]["containers"].as_array_mut() {
        containers.push(modest);
    }
    let fine = with_main(pod("fine", &write("/a")), limit("50Mi"));
    for pod in [with_main(volume, mount), whole, logs, fine] {
        t.apply(&pod)?;
    }
    let cases = [
        (
            "volume",
            "Usage of EmptyDir volume \"cache\" exceeds the limit \"2Mi\". ",
        ),
        (
            "whole",
            "Pod ephemeral local storage usage exceeds the total limit of containers 3Mi. ",
        ),
        (
            "logs",
            "Container main exceeded its local ephemeral storage limit \"2Mi\". ",
        ),
    ];
    for (name, message) in cases {
        // The stock kubelet counts a volume's files once a minute.
        t.wait_for(name, "Failed", 150, |p| phase(p) == "Failed")?;
        let pod = t.pod(name)?;
        same(pod["status"]["reason"].as_str(), Some("Evicted"))?;
        same(pod["status"]["message"].as_str(), Some(message))?;
        same(condition(&pod, "DisruptionTarget"), None)?;
        t.wait_event(name, &["Evicted", message.trim()])?;
    }
    same(phase(&t.pod("fine")?), "Running")
}

fn a_node_short_of_memory_evicts_the_least_important_pod_and_refuses_more(t: &Space) -> Result<()> {
    // Asks for more than it uses, so that it is not the first to go.
    let asks = json!({ "requests": { "memory": "64Mi" } });
    t.run(&with_main(
        pod("modest", FOREVER),
        json!({ "resources": asks }),
    ))?;
    t.run(&pod("greedy", FOREVER))?;
    let before = fs::read_to_string(t.node().path(CONFIG))?;
    ensure!(before.contains(THRESHOLD), "no {THRESHOLD} in {before}");
    let result = short_of_memory(t, &before);
    // What others need, whatever has happened; then what went wrong first.
    let restored = restart_with(t, &before).and_then(|()| node_says(t, "MemoryPressure", "False"));
    result.and(restored)
}

fn short_of_memory(t: &Space, config: &str) -> Result<()> {
    restart_with(t, &config.replace(THRESHOLD, "memory.available: 99.9%"))?;
    t.wait("greedy", "Failed", |p| phase(p) == "Failed")?;
    let greedy = t.pod("greedy")?;
    same(greedy["status"]["reason"].as_str(), Some("Evicted"))?;
    same(condition(&greedy, "DisruptionTarget"), Some("True"))?;
    let said = greedy["status"]["message"].as_str().unwrap_or_default();
    ensure!(
        said.starts_with("The node was low on resource: memory."),
        "{said}"
    );
    t.wait_event("greedy", &["Evicted", "low on resource: memory"])?;
    node_says(t, "MemoryPressure", "True")?;
    // Past the scheduler, which would not send it here.
    let late = with(pod("late", FOREVER), json!({ "nodeName": t.node().name }));
    t.apply(&late)?;
    t.wait("late", "Failed", |p| phase(p) == "Failed")?;
    let late = t.pod("late")?;
    same(late["status"]["reason"].as_str(), Some("Evicted"))?;
    let said = late["status"]["message"].as_str().unwrap_or_default();
    ensure!(said.contains("MemoryPressure"), "{said}");
    Ok(())
}

fn soft_threshold_is_pressure_at_once_and_ends_pods_later_with_grace(t: &Space) -> Result<()> {
    // Takes longer to end than a hard threshold would let it, and less than a soft one does.
    let slow =
        "trap 'sleep 3; echo tidy >/dev/termination-log; exit 0' TERM; while :; do sleep 0.2; done";
    t.run(&with(
        pod("slow", slow),
        json!({ "terminationGracePeriodSeconds": 60 }),
    ))?;
    let before = fs::read_to_string(t.node().path(CONFIG))?;
    let result = short_for_a_while(t, &before);
    let restored = restart_with(t, &before).and_then(|()| node_says(t, "MemoryPressure", "False"));
    result.and(restored)
}

fn short_for_a_while(t: &Space, config: &str) -> Result<()> {
    let soft = "evictionSoft: {memory.available: 99.9%}\n\
                evictionSoftGracePeriod: {memory.available: 12s}\n\
                evictionMaxPodGracePeriod: 20\n";
    restart_with(t, &set(config, soft))?;
    node_says(t, "MemoryPressure", "True")?;
    same(phase(&t.pod("slow")?), "Running")?;
    t.wait("slow", "Failed", |p| phase(p) == "Failed")?;
    let slow = t.pod("slow")?;
    same(slow["status"]["reason"].as_str(), Some("Evicted"))?;
    same(condition(&slow, "DisruptionTarget"), Some("True"))?;
    let said = &status(&slow)["state"]["terminated"]["message"];
    same(said.as_str(), Some("tidy\n"))
}

/// What a node is short of, and how it says so. Not for the stock kubelet: one that is restarted under
/// pressure admits what runs anew, and so refuses the pod instead of evicting it.
struct Shortage {
    /// Of the configuration: more than is ever free. (100% means nothing to the stock kubelet, and what
    /// is more than the disk keeps a kubelet from starting.)
    threshold: &'static str,
    condition: &'static str,
    resource: &'static str,
}

fn a_node_short_of_disk_frees_images_then_evicts_and_refuses_pods(t: &Space) -> Result<()> {
    crictl(t, &["pull", UNUSED])?;
    let there = |t: &Space| Ok::<_, anyhow::Error>(crictl(t, &["images"])?.contains("nginx"));
    ensure!(there(t)?, "{UNUSED} is not there after a pull");
    let disk = Shortage {
        threshold: "nodefs.available: 99.9%",
        condition: "DiskPressure",
        resource: "ephemeral-storage",
    };
    t.run(&pod(
        "greedy",
        &format!("dd if=/dev/zero of=/f bs=1M count=8; {HOLD}"),
    ))?;
    while_short(t, &disk, || gone(t, &there))
}

fn a_node_short_of_pids_evicts_and_refuses_pods(t: &Space) -> Result<()> {
    let pids = Shortage {
        threshold: "pid.available: 100M",
        condition: "PIDPressure",
        resource: "pids",
    };
    t.run(&pod(
        "greedy",
        &format!("for i in 1 2 3 4 5 6; do sleep 1000 & done; {HOLD}"),
    ))?;
    while_short(t, &pids, || Ok(()))
}

/// The kubelet's folder is on a file system of its own that has few inodes.
fn a_node_short_of_inodes_evicts_and_refuses_pods(t: &Space) -> Result<()> {
    if t.suite.kind().kubelet() == Maker::Lighter {
        t.node().link("lighter", "kubelet")?;
    }
    let before = fs::read_to_string(t.node().path(CONFIG))?;
    let config = format!("/etc/kubernetes/{}.yaml", t.name);
    let hard = "evictionHard: {nodefs.inodesFree: 70%}\nvolumeStatsAggPeriod: 5s\n";
    t.node()
        .write(&config, &set(&without_thresholds(&before), hard))?;
    let disk = FewInodes::mount(t)?;
    let mut flags = crate::kubelet_flags::flags(t);
    flags.retain(|f| !f.starts_with("--config="));
    flags.extend([
        format!("--config={config}"),
        format!("--root-dir={}", disk.dir),
        "--cert-dir=/var/lib/kubelet/pki".to_owned(),
    ]);
    kill_agent(t)?;
    let result = start_agent_as(t, "kubelet", &flags).and_then(|()| short_of_inodes(t));
    if result.is_err() {
        println!("    {}", t.node().last_words("kubelet"));
    }
    restart_with(t, &before)?;
    result.and(node_says(t, "DiskPressure", "False"))
}

const INODES: usize = 1000;

fn short_of_inodes(t: &Space) -> Result<()> {
    let inodes = Shortage {
        threshold: "",
        condition: "DiskPressure",
        resource: "inodes",
    };
    node_says(t, "DiskPressure", "False")?;
    t.run(&pod("modest", FOREVER))?;
    // Files that are empty: of space there is enough.
    let fill =
        format!("until [ -e /go ]; do sleep 0.2; done; cd /cache; touch $(seq {INODES}); {HOLD}");
    let cache = json!({ "volumes": [{ "name": "cache", "emptyDir": {} }] });
    let mount = json!({ "volumeMounts": [{ "name": "cache", "mountPath": "/cache" }] });
    t.run(&with_main(with(pod("greedy", &fill), cache), mount))?;
    t.sh("greedy", "touch /go")?;
    evicts_and_refuses(t, &inodes)?;
    same(phase(&t.pod("modest")?), "Running")
}

/// An ext4 of `2 * INODES` on a loop device, on the node.
struct FewInodes<'a> {
    t: &'a Space<'a>,
    dir: String,
}

impl<'a> FewInodes<'a> {
    fn mount(t: &'a Space<'a>) -> Result<FewInodes<'a>> {
        let dir = format!("/var/lib/{}-few", t.name);
        let script = format!(
            "mkdir {dir} && truncate -s 64M {dir}.img && mkfs.ext4 -q -N {} {dir}.img && \
             mount -o loop {dir}.img {dir}",
            2 * INODES
        );
        let disk = FewInodes { t, dir };
        t.node().run("sh", &["-c", &script])?;
        Ok(disk)
    }
}

impl Drop for FewInodes<'_> {
    fn drop(&mut self) {
        let dir = &self.dir;
        let script = format!("umount -R {dir}; rmdir {dir}; rm -f {dir}.img");
        if let Err(error) = self.t.node().run("sh", &["-c", &script]) {
            println!("    {error:#}");
        }
    }
}

fn while_short(t: &Space, of: &Shortage, then: impl FnOnce() -> Result<()>) -> Result<()> {
    let before = fs::read_to_string(t.node().path(CONFIG))?;
    let hard = format!(
        "evictionHard: {{{}}}\nimageMinimumGCAge: 1s\n",
        of.threshold
    );
    let result = restart_with(t, &set(&without_thresholds(&before), &hard))
        .and_then(|()| evicts_and_refuses(t, of))
        .and_then(|()| then());
    let restored = restart_with(t, &before).and_then(|()| node_says(t, of.condition, "False"));
    result.and(restored)
}

/// `evictionHard` may be written line by line.
fn without_thresholds(config: &str) -> String {
    let threshold = |line: &&str| {
        !line.starts_with("  ") || !line.contains(".available:") && !line.contains(".inodesFree:")
    };
    config
        .lines()
        .filter(threshold)
        .map(|l| format!("{l}\n"))
        .collect()
}

fn evicts_and_refuses(t: &Space, of: &Shortage) -> Result<()> {
    node_says(t, of.condition, "True")?;
    t.wait("greedy", "Failed", |p| phase(p) == "Failed")?;
    let greedy = t.pod("greedy")?;
    same(greedy["status"]["reason"].as_str(), Some("Evicted"))?;
    same(condition(&greedy, "DisruptionTarget"), Some("True"))?;
    let low = format!("The node was low on resource: {}.", of.resource);
    let said = greedy["status"]["message"].as_str().unwrap_or_default();
    ensure!(said.starts_with(&low), "{said}");
    // Past the scheduler, which would not send it here.
    t.apply(&with(
        pod("late", FOREVER),
        json!({ "nodeName": t.node().name }),
    ))?;
    t.wait("late", "Failed", |p| phase(p) == "Failed")?;
    let late = t.pod("late")?;
    same(late["status"]["reason"].as_str(), Some("Evicted"))?;
    let said = late["status"]["message"].as_str().unwrap_or_default();
    has(said, of.condition)
}

fn images_that_nobody_uses_go_when_the_disk_is_too_full(t: &Space) -> Result<()> {
    let before = fs::read_to_string(t.node().path(CONFIG))?;
    let result = full_disk(t, &before);
    result.and(restart_with(t, &before))
}

/// An image that only this test uses, since others may run again on this cluster.
const UNUSED: &str = "docker.io/library/nginx:1.26";

fn full_disk(t: &Space, config: &str) -> Result<()> {
    let pull = |t: &Space| t.node().run("lighter", &["image", "pull", UNUSED]);
    let there = |t: &Space| {
        Ok::<_, anyhow::Error>(t.node().run("lighter", &["image", "ls"])?.contains("nginx"))
    };
    pull(t)?;
    ensure!(there(t)?, "{UNUSED} is not there after a pull");
    t.run(&pod("user", FOREVER))?;
    restart_with(
        t,
        &set(
            config,
            "imageGCHighThresholdPercent: 1\nimageGCLowThresholdPercent: 0\nimageMinimumGCAge: 3s\n",
        ),
    )?;
    gone(t, &there)?;
    let told = || node_events(t);
    progress::wait_for("FreeDiskSpaceFailed", Duration::from_secs(30), || {
        Ok(told()?
            .contains("Insufficient free disk space on the node's image filesystem")
            .then_some(()))
    })?;
    // What runs keeps its image, and so the next pod needs no registry.
    let again = with_main(pod("again", FOREVER), json!({ "imagePullPolicy": "Never" }));
    t.run(&again)?;
    restart_with(
        t,
        &set(config, "imageMinimumGCAge: 1s\nimageMaximumGCAge: 4s\n"),
    )?;
    progress::wait_for("the agent's socket", Duration::from_secs(30), || {
        Ok(pull(t).ok())
    })?;
    gone(t, &there)
}

fn gone(t: &Space, there: &impl Fn(&Space) -> Result<bool>) -> Result<()> {
    progress::wait_for("end of the unused image", Duration::from_secs(30), || {
        std::thread::sleep(Duration::from_millis(300));
        Ok(there(t).is_ok_and(|there| !there).then_some(()))
    })
}

fn node_events(t: &Space) -> Result<String> {
    let field = format!("involvedObject.name={}", t.node().name);
    t.cluster().kubectl(&[
        "get",
        "events",
        "-A",
        "--field-selector",
        &field,
        "-o",
        "jsonpath={.items[*].message}",
    ])
}

/// `config` with fields that it may have already.
pub fn set(config: &str, fields: &str) -> String {
    let names: Vec<&str> = fields.lines().filter_map(|l| l.split(':').next()).collect();
    let kept = config
        .lines()
        .filter(|l| !names.contains(&l.split(':').next().unwrap_or_default()));
    kept.chain(fields.lines())
        .map(|l| format!("{l}\n"))
        .collect()
}

pub fn restart_with(t: &Space, config: &str) -> Result<()> {
    if agent_lives(t)? {
        kill_agent(t)?;
    }
    t.node().write(CONFIG, config)?;
    start_agent(t)
}

fn node_says(t: &Space, kind: &str, wanted: &str) -> Result<()> {
    let limit = Duration::from_secs(60);
    progress::wait_for(&format!("{kind} {wanted}"), limit, || {
        std::thread::sleep(Duration::from_millis(200));
        let node = t.kubectl(&["get", "node", &t.node().name, "-o", "json"]);
        let node: Value = serde_json::from_str(&node.unwrap_or_default()).unwrap_or_default();
        Ok((condition(&node, kind) == Some(wanted)).then_some(()))
    })
}
