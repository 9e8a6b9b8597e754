//! Pressure stall information. The kernel counts it for cgroups of v2 alone; `make vm` has those
//! (`MACHINES=cluster-6.12 VM_FILTER=pressure_of`).

use crate::kit::{Space, pod, with_main};
use crate::swap::cgroup_of;
use anyhow::{Context as _, Result, anyhow, ensure};
use e2e::node::Maker;
use e2e::{cgroup, progress};
use serde_json::{Value, json};
use std::fs;
use std::time::Duration;

crate::tests!(pressure_of_containers_pods_and_the_node_is_told);

const KINDS: [&str; 3] = ["cpu", "memory", "io"];

fn pressure_of_containers_pods_and_the_node_is_told(t: &Space) -> Result<()> {
    // Two that want a CPU each, and may have a twentieth of one together.
    let limit = json!({ "resources": { "limits": { "cpu": "50m" } } });
    let script = "while :; do :; done & while :; do :; done";
    t.run(&with_main(pod("held", script), limit))?;
    if !cgroup::unified() {
        let told = metrics(t)?;
        ensure!(
            !told.contains("container_pressure_"),
            "of cgroup v1: {told}"
        );
        return Ok(());
    }
    let mut last = Value::Null;
    let limit = Duration::from_secs(90);
    let before = waited(t)?;
    let told = progress::wait_for("pressure in the summary", limit, || {
        std::thread::sleep(Duration::from_millis(500));
        last = summary(t)?;
        let some = &pod_in(&last)["containers"][0]["cpu"]["psi"]["some"];
        let waits = some["avg10"].as_f64() > Some(1.0);
        Ok(some["total"].as_u64().filter(|_| waits))
    })
    .map_err(|e| anyhow!("{e}: {}", pod_in(&last)))?;
    let after = waited(t)?;
    // The API says nanoseconds, which the stock kubelet gives as the kernel's microseconds.
    if t.suite.kind().kubelet() == Maker::Lighter {
        let range = before * 1000..=after * 1000;
        ensure!(range.contains(&told), "{told} is not in {range:?}");
    }
    let pod = pod_in(&last);
    for of in [&last["node"], pod, &pod["containers"][0]] {
        for kind in KINDS {
            for line in ["some", "full"] {
                let total = &of[kind]["psi"][line]["total"];
                ensure!(total.is_u64(), "no {kind} pressure ({line}) in {of}");
            }
        }
    }
    let mut lacking = Vec::new();
    let counted = progress::wait_for("pressure in the metrics", limit, || {
        std::thread::sleep(Duration::from_millis(500));
        lacking = not_counted(&metrics(t)?, &t.name);
        Ok(lacking.is_empty().then_some(()))
    });
    ensure!(counted.is_ok(), "not counted: {}", lacking.join(", "));
    Ok(())
}

/// Families that the container has no series of, and those of the CPU, for which it waits, if
/// nothing is counted in them.
fn not_counted(text: &str, namespace: &str) -> Vec<String> {
    let names = KINDS.into_iter().flat_map(|kind| {
        ["waiting", "stalled"].map(|how| format!("container_pressure_{kind}_{how}_seconds_total"))
    });
    let labels = ["container=\"main\"", "pod=\"held\""].map(str::to_owned);
    let labels = [&labels[..], &[format!("namespace=\"{namespace}\"")]].concat();
    let seconds = |name: &str| {
        let mut lines = text.lines().filter(|l| l.starts_with(name));
        let line = lines.find(|l| labels.iter().all(|label| l.contains(label)))?;
        let value = line.rsplit_once('}')?.1.split_whitespace().next()?;
        value.parse::<f64>().ok()
    };
    let counted = |name: &String| seconds(name).is_some_and(|s| s > 0.0 || !name.contains("cpu"));
    names.filter(|name| !counted(name)).collect()
}

/// Microseconds in which some process of the container waited for a CPU, as the kernel counts.
fn waited(t: &Space) -> Result<u64> {
    let text = fs::read_to_string(cgroup_of(t, "held")?.join("cpu.pressure"))?;
    let some = text.lines().find(|l| l.starts_with("some "));
    let total = some
        .and_then(|l| l.rsplit_once("total="))
        .context("total")?;
    Ok(total.1.trim().parse()?)
}

fn summary(t: &Space) -> Result<Value> {
    let url = format!("/api/v1/nodes/{}/proxy/stats/summary", t.node().name);
    Ok(serde_json::from_str(&t.kubectl(&["get", "--raw", &url])?)?)
}

fn metrics(t: &Space) -> Result<String> {
    let url = format!("/api/v1/nodes/{}/proxy/metrics/cadvisor", t.node().name);
    t.kubectl(&["get", "--raw", &url])
}

fn pod_in(summary: &Value) -> &Value {
    let mut pods = summary["pods"].as_array().into_iter().flatten();
    pods.find(|p| p["podRef"]["name"] == "held")
        .unwrap_or(&Value::Null)
}
