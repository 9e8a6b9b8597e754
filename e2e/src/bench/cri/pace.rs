//! Two builds of ours over their CRI sockets, a pod of each in turns: what a change costs or saves
//! on a machine that is never quiet.

use super::{Options, millis};
use crate::bench::table::percentile;
use crate::cluster::Bed;
use crate::cri::gone::Traces;
use crate::cri::pods::Pods;
use crate::cri::{Options as Site, Stand};
use crate::image::catalog;
use crate::node::Kind;
use crate::progress::step;
use anyhow::{Context, Result};
use std::path::Path;
use std::time::Instant;

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

/// A runtime and what it was measured to take.
struct Side {
    stand: Stand,
    pods: Pods,
    traces: Traces,
    laps: Vec<Lap>,
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
        runtime.block_on(turns(&mut sides, options.rounds))
    });
    drop(runtime);
    let [ours, theirs] = sides;
    let table = draw(&ours.laps, &theirs.laps);
    ours.stand.down()?;
    theirs.stand.down()?;
    measured.map(|()| table)
}

async fn turns(sides: &mut [Side; 2], rounds: usize) -> Result<()> {
    for round in 0..rounds {
        // Who goes first finds colder caches.
        let order = if round % 2 == 0 { [0, 1] } else { [1, 0] };
        for at in order {
            let lap = sides[at].lap(&format!("turn-{round}")).await;
            sides[at].laps.push(lap.context("one pod")?);
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
            tokio::time::sleep(std::time::Duration::from_secs(1)).await;
            let traces = Traces::of(&stand)?;
            Ok(Self {
                stand,
                pods,
                traces,
                laps: Vec::new(),
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
}

fn draw(ours: &[Lap], theirs: &[Lap]) -> String {
    let mut text = format!(
        "\n{:<20}{:>10}{:>10}{:>12}{:>10}{:>10}\n",
        "ms", "p10", "p50", "other p10", "p50", "ratio"
    );
    for (at, name) in STEPS.iter().enumerate() {
        let of = |laps: &[Lap]| laps.iter().map(|lap| lap[at]).collect::<Vec<_>>();
        let (ours, theirs) = (of(ours), of(theirs));
        let ratios: Vec<f64> = ours.iter().zip(&theirs).map(|(a, b)| a / b).collect();
        text += &format!(
            "{name:<20}{:>10.3}{:>10.3}{:>12.3}{:>10.3}{:>10.3}\n",
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
        let table = draw(&ours, &theirs);
        assert!(
            table.lines().skip(2).all(|line| line.ends_with("0.500")),
            "{table}"
        );
    }
}
