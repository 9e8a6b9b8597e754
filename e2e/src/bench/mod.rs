//! A Lighter node and a stock node through the same work, in one run on one machine.

pub mod api;
pub mod cri;
pub mod density;
pub mod memory;
pub mod report;
pub mod requests;
pub mod table;

use crate::cluster::{Bed, Cluster, down, up};
use crate::node::Kind;
use crate::progress::step;
use anyhow::{Context, Result};
use api::Api;
use memory::{Sample, sample};
use serde::Serialize;
use std::path::PathBuf;
use std::time::Duration;

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Part {
    /// Whole nodes, through an API server.
    Node,
    /// Runtimes alone, over their CRI sockets.
    Cri,
    /// A node with as many pods as a node may have.
    Density,
    /// What a node asks of the API server.
    Requests,
}

impl Part {
    pub const ALL: [Part; 4] = [Part::Node, Part::Cri, Part::Density, Part::Requests];

    pub fn name(self) -> &'static str {
        match self {
            Part::Node => "nodes",
            Part::Cri => "cri",
            Part::Density => "density",
            Part::Requests => "requests",
        }
    }

    /// The table and the JSON.
    pub fn run(self, bed: &Bed, options: &Options) -> Result<(String, serde_json::Value)> {
        match self {
            Part::Node => bench(bed, options).map(|f| (report::table(&f), report::json(&f))),
            Part::Cri => {
                cri::bench(bed, options).map(|f| (cri::report::table(&f), cri::report::json(&f)))
            }
            Part::Density => density::bench(bed, options)
                .map(|f| (density::report::table(&f), density::report::json(&f))),
            Part::Requests => {
                requests::bench(bed, options).map(|f| (requests::table(&f), requests::json(&f)))
            }
        }
    }
}

#[derive(Debug, Clone)]
pub struct Options {
    pub lighter: Option<PathBuf>,
    /// Pods created one by one.
    pub rounds: usize,
    /// Pods created at once.
    pub crowd: usize,
    /// Which nodes; both for a comparison.
    pub kinds: Vec<Kind>,
}

/// What was measured on one node; times in milliseconds.
#[derive(Debug, Serialize)]
pub struct Figures {
    pub kind: Kind,
    /// API create to Ready seen by a watcher, one pod at a time.
    pub ready: Vec<f64>,
    /// API delete to gone, as seen by the watcher, one pod at a time.
    pub gone: Vec<f64>,
    /// First create to the last Ready.
    pub crowd_ready: f64,
    pub crowd_gone: f64,
    pub crowd: usize,
    pub empty: Sample,
    pub full: Sample,
    /// Where the time of the last single pod's start went, if the node can tell.
    pub waterfall: Option<String>,
}

pub fn bench(bed: &Bed, options: &Options) -> Result<Vec<Figures>> {
    let mut clusters = Vec::new();
    for kind in &options.kinds {
        clusters.push(cluster(bed, options, "bench", *kind)?);
    }
    let figures = clusters.iter().map(|c| measure(c, options)).collect();
    for cluster in &clusters {
        down::down(bed, &cluster.name)?;
    }
    figures
}

/// A cluster of one node and nothing on it.
fn cluster(bed: &Bed, options: &Options, prefix: &str, kind: Kind) -> Result<Cluster> {
    let name = format!("{prefix}-{kind}");
    down::down(bed, &name)?;
    let options = up::Options {
        name,
        nodes: 1,
        kind,
        lighter: options.lighter.clone(),
        bare: true,
    };
    up::up(bed, &options)
}

fn measure(cluster: &Cluster, options: &Options) -> Result<Figures> {
    let kind = cluster.nodes[0].kind;
    Api::proxied(&cluster.control_plane, |api| {
        let mut watch = api.watch()?;
        // The first pod pulls the image and warms every cache; nobody measures it.
        one(api, &mut watch, "warm-up")?;
        let empty = settle(cluster)?;
        let mut figures = Figures {
            kind,
            ready: Vec::new(),
            gone: Vec::new(),
            crowd_ready: 0.0,
            crowd_gone: 0.0,
            crowd: options.crowd,
            full: empty.clone(),
            waterfall: None,
            empty,
        };
        step(
            &format!("{kind}: {} pods one by one", options.rounds),
            || {
                for round in 0..options.rounds {
                    let (ready, gone) = one(api, &mut watch, &format!("one-{round}"))?;
                    figures.ready.push(ready);
                    figures.gone.push(gone);
                }
                Ok(())
            },
        )?;
        figures.waterfall = waterfall(cluster, options.rounds)?;
        step(&format!("{kind}: {} pods at once", options.crowd), || {
            let names: Vec<String> = (0..options.crowd).map(|i| format!("crowd-{i}")).collect();
            figures.crowd_ready =
                watch.ready(&names, || names.iter().try_for_each(|n| api.create(n)))?;
            figures.full = settle(cluster)?;
            figures.crowd_gone =
                watch.gone(&names, || names.iter().try_for_each(|n| api.delete(n)))?;
            Ok(())
        })?;
        Ok(figures)
    })
    .with_context(|| format!("bench of {kind}"))
}

fn one(api: &Api, watch: &mut api::Watch, name: &str) -> Result<(f64, f64)> {
    let names = [name.to_owned()];
    let ready = watch.ready(&names, || api.create(name))?;
    let gone = watch.gone(&names, || api.delete(name))?;
    Ok((ready, gone))
}

fn waterfall(cluster: &Cluster, rounds: usize) -> Result<Option<String>> {
    let node = &cluster.nodes[0];
    if node.kind != Kind::Lighter || rounds == 0 {
        return Ok(None);
    }
    let pod = format!("one-{}", rounds - 1);
    node.machine.run("lighter", &["waterfall", &pod]).map(Some)
}

/// Garbage collectors and caches need a moment.
fn settle(cluster: &Cluster) -> Result<Sample> {
    std::thread::sleep(Duration::from_secs(4));
    sample(&cluster.nodes[0].machine.cgroup)
}
