//! stats, statsp, metricsp, metricdescs, events.

use crate::cases;
use crate::kit::Kit;
use anyhow::{Context, Result, ensure};
use serde_json::Value;

cases![
    stats_of_containers,
    statsp_of_pods,
    metrics_are_described_and_listed,
    events_follow_a_container,
];

/// A number that proto's JSON writes as a string.
fn number(value: &Value) -> Result<u64> {
    let text = value["value"]
        .as_str()
        .with_context(|| format!("no number: {value}"))?;
    Ok(text.parse()?)
}

const BUSY: [&str; 3] = ["sh", "-c", "while :; do :; done"];

fn stats_of_containers(kit: &Kit) -> Result<()> {
    let pod = kit.pod()?;
    let id = pod.start(&BUSY)?;
    let other = pod.start(&["sleep", "600"])?;
    let all = kit.json(&["stats", "--output=json", "--pod", &pod.id])?;
    let stats = all["stats"].as_array().context("no stats")?;
    ensure!(stats.len() == 2, "{} containers", stats.len());
    let one = kit.json(&["stats", "--output=json", "--id", &id])?;
    let stats = one["stats"].as_array().context("no stats")?;
    ensure!(
        stats.len() == 1 && stats[0]["attributes"]["id"] == *id,
        "{one}"
    );
    ensure!(
        number(&stats[0]["cpu"]["usageCoreNanoSeconds"])? > 1_000_000,
        "{one}"
    );
    ensure!(number(&stats[0]["memory"]["workingSetBytes"])? > 0, "{one}");
    ensure!(
        number(&stats[0]["writableLayer"]["inodesUsed"])? > 0,
        "{one}"
    );
    let table = kit.ok(&["stats"])?;
    let line = table.lines().find(|l| l.starts_with(&id[..13]));
    let line = line.with_context(|| format!("no line for the container: {table}"))?;
    let cpu: f64 = line.split_whitespace().nth(2).context("no CPU")?.parse()?;
    ensure!(cpu > 1.0, "a busy loop takes {cpu} %: {table}");
    ensure!(table.contains(&other[..13]), "{table}");
    Ok(())
}

fn statsp_of_pods(kit: &Kit) -> Result<()> {
    let pod = kit.pod()?;
    pod.start(&BUSY)?;
    let all = kit.json(&["statsp", "--output=json", "--id", &pod.id])?;
    let stats = all["stats"].as_array().context("no stats")?;
    ensure!(
        stats.len() == 1 && stats[0]["attributes"]["id"] == *pod.id,
        "{all}"
    );
    let linux = &stats[0]["linux"];
    ensure!(
        number(&linux["cpu"]["usageCoreNanoSeconds"])? > 1_000_000,
        "{all}"
    );
    ensure!(number(&linux["memory"]["workingSetBytes"])? > 0, "{all}");
    ensure!(number(&linux["process"]["processCount"])? >= 1, "{all}");
    ensure!(
        linux["network"]["defaultInterface"]["name"] == "eth0",
        "{all}"
    );
    ensure!(
        linux["containers"].as_array().is_some_and(|c| c.len() == 1),
        "{all}"
    );
    let table = kit.ok(&["statsp"])?;
    ensure!(table.contains(&pod.name), "{table}");
    Ok(())
}

fn metrics_are_described_and_listed(kit: &Kit) -> Result<()> {
    let pod = kit.pod()?;
    let id = pod.start(&BUSY)?;
    let described = kit.json(&["metricdescs"])?;
    let described = described["descriptors"]
        .as_array()
        .context("no descriptors")?;
    let labels = |name: &str| -> Result<usize> {
        let found = described.iter().find(|d| d["name"] == name);
        let found = found.with_context(|| format!("{name} is not described"))?;
        Ok(found["labelKeys"].as_array().context("no labels")?.len())
    };
    let all = kit.json(&["metricsp", "--output=json"])?;
    let pods = all["podMetrics"].as_array().context("no podMetrics")?;
    let own = pods
        .iter()
        .find(|p| p["podSandboxId"] == *pod.id)
        .context("not this pod")?;
    let containers = own["containerMetrics"]
        .as_array()
        .context("no containers")?;
    let own = containers
        .iter()
        .find(|c| c["containerId"] == *id)
        .context("not this container")?;
    let metrics = own["metrics"].as_array().context("no metrics")?;
    for name in [
        "container_memory_working_set_bytes",
        "container_cpu_usage_seconds_total",
    ] {
        let metric = metrics.iter().find(|m| m["name"] == name);
        let metric = metric.with_context(|| format!("no {name}: {own}"))?;
        let values = metric["labelValues"].as_array().context("no values")?;
        ensure!(values.len() == labels(name)?, "{metric}");
    }
    Ok(())
}

fn events_follow_a_container(kit: &Kit) -> Result<()> {
    let events = kit.background(&["events", "--output=json"])?;
    // Only what happens after it has subscribed is told: until then, something happens.
    let heard = (0..20).find_map(|_| {
        let pod = kit.pod().ok()?;
        let id = pod.start(&["sh", "-c", "exit 4"]).ok()?;
        pod.wait_exited(&id).ok()?;
        kit.ok(&["rm", &id]).ok()?;
        events.wait_for(&id).ok().map(|_| id)
    });
    let id = heard.context("no event was heard")?;
    events.wait_for("CONTAINER_DELETED_EVENT")?;
    let text = events.wait_for("CONTAINER_STOPPED_EVENT")?;
    let all = serde_json::Deserializer::from_str(&text).into_iter::<Value>();
    let kinds: Vec<String> = all
        .filter_map(Result::ok)
        .filter(|e| e["containerId"] == *id)
        .filter_map(|e| Some(e["containerEventType"].as_str()?.to_owned()))
        .collect();
    let wanted =
        ["CREATED", "STARTED", "STOPPED", "DELETED"].map(|k| format!("CONTAINER_{k}_EVENT"));
    ensure!(kinds == wanted, "{kinds:?}");
    Ok(())
}
