//! A node of ours: `lighter join`, then `lighter agent`.

use crate::cluster::{Bed, Cluster, registry};
use crate::machine::Machine;
use crate::progress;
use anyhow::{Context, Result, bail};
use std::path::{Path, PathBuf};
use std::time::Duration;

pub fn join(bed: &Bed, cluster: &mut Cluster, index: usize, program: Option<&Path>) -> Result<()> {
    let machine = cluster.nodes[index].machine.clone();
    machine.install(&program_path(bed, program)?, "lighter")?;
    registry::configure_mirrors(&machine, "/etc/lighter/certs.d")?;
    registry::configure_mirrors(&machine, "/etc/containerd/certs.d")?;
    let mut words = vec!["join"];
    words.extend(cluster.join.iter().map(String::as_str));
    words.extend(["--node-name", &machine.name]);
    machine.run("lighter", &words)?;
    start_agent(cluster, &machine)?;
    wait_registered(cluster, &machine)
}

/// Starts the agent; also used to start it again after it was killed.
pub fn start_agent(cluster: &mut Cluster, machine: &Machine) -> Result<()> {
    let flags = vec![
        "agent".to_owned(),
        "--config=/var/lib/kubelet/config.yaml".into(),
        "--kubeconfig=/etc/kubernetes/kubelet.conf".into(),
        format!("--node-ip={}", machine.ip),
        format!("--hostname-override={}", machine.name),
        format!("--cgroup-root=/{}", machine.cgroup),
    ];
    let process = machine.start("lighter", &flags)?;
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
