//! `lighter doctor`: what is wrong with this machine, or what it lacks to be a node.
//!
//! Each look at the machine is a [`Finding`]: what was seen, and where that is not well, why it
//! matters and what to do. Judging is apart from reading, so that it can be tested. Nothing here
//! changes the machine.

mod certificates;
mod cluster;
mod disk;
mod host;
mod kernel;
mod leftovers;
mod limits;
mod network;
mod processes;
mod report;
mod runtime;
mod security;

pub use report::{Finding, Verdict, json, text, worst};

use std::path::PathBuf;

/// Where a node is looked for.
#[derive(Debug, Clone)]
pub struct Place {
    /// Of the kubelet; `None` where there is no configuration yet.
    pub config: Option<kubelet::config::Config>,
    /// Why the configuration can't be read.
    pub config_mistake: Option<String>,
    pub kubeconfig: PathBuf,
    pub bootstrap_kubeconfig: PathBuf,
    /// `/var/lib/kubelet`.
    pub root_dir: PathBuf,
    /// The Node's, where it is not the machine's.
    pub node_name: Option<String>,
    pub pki: PathBuf,
    pub runtime: ::runtime::Config,
    /// The CRI socket that a node would be asked at.
    pub socket: PathBuf,
}

impl Place {
    /// Whether this machine belongs to a cluster.
    fn joined(&self) -> bool {
        self.kubeconfig.exists() || self.bootstrap_kubeconfig.exists()
    }

    /// What the Node is called.
    fn name(&self) -> Result<String, String> {
        match &self.node_name {
            Some(name) => Ok(name.clone()),
            None => kubelet::node::default_name().map_err(|e| e.to_string()),
        }
    }

    /// The configuration, or what it would be by default.
    fn config(&self) -> kubelet::config::Config {
        self.config.clone().unwrap_or_default()
    }
}

/// Everything, in the order in which it is read best.
pub async fn examine(place: &Place) -> Vec<Finding> {
    let agent = processes::agent(&place.socket).await;
    let mut all = host::findings(place);
    all.extend(kernel::findings(place));
    all.extend(limits::findings());
    all.extend(security::findings());
    all.extend(network::findings(place));
    all.extend(disk::findings(place));
    all.extend(processes::findings(place, agent));
    all.extend(leftovers::findings(place, agent));
    all.extend(runtime::findings(place, agent).await);
    all.extend(certificates::findings(place));
    all.extend(cluster::findings(place).await);
    all
}

/// A file of /proc or /sys, without the newline at its end; empty when it can't be read.
fn read(path: impl AsRef<std::path::Path>) -> String {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    text.trim_end().to_owned()
}
