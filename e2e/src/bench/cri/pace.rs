//! Two builds of ours over their CRI sockets, a pod of each in turns: what a change costs or saves
//! on a machine that is never quiet.

use super::{Options, millis};
use crate::bench::table::percentile;
use crate::cgroup;
use crate::cluster::Bed;
use crate::cri::gone::Traces;
use crate::cri::pods::Pods;
use crate::cri::{Options as Site, Stand};
use crate::image::catalog;
use crate::node::Kind;
use crate::progress::step;
use anyhow::{Context, Result};
use std::path::Path;
use std::time::{Duration, Instant};

const STEPS: [&str; 9] = [
    "RunPodSandbox",
    "CreateContainer",
    "StartContainer",
    "  pod start",
    "ExecSync",
    "StopPodSandbox",
    "RemovePodSandbox",
    "until all is gone",
    "  teardown",
];

/// Milliseconds of one pod, a step each.
type Lap = [f64; STEPS.len()];

/// Of pods that are all asked for at once: milliseconds from the first request to the last answer,
/// and how many of a CPU the whole machine took for each pod, which others beside it hardly change.
const CROWD: [&str; 4] = [
    "all at once, start",
    "  CPU a pod",
    "all at once, teardown",
    "  CPU a pod",
];

type Crowd = [f64; CROWD.len()];

/// So many pods one by one, then a crowd of each.
const LAPS_A_CROWD: usize = 10;

/// ext4 without a journal passes over the inodes of what was deleted in the last five seconds
/// (fs/ext4/ialloc.c, RECENTCY_MIN), one by one: a crowd would pay for the end of the one before.
const FORGET: Duration = Duration::from_millis(5500);

/// A runtime and what it was measured to take.
struct Side {
    stand: Stand,
    pods: Pods,
    traces: Traces,
    laps: Vec<Lap>,
    crowds: Vec<Crowd>,
}

/// Answers a table: both builds and the median of the ratios pod by pod.
pub fn compare(bed: &Bed, options: &Options, other: &Path) -> Result<String> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let first = Side::up(bed, &runtime, "pace-1", options.lighter.as_deref())?;
    let second = Side::up(bed, &runtime, "pace-2", Some(other))?;
    let mut sides = [first, second];
    let measured = step(&format!("{} pods of each", options.rounds), || {
        runtime.block_on(turns(&mut sides, options))
    });
    drop(runtime);
    let [ours, theirs] = sides;
    let mut table = format!(
        "\n{:<22}{:>10}{:>10}{:>12}{:>10}{:>10}\n",
        "ms", "p10", "p50", "other p10", "p50", "ratio"
    );
    table += &draw(&STEPS, &ours.laps, &theirs.laps);
    if options.crowd > 0 {
        table += &draw(&CROWD, &ours.crowds, &theirs.crowds);
    }
    ours.stand.down()?;
    theirs.stand.down()?;
    measured.map(|()| table)
}

async fn turns(sides: &mut [Side; 2], options: &Options) -> Result<()> {
    for round in 0..options.rounds {
        // Who goes first finds colder caches.
        let order = if round % 2 == 0 { [0, 1] } else { [1, 0] };
        for at in order {
            let lap = sides[at].lap(&format!("turn-{round}")).await;
            sides[at].laps.push(lap.context("one pod")?);
        }
        for at in order {
            if options.crowd > 0 && round % LAPS_A_CROWD == LAPS_A_CROWD - 1 {
                let name = format!("crowd-{round}");
                tokio::time::sleep(FORGET).await;
                let crowd = sides[at].crowd(&name, options.crowd).await;
                sides[at].crowds.push(crowd.context("pods at once")?);
            }
        }
    }
    Ok(())
}

impl Side {
    fn up(
        bed: &Bed,
        runtime: &tokio::runtime::Runtime,
        name: &str,
        lighter: Option<&Path>,
    ) -> Result<Self> {
        let site = Site {
            name,
            kind: Kind::Lighter,
            lighter,
            private: false,
            images: &[catalog::BUSYBOX_IMAGE],
        };
        let stand = step(&format!("{name} up"), || Stand::up(bed, &site))?;
        runtime.block_on(async {
            let pods = Pods::connect(&stand).await?;
            pods.make_cgroup(&stand)?;
            pods.pull(catalog::BUSYBOX_IMAGE.names[0]).await?;
            let warm = pods.start("warm-up").await?;
            pods.tear_down(&warm).await?;
            tokio::time::sleep(Duration::from_secs(1)).await;
            let traces = Traces::of(&stand)?;
            Ok(Self {
                stand,
                pods,
                traces,
                laps: Vec::new(),
                crowds: Vec::new(),
            })
        })
    }

    async fn lap(&self, name: &str) -> Result<Lap> {
        let mut at = Instant::now();
        let mut passed = || millis(std::mem::replace(&mut at, Instant::now()));
        let pods = &self.pods;
        let sandbox = pods.run_sandbox(name).await?;
        let run = passed();
        let container = pods
            .create(name, &sandbox, &crate::cri::pods::SLEEP)
            .await?;
        let create = passed();
        pods.start_container(&container).await?;
        let start = passed();
        pods.exec_in(&container, &["true"]).await?;
        let exec = passed();
        pods.stop_sandbox(&sandbox).await?;
        let stop = passed();
        pods.remove_sandbox(&sandbox).await?;
        let remove = passed();
        self.traces.wait_gone().await?;
        let gone = passed();
        let (whole, teardown) = (run + create + start, stop + remove + gone);
        Ok([
            run, create, start, whole, exec, stop, remove, gone, teardown,
        ])
    }

    async fn crowd(&self, name: &str, pods: usize) -> Result<Crowd> {
        let cpu = || Ok::<_, anyhow::Error>(cgroup::cpu_time(&self.stand.machine.cgroup)? * 1e3);
        let names: Vec<String> = (0..pods).map(|i| format!("{name}-{i}")).collect();
        let (begun, spent) = (Instant::now(), cpu()?);
        let started = names.iter().map(|name| self.pods.start(name));
        let started = futures::future::try_join_all(started).await?;
        let (start, started_cpu) = (millis(begun), cpu()? - spent);
        let (begun, spent) = (Instant::now(), cpu()?);
        let ends = started.iter().map(|pod| self.pods.tear_down(pod));
        futures::future::try_join_all(ends).await?;
        self.traces.wait_gone().await?;
        let (teardown, ended_cpu) = (millis(begun), cpu()? - spent);
        let each = |cpu: f64| cpu / pods as f64;
        Ok([start, each(started_cpu), teardown, each(ended_cpu)])
    }
}

fn draw<const N: usize>(names: &[&str; N], ours: &[[f64; N]], theirs: &[[f64; N]]) -> String {
    let mut text = String::new();
    for (at, name) in names.iter().enumerate() {
        let of = |laps: &[[f64; N]]| laps.iter().map(|lap| lap[at]).collect::<Vec<_>>();
        let (ours, theirs) = (of(ours), of(theirs));
        let ratios: Vec<f64> = ours.iter().zip(&theirs).map(|(a, b)| a / b).collect();
        text += &format!(
            "{name:<22}{:>10.3}{:>10.3}{:>12.3}{:>10.3}{:>10.3}\n",
            percentile(&ours, 10),
            percentile(&ours, 50),
            percentile(&theirs, 10),
            percentile(&theirs, 50),
            percentile(&ratios, 50),
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ratio_is_the_median_of_pairs_when_the_machine_slows_down() {
        let slow = |factor: f64| [factor; STEPS.len()];
        let ours = [slow(1.0), slow(10.0), slow(100.0)];
        let theirs = [slow(2.0), slow(20.0), slow(200.0)];
        let table = draw(&STEPS, &ours, &theirs);
        assert!(table.lines().all(|line| line.ends_with("0.500")), "{table}");
    }
}
