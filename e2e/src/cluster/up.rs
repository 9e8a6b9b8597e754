//! Bringing a cluster up.

use super::{Bed, Cluster, Node, addons, cgroup, control_plane, registry};
use crate::image::catalog;
use crate::machine::{Machine, network};
use crate::node::{self, Kind};
use crate::progress::{self, step};
use crate::{cache, peer, requirement};
use anyhow::{Result, bail};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

#[derive(Debug, Clone)]
pub struct Options {
    pub name: String,
    pub nodes: usize,
    pub kind: Kind,
    /// The `lighter` program; only used for nodes of that kind.
    pub lighter: Option<PathBuf>,
    /// Without CoreDNS and kube-proxy.
    pub bare: bool,
}

pub fn up(bed: &Bed, options: &Options) -> Result<Cluster> {
    requirement::root()?;
    let dir = bed.cluster_dir(&options.name);
    if dir.exists() {
        bail!(
            "cluster {0} is up already (or was left): bed down --name {0}",
            options.name
        );
    }
    let start = Instant::now();
    println!(
        "cluster {} ({} node(s), {})",
        options.name, options.nodes, options.kind
    );
    step("programs of the host", || {
        requirement::host_programs(&bed.cache)
    })?;
    step("peers", || node::build_peers(bed, options.kind))?;
    let mut cluster = step("machines and their network", || {
        machines(bed, &dir, options)
    })?;
    let registry = registry::start(bed, &cluster.control_plane)?;
    cluster.record("control-plane", "registry", registry)?;
    let private = registry::start_private(bed, &cluster.control_plane)?;
    cluster.record("control-plane", "registry-private", private)?;
    install_control_plane(bed, &cluster.control_plane)?;
    let machine = cluster.control_plane.clone();
    std::thread::scope(|scope| {
        let push = scope.spawn(|| {
            step("images in the registry", || {
                registry::push(bed, &machine, &catalog::CLUSTER)
            })
        });
        control_plane::start(&mut cluster)?;
        push.join()
            .map_err(|_| anyhow::anyhow!("a thread of the bed panicked"))?
    })?;
    for index in 0..cluster.nodes.len() {
        let name = cluster.nodes[index].machine.name.clone();
        step(&format!("{name} joined and registered"), || {
            node::join(bed, &mut cluster, index, options.lighter.as_deref())
        })?;
    }
    step("routes between the machines", || node::route(&cluster))?;
    step("nodes Ready", || node::wait_ready(&cluster))?;
    if !options.bare {
        step("kube-proxy and CoreDNS", || addons::apply(bed, &cluster))?;
    }
    println!(
        "  {:<44} {:>8}",
        "cluster up",
        progress::seconds(start.elapsed())
    );
    Ok(cluster)
}

fn machines(bed: &Bed, dir: &Path, options: &Options) -> Result<Cluster> {
    fs::create_dir_all(dir)?;
    // A copy: a rebuild must not change the program under a running cluster.
    let program = dir.join("bed");
    fs::copy(&bed.program, &program)?;
    let group = cgroup(&options.name);
    let make = |name: &str, rooted: bool| {
        let group = format!("{group}/{name}");
        Machine::create(&program, &dir.join(name), name, &group, rooted)
    };
    let switch = make("switch", false)?;
    network::make_switch(&switch)?;
    let mut control_plane = make("control-plane", true)?;
    control_plane.ip = network::CONTROL_PLANE_IP.into();
    network::plug(&switch, &control_plane)?;
    let mut nodes = Vec::new();
    for index in 0..options.nodes {
        let mut machine = make(&format!("node-{}", index + 1), true)?;
        machine.ip = network::node_ip(index);
        network::plug(&switch, &machine)?;
        nodes.push(Node {
            kind: options.kind,
            machine,
        });
    }
    let cluster = Cluster {
        name: options.name.clone(),
        dir: dir.to_owned(),
        switch,
        control_plane,
        nodes,
        services: BTreeMap::new(),
        join: Vec::new(),
    };
    write_hosts(&cluster)?;
    cluster.save()?;
    Ok(cluster)
}

fn write_hosts(cluster: &Cluster) -> Result<()> {
    let names: String = cluster
        .machines()
        .map(|m| format!("{} {}\n", m.ip, m.name))
        .collect();
    let hosts = format!("127.0.0.1 localhost\n::1 localhost\n{names}");
    cluster
        .machines()
        .try_for_each(|m| m.write("/etc/hosts", &hosts))
}

fn install_control_plane(bed: &Bed, machine: &Machine) -> Result<()> {
    let kube = peer::path(&bed.cache, &bed.peers(), &peer::KUBE)?;
    machine.install(&kube, "kube")?;
    for name in [
        "etcd",
        "kube-apiserver",
        "kube-controller-manager",
        "kube-scheduler",
        "kubeadm",
        "kubectl",
    ] {
        machine.link("kube", name)?;
    }
    Ok(())
}

/// Two `up` of one name must not meet.
pub fn locked(bed: &Bed, name: &str) -> Result<fs::File> {
    cache::lock(&bed.cache.dir("locks")?.join(name))
}
