//! Nodes: of ours, and the stock one they are compared with.

pub mod lighter;
pub mod stock;

use crate::cluster::{Bed, Cluster, addons, registry};
use crate::machine::{Machine, network};
use crate::{peer, progress};
use anyhow::{Context as _, Result, anyhow, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};
use std::path::Path;
use std::time::Duration;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// `lighter agent`.
    Lighter,
    /// kubelet, containerd, runc and the reference CNI plugins.
    Stock,
    /// The stock kubelet on our runtime's socket.
    #[value(name = "kubelet+lighter")]
    #[serde(rename = "kubelet+lighter")]
    KubeletLighter,
    /// Our kubelet on containerd's socket.
    #[value(name = "lighter+containerd")]
    #[serde(rename = "lighter+containerd")]
    LighterContainerd,
}

/// Who made one half of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Maker {
    Lighter,
    Stock,
}

impl Kind {
    pub fn kubelet(self) -> Maker {
        match self {
            Kind::Lighter | Kind::LighterContainerd => Maker::Lighter,
            Kind::Stock | Kind::KubeletLighter => Maker::Stock,
        }
    }

    pub fn runtime(self) -> Maker {
        match self {
            Kind::Lighter | Kind::KubeletLighter => Maker::Lighter,
            Kind::Stock | Kind::LighterContainerd => Maker::Stock,
        }
    }

    /// The runtime's socket on the node.
    pub fn socket(self) -> &'static str {
        match self.runtime() {
            Maker::Lighter => lighter::SOCKET,
            Maker::Stock => stock::SOCKET,
        }
    }
}

impl std::fmt::Display for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Kind::Lighter => "lighter",
            Kind::Stock => "stock",
            Kind::KubeletLighter => "kubelet+lighter",
            Kind::LighterContainerd => "lighter+containerd",
        })
    }
}

/// Builds what a cluster with such nodes runs.
pub fn build_peers(bed: &Bed, kind: Kind) -> Result<()> {
    peer::path(&bed.cache, &bed.peers(), &peer::KUBE)?;
    if kind.runtime() == Maker::Stock {
        for peer in &peer::STOCK_NODE {
            peer::path(&bed.cache, &bed.peers(), peer)?;
        }
    }
    Ok(())
}

/// Starts the node's services and has it join; returns when its Node object exists.
pub fn join(bed: &Bed, cluster: &mut Cluster, index: usize, lighter: Option<&Path>) -> Result<()> {
    let (kind, machine) = (
        cluster.nodes[index].kind,
        cluster.nodes[index].machine.clone(),
    );
    registry::configure_mirrors(&machine, "/etc/containerd/certs.d")?;
    if kind != Kind::Stock {
        machine.install(&lighter::program_path(bed, lighter)?, "lighter")?;
    }
    match (kind.kubelet(), kind.runtime()) {
        // Both in one process.
        (Maker::Lighter, Maker::Lighter) => {}
        (_, Maker::Lighter) => lighter::start_runtime(cluster, &machine)?,
        (_, Maker::Stock) => stock::start_runtime(bed, cluster, &machine)?,
    }
    match kind.kubelet() {
        Maker::Lighter => lighter::join(cluster, index)?,
        Maker::Stock => stock::join(bed, cluster, index)?,
    }
    if kind.runtime() == Maker::Stock {
        stock::give_network(cluster, &machine)?;
    }
    Ok(())
}

/// Starts the kubelet of a node again; also used to start it first.
pub fn start_kubelet(cluster: &mut Cluster, kind: Kind, machine: &Machine) -> Result<()> {
    match kind.kubelet() {
        Maker::Lighter => lighter::start_agent(cluster, kind, machine),
        Maker::Stock => stock::start_kubelet(cluster, kind, machine),
    }
}

/// Kills it with no warning; returns when it is dead.
pub fn kill_kubelet(cluster: &Cluster, kind: Kind, machine: &Machine) -> Result<()> {
    let kubelet = cluster
        .service(&machine.name, kubelet_service(kind))
        .context("the kubelet was never started")?;
    ensure!(kubelet.is_alive(), "the kubelet is dead already");
    kill(Pid::from_raw(kubelet.pid), Signal::SIGKILL)?;
    progress::wait_for("end of the kubelet", Duration::from_secs(5), || {
        Ok((!kubelet.is_alive()).then_some(()))
    })
}

/// What the process of [`start_kubelet`] is recorded as.
pub fn kubelet_service(kind: Kind) -> &'static str {
    match kind.kubelet() {
        Maker::Lighter => "agent",
        Maker::Stock => "kubelet",
    }
}

/// What the process that serves CRI is recorded as.
pub fn runtime_service(kind: Kind) -> &'static str {
    match (kind.kubelet(), kind.runtime()) {
        (Maker::Lighter, Maker::Lighter) => kubelet_service(kind),
        (Maker::Stock, Maker::Lighter) => "runtime",
        (_, Maker::Stock) => "containerd",
    }
}

/// The pod range the controller manager gave to a node, as soon as it has one.
pub fn pod_cidr(cluster: &Cluster, node: &str) -> Result<String> {
    progress::wait_for(
        &format!("podCIDR of {node}"),
        Duration::from_secs(60),
        || {
            let args = ["get", "node", node, "-o", "jsonpath={.spec.podCIDR}"];
            Ok(cluster.kubectl(&args).ok().filter(|cidr| !cidr.is_empty()))
        },
    )
}

/// Every machine gets a route to every node's pods.
pub fn route(cluster: &Cluster) -> Result<()> {
    for node in &cluster.nodes {
        let cidr = pod_cidr(cluster, &node.machine.name)?;
        for machine in cluster.machines().filter(|m| m.name != node.machine.name) {
            network::route(machine, &cidr, &node.machine.ip)?;
        }
    }
    Ok(())
}

pub fn wait_ready(cluster: &Cluster) -> Result<()> {
    // kubectl takes it for a mistake to wait for none.
    if cluster.nodes.is_empty() {
        return Ok(());
    }
    let ready = cluster.kubectl(&[
        "wait",
        "node",
        "--all",
        "--for=condition=Ready",
        "--timeout=60s",
    ]);
    ready
        .map(drop)
        .map_err(|e| anyhow!("{e}; {}", addons::why(cluster)))
}
