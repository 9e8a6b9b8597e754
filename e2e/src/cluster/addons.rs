//! What a cluster runs on its nodes: kube-proxy and CoreDNS, from `deploy/manifests`.

use super::{Bed, Cluster};
use crate::machine::network;
use crate::progress;
use anyhow::{Context, Result};
use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(200);

/// One after the other: CoreDNS without kube-proxy can't reach the API server, and backs off.
pub fn apply(bed: &Bed, cluster: &Cluster) -> Result<()> {
    roll_out(bed, cluster, "kube-proxy.yaml", "daemonset/kube-proxy")?;
    // It is rolled out before it has written its rules; whoever connects too early
    // waits half a minute for an answer that never comes.
    wait_services(cluster)?;
    roll_out(bed, cluster, "coredns.yaml", "deployment/coredns")
}

fn roll_out(bed: &Bed, cluster: &Cluster, file: &str, workload: &str) -> Result<()> {
    apply_file(bed, cluster, file)?;
    let status = ["-n", "kube-system", "rollout", "status", workload];
    let limit = ["--timeout=120s"];
    let done = cluster.kubectl(&[&status[..], &limit].concat());
    done.map(drop).with_context(|| why(cluster))
}

/// Until every node reaches the API server by its Service.
fn wait_services(cluster: &Cluster) -> Result<()> {
    let path = "jsonpath={.spec.clusterIP}";
    let ip = cluster.kubectl(&["get", "service", "kubernetes", "-o", path])?;
    let address: SocketAddr = format!("{}:443", ip.trim()).parse()?;
    for node in &cluster.nodes {
        network::inside(&node.machine, || {
            progress::wait_for("Services on the node", LIMIT, || {
                Ok(TcpStream::connect_timeout(&address, PAUSE).ok().map(drop))
            })
        })?;
    }
    Ok(())
}

/// Applies a file of `deploy/manifests`.
pub fn apply_file(bed: &Bed, cluster: &Cluster, name: &str) -> Result<()> {
    let path = bed.manifest(name);
    let text = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
    let api_server = format!("{}:6443", cluster.control_plane.ip);
    cluster.apply(&text.replace("API_SERVER", &api_server))?;
    Ok(())
}

/// The last warning of the cluster: usually what the wait was about.
pub fn why(cluster: &Cluster) -> String {
    let events = cluster.kubectl(&[
        "get",
        "events",
        "-A",
        "--field-selector=type=Warning",
        "--sort-by=.lastTimestamp",
        "-o",
        "custom-columns=R:.reason,O:.involvedObject.name,M:.message",
        "--no-headers",
    ]);
    let events = events.unwrap_or_default();
    events
        .lines()
        .last()
        .map_or("no warnings in the cluster".into(), |l| {
            format!("last warning: {l}")
        })
}
