//! kubeadm with `lighter` as the kubelet's program.

use crate::kit::{FOREVER, Space, has, pod};
use crate::survival::{kill_agent, start_agent};
use anyhow::{Result, ensure};
use e2e::{peer, progress};
use std::fs;
use std::time::Duration;

crate::tests!(
    kubeadm_joins_a_node_whose_kubelet_is_lighter: alone: our_kubelet: our_runtime,
);

const UNIT: &str = include_str!("../../../deploy/manifests/kubelet.service");
/// In place of systemd, which is not pid 1 here: starts and stops what the unit says, and keeps a
/// list of what was asked for.
const SYSTEMCTL: &str = r#"#!/bin/sh
unit=/etc/systemd/system/kubelet.service
echo "$*" >>/tmp/systemctl.log
stop() {
    pid=$(cat /run/kubelet.pid 2>/dev/null) || return 0
    kill "$pid"
    for i in $(seq 200); do kill -0 "$pid" 2>/dev/null || break; sleep 0.05; done
    rm -f /run/kubelet.pid
}
start() {
    for file in $(sed -n 's/^EnvironmentFile=-//p' $unit); do
        ! [ -e $file ] || . $file
    done
    eval "$(sed -n 's/^ExecStart=//p' $unit) </dev/null >>/tmp/kubelet.log 2>&1 &"
    echo $! >/run/kubelet.pid
}
case "$1" in
stop) stop ;;
start) start ;;
restart) stop; start ;;
esac
exit 0
"#;

fn sh(t: &Space, script: &str) -> Result<String> {
    t.node().run("sh", &["-c", script])
}

fn kubeadm_joins_a_node_whose_kubelet_is_lighter(t: &Space) -> Result<()> {
    let node = t.node();
    let kube = peer::path(&t.suite.bed.cache, &t.suite.bed.peers(), &peer::KUBE)?;
    node.install(&kube, "kube")?;
    node.link("kube", "kubeadm")?;
    node.link("lighter", "kubelet")?;
    node.install_bytes(SYSTEMCTL.as_bytes(), "systemctl")?;
    node.write("/etc/systemd/system/kubelet.service", UNIT)?;
    let extra = format!(
        "KUBELET_EXTRA_ARGS='--cgroup-root=/{} --node-ip={}'\n",
        node.cgroup, node.ip
    );
    node.write("/etc/default/kubelet", &extra)?;
    sh(t, "rm -f /tmp/systemctl.log /tmp/kubelet.log")?;
    kill_agent(t)?;
    t.kubectl(&["delete", "node", &node.name])?;
    sh(
        t,
        "lighter reset; rm -rf /var/lib/kubelet/config.yaml /var/lib/kubelet/pki",
    )?;
    let result = join(t);
    sh(
        t,
        "systemctl stop kubelet; rm -f /usr/local/bin/systemctl /etc/systemd/system/kubelet.service /etc/default/kubelet",
    )?;
    // The agent goes on with what kubeadm wrote.
    start_agent(t)?;
    if result.is_err() {
        let log = fs::read_to_string(node.path("/tmp/kubelet.log")).unwrap_or_default();
        log.lines()
            .rev()
            .take(10)
            .for_each(|line| println!("    {line}"));
    }
    result.and(t.run(&pod("afterwards", FOREVER)))
}

fn join(t: &Space) -> Result<()> {
    let node = t.node();
    // Without a configuration it only serves its CRI socket, which kubeadm looks at first.
    sh(t, "systemctl start kubelet")?;
    let socket = e2e::node::lighter::SOCKET;
    progress::wait_for("the CRI socket", Duration::from_secs(20), || {
        Ok(std::os::unix::net::UnixStream::connect(node.path(socket))
            .ok()
            .map(drop))
    })?;
    let words = e2e::cluster::control_plane::join_words(&t.cluster().control_plane, "1h")?;
    let mut join = node.command("kubeadm");
    join.arg("join")
        .args(&words)
        .args(["--node-name", &node.name]);
    join.args([
        "--cri-socket",
        &format!("unix://{socket}"),
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
