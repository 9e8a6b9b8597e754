//! The kubelet's own flags and files, and what stands beside them.

use crate::kit::{BUSYBOX, FOREVER, Space, has, pod, same, with_main};
use crate::survival::{agent_lives, kill_agent, start_agent, start_agent_as};
use anyhow::{Result, ensure};
use e2e::node::{Kind, Maker};
use e2e::progress;
use serde_json::{Value, json};
use std::time::Duration;

crate::tests!(
    kubelet_tells_all_mistakes_of_its_flags_at_once: our_kubelet,
    runtime_of_the_configuration_is_used: our_kubelet,
    reset_tells_what_it_would_remove_and_has_nothing_to_do_elsewhere: our_kubelet,
    kubelet_by_name_runs_the_node_with_flags_over_files_and_asks_credential_providers:
        alone: our_kubelet: our_runtime,
    drop_ins_win_over_the_file_and_the_later_over_the_earlier: alone,
);

fn kubelet_tells_all_mistakes_of_its_flags_at_once(t: &Space) -> Result<()> {
    let mut kubelet = t.node().command("lighter");
    kubelet.args([
        "kubelet",
        "--nonsense",
        "--max-pods=many",
        "--fail-swap-on=maybe",
    ]);
    let output = e2e::command::output(&mut kubelet)?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    same(output.status.code(), Some(64))?;
    for flag in ["--nonsense", "--max-pods", "--fail-swap-on"] {
        has(&said, flag)?;
    }
    let mut version = t.node().command("lighter");
    let output = e2e::command::output(version.args(["kubelet", "--version"]))?;
    has(
        &String::from_utf8_lossy(&output.stdout),
        "Kubernetes v1.37.2",
    )
}

fn runtime_of_the_configuration_is_used(t: &Space) -> Result<()> {
    let socket = format!("/tmp/{}-nobody.sock", t.name);
    let config = format!("/tmp/{}-config.yaml", t.name);
    t.node().write(
        &config,
        &format!("containerRuntimeEndpoint: unix://{socket}\n"),
    )?;
    for command in ["agent", "kubelet"] {
        let mut agent = t.node().command("lighter");
        agent.args([command, "--config", &config]);
        let output = e2e::command::output(&mut agent)?;
        ensure!(
            !output.status.success(),
            "{command} runs with another runtime"
        );
        has(&String::from_utf8_lossy(&output.stderr), &socket)?;
    }
    Ok(())
}

fn reset_tells_what_it_would_remove_and_has_nothing_to_do_elsewhere(t: &Space) -> Result<()> {
    let told = t.node().run("lighter", &["reset", "--dry-run"])?;
    has(&told, "would remove /etc/kubernetes/kubelet.conf")?;
    ensure!(
        t.node().path("/etc/kubernetes/kubelet.conf").exists(),
        "it was removed"
    );
    let dirs = format!("--kubernetes-dir=/tmp/{0}/k --root-dir=/tmp/{0}/r", t.name);
    let mut args = vec!["reset"];
    args.extend(dirs.split(' '));
    has(&t.node().run("lighter", &args)?, "nothing to reset")
}

fn kubelet_by_name_runs_the_node_with_flags_over_files_and_asks_credential_providers(
    t: &Space,
) -> Result<()> {
    t.node().link("lighter", "kubelet")?;
    if agent_lives(t)? {
        kill_agent(t)?;
    }
    let result = as_kubelet(t);
    if agent_lives(t)? {
        kill_agent(t)?;
    }
    result.and(start_agent(t))?;
    wait_pods(t, "250")
}

/// Writes down what it is asked, and answers for all of a registry.
const PROVIDER: &str = r#"#!/bin/sh
cat >>/tmp/asked; echo >>/tmp/asked
echo '{"apiVersion":"credentialprovider.kubelet.k8s.io/v1","kind":"CredentialProviderResponse",
"cacheKeyType":"Registry","auth":{"docker.io":{"username":"u","password":"p"}}}'
"#;

fn as_kubelet(t: &Space) -> Result<()> {
    t.node().write("/tmp/providers/p", PROVIDER)?;
    t.node().run("chmod", &["755", "/tmp/providers/p"])?;
    let config = json!({
        "apiVersion": "kubelet.config.k8s.io/v1", "kind": "CredentialProviderConfig",
        "providers": [{
            "name": "p", "matchImages": ["docker.io"], "defaultCacheDuration": "10m",
            "apiVersion": "credentialprovider.kubelet.k8s.io/v1",
        }],
    });
    t.node().write("/tmp/providers.yaml", &config.to_string())?;
    let mut flags = flags(t);
    let own = [
        "--pod-infra-container-image=registry.k8s.io/pause:3.10",
        "--max-pods=123",
        "--image-credential-provider-config=/tmp/providers.yaml",
        "--image-credential-provider-bin-dir=/tmp/providers",
        "--v=2",
    ];
    flags.extend(own.map(str::to_owned));
    start_agent_as(t, "kubelet", &flags)?;
    wait_pods(t, "123")?;
    let always = json!({ "imagePullPolicy": "Always" });
    t.run(&with_main(pod("one", FOREVER), always.clone()))?;
    t.run(&with_main(pod("two", FOREVER), always))?;
    let asked = t.node().run("cat", &["/tmp/asked"])?;
    let image = BUSYBOX.split(':').next().unwrap_or_default();
    let asked: Vec<&str> = asked.lines().filter(|l| l.contains(image)).collect();
    same(asked.len(), 1)?;
    has(asked[0], "CredentialProviderRequest")
}

/// Those that every kubelet of the bed has.
pub fn flags(t: &Space) -> Vec<String> {
    let node = t.node();
    let mut flags = vec![
        "--bootstrap-kubeconfig=/etc/kubernetes/bootstrap-kubelet.conf".to_owned(),
        "--kubeconfig=/etc/kubernetes/kubelet.conf".into(),
        "--config=/var/lib/kubelet/config.yaml".into(),
        format!("--node-ip={}", node.ip),
        format!("--hostname-override={}", node.name),
        format!("--cgroup-root=/{}", node.cgroup),
    ];
    let kind = t.suite.kind();
    if kind != Kind::Lighter {
        let socket = kind.socket();
        flags.push(format!("--container-runtime-endpoint=unix://{socket}"));
    }
    flags
}

fn drop_ins_win_over_the_file_and_the_later_over_the_earlier(t: &Space) -> Result<()> {
    if t.suite.kind().kubelet() == Maker::Lighter {
        t.node().link("lighter", "kubelet")?;
    }
    kill_agent(t)?;
    let result = with_drop_ins(t);
    if agent_lives(t)? {
        kill_agent(t)?;
    }
    result.and(start_agent(t))?;
    wait_pods(t, "250")
}

fn with_drop_ins(t: &Space) -> Result<()> {
    let dir = format!("/etc/kubernetes/{}.d", t.name);
    let about = "apiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration";
    for (name, fields) in [
        ("10-first.conf", "maxPods: 111\ncontainerLogMaxFiles: 7"),
        (
            "20-second.conf",
            "maxPods: 112\nevictionHard: {pid.available: 1%}",
        ),
        ("30-not-one.yaml", "maxPods: 113"),
    ] {
        t.node()
            .write(&format!("{dir}/{name}"), &format!("{about}\n{fields}\n"))?;
    }
    let mut flags = flags(t);
    flags.push(format!("--config-dir={dir}"));
    start_agent_as(t, "kubelet", &flags)?;
    wait_pods(t, "112")?;
    t.run(&pod("one", FOREVER))?;
    let url = format!("/api/v1/nodes/{}/proxy/configz", t.node().name);
    let told: Value = serde_json::from_str(&t.kubectl(&["get", "--raw", &url])?)?;
    let config = &told["kubeletconfig"];
    same(&config["maxPods"], &json!(112))?;
    same(&config["containerLogMaxFiles"], &json!(7))?;
    // Maps are merged: the file's thresholds are still there.
    same(&config["evictionHard"]["pid.available"], &json!("1%"))?;
    same(&config["evictionHard"]["memory.available"], &json!("100Mi"))
}

/// Until the node says how many pods it takes.
fn wait_pods(t: &Space, wanted: &str) -> Result<()> {
    progress::wait_for("the node's capacity", Duration::from_secs(60), || {
        std::thread::sleep(Duration::from_millis(200));
        let node = t.kubectl(&["get", "node", &t.node().name, "-o", "json"]);
        let node: Value = serde_json::from_str(&node.unwrap_or_default()).unwrap_or_default();
        Ok((node["status"]["capacity"]["pods"] == wanted).then_some(()))
    })
}
