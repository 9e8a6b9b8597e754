//! A cluster of the bed: a switch, a control plane and nodes, and its state on disk.

pub mod addons;
pub mod audit;
pub mod control_plane;
pub mod down;
pub mod registry;
pub mod up;

use crate::cache::Cache;
use crate::command;
use crate::image::layer::Inputs;
use crate::machine::{Machine, Process};
use crate::node::Kind;
use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Where the bed finds its own parts.
#[derive(Debug, Clone)]
pub struct Bed {
    /// The `bed` program.
    pub program: PathBuf,
    pub cache: Cache,
    /// The source tree: `e2e/peers`, `deploy/manifests`.
    pub tree: PathBuf,
}

impl Bed {
    pub fn new(program: PathBuf) -> Bed {
        let tree = Path::new(env!("CARGO_MANIFEST_DIR"))
            .parent()
            .unwrap_or(Path::new("."));
        Bed {
            program,
            cache: Cache::from_env(),
            tree: tree.to_owned(),
        }
    }

    pub fn peers(&self) -> PathBuf {
        self.tree.join("e2e/peers")
    }

    /// What images are built from.
    pub fn image_inputs(&self) -> Inputs<'_> {
        Inputs {
            cache: &self.cache,
            peers: self.peers(),
        }
    }

    pub fn manifest(&self, name: &str) -> PathBuf {
        self.tree.join("deploy/manifests").join(name)
    }

    pub fn cluster_dir(&self, name: &str) -> PathBuf {
        self.cache.root.join("clusters").join(name)
    }

    /// Names of the clusters that have state on disk.
    pub fn clusters(&self) -> Vec<String> {
        let entries = fs::read_dir(self.cache.root.join("clusters"))
            .into_iter()
            .flatten();
        let mut names: Vec<String> = entries
            .flatten()
            .map(|e| e.file_name().to_string_lossy().into_owned())
            .collect();
        names.sort();
        names
    }
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Node {
    pub kind: Kind,
    pub machine: Machine,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Cluster {
    pub name: String,
    pub dir: PathBuf,
    pub switch: Machine,
    pub control_plane: Machine,
    pub nodes: Vec<Node>,
    /// "machine/service" -> its process, as it was started last.
    pub services: BTreeMap<String, Process>,
    /// What a node joins with: the words after `kubeadm join`.
    pub join: Vec<String>,
}

/// Below the root of each cgroup hierarchy.
pub fn cgroup(cluster: &str) -> String {
    format!("{}/{cluster}", crate::cgroup::TOP)
}

impl Cluster {
    pub fn load(bed: &Bed, name: &str) -> Result<Cluster> {
        let file = bed.cluster_dir(name).join("cluster.json");
        let text = fs::read(&file).with_context(|| {
            format!(
                "no cluster {name} (no {}); bed up --name {name}",
                file.display()
            )
        })?;
        serde_json::from_slice(&text).with_context(|| format!("read {}", file.display()))
    }

    /// Written whole and renamed, so that a reader never sees half of it.
    pub fn save(&self) -> Result<()> {
        let file = self.dir.join("cluster.json");
        let partial = self.dir.join(".cluster.json");
        fs::write(&partial, serde_json::to_vec_pretty(self)?)?;
        fs::rename(&partial, &file).with_context(|| format!("write {}", file.display()))
    }

    pub fn record(&mut self, machine: &str, service: &str, process: Process) -> Result<()> {
        self.services
            .insert(format!("{machine}/{service}"), process);
        self.save()
    }

    pub fn service(&self, machine: &str, service: &str) -> Option<Process> {
        self.services.get(&format!("{machine}/{service}")).copied()
    }

    pub fn node(&self, name: &str) -> Result<&Node> {
        let found = self.nodes.iter().find(|n| n.machine.name == name);
        found.with_context(|| format!("cluster {} has no node {name}", self.name))
    }

    pub fn machines(&self) -> impl Iterator<Item = &Machine> {
        std::iter::once(&self.control_plane).chain(self.nodes.iter().map(|n| &n.machine))
    }

    /// kubectl, as cluster administrator, from the control plane.
    pub fn kubectl(&self, args: &[&str]) -> Result<String> {
        command::run(self.kubectl_command().args(args))
    }

    pub fn kubectl_command(&self) -> Command {
        self.control_plane.command("kubectl")
    }

    /// `kubectl apply` of manifest text.
    pub fn apply(&self, manifest: &str) -> Result<String> {
        let mut kubectl = self.kubectl_command();
        command::run_with_input(kubectl.args(["apply", "-f", "-"]), manifest.as_bytes())
    }

    pub fn check_alive(&self) -> Result<()> {
        if !self.control_plane.holder.is_alive() {
            bail!(
                "cluster {0} is dead (a reboot?): bed down --name {0}",
                self.name
            );
        }
        Ok(())
    }
}
