//! kubeadm with `lighter` as the kubelet's program.

use crate::kit::{FOREVER, Space, has, pod, same, status};
use crate::survival::{kill_agent, start_agent};
use crate::systemd::with_systemd;
use anyhow::{Result, ensure};
use e2e::http::{self, Request};
use e2e::machine::network;
use e2e::node::lighter::SOCKET;
use e2e::{peer, progress};
use std::fs;
use std::time::Duration;

crate::tests!(
    kubeadm_resets_and_joins_a_node_whose_kubelet_is_lighter: alone: our_kubelet: our_runtime,
);

fn sh(t: &Space, script: &str) -> Result<String> {
    t.node().run("sh", &["-c", script])
}

fn kubeadm_resets_and_joins_a_node_whose_kubelet_is_lighter(t: &Space) -> Result<()> {
    let node = t.node();
    let kube = peer::path(&t.suite.bed.cache, &t.suite.bed.peers(), &peer::KUBE)?;
    node.install(&kube, "kube")?;
    node.link("kube", "kubeadm")?;
    node.link("lighter", "kubelet")?;
    let root = format!("--cgroup-root=/{}", node.cgroup);
    let extra = format!("KUBELET_EXTRA_ARGS='{root} --node-ip={}'\n", node.ip);
    node.write("/etc/default/kubelet", &extra)?;
    node.write(
        "/etc/default/lighter",
        &format!("LIGHTER_RUNTIME_ARGS={root}\n"),
    )?;
    t.run(&pod("before", FOREVER))?;
    kill_agent(t)?;
    let result = with_systemd(node, || {
        reset(t)?;
        t.kubectl(&["delete", "node", &node.name])?;
        join(t)
    });
    sh(t, "rm -f /etc/default/kubelet /etc/default/lighter")?;
    // The agent goes on with what kubeadm wrote.
    start_agent(t)?;
    if result.is_err() {
        for unit in ["kubelet", "runtime"] {
            let log = fs::read_to_string(node.log(unit)).unwrap_or_default();
            let lines: Vec<&str> = log.lines().collect();
            for line in &lines[lines.len().saturating_sub(10)..] {
                println!("    {unit}: {line}");
            }
        }
    }
    result.and(t.run(&pod("afterwards", FOREVER)))
}

/// The kubelet is stopped, and with it the runtime's process: systemd has another answer.
fn reset(t: &Space) -> Result<()> {
    let node = t.node();
    let before = t.pod("before")?;
    let id = status(&before)["containerID"].as_str().unwrap_or_default();
    let id = id.rsplit('/').next().unwrap_or_default();
    let process = e2e::cgroup::first_process(&node.cgroup, id);
    ensure!(process.is_some(), "{id} has no process");
    sh(t, "systemctl start kubelet")?;
    sh(t, "systemctl stop kubelet")?;
    let runs = sh(t, "lighter ps")?;
    has(&runs, &id[..12])?;
    // It hands the pods back to a kubelet that comes again, and that to the next.
    sh(t, "systemctl start kubelet")?;
    progress::wait_for("the kubelet", Duration::from_secs(20), || {
        let ask = || http::send("127.0.0.1:10248", &Request::to("GET", "/healthz"));
        Ok(network::inside(node, ask)
            .ok()
            .filter(|a| a.status == 200)
            .map(drop))
    })?;
    same(e2e::cgroup::first_process(&node.cgroup, id), process)?;
    let endpoint = format!("unix://{SOCKET}");
    let mut reset = node.command("kubeadm");
    reset.args(["reset", "--force", "--cri-socket", &endpoint]);
    let output = e2e::command::output(&mut reset)?;
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    ensure!(output.status.success(), "kubeadm reset: {said}");
    has(&said, "[reset] Stopping the kubelet service")?;
    // It warns of what it can't do, and of what is left to people.
    ensure!(
        !said.contains("Failed to") && !said.contains("could not"),
        "{said}"
    );
    let sandboxes = fs::read_dir(node.path("/run/lighter/sandboxes"))?.count();
    same(sandboxes, 0)?;
    let left = e2e::cgroup::members(&format!("{}/kubepods", node.cgroup));
    ensure!(left.is_empty(), "processes of pods: {left:?}");
    let mounts = fs::read_to_string(node.path("/proc/self/mounts"))?;
    ensure!(!mounts.contains(" /var/lib/kubelet/"), "{mounts}");
    Ok(())
}

fn join(t: &Space) -> Result<()> {
    let node = t.node();
    let words = e2e::cluster::control_plane::join_words(&t.cluster().control_plane, "1h")?;
    let mut join = node.command("kubeadm");
    join.arg("join")
        .args(&words)
        .args(["--node-name", &node.name]);
    join.args([
        "--cri-socket",
        &format!("unix://{SOCKET}"),
        // cgroup v1, which kubeadm refuses from any kubelet.
        "--ignore-preflight-errors=SystemVerification",
    ]);
    let output = e2e::command::output(&mut join)?;
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    ensure!(output.status.success(), "kubeadm join: {said}");
    has(&said, "This node has joined the cluster")?;
    let other = said
        .lines()
        .find(|line| line.contains("[WARNING ") && !line.contains("[WARNING SystemVerification]"));
    ensure!(other.is_none(), "{other:?} in {said}");
    for phase in [
        "[preflight] Running pre-flight checks",
        "[kubelet-start] Starting the kubelet",
        "[kubelet-check] The kubelet is healthy",
        "[kubelet-start] Waiting for the kubelet to perform the TLS Bootstrap",
    ] {
        has(&said, phase)?;
    }
    let asked = fs::read_to_string(node.path("/tmp/systemctl.log"))?;
    has(&asked, "stop kubelet")?;
    ensure!(
        asked.contains("\nstart kubelet") || asked.contains("restart kubelet"),
        "{asked}"
    );
    let flags = fs::read_to_string(node.path("/var/lib/kubelet/kubeadm-flags.env"))?;
    has(&flags, "KUBELET_KUBEADM_ARGS=")?;
    ensure!(
        !node.path("/etc/kubernetes/bootstrap-kubelet.conf").exists(),
        "kubeadm removes it"
    );
    let current = node.path("/var/lib/kubelet/pki/kubelet-client-current.pem");
    ensure!(fs::read_link(&current).is_ok(), "no {}", current.display());
    let ready = [
        "wait",
        "node",
        &node.name,
        "--for=condition=Ready",
        "--timeout=60s",
    ];
    t.kubectl(&ready)?;
    t.run(&pod("joined", FOREVER))?;
    has(&t.sh("joined", "echo reached")?, "reached")
}
