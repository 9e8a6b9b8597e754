//! The stock node: kubelet + containerd + runc + reference CNI plugins, joined by kubeadm.

use super::Kind;
use crate::cluster::{Bed, Cluster};
use crate::machine::Machine;
use crate::{peer, progress};
use anyhow::{Result, bail};
use std::process::Command;
use std::time::Duration;

pub const SOCKET: &str = "/run/containerd/containerd.sock";

pub fn join(bed: &Bed, cluster: &mut Cluster, index: usize) -> Result<()> {
    let (kind, machine) = (
        cluster.nodes[index].kind,
        cluster.nodes[index].machine.clone(),
    );
    install_kubelet(bed, &machine)?;
    kubeadm_join(cluster, kind, &machine)
}

/// containerd with runc.
pub fn start_runtime(bed: &Bed, cluster: &mut Cluster, machine: &Machine) -> Result<()> {
    install_runtime(bed, machine)?;
    let containerd = machine.start("containerd", &[])?;
    cluster.record(&machine.name, "containerd", containerd)?;
    progress::wait_for("containerd", Duration::from_secs(20), || {
        Ok(machine.path(SOCKET).exists().then_some(()))
    })
}

/// Its own podCIDR for the reference plugins, as soon as the node has one.
pub fn give_network(cluster: &Cluster, machine: &Machine) -> Result<()> {
    let cidr = super::pod_cidr(cluster, &machine.name)?;
    machine.write("/etc/cni/net.d/10-bridge.conflist", &conflist(&cidr))
}

fn install_kubelet(bed: &Bed, machine: &Machine) -> Result<()> {
    let kube = peer::path(&bed.cache, &bed.peers(), &peer::KUBE)?;
    machine.install(&kube, "kube")?;
    for name in ["kubelet", "kubeadm", "kubectl"] {
        machine.link("kube", name)?;
    }
    Ok(())
}

/// containerd, runc and the reference CNI plugins, with containerd's settings.
pub fn install_runtime(bed: &Bed, machine: &Machine) -> Result<()> {
    for peer in &peer::STOCK_NODE {
        let dir = if peer.module == "cni" {
            "/opt/cni/bin"
        } else {
            "/usr/local/bin"
        };
        let program = peer::path(&bed.cache, &bed.peers(), peer)?;
        machine.install_at(&program, &format!("{dir}/{}", peer.name))?;
    }
    machine.write("/etc/containerd/config.toml", CONTAINERD)
}

/// kubeadm writes the kubelet's files, then waits for its health port; no init system is there
/// to start it, so the bed does as soon as the files stand.
fn kubeadm_join(cluster: &mut Cluster, kind: Kind, machine: &Machine) -> Result<()> {
    let mut join: Command = machine.command("kubeadm");
    join.arg("join").args(&cluster.join).args([
        "--node-name",
        &machine.name,
        "--cri-socket",
        &format!("unix://{}", kind.socket()),
        "--ignore-preflight-errors=all",
    ]);
    let mut join = machine.spawn("kubeadm", &mut join)?;
    progress::wait_for(
        "kubeadm's files for the kubelet",
        Duration::from_secs(60),
        || {
            if join.try_wait()?.is_some() {
                bail!("{}", machine.last_words("kubeadm"));
            }
            let files = [
                "/var/lib/kubelet/config.yaml",
                "/var/lib/kubelet/kubeadm-flags.env",
            ];
            Ok(files.iter().all(|f| machine.path(f).exists()).then_some(()))
        },
    )?;
    start_kubelet(cluster, kind, machine)?;
    if !join.wait()?.success() {
        bail!(
            "kubeadm join: {}; {}",
            machine.last_words("kubeadm"),
            machine.last_words("kubelet")
        );
    }
    Ok(())
}

pub fn start_kubelet(cluster: &mut Cluster, kind: Kind, machine: &Machine) -> Result<()> {
    let flags = vec![
        "--bootstrap-kubeconfig=/etc/kubernetes/bootstrap-kubelet.conf".to_owned(),
        "--kubeconfig=/etc/kubernetes/kubelet.conf".into(),
        "--config=/var/lib/kubelet/config.yaml".into(),
        format!("--container-runtime-endpoint=unix://{}", kind.socket()),
        format!("--node-ip={}", machine.ip),
        format!("--hostname-override={}", machine.name),
        format!("--cgroup-root=/{}", machine.cgroup),
    ];
    let kubelet = machine.start("kubelet", &flags)?;
    cluster.record(&machine.name, "kubelet", kubelet)
}

/// `restrict_oom_score_adj`: without CAP_SYS_RESOURCE no process may be given a lower score than
/// its parent's, and every sandbox would fail with a message that does not say so.
const CONTAINERD: &str = "version = 3
[plugins.'io.containerd.cri.v1.runtime']
  restrict_oom_score_adj = true
  [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc]
    runtime_type = 'io.containerd.runc.v2'
    [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc.options]
      BinaryName = '/usr/local/bin/runc'
      SystemdCgroup = false
[plugins.'io.containerd.cri.v1.images'.pinned_images]
  sandbox = 'registry.k8s.io/pause:3.10.2'
[plugins.'io.containerd.cri.v1.images'.registry]
  config_path = '/etc/containerd/certs.d'
";

/// A network for the reference plugins.
pub fn conflist(cidr: &str) -> String {
    format!(
        r#"{{"cniVersion": "1.0.0", "name": "bed", "plugins": [
  {{"type": "bridge", "bridge": "cni0", "isGateway": true, "isDefaultGateway": true,
   "hairpinMode": true, "ipMasq": false,
   "ipam": {{"type": "host-local", "ranges": [[{{"subnet": "{cidr}"}}]]}}}},
  {{"type": "portmap", "capabilities": {{"portMappings": true}}}}]}}
"#
    )
}
