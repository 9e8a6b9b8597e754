//! `bed`: clusters of the test bed, from the command line.

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};
use e2e::cluster::{Bed, Cluster, down, registry, up};
use e2e::conformance::Conformance;
use e2e::critest::Critest;
use e2e::machine::{enter::Enter, hold::Hold};
use e2e::node::Kind;
use e2e::soak::Soak;
use e2e::{bench, demo, image, peer, progress};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::ExitCode;

#[derive(Debug, Parser)]
#[command(
    name = "bed",
    about = "Real Kubernetes clusters on one machine",
    version
)]
struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Bring a cluster up
    Up(UpArgs),
    /// Take a cluster down; nothing of it stays
    Down {
        #[arg(long, default_value = "lighter")]
        name: String,
    },
    /// Show the clusters and their services
    Status,
    /// Apply deploy/manifests/demo.yaml, wait for it and show it from the inside
    Demo {
        #[arg(long, default_value = "lighter")]
        name: String,
    },
    /// Measure a Lighter node and a stock node side by side
    Bench(BenchArgs),
    /// Run Kubernetes' conformance specs; a run takes up what failed and what is missing
    Conformance(Conformance),
    /// Validate a CRI runtime with critest
    Critest(Critest),
    /// Kill and churn a CRI runtime for a long time
    Soak(Soak),
    /// Run kubectl as administrator of a cluster
    Kubectl {
        #[arg(long, default_value = "lighter")]
        name: String,
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<String>,
    },
    /// Run a program on a machine of a cluster
    Run {
        #[arg(long, default_value = "lighter")]
        name: String,
        /// control-plane, node-1, ...
        #[arg(long, default_value = "node-1")]
        machine: String,
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true)]
        args: Vec<String>,
    },
    /// Build the peers (Go programs of others) into the cache
    Build {
        /// Also those that only tests need
        #[arg(long)]
        all: bool,
        /// Also the images of a cluster and of its tests, into the storage of the registry
        #[arg(long)]
        images: bool,
        /// Only these
        names: Vec<String>,
    },
    #[command(hide = true)]
    Hold(Hold),
    #[command(hide = true)]
    Enter(Enter),
}

#[derive(Debug, clap::Args)]
struct UpArgs {
    #[arg(long, default_value = "lighter")]
    name: String,
    #[arg(long, default_value_t = 1)]
    nodes: usize,
    #[arg(long, value_enum, default_value_t = Kind::Lighter)]
    node_kind: Kind,
    /// The lighter program [default: $LIGHTER_BIN, or the one beside bed]
    #[arg(long)]
    lighter: Option<PathBuf>,
    /// Take down what is there under that name first
    #[arg(long)]
    again: bool,
    /// Without kube-proxy and CoreDNS
    #[arg(long)]
    bare: bool,
}

#[derive(Debug, clap::Args)]
struct BenchArgs {
    /// Pods created one by one
    #[arg(long, default_value_t = 20)]
    rounds: usize,
    /// Pods created at once
    #[arg(long, default_value_t = 50)]
    crowd: usize,
    /// Only this part
    #[arg(long, value_enum)]
    part: Option<bench::Part>,
    /// Only this kind of node
    #[arg(long, value_enum)]
    only: Option<Kind>,
    /// Where the JSON goes [default: bench.json in the cache]
    #[arg(long)]
    json: Option<PathBuf>,
    #[arg(long)]
    lighter: Option<PathBuf>,
    /// Another build of ours: pods of both in turns over their CRI sockets, and nothing else
    #[arg(long)]
    against: Option<PathBuf>,
}

fn bench(bed: &Bed, args: BenchArgs) -> Result<()> {
    let options = bench::Options {
        lighter: args.lighter,
        rounds: args.rounds,
        crowd: args.crowd,
        kinds: args
            .only
            .map_or_else(|| vec![Kind::Lighter, Kind::Stock], |kind| vec![kind]),
    };
    if let Some(other) = &args.against {
        println!("{}", bench::cri::pace::compare(bed, &options, other)?);
        return Ok(());
    }
    let mut json = serde_json::Map::new();
    for part in bench::Part::ALL {
        if args.part.is_none_or(|wanted| wanted == part) {
            let (table, figures) = part.run(bed, &options)?;
            println!("{table}");
            json.insert(part.name().to_owned(), figures);
        }
    }
    let file = args
        .json
        .unwrap_or_else(|| bed.cache.root.join("bench.json"));
    let text = serde_json::to_string_pretty(&json)?;
    std::fs::write(&file, text).with_context(|| format!("write {}", file.display()))?;
    println!("JSON: {}", file.display());
    Ok(())
}

fn main() -> ExitCode {
    match run(Args::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        // Its last line said what failed.
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("bed: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// False when the work was done and its verdict is bad.
fn run(args: Args) -> Result<bool> {
    let bed = Bed::new(std::env::current_exe().context("own path")?);
    let done = |()| true;
    match args.verb {
        Verb::Up(args) => {
            let _lock = up::locked(&bed, &args.name)?;
            if args.again {
                down::down(&bed, &args.name)?;
            }
            let options = up::Options {
                name: args.name,
                nodes: args.nodes,
                kind: args.node_kind,
                lighter: args.lighter,
                bare: args.bare,
            };
            up::up(&bed, &options).map(|_| true)
        }
        Verb::Down { name } => {
            let _lock = up::locked(&bed, &name)?;
            progress::step(&format!("cluster {name} down"), || down::down(&bed, &name)).map(done)
        }
        Verb::Demo { name } => demo::demo(&bed, &Cluster::load(&bed, &name)?).map(done),
        Verb::Bench(args) => bench(&bed, args).map(done),
        Verb::Conformance(conformance) => conformance.run(&bed),
        Verb::Critest(critest) => critest.run(&bed),
        Verb::Soak(soak) => soak.run(&bed),
        Verb::Status => status(&bed).map(done),
        Verb::Kubectl { name, args } => {
            let cluster = Cluster::load(&bed, &name)?;
            cluster.check_alive()?;
            Err(cluster.kubectl_command().args(args).exec().into())
        }
        Verb::Run {
            name,
            machine,
            args,
        } => {
            let cluster = Cluster::load(&bed, &name)?;
            cluster.check_alive()?;
            let found = cluster.machines().find(|m| m.name == machine);
            let found = found.with_context(|| format!("no machine {machine} in cluster {name}"))?;
            Err(found.command(&args[0]).args(&args[1..]).exec().into())
        }
        Verb::Build { all, images, names } => {
            build(&bed, all, &names)?;
            if images {
                let images = [&image::catalog::CLUSTER[..], &image::catalog::TESTS].concat();
                registry::store(&bed, &images)?;
            }
            Ok(true)
        }
        Verb::Hold(hold) => hold.run().map(done),
        Verb::Enter(enter) => enter.run().map(done),
    }
}

fn build(bed: &Bed, all: bool, names: &[String]) -> Result<()> {
    let known = || peer::STOCK_NODE.iter().chain(&peer::OTHERS);
    for name in names {
        let peer = known()
            .find(|p| p.name == name)
            .with_context(|| format!("no peer {name}"))?;
        println!("{}", peer::path(&bed.cache, &bed.peers(), peer)?.display());
    }
    if names.is_empty() {
        let needed = |p: &&peer::Peer| all || !p.test || p.module == "cri-tools";
        for peer in known().filter(needed) {
            println!("{}", peer::path(&bed.cache, &bed.peers(), peer)?.display());
        }
        println!("{}", image::busybox::program(&bed.cache)?.display());
    }
    Ok(())
}

fn status(bed: &Bed) -> Result<()> {
    for name in bed.clusters() {
        match Cluster::load(bed, &name) {
            Ok(cluster) => {
                let state = if cluster.check_alive().is_ok() {
                    "up"
                } else {
                    "dead"
                };
                println!("{name}: {state}, {} node(s)", cluster.nodes.len());
                for (service, process) in &cluster.services {
                    let state = if process.is_alive() {
                        "running"
                    } else {
                        "ended"
                    };
                    println!("  {service:<40} {state:<8} pid {}", process.pid);
                }
            }
            Err(error) => println!("{name}: not whole: {error:#}"),
        }
    }
    Ok(())
}
