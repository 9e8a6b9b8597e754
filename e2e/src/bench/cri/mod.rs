//! Lighter's runtime and containerd with runc, over their CRI sockets, through the same work.

pub mod floor;
mod logs;
pub mod pace;
pub mod report;

use super::Options;
use super::memory::{Sample, sample};
use crate::cluster::Bed;
use crate::cri::gone::Traces;
use crate::cri::pods::Pods;
use crate::cri::{Options as Site, Stand};
use crate::image::{Image, catalog};
use crate::node::Kind;
use crate::progress::step;
use anyhow::{Context, Result};
use serde::Serialize;
use std::time::{Duration, Instant};

/// Pulls of the large image: seconds each.
const PULLS: usize = 3;

/// Milliseconds, unless it says otherwise.
#[derive(Debug, Serialize)]
pub struct Figures {
    pub kind: Kind,
    /// RunPodSandbox, CreateContainer and StartContainer together.
    pub start: Vec<f64>,
    pub exec_sync: Vec<f64>,
    /// StopPodSandbox and RemovePodSandbox, until nothing of the pod is on the machine.
    pub teardown: Vec<f64>,
    /// The first request to the last answer.
    pub crowd_start: f64,
    pub crowd_teardown: f64,
    pub crowd: usize,
    pub pull: Vec<f64>,
    /// CPU seconds of the runtime for 1 GB of log payload.
    pub log_cpu: f64,
    pub empty: Sample,
    pub full: Sample,
    /// Where the time of the median pod's start went, if the runtime can tell.
    pub waterfall: Option<String>,
    /// What the kernel alone takes.
    pub floor: Option<floor::Floor>,
}

pub fn bench(bed: &Bed, options: &Options) -> Result<Vec<Figures>> {
    options
        .kinds
        .iter()
        .map(|k| one(bed, options, *k))
        .collect()
}

fn one(bed: &Bed, options: &Options, kind: Kind) -> Result<Figures> {
    let images: [Image; 2] = [catalog::BUSYBOX_IMAGE, catalog::LARGE];
    let site = Site {
        name: "bench",
        kind,
        lighter: options.lighter.as_deref(),
        private: false,
        images: &images,
    };
    let stand = step(&format!("{kind}: runtime and registry up"), || {
        Stand::up(bed, &site)
    })?;
    // One thread: what a request waits for is the runtime, not a thread of ours to wake.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let figures = runtime.block_on(measure(bed, &stand, options));
    drop(runtime);
    stand.down()?;
    figures.with_context(|| format!("bench of {kind} over CRI"))
}

async fn measure(bed: &Bed, stand: &Stand, options: &Options) -> Result<Figures> {
    let pods = Pods::connect(stand).await?;
    pods.make_cgroup(stand)?;
    pods.pull(catalog::BUSYBOX_IMAGE.names[0]).await?;
    // The first pod warms every cache; nobody measures it.
    let warm = pods.start("warm-up").await?;
    pods.tear_down(&warm).await?;
    let empty = settle(stand).await?;
    let mut figures = Figures {
        kind: stand.kind,
        start: Vec::new(),
        exec_sync: Vec::new(),
        teardown: Vec::new(),
        crowd_start: 0.0,
        crowd_teardown: 0.0,
        crowd: options.crowd,
        pull: Vec::new(),
        log_cpu: 0.0,
        full: empty.clone(),
        empty,
        waterfall: None,
        floor: None,
    };
    one_by_one(stand, &pods, options.rounds, &mut figures).await?;
    if stand.kind == Kind::Lighter {
        figures.waterfall = waterfall(stand, &figures.start)?;
        figures.floor = Some(floor::measure(bed, stand)?);
    }
    at_once(stand, &pods, &mut figures).await?;
    for _ in 0..PULLS {
        let begun = Instant::now();
        let image = pods.pull(catalog::LARGE.names[0]).await?;
        figures.pull.push(millis(begun));
        pods.remove_image(&image).await?;
    }
    figures.log_cpu = logs::cpu_of_a_gigabyte(stand, &pods).await?;
    Ok(figures)
}

async fn one_by_one(
    stand: &Stand,
    pods: &Pods,
    rounds: usize,
    figures: &mut Figures,
) -> Result<()> {
    println!("  {}: {rounds} pods one by one", stand.kind);
    let traces = Traces::of(stand)?;
    for round in 0..rounds {
        let begun = Instant::now();
        let pod = pods.start(&format!("one-{round}")).await?;
        figures.start.push(millis(begun));
        let begun = Instant::now();
        pods.exec(&pod, &["true"]).await?;
        figures.exec_sync.push(millis(begun));
        let begun = Instant::now();
        pods.tear_down(&pod).await?;
        traces.wait_gone().await?;
        figures.teardown.push(millis(begun));
    }
    Ok(())
}

/// Of the pod whose start took longer than half of the others.
fn waterfall(stand: &Stand, start: &[f64]) -> Result<Option<String>> {
    let mut order: Vec<usize> = (0..start.len()).collect();
    order.sort_by(|a, b| start[*a].total_cmp(&start[*b]));
    let Some(median) = order.get(order.len() / 2) else {
        return Ok(None);
    };
    let pod = format!("one-{median}");
    stand.machine.run("lighter", &["waterfall", &pod]).map(Some)
}

async fn at_once(stand: &Stand, pods: &Pods, figures: &mut Figures) -> Result<()> {
    println!("  {}: {} pods at once", stand.kind, figures.crowd);
    let traces = Traces::of(stand)?;
    let names: Vec<String> = (0..figures.crowd).map(|i| format!("crowd-{i}")).collect();
    let begun = Instant::now();
    let started = futures::future::try_join_all(names.iter().map(|name| pods.start(name))).await?;
    figures.crowd_start = millis(begun);
    figures.full = settle(stand).await?;
    let begun = Instant::now();
    futures::future::try_join_all(started.iter().map(|pod| pods.tear_down(pod))).await?;
    traces.wait_gone().await?;
    figures.crowd_teardown = millis(begun);
    Ok(())
}

/// Garbage collectors and caches need a moment.
async fn settle(stand: &Stand) -> Result<Sample> {
    tokio::time::sleep(Duration::from_secs(3)).await;
    sample(&stand.machine.cgroup)
}

fn millis(begun: Instant) -> f64 {
    begun.elapsed().as_secs_f64() * 1e3
}
