//! Many pods made and removed: what they cost must not grow.

use crate::bench::memory::sample;
use crate::cri::Stand;
use crate::cri::gone::Traces;
use crate::cri::pods::Pods;
use crate::image::catalog;
use anyhow::{Context, Result, ensure};
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// Pods at once.
const WIDTH: usize = 8;
/// Growth of the runtime's memory that is no leak yet: allocators and caches breathe.
const MOST_MEMORY: f64 = 1.25;

#[derive(Debug)]
struct Standing {
    descriptors: usize,
    pss: u64,
    files: usize,
}

pub async fn churn(stand: &Stand, pods: usize) -> Result<()> {
    println!("  {pods} pods made and removed, {WIDTH} at once");
    let cri = Pods::connect(stand).await?;
    cri.pull(catalog::BUSYBOX_IMAGE.names[0]).await?;
    // A tenth warms up.
    round(&cri, "warm", pods / 10).await?;
    let traces = Traces::of(stand)?;
    let before = standing(stand)?;
    let begun = Instant::now();
    for part in 1..=9 {
        round(&cri, &format!("part-{part}"), pods / 10).await?;
        let now = standing(stand)?;
        let spent = begun.elapsed().as_secs();
        println!("    {}0 %, {spent} s: {now:?}", part + 1);
    }
    traces.wait_gone().await?;
    let after = standing(stand)?;
    ensure!(
        after.descriptors <= before.descriptors,
        "descriptors: {before:?}, {after:?}"
    );
    ensure!(after.files <= before.files, "files: {before:?}, {after:?}");
    ensure!(
        after.pss as f64 <= before.pss as f64 * MOST_MEMORY,
        "memory: {before:?}, {after:?}"
    );
    Ok(())
}

async fn round(cri: &Pods, name: &str, pods: usize) -> Result<()> {
    let numbers: Vec<usize> = (0..pods).collect();
    for some in numbers.chunks(WIDTH) {
        let life = |number: &usize| {
            let name = format!("{name}-{number}");
            async move {
                let pod = cri.start(&name).await?;
                cri.exec(&pod, &["true"]).await?;
                cri.tear_down(&pod).await
            }
        };
        futures::future::try_join_all(some.iter().map(life)).await?;
    }
    Ok(())
}

fn standing(stand: &Stand) -> Result<Standing> {
    // What is thrown away is deleted in the background.
    std::thread::sleep(std::time::Duration::from_secs(2));
    let lock = fs::read_to_string(stand.machine.path("/run/lighter/agent.lock"))?;
    let agent: i32 = lock.trim().parse().context("the agent's lock has no pid")?;
    Ok(Standing {
        descriptors: fs::read_dir(format!("/proc/{agent}/fd"))?.count(),
        pss: sample(&stand.machine.cgroup)?.node_pss(),
        files: files(&stand.machine.path("/var/lib/lighter"))
            + files(&stand.machine.path("/run/lighter")),
    })
}

fn files(dir: &Path) -> usize {
    let mut all = BTreeSet::new();
    paths(dir, &mut all);
    all.len()
}

/// Everything below a folder.
pub fn paths(dir: &Path, all: &mut BTreeSet<PathBuf>) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            paths(&path, all);
        }
        all.insert(path);
    }
}
