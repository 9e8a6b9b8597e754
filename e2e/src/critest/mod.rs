//! `bed critest`: Kubernetes' validation of CRI runtimes (critest v1.36.0, or v1.37.0) on one of them.

pub mod bench;
mod binary;
mod export;
mod report;

use crate::cluster::Bed;
use crate::cri::{self, Stand};
use crate::image::critest as images;
use crate::image::registry;
use crate::node::Kind;
use crate::progress::step;
use crate::{command, peer};
use anyhow::{Context, Result};
use report::Outcomes;
use std::fs;
use std::path::{Path, PathBuf};

/// One pass over the specs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Round {
    /// All specs, `/` being a shared mount as systemd makes it.
    Shared,
    /// The streaming specs over WebSocket instead of SPDY.
    Websocket,
    /// All specs, `/` being a private mount.
    Private,
}

#[derive(Debug, clap::Args)]
pub struct Critest {
    /// The runtime: ours, or containerd with runc as the control
    #[arg(long, value_enum, default_value_t = Kind::Lighter)]
    node: Kind,
    /// Only specs whose name matches [regular expression]
    #[arg(long)]
    focus: Option<String>,
    /// No specs whose name matches
    #[arg(long)]
    skip: Option<String>,
    /// Which passes; all of them when none is named
    #[arg(long, value_enum)]
    round: Vec<Round>,
    /// The order of specs; a new one each time when not given
    #[arg(long)]
    seed: Option<u32>,
    /// critest v1.37.0 instead of v1.36.0
    #[arg(long)]
    newer: bool,
    /// critest's own benchmarks on both runtimes instead
    #[arg(long)]
    bench: bool,
    /// Only write what a run takes into this folder: critest, a registry's storage, certs.d
    #[arg(long)]
    export: Option<PathBuf>,
    /// Only sum up reports of runs elsewhere
    #[arg(long)]
    report: Vec<PathBuf>,
    /// The lighter program [default: $LIGHTER_BIN, or the one beside bed]
    #[arg(long)]
    lighter: Option<PathBuf>,
}

impl Critest {
    /// False when a spec failed, or was skipped for want of a feature.
    pub fn run(&self, bed: &Bed) -> Result<bool> {
        if self.bench {
            bench::bench(bed, self.lighter.as_deref())?;
            return Ok(true);
        }
        if let Some(dir) = &self.export {
            export::export(bed, dir)?;
            return Ok(true);
        }
        if !self.report.is_empty() {
            return sum_up(&self.report);
        }
        let rounds = if self.round.is_empty() {
            &[Round::Shared, Round::Websocket, Round::Private][..]
        } else {
            &self.round
        };
        let mut all = Outcomes::default();
        for private in [false, true] {
            let of_stand = |r: &Round| (*r == Round::Private) == private;
            let rounds: Vec<Round> = rounds.iter().copied().filter(of_stand).collect();
            if rounds.is_empty() {
                continue;
            }
            let stand = self.stand(bed, private)?;
            let outcomes: Result<Vec<Outcomes>> =
                rounds.iter().map(|r| self.round(bed, &stand, *r)).collect();
            stand.down()?;
            outcomes?.into_iter().for_each(|o| all.merge(o));
        }
        Ok(conclude(&all))
    }

    fn stand(&self, bed: &Bed, private: bool) -> Result<Stand> {
        step(
            &format!("{}, critest and the registry up", self.node),
            || {
                let program = if self.newer {
                    peer::CRITEST_NEWER
                } else {
                    peer::CRITEST
                };
                up(bed, (self.node, self.lighter.as_deref()), &program, private)
            },
        )
    }

    fn round(&self, bed: &Bed, stand: &Stand, round: Round) -> Result<Outcomes> {
        let name = format!("{round:?}").to_lowercase();
        let kept = bed
            .cache
            .dir("critest")?
            .join(format!("{}-{name}", self.node));
        let outcomes = step(&format!("{name} (log: {}.log)", kept.display()), || {
            run(stand, &self.flags(round), &kept)
        })?;
        println!("    {name}: {}", outcomes.counts());
        Ok(outcomes)
    }

    fn flags(&self, round: Round) -> Vec<String> {
        let mut flags = vec!["-ginkgo.randomize-all".to_owned()];
        let mut focus = self.focus.as_deref();
        if round == Round::Websocket {
            focus = focus.or(Some(r"\] Streaming "));
            let kinds = ["exec", "attach", "portforward"];
            flags.extend(kinds.map(|kind| format!("-websocket-{kind}")));
        }
        flags.extend(focus.map(|f| format!("-ginkgo.focus={f}")));
        flags.extend(self.skip.iter().map(|s| format!("-ginkgo.skip={s}")));
        flags.extend(self.seed.iter().map(|s| format!("-ginkgo.seed={s}")));
        flags
    }
}

/// A stand with critest and everything it pulls.
fn up(
    bed: &Bed,
    (kind, lighter): (Kind, Option<&Path>),
    program: &peer::Peer,
    private: bool,
) -> Result<Stand> {
    let program = peer::path(&bed.cache, &bed.peers(), program)?;
    let options = cri::Options {
        name: "critest",
        kind,
        lighter,
        private,
        images: &images::ALL,
    };
    let stand = Stand::up(bed, &options)?;
    let digest = registry::digest(&bed.image_inputs(), &images::DIGEST)?;
    let changed = binary::with_digest(fs::read(program)?, &digest)?;
    stand.machine.install_bytes(&changed, "critest")?;
    Ok(stand)
}

const REPORT: &str = "/tmp/report.json";

/// Runs critest; its words go to `<kept>.log`, its report to `<kept>.json`.
fn run(stand: &Stand, flags: &[String], kept: &Path) -> Result<Outcomes> {
    let mut critest = stand.machine.command("critest");
    critest
        .args(["-ginkgo.no-color", "-ginkgo.v", "-ginkgo.timeout=30m"])
        .arg(format!("-ginkgo.json-report={REPORT}"))
        .arg(format!("-runtime-endpoint={}", stand.endpoint()))
        .args(flags);
    let output = command::output(&mut critest)?;
    fs::write(
        kept.with_extension("log"),
        [output.stdout, output.stderr].concat(),
    )?;
    let json = fs::read(stand.machine.path(REPORT))
        .with_context(|| format!("critest ended without a report ({})", output.status))?;
    fs::write(kept.with_extension("json"), &json)?;
    fs::remove_file(stand.machine.path(REPORT))?;
    Outcomes::read(&json)
}

fn sum_up(reports: &[PathBuf]) -> Result<bool> {
    let mut all = Outcomes::default();
    for report in reports {
        let json = fs::read(report).with_context(|| format!("read {}", report.display()))?;
        all.merge(Outcomes::read(&json)?);
    }
    Ok(conclude(&all))
}

/// What a host lacks, and what is no part of CRI (v1.37.0 asks for the Node Resource Interface
/// of containerd and CRI-O only where it is told of its socket); any other reason to skip is the
/// runtime's own.
const NOT_OFFERED: [&str; 2] = [
    "AppArmor is disabled on this host",
    "NRI socket not configured (use -nri-socket flag)",
];

/// Says what came of it, the counts last, and whether that is a pass.
fn conclude(all: &Outcomes) -> bool {
    for (name, why) in all.failed() {
        println!("FAILED {name}: {}", why.lines().next().unwrap_or_default());
    }
    for (reason, count) in all.skips() {
        println!("skipped {count}: {reason}");
    }
    let counts = all.counts();
    println!("critest: {counts}");
    let offered = all.skips().keys().all(|r| NOT_OFFERED.contains(r));
    counts.passed > 0 && counts.failed == 0 && offered
}
