//! The pod resources API, asked with the client of Kubernetes' own module.

use crate::devices::Plugin;
use crate::kit::{FOREVER, Space, container, has, pod, same, with, with_main};
use anyhow::{Context, Result, ensure};
use e2e::{command, peer};
use serde_json::{Value, json};
use std::os::unix::fs::PermissionsExt as _;

crate::tests!(
    devices_of_a_pod_are_told_to_monitoring_agents,
    who_asks_too_often_is_sent_away: alone,
);

/// What the client printed.
pub fn ask(t: &Space, words: &[&str]) -> Result<Value> {
    let said = command::run(client(t)?.args(words))?;
    Ok(serde_json::from_str(&said)?)
}

fn client(t: &Space) -> Result<std::process::Command> {
    let bed = &t.suite.bed;
    let program = peer::path(&bed.cache, &bed.peers(), &peer::POD_RESOURCES)?;
    let name = format!("pod-resources-{}", t.name);
    if !t.node().path(&format!("/usr/local/bin/{name}")).exists() {
        t.node().install(&program, &name)?;
    }
    Ok(t.node().command(&name))
}

/// A pod's container, as `get` tells it.
pub fn told(t: &Space, pod: &str, container: &str) -> Result<Value> {
    let answer = ask(t, &["get", &t.name, pod])?;
    let containers = answer["pod_resources"]["containers"].as_array();
    let mut containers = containers.into_iter().flatten();
    let found = containers.find(|c| c["name"] == container);
    found.cloned().with_context(|| answer.to_string())
}

fn devices_of_a_pod_are_told_to_monitoring_agents(t: &Space) -> Result<()> {
    let plugin = Plugin::start(t, "a Healthy 0\nb Healthy\nc Unhealthy\n")?;
    plugin.wait_counts("3", "2")?;
    let mut sidecar = container("side", FOREVER);
    sidecar["restartPolicy"] = json!("Always");
    sidecar["resources"] = plugin.asks(1)["resources"].clone();
    let init = json!([container("setup", "true"), sidecar]);
    let whole = with(pod("p", FOREVER), json!({ "initContainers": init }));
    t.run(&with_main(whole, plugin.asks(1)))?;

    let of = |id: &str, node: Value| {
        let mut device = json!({ "resource_name": plugin.resource, "device_ids": [id] });
        if !node.is_null() {
            device["topology"] = node;
        }
        device
    };
    let near = json!({ "nodes": [{}] });
    // The plugin would rather give the last one.
    let side = told(t, "p", "side")?;
    same(&side["devices"], &json!([of("b", Value::Null)]))?;
    let main = told(t, "p", "main")?;
    same(&main["devices"], &json!([of("a", near.clone())]))?;
    // What an init container had is others' by now.
    ensure!(
        told(t, "p", "setup").is_err(),
        "an init container is told of"
    );

    let list = ask(t, &["list"])?;
    let pods = list["pod_resources"].as_array().context("no list")?;
    let own = pods.iter().find(|p| p["namespace"] == t.name.as_str());
    let own = own.with_context(|| list.to_string())?;
    same(&own["name"], &json!("p"))?;
    same(&own["containers"], &json!([side, main]))?;
    // Its first version knows of app containers only.
    let alpha = ask(t, &["alpha"])?.to_string();
    has(&alpha, r#""device_ids":["a"]"#)?;
    ensure!(!alpha.contains(r#""side""#), "{alpha}");

    let all = ask(t, &["allocatable"])?;
    let mut all: Vec<Value> = all["devices"].as_array().cloned().unwrap_or_default();
    all.retain(|d| d["resource_name"] == plugin.resource.as_str());
    all.sort_by_key(|d| d["device_ids"].to_string());
    same(all, vec![of("a", near), of("b", Value::Null)])?;

    let missing = command::output(client(t)?.args(["get", &t.name, "nobody"]))?;
    let why = String::from_utf8_lossy(&missing.stderr).into_owned();
    has(
        &why,
        &format!("pod nobody in namespace {} not found", t.name),
    )?;
    let dir = t.node().path("/var/lib/kubelet/pod-resources");
    let mode = |path| std::fs::metadata(path).map(|m| m.permissions().mode() & 0o777);
    same(mode(dir.clone())?, 0o750)?;
    same(mode(dir.join("kubelet.sock"))?, 0o755)?;
    ended_pods_are_not_listed(t)
}

fn ended_pods_are_not_listed(t: &Space) -> Result<()> {
    let once = json!({ "restartPolicy": "Never" });
    t.apply(&with(pod("short", "true"), once))?;
    t.wait("short", "its end", |p| crate::kit::phase(p) == "Succeeded")?;
    let list = ask(t, &["list"])?.to_string();
    ensure!(!list.contains(r#""short""#), "{list}");
    let counted = t.kubectl(&[
        "get",
        "--raw",
        &format!("/api/v1/nodes/{}/proxy/metrics", t.node().name),
    ])?;
    let series = "kubelet_pod_resources_endpoint_requests_total{server_api_version=\"v1\"}";
    has(&counted, series)?;
    has(
        &counted,
        "kubelet_pod_resources_endpoint_errors_get{server_api_version=\"v1\"}",
    )
}

/// 100 a second after 10 at once.
fn who_asks_too_often_is_sent_away(t: &Space) -> Result<()> {
    let answers = ask(t, &["hurry", "2000"])?;
    let of = |key: &str| answers[key].as_u64().unwrap_or_default();
    let (ok, limited) = (of("ok"), of("rejected by rate limit"));
    same(ok + limited, 2000)?;
    ensure!(ok >= 10 && limited >= 1000, "{answers}");
    ask(t, &["list"]).map(drop)
}
