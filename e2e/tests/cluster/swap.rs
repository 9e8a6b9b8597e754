//! `memorySwap.swapBehavior: LimitedSwap`. On cgroup v2 alone is there any swap for pods, so on v1
//! the kubelet does not start; `make vm` has v2 (`MACHINES=cluster-6.12 VM_FILTER=swap_is`).

use crate::kit::{Space, pod, same, with_main};
use crate::managers::{Settings, with_settings};
use crate::node_limits::{becomes, refused};
use anyhow::{Context as _, Result, ensure};
use e2e::{cgroup, command, progress};
use serde_json::{Value, json};
use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

crate::tests!(
    swap_is_shared_by_what_burstable_containers_ask_for: alone,
);

const LIMITED: &str = "memorySwap: {swapBehavior: LimitedSwap}\n";
/// Bytes; what the kernel counts in pages.
const SWAP: u64 = 256 << 20;
const PAGE: u64 = 4096;

fn swap_is_shared_by_what_burstable_containers_ask_for(t: &Space) -> Result<()> {
    if !cgroup::unified() {
        let why = ["needs cgroup v2", "only supported with cgroupv2"];
        return with_settings(t, |t, settings| refused(t, settings, LIMITED, why));
    }
    let file = t.node().path("/var/lib/swap-of-a-test");
    let result = swap_on(&file).and_then(|()| with_settings(t, shared));
    let off = command::run(Command::new("swapoff").arg(&file)).map(drop);
    result
        .and(off)
        .and(fs::remove_file(&file).map_err(Into::into))
}

fn swap_on(file: &PathBuf) -> Result<()> {
    let zeros = vec![0; 1 << 20];
    let mut made = fs::File::create(file)?;
    for _ in 0..SWAP >> 20 {
        std::io::Write::write_all(&mut made, &zeros)?;
    }
    made.sync_all()?;
    command::run(Command::new("chmod").arg("600").arg(file))?;
    command::run(Command::new("mkswap").arg(file))?;
    command::run(Command::new("swapon").arg(file)).map(drop)
}

fn shared(t: &Space, settings: &Settings) -> Result<()> {
    settings.add(LIMITED)?;
    let (memory, swap) = (meminfo("MemTotal")?, meminfo("SwapTotal")?);
    let node = || -> Result<u64> {
        let node = t.kubectl(&["get", "node", &t.node().name, "-o", "json"])?;
        let node: Value = serde_json::from_str(&node)?;
        let capacity = node["status"]["nodeInfo"]["swap"]["capacity"].as_u64();
        capacity.context("the Node tells of no swap")
    };
    becomes("swap of the Node", swap, node)?;
    let asks = 256 << 20;
    let asked = json!({ "requests": { "memory": "256Mi" } });
    let equal = json!({ "requests": { "memory": "256Mi" }, "limits": { "memory": "256Mi" } });
    for (name, resources) in [("part", asked), ("equal", equal), ("none", json!({}))] {
        // Memory that is nobody's file, held by one who waits: swap is its only way out.
        let fills = "dd if=/dev/zero bs=24M count=1 | sleep 1000000";
        let resources = json!({ "resources": resources });
        t.run(&with_main(pod(name, fills), resources))?;
        progress::wait_for("memory in use", Duration::from_secs(60), || {
            std::thread::sleep(Duration::from_millis(300));
            let used = number(&cgroup_of(t, name)?.join("memory.current"))?;
            Ok((used >= 24 << 20).then_some(()))
        })?;
    }
    let part = (asks as f64 / memory as f64 * swap as f64) as u64 / PAGE * PAGE;
    let max = |pod: &str| number(&cgroup_of(t, pod)?.join("memory.swap.max"));
    same([max("part")?, max("equal")?, max("none")?], [part, 0, 0])?;
    for pod in ["part", "equal", "none"] {
        // More than can be had: the kernel says so after it has done what it can.
        let _ = fs::write(cgroup_of(t, pod)?.join("memory.reclaim"), "20M");
    }
    let used = |pod: &str| number(&cgroup_of(t, pod)?.join("memory.swap.current"));
    let (part_used, others) = (used("part")?, [used("equal")?, used("none")?]);
    ensure!(
        (1..=part).contains(&part_used) && others == [0, 0],
        "swapped: {part_used} of {part}, and {others:?} of 0"
    );
    told(t, part)?;
    counted(t, part, memory)
}

/// The summary tells what is used and what is left.
fn told(t: &Space, part: u64) -> Result<()> {
    let url = format!("/api/v1/nodes/{}/proxy/stats/summary", t.node().name);
    progress::wait_for("swap in the summary", Duration::from_secs(60), || {
        std::thread::sleep(Duration::from_millis(500));
        let summary: Value = serde_json::from_str(&t.kubectl(&["get", "--raw", &url])?)?;
        let mut pods = summary["pods"].as_array().into_iter().flatten();
        let pod = pods.find(|p| p["podRef"]["name"] == "part");
        let swap = pod.map(|p| &p["containers"][0]["swap"]);
        let of = |field: &str| swap.and_then(|s| s[field].as_u64());
        let (used, left) = (of("swapUsageBytes"), of("swapAvailableBytes"));
        let both = used.zip(left).filter(|(used, _)| *used > 0);
        Ok(both.filter(|(used, left)| used + left == part).map(drop))
    })
}

/// So do the metrics: what is used, and what may be.
fn counted(t: &Space, part: u64, machine: u64) -> Result<()> {
    let url = format!("/api/v1/nodes/{}/proxy/metrics/resource", t.node().name);
    let told = t.kubectl(&["get", "--raw", &url])?;
    let of = |name: &str, container: &str, pod: &str| {
        let labels = format!("{container}namespace=\"{}\",pod=\"{pod}\"", t.name);
        let line = told
            .lines()
            .find_map(|l| l.strip_prefix(&format!("{name}{{{labels}}} ")));
        let value = line.and_then(|l| l.split(' ').next()?.parse::<f64>().ok());
        value.with_context(|| format!("no {name} of {pod}: {told}"))
    };
    let main = "container=\"main\",";
    let limits = ["part", "equal", "none"].map(|pod| of("container_swap_limit_bytes", main, pod));
    let [one, two, three] = limits;
    same([one?, two?, three?], [part as f64, 0.0, 0.0])?;
    let used = of("container_swap_usage_bytes", main, "part")?;
    ensure!(
        used > 0.0 && used <= part as f64,
        "{used} of {part} are used"
    );
    same(of("container_swap_usage_bytes", main, "none")?, 0.0)?;
    let pod = of("pod_swap_usage_bytes", "", "part")?;
    ensure!(pod > 0.0 && pod < machine as f64, "the pod uses {pod}");
    Ok(())
}

/// The cgroup of the pod's container.
pub fn cgroup_of(t: &Space, name: &str) -> Result<PathBuf> {
    let pod = t.pod(name)?;
    let id = pod["status"]["containerStatuses"][0]["containerID"].as_str();
    let id = id
        .and_then(|id| id.split("//").nth(1))
        .context("no container")?;
    let top = PathBuf::from(format!("/sys/fs/cgroup/{}", t.node().cgroup));
    let all = cgroup::tree(&top);
    let own = all
        .into_iter()
        .find(|dir| dir.to_string_lossy().contains(id));
    own.with_context(|| format!("no cgroup of container {id}"))
}

fn number(file: &PathBuf) -> Result<u64> {
    let text = fs::read_to_string(file).with_context(|| format!("read {}", file.display()))?;
    text.trim()
        .parse()
        .with_context(|| format!("{}: {text:?}", file.display()))
}

/// Bytes.
fn meminfo(name: &str) -> Result<u64> {
    let all = fs::read_to_string("/proc/meminfo")?;
    let line = all
        .lines()
        .find_map(|l| l.strip_prefix(name)?.strip_prefix(':'));
    let kib = line
        .and_then(|l| l.split_whitespace().next())
        .context("meminfo")?;
    Ok(kib.parse::<u64>()? * 1024)
}
