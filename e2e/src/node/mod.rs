//! Nodes: of ours, and the stock one they are compared with.

pub mod lighter;
pub mod stock;

use crate::cluster::{Bed, Cluster, addons};
use crate::machine::network;
use crate::{peer, progress};
use anyhow::{Result, anyhow};
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
}

impl std::fmt::Display for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Kind::Lighter => "lighter",
            Kind::Stock => "stock",
        })
    }
}

/// Builds what a cluster with such nodes runs.
pub fn build_peers(bed: &Bed, kind: Kind) -> Result<()> {
    peer::path(&bed.cache, &bed.peers(), &peer::KUBE)?;
    if kind == Kind::Stock {
        for peer in &peer::STOCK_NODE {
            peer::path(&bed.cache, &bed.peers(), peer)?;
        }
    }
    Ok(())
}

/// Starts the node's services and has it join; returns when its Node object exists.
pub fn join(bed: &Bed, cluster: &mut Cluster, index: usize, lighter: Option<&Path>) -> Result<()> {
    match cluster.nodes[index].kind {
        Kind::Lighter => lighter::join(bed, cluster, index, lighter),
        Kind::Stock => stock::join(bed, cluster, index),
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
