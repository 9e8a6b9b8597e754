//! TLS bootstrap, and certificates that end while the node runs.

use crate::kit::{FOREVER, Space, has, pod, same};
use crate::survival::{kill_agent, start_agent, start_agent_as, with_agent_down};
use anyhow::{Context, Result, ensure};
use e2e::cluster::{Cluster, control_plane};
use e2e::progress;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::time::Duration;

crate::tests!(
    client_certificate_is_bootstrapped_renewed_and_bootstrapped_again_when_over:
        alone: our_kubelet,
    serving_certificate_is_asked_for_again_when_denied_and_when_addresses_change:
        alone: our_kubelet,
);

const PKI: &str = "/var/lib/kubelet/pki";
const CURRENT: &str = "/var/lib/kubelet/pki/kubelet-client-current.pem";
const BOOTSTRAP: &str = "/etc/kubernetes/bootstrap-kubelet.conf";
fn sh(t: &Space, script: &str) -> Result<String> {
    t.node().run("sh", &["-c", script])
}

fn client_certificate_is_bootstrapped_renewed_and_bootstrapped_again_when_over(
    t: &Space,
) -> Result<()> {
    sign_for(t, Some("45s"))?;
    let result = with_agent_down(t, short_lived);
    sign_for(t, None)?;
    result
}

fn sign_for(t: &Space, duration: Option<&str>) -> Result<()> {
    let mut cluster = Cluster::load(&t.suite.bed, &t.cluster().name)?;
    control_plane::sign_for(&mut cluster, duration)
}

fn short_lived(t: &Space) -> Result<()> {
    let ready = ready_since(t)?;
    let before = requests(t, "client-kubelet")?.len();
    sh(
        t,
        &format!("rm /etc/kubernetes/kubelet.conf {PKI}/kubelet-client-*"),
    )?;
    t.node().write(BOOTSTRAP, &bootstrap_kubeconfig(t)?)?;
    start_agent(t)?;
    let first = next_identity(t, None)?;
    let second = next_identity(t, Some(&first))?;
    let third = next_identity(t, Some(&second))?;
    wait_over(t, &first)?;
    // Whoever still showed the first certificate would be refused by now.
    t.run(&pod("later", FOREVER))?;
    has(&t.sh("later", "echo reached")?, "reached")?;
    same(ready_since(t)?, ready)?;
    let metrics = t.kubectl(&[
        "get",
        "--raw",
        &format!("/api/v1/nodes/{}/proxy/metrics", t.node().name),
    ])?;
    let ttl = figure(&metrics, "kubelet_certificate_manager_client_ttl_seconds")?;
    ensure!((0.0..=45.0).contains(&ttl), "{ttl} s to live");
    let refused = metrics
        .lines()
        .filter(|l| l.starts_with("rest_client_requests") && l.contains("code=\"401\""));
    same(refused.collect::<Vec<_>>(), Vec::new())?;
    let kubeconfig = std::fs::read_to_string(t.node().path("/etc/kubernetes/kubelet.conf"))?;
    has(&kubeconfig, CURRENT)?;
    kill_agent(t)?;
    let last = std::fs::read_link(t.node().path(CURRENT))?;
    wait_over(t, &last)?;
    start_agent(t)?;
    next_identity(t, Some(&last))?;
    t.run(&pod("again", FOREVER))?;
    let askers = requests(t, "client-kubelet")?.split_off(before);
    let by = |who: &str| askers.iter().filter(|a| a.1.starts_with(who)).count();
    same(by("system:bootstrap:"), 2)?;
    ensure!(by("system:node:") >= 2, "{askers:?}");
    ensure!(third != last || by("system:node:") == 2, "{askers:?}");
    Ok(())
}

/// With a new token.
fn bootstrap_kubeconfig(t: &Space) -> Result<String> {
    let words = control_plane::join_words(&t.cluster().control_plane, "1h")?;
    let token = words
        .iter()
        .position(|w| w == "--token")
        .and_then(|i| words.get(i + 1));
    let token = token.context("no --token")?;
    let config = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "c",
        "clusters": [{"name": "c", "cluster": {
            "server": format!("https://{}", words[0]),
            "certificate-authority": "/etc/kubernetes/pki/ca.crt",
        }}],
        "users": [{"name": "u", "user": {"token": token}}],
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
    });
    Ok(config.to_string())
}

/// The file that the current one points at, when that is another than `known`.
fn next_identity(t: &Space, known: Option<&PathBuf>) -> Result<PathBuf> {
    progress::wait_for(
        "another client certificate",
        Duration::from_secs(75),
        || {
            std::thread::sleep(Duration::from_millis(200));
            let target = std::fs::read_link(t.node().path(CURRENT)).ok();
            Ok(target.filter(|target| Some(target) != known))
        },
    )
}

fn wait_over(t: &Space, identity: &Path) -> Result<()> {
    let file = PathBuf::from(PKI).join(identity);
    let file = file.to_string_lossy().into_owned();
    progress::wait_for("end of a certificate", Duration::from_secs(60), || {
        std::thread::sleep(Duration::from_millis(500));
        let check = ["x509", "-noout", "-checkend", "0", "-in", &file];
        Ok(t.node().run("openssl", &check).is_err().then_some(()))
    })
}

fn ready_since(t: &Space) -> Result<String> {
    let path = "jsonpath={.status.conditions[?(@.type=='Ready')].lastTransitionTime}";
    t.kubectl(&["get", "node", &t.node().name, "-o", path])
}

/// Name and author of the requests for a signer, the oldest first.
fn requests(t: &Space, signer: &str) -> Result<Vec<(String, String)>> {
    let list = [
        "get",
        "csr",
        "--sort-by=.metadata.creationTimestamp",
        "-o",
        "json",
    ];
    let list: Value = serde_json::from_str(&t.kubectl(&list)?)?;
    let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
    let of_signer = |item: &&Value| text(&item["spec"]["signerName"]).ends_with(signer);
    let items = list["items"].as_array().context("no items")?.iter();
    let items = items.filter(of_signer);
    Ok(items
        .map(|i| (text(&i["metadata"]["name"]), text(&i["spec"]["username"])))
        .collect())
}

fn figure(metrics: &str, name: &str) -> Result<f64> {
    let line = metrics.lines().find_map(|l| l.strip_prefix(name));
    Ok(line.with_context(|| format!("no {name}"))?.trim().parse()?)
}

fn serving_certificate_is_asked_for_again_when_denied_and_when_addresses_change(
    t: &Space,
) -> Result<()> {
    let result = with_agent_down(t, serving);
    sh(
        t,
        "ip route replace default via 172.30.0.1; \
         ip addr del 172.30.0.77/24 dev eth0 2>/dev/null; true",
    )?;
    result
}

fn serving(t: &Space) -> Result<()> {
    let node = t.node();
    sh(
        t,
        "echo 'serverTLSBootstrap: true' >>/var/lib/kubelet/config.yaml",
    )?;
    // No --node-ip: the address is that of the default route.
    let flags = [
        "agent".to_owned(),
        format!("--hostname-override={}", node.name),
        format!("--cgroup-root=/{}", node.cgroup),
    ];
    let flags = flags.into_iter().chain(foreign(t)).collect::<Vec<_>>();
    start_agent_as(t, "lighter", &flags)?;
    let denied = next_request(t, &[])?;
    let names = names_of(t, &denied)?;
    has(&names, &format!("DNS:{}", node.name))?;
    has(&names, &format!("IP Address:{}", node.ip))?;
    node_event(t, &["ServingCertificatePending", &denied])?;
    t.kubectl(&["certificate", "deny", &denied])?;
    node_event(t, &["ServingCertificateFailed", "denied"])?;
    let issued = next_request(t, &[&denied])?;
    ensure!(verified(t, &node.ip).is_err(), "nobody has signed yet");
    t.kubectl(&["certificate", "approve", &issued])?;
    wait_verified(t, &node.ip)?;
    kill_agent(t)?;
    start_agent_as(t, "lighter", &flags)?;
    t.run(&pod("seen", "echo seen; exec sleep 1000"))?;
    wait_verified(t, &node.ip)?;
    same(requests(t, "kubelet-serving")?.len(), 2)?;
    sh(
        t,
        "ip addr add 172.30.0.77/24 dev eth0; \
         ip route replace default via 172.30.0.1 src 172.30.0.77",
    )?;
    let moved = next_request(t, &[&denied, &issued])?;
    has(&names_of(t, &moved)?, "IP Address:172.30.0.77")?;
    t.kubectl(&["certificate", "approve", &moved])?;
    wait_verified(t, "172.30.0.77")?;
    has(&t.logs("seen")?, "seen")?;
    t.wait("seen", "the node's new address", |p| {
        p["status"]["hostIP"] == "172.30.0.77"
    })
}

/// The flag for a runtime that is not ours.
pub fn foreign(t: &Space) -> Option<String> {
    let kind = t.suite.kind();
    (kind.runtime() == e2e::node::Maker::Stock)
        .then(|| format!("--container-runtime-endpoint=unix://{}", kind.socket()))
}

fn next_request(t: &Space, known: &[&String]) -> Result<String> {
    progress::wait_for(
        "a request for a serving certificate",
        Duration::from_secs(60),
        || {
            std::thread::sleep(Duration::from_millis(300));
            let all = requests(t, "kubelet-serving")?;
            let mut new = all.into_iter().map(|(name, _)| name);
            Ok(new.find(|name| !known.contains(&name)))
        },
    )
}

fn names_of(t: &Space, request: &str) -> Result<String> {
    let pem = t.kubectl(&["get", "csr", request, "-o", "jsonpath={.spec.request}"])?;
    let script = format!("echo {pem} | base64 -d | openssl req -noout -text");
    sh(t, &script)
}

/// That :10250 shows a certificate of the cluster for an address.
fn verified(t: &Space, ip: &str) -> Result<String> {
    let script = format!(
        "openssl s_client -connect {ip}:10250 -CAfile /etc/kubernetes/pki/ca.crt \
         -verify_return_error -verify_ip {ip} </dev/null 2>&1"
    );
    sh(t, &script)
}

fn wait_verified(t: &Space, ip: &str) -> Result<()> {
    progress::wait_for(
        "a verified serving certificate",
        Duration::from_secs(30),
        || {
            std::thread::sleep(Duration::from_millis(300));
            Ok(verified(t, ip).ok().map(drop))
        },
    )
}

fn node_event(t: &Space, words: &[&str]) -> Result<()> {
    let field = format!("involvedObject.name={}", t.node().name);
    let columns = "custom-columns=R:.reason,M:.message";
    let list = [
        "get",
        "events",
        "-n",
        "default",
        "--field-selector",
        &field,
        "-o",
        columns,
    ];
    progress::wait_for(
        &format!("event {words:?} of the Node"),
        Duration::from_secs(45),
        || {
            std::thread::sleep(Duration::from_millis(300));
            let events = t.cluster().kubectl(&list)?;
            let says = |line: &str| words.iter().all(|w| line.contains(w));
            Ok(events.lines().any(says).then_some(()))
        },
    )
}
