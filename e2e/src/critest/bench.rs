//! critest's own benchmarks on Lighter and on containerd with runc, one after the other.

use super::up;
use crate::cluster::Bed;
use crate::cri::Stand;
use crate::node::Kind;
use crate::progress::step;
use crate::{command, peer};
use anyhow::{Context, Result};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::path::Path;

const DIR: &str = "/tmp/bench";
const SETTINGS: &str = "/tmp/bench/settings.yaml";
/// The first figures of a benchmark are not dropped, so there must be enough of the others.
const PARAMS: &str = "containersNumber: 40\ncontainersNumberParallel: 1\n\
    podsNumber: 40\npodsNumberParallel: 1\n\
    imagesNumber: 20\nimagesNumberParallel: 1\n";

/// "Benchmark operation" to what it took each time, in nanoseconds.
type Figures = BTreeMap<String, Vec<u64>>;

pub fn bench(bed: &Bed, lighter: Option<&Path>) -> Result<()> {
    let ours = measure(bed, Kind::Lighter, lighter)?;
    let peer = measure(bed, Kind::Stock, lighter)?;
    println!("{}", table(&ours, &peer));
    Ok(())
}

fn measure(bed: &Bed, kind: Kind, lighter: Option<&Path>) -> Result<Figures> {
    let stand = up(bed, (kind, lighter), &peer::CRITEST, false)?;
    let figures = step(&format!("critest's benchmarks on {kind}"), || run(&stand));
    stand.down()?;
    figures
}

fn run(stand: &Stand) -> Result<Figures> {
    stand.machine.write(SETTINGS, PARAMS)?;
    let mut critest = stand.machine.command("critest");
    critest
        .args(["-benchmark", "-ginkgo.no-color"])
        .arg(format!("-benchmarking-params-file={SETTINGS}"))
        .arg(format!("-benchmarking-output-dir={DIR}"))
        .arg(format!("-runtime-endpoint={}", stand.endpoint()));
    command::run(&mut critest)?;
    let mut figures = Figures::new();
    for (file, what) in [
        ("container_benchmark_data.json", "container"),
        ("pod_benchmark_data.json", "pod"),
        ("image_lifecycle_benchmark_data.json", "image"),
        ("image_listing_benchmark_data.json", "image"),
    ] {
        let path = stand.machine.path(&format!("{DIR}/{file}"));
        let json = fs::read(path).with_context(|| format!("critest wrote no {file}"))?;
        read(&json, what, &mut figures)?;
    }
    Ok(figures)
}

/// cri-tools v1.36.0 `pkg/benchmark/util.go`, `LifecycleBenchmarksResultsSet`.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Data {
    operations_names: Vec<String>,
    datapoints: Vec<Point>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Point {
    operations_durations_ns: Vec<u64>,
}

fn read(json: &[u8], what: &str, figures: &mut Figures) -> Result<()> {
    let data: Data = serde_json::from_slice(json).context("critest's figures")?;
    for point in data.datapoints {
        for (name, took) in data
            .operations_names
            .iter()
            .zip(point.operations_durations_ns)
        {
            figures
                .entry(format!("{what} {name}"))
                .or_default()
                .push(took);
        }
    }
    Ok(())
}

fn table(ours: &Figures, peer: &Figures) -> String {
    let mut text = format!(
        "{:<28} {:>17} {:>20} {:>8}\n",
        "ms, p50 (p90)", "lighter", "containerd + runc", "ratio"
    );
    for (name, ours) in ours {
        let Some(peer) = peer.get(name) else { continue };
        let (ours, peer) = (Spread::of(ours), Spread::of(peer));
        let ratio = peer.p50 / ours.p50;
        let _ = writeln!(text, "{name:<28} {ours:>17} {peer:>20} {ratio:>7.1}x");
    }
    text
}

/// Milliseconds.
struct Spread {
    p50: f64,
    p90: f64,
}

impl Spread {
    fn of(nanoseconds: &[u64]) -> Spread {
        let mut sorted = nanoseconds.to_vec();
        sorted.sort_unstable();
        let at = |share: usize| {
            let index = (sorted.len() * share / 100).min(sorted.len().saturating_sub(1));
            sorted.get(index).map_or(0.0, |ns| *ns as f64 / 1e6)
        };
        Spread {
            p50: at(50),
            p90: at(90),
        }
    }
}

impl std::fmt::Display for Spread {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(&format!("{:.2} ({:.2})", self.p50, self.p90))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn table_sets_the_medians_side_by_side() {
        let json = br#"{"operationsNames":["CreatePod"],"numParallel":1,"datapoints":[
            {"sampleIndex":0,"operationsDurationsNs":[3000000]},
            {"sampleIndex":1,"operationsDurationsNs":[2000000]},
            {"sampleIndex":2,"operationsDurationsNs":[1000000]}]}"#;
        let mut ours = Figures::new();
        read(json, "pod", &mut ours).unwrap();
        let peer = Figures::from([("pod CreatePod".to_owned(), vec![60_000_000])]);
        let table = table(&ours, &peer);
        assert!(table.contains("2.00 (3.00)"), "{table}");
        assert!(table.contains("30.0x"), "{table}");
    }
}
