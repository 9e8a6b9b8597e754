//! Taking a cluster down: its processes end, and everything of it with them.

use super::{Bed, cgroup};
use crate::cgroup as groups;
use crate::machine::Process;
use anyhow::{Context, Result};
use std::fs;
use std::path::Path;
use std::process::Command;

/// Namespaces, mounts and interfaces live as long as a process in them, so ending every process
/// of the cluster's cgroups is all there is to do; then the cgroups and the files go.
pub fn down(bed: &Bed, name: &str) -> Result<()> {
    let dir = bed.cluster_dir(name);
    if let Ok(cluster) = super::Cluster::load(bed, name) {
        end_recorded(&cluster.services);
    }
    remove(&cgroup(name), &dir)
}

/// Ends every process of the cgroup, then removes it and the files.
pub fn remove(group: &str, dir: &Path) -> Result<()> {
    groups::remove(group)?;
    // The top goes with its last cluster; until then it is not empty and stays.
    for root in groups::hierarchies() {
        let _ = fs::remove_dir(root.join(groups::TOP));
    }
    remove_files(dir)
}

/// Normally all of them are in the cgroups too; one that was moved out must not stay.
fn end_recorded(services: &std::collections::BTreeMap<String, Process>) {
    for process in services.values().filter(|p| p.is_alive()) {
        let pid = nix::unistd::Pid::from_raw(process.pid);
        let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL);
    }
}

/// Never across a mount: what is mounted below is somebody's data.
fn remove_files(dir: &Path) -> Result<()> {
    let mut rm = Command::new("rm");
    crate::command::run(rm.args(["-rf", "--one-file-system"]).arg(dir))
        .with_context(|| format!("remove {}", dir.display()))?;
    Ok(())
}
