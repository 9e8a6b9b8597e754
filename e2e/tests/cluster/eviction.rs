//! A node that is short of memory, by its own threshold.

use crate::kit::{FOREVER, Space, condition, phase, pod, same, with, with_main};
use crate::survival::{agent_lives, kill_agent, start_agent};
use anyhow::{Result, ensure};
use e2e::progress;
use serde_json::{Value, json};
use std::fs;
use std::time::Duration;

crate::tests!(
    a_node_short_of_memory_evicts_the_least_important_pod_and_refuses_more: alone: our_kubelet,
);

const CONFIG: &str = "/var/lib/kubelet/config.yaml";
const THRESHOLD: &str = "memory.available: 100Mi";

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
    let restored = restart_with(t, &before).and_then(|()| node_says(t, "False"));
    result.and(restored)
}

fn short_of_memory(t: &Space, config: &str) -> Result<()> {
    restart_with(t, &config.replace(THRESHOLD, "memory.available: 100%"))?;
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
    node_says(t, "True")?;
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

fn restart_with(t: &Space, config: &str) -> Result<()> {
    if agent_lives(t)? {
        kill_agent(t)?;
    }
    t.node().write(CONFIG, config)?;
    start_agent(t)
}

fn node_says(t: &Space, wanted: &str) -> Result<()> {
    let limit = Duration::from_secs(60);
    progress::wait_for(&format!("MemoryPressure {wanted}"), limit, || {
        std::thread::sleep(Duration::from_millis(200));
        let node = t.kubectl(&["get", "node", &t.node().name, "-o", "json"]);
        let node: Value = serde_json::from_str(&node.unwrap_or_default()).unwrap_or_default();
        Ok((condition(&node, "MemoryPressure") == Some(wanted)).then_some(()))
    })
}
