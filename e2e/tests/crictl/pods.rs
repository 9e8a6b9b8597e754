//! runp, pods, inspectp, stopp, rmp, port-forward.

use crate::cases;
use crate::kit::{Kit, NGINX, ids};
use anyhow::{Context, Result, ensure};
use e2e::http::{self, Request};
use e2e::machine::network;
use e2e::progress;
use serde_json::json;
use std::time::Duration;

cases![
    runp_refuses_an_unknown_handler,
    pods_are_listed_and_filtered,
    inspectp_shows_state_and_address,
    stopp_and_rmp_end_a_pod,
    port_forward_reaches_the_pod,
];

fn runp_refuses_an_unknown_handler(kit: &Kit) -> Result<()> {
    let (config, name) = kit.pod_config(json!({}))?;
    let said = kit.fails(&["runp", "--runtime=no-such-handler", &config])?;
    ensure!(said.contains("no-such-handler"), "{said}");
    let left = kit.ok(&["pods", "--quiet", "--name", &name])?;
    ensure!(left.trim().is_empty(), "a pod is left: {left}");
    Ok(())
}

fn pods_are_listed_and_filtered(kit: &Kit) -> Result<()> {
    let labels = json!({"labels": {"crictl-case": "one"}});
    let pod = kit.pod_with(&[], labels)?;
    let other = kit.pod()?;
    let only = |args: &[&str]| -> Result<()> {
        let args = [&["pods", "--quiet", "--no-trunc"], args].concat();
        let found = kit.ok(&args)?;
        ensure!(ids(&found) == [&*pod.id], "{}: {found}", args.join(" "));
        Ok(())
    };
    only(&["--label", "crictl-case=one"])?;
    only(&["--id", &pod.id])?;
    only(&["--id", &pod.id[..13]])?;
    only(&["--name", &format!("^{}$", pod.name)])?;
    only(&[
        "--label",
        "crictl-case=one",
        "--state",
        "Ready",
        "--namespace",
        "default",
    ])?;
    let all = kit.json(&["pods", "--output=json"])?;
    let items = all["items"].as_array().context("no items")?;
    for id in [&pod.id, &other.id] {
        ensure!(
            items.iter().any(|i| i["id"] == **id),
            "{id} is not in {all}"
        );
    }
    let table = kit.ok(&["pods", "--name", &pod.name])?;
    ensure!(
        table.contains("Ready") && table.contains(&pod.id[..13]),
        "{table}"
    );
    Ok(())
}

fn inspectp_shows_state_and_address(kit: &Kit) -> Result<()> {
    let pod = kit.pod()?;
    let all = kit.json(&["inspectp", &pod.id[..13]])?;
    let status = &all["status"];
    ensure!(
        status["id"] == *pod.id && status["state"] == "SANDBOX_READY",
        "{all}"
    );
    ensure!(status["metadata"]["name"] == *pod.name, "{all}");
    let ip = status["network"]["ip"].as_str().unwrap_or_default();
    ensure!(ip.starts_with("10.88."), "address {ip}");
    ensure!(all["info"].is_object(), "no info: {all}");
    Ok(())
}

fn stopp_and_rmp_end_a_pod(kit: &Kit) -> Result<()> {
    let pod = kit.pod()?;
    let container = pod.start(&["sleep", "600"])?;
    let said = kit.fails(&["rmp", &pod.id])?;
    ensure!(said.contains("running"), "{said}");
    kit.ok(&["stopp", &pod.id])?;
    kit.ok(&["stopp", &pod.id])?;
    let state = kit.json(&["inspectp", &pod.id])?;
    ensure!(state["status"]["state"] == "SANDBOX_NOTREADY", "{state}");
    let state = kit.json(&["inspect", &container])?;
    ensure!(state["status"]["state"] == "CONTAINER_EXITED", "{state}");
    kit.ok(&["rmp", &pod.id])?;
    kit.fails(&["inspectp", &pod.id])?;
    kit.fails(&["inspect", &container])?;
    Ok(())
}

fn port_forward_reaches_the_pod(kit: &Kit) -> Result<()> {
    kit.ok(&["pull", NGINX])?;
    let pod = kit.pod()?;
    let image = json!({"image": {"image": NGINX}});
    pod.start_with(&["nginx", "-g", "daemon off;"], image)?;
    for (transport, port) in [("spdy", 18_080), ("websocket", 18_081)] {
        let ports = format!("{port}:80");
        let transport_flag = format!("--transport={transport}");
        let forward = kit.background(&["port-forward", &transport_flag, &pod.id, &ports])?;
        let address = format!("127.0.0.1:{port}");
        progress::wait_for(
            &format!("page over {transport}"),
            Duration::from_secs(20),
            || {
                let page = network::inside(&kit.stand.machine, || {
                    http::send(&address, &Request::to("GET", "/"))
                });
                let welcome =
                    |p: &http::Response| p.status == 200 && p.body.starts_with(b"Welcome");
                Ok(page.is_ok_and(|p| welcome(&p)).then_some(()))
            },
        )?;
        drop(forward);
    }
    Ok(())
}
