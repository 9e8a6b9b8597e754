//! What a cluster runs on its nodes: kube-proxy and CoreDNS, from `deploy/manifests`.

use super::{Bed, Cluster};
use anyhow::{Context, Result};
use std::fs;

pub fn apply(bed: &Bed, cluster: &Cluster) -> Result<()> {
    for name in ["kube-proxy.yaml", "coredns.yaml"] {
        apply_file(bed, cluster, name)?;
    }
    for workload in ["daemonset/kube-proxy", "deployment/coredns"] {
        cluster
            .kubectl(&[
                "-n",
                "kube-system",
                "rollout",
                "status",
                workload,
                "--timeout=120s",
            ])
            .with_context(|| why(cluster))?;
    }
    Ok(())
}

/// Applies a file of `deploy/manifests`.
pub fn apply_file(bed: &Bed, cluster: &Cluster, name: &str) -> Result<()> {
    let path = bed.manifest(name);
    let text = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
    cluster.apply(&text)?;
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
