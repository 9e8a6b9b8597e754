//! The bed itself.

use crate::kit::{FOREVER, Space, pod};
use anyhow::{Result, ensure};
use e2e::cluster::{Cluster, down, up};
use std::collections::BTreeSet;
use std::fs;

crate::tests!(
    clusters_stand_side_by_side_and_down_leaves_nothing: alone,
    cri_descriptor_of_the_module_is_the_one_the_proto_is_checked_with,
);

fn clusters_stand_side_by_side_and_down_leaves_nothing(t: &Space) -> Result<()> {
    let name = format!("gone-{}", std::process::id());
    let bed = &t.suite.bed;
    let (mounts, links) = (mounts()?, links()?);
    let options = up::Options {
        name: name.clone(),
        nodes: 2,
        kind: t.suite.kind(),
        lighter: None,
        bare: true,
    };
    let cluster = up::up(bed, &options)?;
    cluster.apply(&pod("b", FOREVER).to_string())?;
    cluster.kubectl(&["wait", "pod/b", "--for=condition=Ready", "--timeout=60s"])?;
    let inside = namespaces_of(&e2e::cgroup::members(&e2e::cluster::cgroup(&name)));
    ensure!(
        inside.len() > 6,
        "three machines and a pod have more namespaces: {inside:?}"
    );
    down::down(bed, &name)?;
    // What was killed is a zombie until pid 1 has reaped it.
    let limit = std::time::Duration::from_secs(10);
    e2e::progress::wait_for("end of the namespaces", limit, || {
        Ok(inside
            .is_disjoint(&namespaces_of(&all_pids()))
            .then_some(()))
    })?;
    ensure!(
        Cluster::load(bed, &name).is_err() && !bed.cluster_dir(&name).exists(),
        "files are left"
    );
    for root in e2e::cgroup::hierarchies() {
        let left = root.join(e2e::cluster::cgroup(&name));
        ensure!(!left.exists(), "{} is left", left.display());
    }
    ensure!(
        mounts_of(&name)?.is_empty(),
        "mounts are left: {:?}",
        mounts_of(&name)?
    );
    ensure!(
        self::mounts()?
            .difference(&mounts)
            .all(|m| !m.contains("lighter")),
        "mounts are left"
    );
    ensure!(
        self::links()?.difference(&links).next().is_none(),
        "interfaces are left"
    );
    // The other cluster still stands.
    t.run(&pod("b", FOREVER))
}

/// The namespaces of the processes that this one does not share.
fn namespaces_of(pids: &[i32]) -> BTreeSet<String> {
    let kinds = ["net", "mnt", "uts", "ipc", "pid", "user"];
    let read = |pid: &str, kind: &str| fs::read_link(format!("/proc/{pid}/ns/{kind}")).ok();
    let own: BTreeSet<String> = kinds
        .iter()
        .filter_map(|k| Some(read("self", k)?.display().to_string()))
        .collect();
    let all = pids.iter().flat_map(|pid| {
        kinds
            .iter()
            .filter_map(|k| Some(read(&pid.to_string(), k)?.display().to_string()))
            .collect::<Vec<_>>()
    });
    all.filter(|n| !own.contains(n)).collect()
}

fn all_pids() -> Vec<i32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries
        .filter_map(|e| e.file_name().to_string_lossy().parse().ok())
        .collect()
}

fn mounts() -> Result<BTreeSet<String>> {
    let text = fs::read_to_string("/proc/self/mountinfo")?;
    Ok(text
        .lines()
        .filter_map(|l| l.split(' ').nth(4))
        .map(str::to_owned)
        .collect())
}

fn mounts_of(cluster: &str) -> Result<Vec<String>> {
    Ok(mounts()?
        .into_iter()
        .filter(|m| m.contains(cluster))
        .collect())
}

fn links() -> Result<BTreeSet<String>> {
    let entries = fs::read_dir("/sys/class/net")?.flatten();
    Ok(entries
        .map(|e| e.file_name().to_string_lossy().into_owned())
        .collect())
}

fn cri_descriptor_of_the_module_is_the_one_the_proto_is_checked_with(t: &Space) -> Result<()> {
    let bed = &t.suite.bed;
    let mut go = std::process::Command::new("go");
    go.args(["run", "."])
        .current_dir(bed.peers().join("cri-descriptor"))
        .env("GOTOOLCHAIN", "local");
    let fresh = e2e::command::run(&mut go)?;
    let kept = fs::read_to_string(bed.tree.join("cri-proto/tests/cri-api-v0.37.2.txt"))?;
    ensure!(
        fresh == kept,
        "the descriptor of k8s.io/cri-api differs from the file of cri-proto's test"
    );
    Ok(())
}
