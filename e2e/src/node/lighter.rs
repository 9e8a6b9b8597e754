//! A node of ours: `lighter join`, then `lighter agent`.

use super::{Kind, Maker};
use crate::cluster::{Bed, Cluster, registry};
use crate::machine::Machine;
use crate::progress;
use anyhow::{Context, Result, bail};
use std::path::{Path, PathBuf};
use std::time::Duration;

pub const SOCKET: &str = "/run/lighter/cri.sock";

pub fn join(cluster: &mut Cluster, index: usize) -> Result<()> {
    let (kind, machine) = (
        cluster.nodes[index].kind,
        cluster.nodes[index].machine.clone(),
    );
    registry::configure_mirrors(&machine, "/etc/lighter/certs.d")?;
    let mut words = vec!["join"];
    words.extend(cluster.join.iter().map(String::as_str));
    words.extend(["--node-name", &machine.name]);
    machine.run("lighter", &words)?;
    start_agent(cluster, kind, &machine)?;
    wait_registered(cluster, &machine)
}

/// Only the CRI socket, for a kubelet of somebody else's.
pub fn start_runtime(cluster: &mut Cluster, machine: &Machine) -> Result<()> {
    let flags = vec![
        "runtime".to_owned(),
        format!("--cgroup-root=/{}", machine.cgroup),
    ];
    let mut command = machine.command("lighter");
    let process = machine.start_command("runtime", command.args(&flags))?;
    cluster.record(&machine.name, "runtime", process)?;
    progress::wait_for("lighter runtime", Duration::from_secs(20), || {
        Ok(machine.path(SOCKET).exists().then_some(()))
    })
}

/// Starts the agent; also used to start it again after it was killed.
pub fn start_agent(cluster: &mut Cluster, kind: Kind, machine: &Machine) -> Result<()> {
    let mut flags = vec![
        "agent".to_owned(),
        "--config=/var/lib/kubelet/config.yaml".into(),
        "--kubeconfig=/etc/kubernetes/kubelet.conf".into(),
        format!("--node-ip={}", machine.ip),
        format!("--hostname-override={}", machine.name),
        format!("--cgroup-root=/{}", machine.cgroup),
    ];
    if kind.runtime() == Maker::Stock {
        flags.push(format!(
            "--container-runtime-endpoint=unix://{}",
            kind.socket()
        ));
    }
    // Upstream's suite, as others do, looks for the node's agent by this name.
    let mut command = machine.command_called("kubelet", "lighter");
    let process = machine.start_command("lighter", command.args(&flags))?;
    cluster.record(&machine.name, "agent", process)
}

fn wait_registered(cluster: &Cluster, machine: &Machine) -> Result<()> {
    let agent = cluster.service(&machine.name, "agent");
    progress::wait_for(
        &format!("Node {}", machine.name),
        Duration::from_secs(60),
        || {
            if !agent.is_some_and(|p| p.is_alive()) {
                bail!("{}", machine.last_words("lighter"));
            }
            Ok(cluster
                .kubectl(&["get", "node", &machine.name])
                .ok()
                .map(drop))
        },
    )
}

/// `--lighter`, else `$LIGHTER_BIN`, else what cargo built beside `bed`.
pub fn program_path(bed: &Bed, given: Option<&Path>) -> Result<PathBuf> {
    let from_env = std::env::var_os("LIGHTER_BIN").map(PathBuf::from);
    let beside = bed.program.with_file_name("lighter");
    let path = given.map(Path::to_owned).or(from_env).unwrap_or(beside);
    path.canonicalize().with_context(|| {
        format!(
            "no lighter at {}: cargo build -p lighter, or --lighter PATH",
            path.display()
        )
    })
}
