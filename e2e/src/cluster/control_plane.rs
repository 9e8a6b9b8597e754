//! etcd, kube-apiserver, kube-controller-manager and kube-scheduler, with the PKI, the
//! kubeconfigs and the join material that kubeadm's own phases make.

use super::{Cluster, audit};
use crate::machine::{Machine, network};
use crate::progress::{self, step};
use anyhow::{Context, Result};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs;
use std::time::Duration;

const IP: &str = network::CONTROL_PLANE_IP;
const PKI: &str = "/etc/kubernetes/pki";
const KUBEADM_CONFIG: &str = "/etc/kubernetes/kubeadm.yaml";
pub const POD_CIDR: &str = "10.244.0.0/16";
const STOP: Duration = Duration::from_secs(5);
const SERVICE_CIDR: &str = "10.96.0.0/16";
/// The tenth address of the service range, as kubeadm hands it to kubelets.
pub const DNS_IP: &str = "10.96.0.10";
/// The bed runs everything at this version: `e2e/peers/k8s/go.mod`.
pub const VERSION: &str = "v1.37.2";

/// The whole control plane, from nothing to /readyz, join material included.
pub fn start(cluster: &mut Cluster) -> Result<()> {
    let machine = cluster.control_plane.clone();
    machine.write(KUBEADM_CONFIG, &kubeadm_config())?;
    step("certificates and kubeconfigs (kubeadm)", || {
        credentials(&machine)
    })?;
    step("etcd and kube-apiserver", || {
        serve(cluster, &machine, "etcd", etcd())?;
        let flags = [apiserver(), audit::keep(&machine)?].concat();
        serve(cluster, &machine, "kube-apiserver", flags)?;
        wait_ready(cluster)
    })?;
    // Earlier the controller manager would exit: RBAC is still being written.
    serve(
        cluster,
        &machine,
        "kube-controller-manager",
        controller_manager(),
    )?;
    serve(cluster, &machine, "kube-scheduler", scheduler())?;
    step("join material (kubeadm)", || {
        join_material(cluster, &machine)
    })
}

/// Has the controller manager sign certificates for so long (such as `60s`), or as by default.
pub fn sign_for(cluster: &mut Cluster, duration: Option<&str>) -> Result<()> {
    let machine = cluster.control_plane.clone();
    let name = "kube-controller-manager";
    let running = cluster.service(&machine.name, name);
    let running = running.context("the controller manager was never started")?;
    kill(Pid::from_raw(running.pid), Signal::SIGKILL)?;
    progress::wait_for("end of the controller manager", STOP, || {
        Ok((!running.is_alive()).then_some(()))
    })?;
    let mut flags = controller_manager();
    flags.extend(duration.map(|d| format!("--cluster-signing-duration={d}")));
    serve(cluster, &machine, name, flags)
}

/// Starts a service of the control plane; also used to start it again.
pub fn serve(
    cluster: &mut Cluster,
    machine: &Machine,
    name: &str,
    flags: Vec<String>,
) -> Result<()> {
    let process = machine.start(name, &flags)?;
    cluster.record(&machine.name, name, process)
}

fn credentials(machine: &Machine) -> Result<()> {
    for phase in ["certs", "kubeconfig"] {
        let args = ["init", "phase", phase, "all", "--config", KUBEADM_CONFIG];
        machine.run("kubeadm", &args)?;
    }
    // admin.conf gets its rights from a binding that doesn't exist yet; this one has them.
    let admin = fs::read_to_string(machine.path("/etc/kubernetes/super-admin.conf"))?;
    machine.write("/root/.kube/config", &admin)
}

pub fn wait_ready(cluster: &Cluster) -> Result<()> {
    let machine = &cluster.control_plane;
    progress::wait_for("kube-apiserver /readyz", Duration::from_secs(90), || {
        let process = cluster.service(&machine.name, "kube-apiserver");
        if !process.is_some_and(|p| p.is_alive()) {
            anyhow::bail!("{}", machine.last_words("kube-apiserver"));
        }
        if !listens(machine) {
            return Ok(None);
        }
        Ok(cluster.kubectl(&["get", "--raw", "/readyz"]).ok().map(drop))
    })
}

/// A look at the port costs nothing; kubectl costs a tenth of a second of CPU.
fn listens(machine: &Machine) -> bool {
    network::inside(machine, || Ok(std::net::TcpStream::connect((IP, 6443))?)).is_ok()
}

fn join_material(cluster: &mut Cluster, machine: &Machine) -> Result<()> {
    cluster.apply(RBAC)?;
    for phase in [&["upload-config", "all"][..], &["bootstrap-token"]] {
        let mut args = vec!["init", "phase"];
        args.extend(phase);
        args.extend([
            "--config",
            KUBEADM_CONFIG,
            "--kubeconfig",
            "/root/.kube/config",
        ]);
        machine.run("kubeadm", &args)?;
    }
    cluster.join = join_words(machine, "24h")?;
    wait_signed(cluster)?;
    cluster.save()
}

/// A token is of use once the controller manager has signed cluster-info with it; kubeadm would
/// look only every five seconds.
pub fn wait_signed(cluster: &Cluster) -> Result<()> {
    progress::wait_for("signature of cluster-info", Duration::from_secs(60), || {
        let args = [
            "-n",
            "kube-public",
            "get",
            "configmap",
            "cluster-info",
            "-o",
            "json",
        ];
        let text = cluster.kubectl(&args).unwrap_or_default();
        Ok(text.contains("jws-kubeconfig-").then_some(()))
    })
}

/// A new token with its `kubeadm join` words: endpoint and flags.
pub fn join_words(machine: &Machine, ttl: &str) -> Result<Vec<String>> {
    let args = ["token", "create", "--print-join-command", "--ttl", ttl];
    let line = machine.run(
        "kubeadm",
        &[&args[..], &["--kubeconfig", "/root/.kube/config"]].concat(),
    )?;
    let line = line.lines().find(|l| l.starts_with("kubeadm join"));
    let line = line.context("kubeadm token create printed no join command")?;
    Ok(line.split_whitespace().skip(2).map(str::to_owned).collect())
}

/// What `kubeadm init` binds when it first talks to the API server as administrator.
const RBAC: &str = "apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: 'kubeadm:cluster-admins'}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: cluster-admin}
subjects: [{apiGroup: rbac.authorization.k8s.io, kind: Group, name: 'kubeadm:cluster-admins'}]
";

fn kubeadm_config() -> String {
    format!(
        "apiVersion: kubeadm.k8s.io/v1beta4
kind: InitConfiguration
localAPIEndpoint: {{advertiseAddress: {IP}, bindPort: 6443}}
nodeRegistration: {{name: control-plane, criSocket: 'unix:///run/containerd/containerd.sock'}}
---
apiVersion: kubeadm.k8s.io/v1beta4
kind: ClusterConfiguration
kubernetesVersion: {VERSION}
controlPlaneEndpoint: {IP}:6443
encryptionAlgorithm: ECDSA-P256
networking: {{podSubnet: {POD_CIDR}, serviceSubnet: {SERVICE_CIDR}}}
---
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
cgroupDriver: cgroupfs
failCgroupV1: false
enableSystemLogQuery: true
failSwapOn: false
imageGCHighThresholdPercent: 100
evictionHard: {{memory.available: 100Mi, nodefs.available: 0%, nodefs.inodesFree: 0%, imagefs.available: 0%}}
maxPods: 250
---
apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
"
    )
}

fn etcd() -> Vec<String> {
    // The data is worth nothing after `down`: no fsync, whatever the disk.
    flags(&[
        "--data-dir=/var/lib/etcd",
        "--listen-client-urls=http://127.0.0.1:2379",
        "--advertise-client-urls=http://127.0.0.1:2379",
        "--listen-peer-urls=http://127.0.0.1:2380",
        "--unsafe-no-fsync",
        "--log-level=warn",
    ])
}

fn apiserver() -> Vec<String> {
    let mut all = flags(&[
        "--etcd-servers=http://127.0.0.1:2379",
        "--secure-port=6443",
        "--authorization-mode=Node,RBAC",
        "--enable-admission-plugins=NodeRestriction",
        "--allow-privileged=true",
        "--enable-bootstrap-token-auth=true",
        // The API server has no kube-proxy beside it: it goes to endpoints, not to service addresses.
        "--enable-aggregator-routing=true",
        // Drivers of older days ask for these, and upstream's specs with them.
        "--runtime-config=resource.k8s.io/v1beta1=true,resource.k8s.io/v1beta2=true",
        "--kubelet-preferred-address-types=InternalIP,Hostname",
        "--service-account-issuer=https://kubernetes.default.svc.cluster.local",
        "--requestheader-allowed-names=front-proxy-client",
        "--requestheader-username-headers=X-Remote-User",
        "--requestheader-group-headers=X-Remote-Group",
        "--requestheader-extra-headers-prefix=X-Remote-Extra-",
    ]);
    let files = [
        ("tls-cert-file", "apiserver.crt"),
        ("tls-private-key-file", "apiserver.key"),
        ("client-ca-file", "ca.crt"),
        ("service-account-key-file", "sa.pub"),
        ("service-account-signing-key-file", "sa.key"),
        ("kubelet-client-certificate", "apiserver-kubelet-client.crt"),
        ("kubelet-client-key", "apiserver-kubelet-client.key"),
        ("requestheader-client-ca-file", "front-proxy-ca.crt"),
        ("proxy-client-cert-file", "front-proxy-client.crt"),
        ("proxy-client-key-file", "front-proxy-client.key"),
    ];
    all.extend(
        files
            .iter()
            .map(|(flag, file)| format!("--{flag}={PKI}/{file}")),
    );
    all.push(format!("--advertise-address={IP}"));
    all.push(format!("--service-cluster-ip-range={SERVICE_CIDR}"));
    all
}

fn controller_manager() -> Vec<String> {
    let mut all = kubeconfig_flags("controller-manager");
    all.extend(flags(&[
        "--use-service-account-credentials",
        "--controllers=*,bootstrapsigner,tokencleaner",
        "--allocate-node-cidrs",
    ]));
    all.push(format!("--root-ca-file={PKI}/ca.crt"));
    all.push(format!("--client-ca-file={PKI}/ca.crt"));
    all.push(format!("--service-account-private-key-file={PKI}/sa.key"));
    all.push(format!("--cluster-signing-cert-file={PKI}/ca.crt"));
    all.push(format!("--cluster-signing-key-file={PKI}/ca.key"));
    all.push(format!("--cluster-cidr={POD_CIDR}"));
    all.push(format!("--service-cluster-ip-range={SERVICE_CIDR}"));
    all
}

fn scheduler() -> Vec<String> {
    kubeconfig_flags("scheduler")
}

fn kubeconfig_flags(component: &str) -> Vec<String> {
    let file = format!("/etc/kubernetes/{component}.conf");
    vec![
        format!("--kubeconfig={file}"),
        format!("--authentication-kubeconfig={file}"),
        format!("--authorization-kubeconfig={file}"),
        "--leader-elect=false".into(),
    ]
}

fn flags(list: &[&str]) -> Vec<String> {
    list.iter().map(|f| (*f).to_owned()).collect()
}
