//! Kubernetes' own end-to-end tests on a cluster of the bed.
//!
//! Which specs there are is asked of the test program ([`suite`]); what became of each is read
//! from ginkgo's report ([`report`]) and kept from run to run ([`record`]): a run takes up
//! what failed and what is missing.

pub mod record;
pub mod report;
pub mod suite;
pub mod tally;

use crate::cluster::{Bed, Cluster, down, registry, up};
use crate::image::{Image, catalog, conformance as images};
use crate::node::{self, Kind};
use crate::progress::step;
use anyhow::{Context, Result};
use record::Record;
use std::fs;
use std::path::{Path, PathBuf};
use suite::Suite;

/// Which specs, unless the focus says otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Group {
    /// What one node must do, without the serial, slow and disruptive ones.
    Node,
    /// Everything a certified cluster passes.
    Full,
    /// Volumes that need no server: local, hostPath and emptyDir, in all their forms.
    Storage,
    /// What else SIG Node tests: what is on by default and needs no cloud, no special hardware and
    /// no driver, without the serial, slow, flaky and disruptive ones.
    SigNode,
    /// Dynamic resource allocation with a driver on each of two nodes: what is on by default.
    Dra,
    /// What takes a machine with all capabilities, cgroup v2 and a kernel with the `dummy`
    /// driver: in-place resizes, and a privileged pod that adds an interface. `make vm` has one.
    Vm,
}

#[derive(Debug, clap::Args)]
pub struct Conformance {
    #[arg(long, value_enum, default_value_t = Group::Node)]
    group: Group,
    /// Only specs of the group whose name matches (a Go regular expression)
    #[arg(long)]
    focus: Option<String>,
    /// No specs whose name matches
    #[arg(long)]
    skip: Option<String>,
    /// [default: 1 for node and sig-node, else 2]
    #[arg(long)]
    nodes: Option<usize>,
    /// Specs at once
    #[arg(long, default_value_t = 12)]
    parallel: usize,
    /// How long, as Go writes it; what has not ended by then is taken up by the next run
    #[arg(long, default_value = "24h")]
    limit: String,
    /// On the stock node: what fails there too is the machine's
    #[arg(long)]
    control: bool,
    /// Forget what passed before
    #[arg(long)]
    again: bool,
    /// Leave the cluster up, and use the one that is
    #[arg(long)]
    keep: bool,
    #[arg(long)]
    lighter: Option<PathBuf>,
    /// Only build what a run takes into the cache: the programs, and the images in the storage of
    /// the cluster's registry
    #[arg(long)]
    prepare: bool,
    /// What the results are said to be of, where the tree has no git
    #[arg(long)]
    build: Option<String>,
    /// Run nothing; write what is known, Lighter beside the control, to this file
    #[arg(long)]
    report: Option<PathBuf>,
}

impl Group {
    fn name(self) -> &'static str {
        match self {
            Group::Node => "node",
            Group::Full => "full",
            Group::Storage => "storage",
            Group::SigNode => "sig-node",
            Group::Dra => "dra",
            Group::Vm => "vm",
        }
    }

    fn focus(self) -> &'static str {
        match self {
            Group::Node => r"\[NodeConformance\]",
            Group::Full => r"\[Conformance\]",
            Group::Storage => {
                r"\[sig-storage\] (?:PersistentVolumes-local|In-tree Volumes \[Driver: (?:local|hostPath|hostPathSymlink|emptydir)\])"
            }
            Group::SigNode => r"\[sig-node\]",
            Group::Dra => r"\[sig-node\] \[DRA\]",
            Group::Vm => r"\[sig-node\] (?:(?:PLR )?Pod InPlace Resize|PrivilegedPod)",
        }
    }

    fn skip(self) -> Option<&'static str> {
        match self {
            Group::Node | Group::Storage => Some(r"\[Serial\]|\[Slow\]|\[Disruptive\]"),
            Group::Full => None,
            Group::Dra => Some(
                r"\[Conformance\]|\[Serial\]|\[Slow\]|\[Flaky\]|\[Disruptive\]|\[Alpha\]|OffByDefault\]",
            ),
            Group::Vm => Some(r"\[Serial\]|\[Flaky\]|\[Disruptive\]|\[Alpha\]|OffByDefault\]"),
            Group::SigNode => Some(concat!(
                r"\[Conformance\]|\[NodeConformance\]|\[Serial\]|\[Slow\]|\[Flaky\]|\[Disruptive\]",
                r"|\[Alpha\]|OffByDefault\]|\[Provider:|\[DRA\]|DynamicResourceAllocation",
                r"|Feature:(?:GPUDevicePlugin|RegularResourceUsageTracking|ExperimentalResourceUsageTracking)",
                r"|Feature:(?:NodeProblemDetector|KubeletCredentialProviders|Example|HostAccess|PodGarbageCollector)",
            )),
        }
    }

    fn nodes(self) -> usize {
        match self {
            Group::Node | Group::SigNode | Group::Vm => 1,
            Group::Full | Group::Dra | Group::Storage => 2,
        }
    }

    fn images(self) -> Vec<Image> {
        match self {
            Group::Node | Group::Storage | Group::SigNode | Group::Vm => images::NODE.to_vec(),
            Group::Full => [&images::NODE[..], &images::CLUSTER].concat(),
            Group::Dra => [&images::NODE[..], &images::DRA].concat(),
        }
    }
}

impl Conformance {
    /// True if every spec that was asked for has passed, now or in an earlier run.
    pub fn run(&self, bed: &Bed) -> Result<bool> {
        if let Some(file) = &self.report {
            return self.write_report(bed, file).map(|()| true);
        }
        let dir = self.dir(bed, self.kind())?;
        let suite = Suite::prepare(bed)?;
        if self.prepare {
            return self.build_all(bed).map(|()| true);
        }
        let mut record = if self.again {
            Record::default()
        } else {
            Record::load(&dir)?
        };
        let wanted = step("specs", || suite.list(&self.focuses(), &self.skips()))?;
        let left: Vec<String> = record.left(&wanted);
        println!(
            "  {} specs, {} of them to run; state in {}",
            wanted.len(),
            left.len(),
            dir.display()
        );
        if !left.is_empty() {
            self.run_specs(bed, &suite, &mut record, &left)?;
        }
        let tally = record.tally(&wanted);
        print!("{tally}");
        Ok(tally.all_passed())
    }

    /// What else a run builds, for one on a machine that can build nothing.
    fn build_all(&self, bed: &Bed) -> Result<()> {
        step("peers", || node::build_peers(bed, self.kind()))?;
        let images = [&catalog::CLUSTER[..], &self.group.images()].concat();
        step("images in the registry", || registry::store(bed, &images))
    }

    fn run_specs(
        &self,
        bed: &Bed,
        suite: &Suite,
        record: &mut Record,
        specs: &[String],
    ) -> Result<()> {
        let dir = self.dir(bed, self.kind())?;
        let cluster = self.cluster(bed)?;
        step("images of the specs", || {
            cluster.push(bed, &self.group.images())
        })?;
        let files = record::new_run(&dir)?;
        // The tree may be edited while they run.
        let build = self.build.clone();
        let build = build.unwrap_or_else(|| build_of(bed, self.kind()));
        println!("  running, with log and junit in {}", files.display());
        let run = suite::Run {
            specs,
            parallel: self.parallel,
            limit: &self.limit,
            dir: &files,
        };
        let ended = suite.run(&cluster, &run);
        keep_logs(&cluster, &files.join("nodes"));
        // Also of a run that was cut short: what is done is done.
        let outcomes = report::read(&files.join(suite::REPORT));
        if let Ok(outcomes) = outcomes {
            record.take(outcomes, &build);
            record.save(&dir)?;
        }
        ended?;
        if self.keep {
            println!("  cluster {} stays up (KEEP)", cluster.name);
            return Ok(());
        }
        down::down(bed, &cluster.name)
    }

    fn cluster(&self, bed: &Bed) -> Result<Cluster> {
        let kind = self.kind();
        let name = format!("conformance-{kind}");
        if self.keep
            && let Ok(cluster) = Cluster::load(bed, &name)
            && cluster.check_alive().is_ok()
        {
            return Ok(cluster);
        }
        down::down(bed, &name)?;
        let options = up::Options {
            name,
            nodes: self.nodes.unwrap_or(self.group.nodes()),
            kind,
            lighter: self.lighter.clone(),
            bare: false,
        };
        up::up(bed, &options)
    }

    fn write_report(&self, bed: &Bed, file: &Path) -> Result<()> {
        let load = |kind| Record::load(&self.dir(bed, kind)?);
        let (ours, control) = (load(Kind::Lighter)?, load(Kind::Stock)?);
        let text = tally::markdown(self.group.focus(), self.group.skip(), &ours, &control);
        fs::write(file, text).with_context(|| format!("write {}", file.display()))
    }

    fn kind(&self) -> Kind {
        if self.control {
            Kind::Stock
        } else {
            Kind::Lighter
        }
    }

    fn focuses(&self) -> Vec<String> {
        // Ginkgo takes specs that match any focus; a group narrowed further must match both.
        let group = self.group.focus();
        match &self.focus {
            None => vec![group.to_owned()],
            Some(focus) => vec![
                format!("(?:{focus}).*{group}"),
                format!("{group}.*(?:{focus})"),
            ],
        }
    }

    fn skips(&self) -> Vec<String> {
        let group = self.group.skip().map(str::to_owned);
        group.into_iter().chain(self.skip.clone()).collect()
    }

    fn dir(&self, bed: &Bed, kind: Kind) -> Result<PathBuf> {
        bed.cache
            .dir(&format!("conformance/{}-{kind}", self.group.name()))
    }
}

/// What the results are results of.
fn build_of(bed: &Bed, kind: Kind) -> String {
    if kind == Kind::Stock {
        return "stock".into();
    }
    let mut git = std::process::Command::new("git");
    git.arg("-C").arg(&bed.tree);
    let said = crate::command::run(git.args(["describe", "--always", "--dirty", "--exclude=*"]));
    said.map_or_else(|_| "unknown".into(), |s| s.trim().to_owned())
}

/// What the machines' services said; the cluster's own files go with it.
fn keep_logs(cluster: &Cluster, to: &Path) {
    for machine in cluster.machines() {
        let to = to.join(&machine.name);
        let _ = fs::create_dir_all(&to);
        let logs = fs::read_dir(machine.dir.join("logs")).into_iter().flatten();
        for log in logs.flatten() {
            let _ = fs::copy(log.path(), to.join(log.file_name()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        conformance: Conformance,
    }

    #[test]
    fn a_focus_narrows_its_group() {
        let given = |args: &[&str]| Cli::parse_from([&["bed"], args].concat()).conformance;
        assert_eq!(given(&[]).focuses(), [r"\[NodeConformance\]"]);
        let narrowed = given(&["--focus", "Probing", "--skip", "gRPC"]);
        assert_eq!(
            narrowed.focuses(),
            [
                r"(?:Probing).*\[NodeConformance\]",
                r"\[NodeConformance\].*(?:Probing)"
            ]
        );
        assert_eq!(
            narrowed.skips(),
            [r"\[Serial\]|\[Slow\]|\[Disruptive\]", "gRPC"]
        );
    }
}
