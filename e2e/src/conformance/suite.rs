//! The test program e2e.test, and ginkgo, which runs it several times at once.

use crate::cluster::{Bed, Cluster};
use crate::progress::{self, step};
use crate::{command, peer};
use anyhow::{Context, Result};
use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// In the directory of a run.
pub const REPORT: &str = "report.json";
const LOG: &str = "ginkgo.log";
const JUNIT: &str = "junit.xml";
const SAY_EVERY: Duration = Duration::from_secs(60);

#[derive(Debug)]
pub struct Suite {
    test: PathBuf,
    ginkgo: PathBuf,
    kube: PathBuf,
}

/// What of the suite is run, and how.
#[derive(Debug)]
pub struct Run<'a> {
    /// These specs and no others.
    pub specs: &'a [String],
    /// At once.
    pub parallel: usize,
    /// As Go writes durations. Specs that have not ended by then are not in the report.
    pub limit: &'a str,
    /// Where log and reports go.
    pub dir: &'a Path,
}

impl Suite {
    pub fn prepare(bed: &Bed) -> Result<Suite> {
        let get = |peer: &peer::Peer| peer::path(&bed.cache, &bed.peers(), peer);
        step("programs of the suite", || {
            Ok(Suite {
                test: get(&peer::E2E_TEST)?,
                ginkgo: get(&peer::GINKGO)?,
                kube: get(&peer::KUBE)?,
            })
        })
    }

    /// Names of the specs that match a focus and no skip, sorted.
    pub fn list(&self, focus: &[String], skip: &[String]) -> Result<Vec<String>> {
        let dir = std::env::temp_dir().join(format!("bed-specs-{}", std::process::id()));
        fs::create_dir_all(&dir)?;
        let file = dir.join(REPORT);
        let mut test = Command::new(&self.test);
        test.args([
            "--ginkgo.dry-run",
            "--ginkgo.succinct",
            "--provider=skeleton",
        ])
        .arg(format!("--ginkgo.json-report={}", file.display()))
        .args(focus.iter().map(|f| format!("--ginkgo.focus={f}")))
        .args(skip.iter().map(|s| format!("--ginkgo.skip={s}")));
        let listed =
            command::run(test.current_dir(&dir)).and_then(|_| super::report::selected(&file));
        let _ = fs::remove_dir_all(&dir);
        listed
    }

    /// That specs fail is no error.
    pub fn run(&self, cluster: &Cluster, run: &Run<'_>) -> Result<()> {
        let dir = run.dir;
        // kubectl goes by its name.
        let kubectl = dir.join("kubectl");
        std::os::unix::fs::symlink(&self.kube, &kubectl)?;
        let kubeconfig = cluster.control_plane.path("/root/.kube/config");
        // With the host's files, so that what it writes outlives the cluster.
        let mut ginkgo = cluster
            .control_plane
            .command_on_host_files(&self.ginkgo.display().to_string());
        ginkgo
            .args(["--no-color", "--keep-going", "--silence-skips"])
            .arg(format!("--timeout={}", run.limit))
            .arg(format!("--procs={}", run.parallel))
            .arg(format!("--output-dir={}", dir.display()))
            .args([
                format!("--json-report={REPORT}"),
                format!("--junit-report={JUNIT}"),
            ])
            .arg(format!("--focus={}", exactly(run.specs)))
            .arg(&self.test)
            .args(["--", "--provider=skeleton", "--disable-log-dump"])
            .arg(format!("--kubeconfig={}", kubeconfig.display()))
            .arg(format!("--kubectl-path={}", kubectl.display()))
            .arg(format!("--num-nodes={}", cluster.nodes.len()))
            .current_dir(dir);
        let mut child = ginkgo
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .context("start ginkgo")?;
        let output = child.stdout.take().context("ginkgo has no output")?;
        follow(output, &dir.join(LOG), run.specs.len())?;
        child.wait()?;
        Ok(())
    }
}

/// A regular expression that matches these names alone.
fn exactly(specs: &[String]) -> String {
    let names: Vec<String> = specs.iter().map(|s| quoted(s)).collect();
    format!("(?:{})$", names.join("|"))
}

/// As Go's `regexp.QuoteMeta`.
fn quoted(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len());
    for c in text.chars() {
        if r"\.+*?()|[]{}^$".contains(c) {
            quoted.push('\\');
        }
        quoted.push(c);
    }
    quoted
}

/// Keeps the output, and says now and then how far it is.
fn follow(mut output: impl Read, log: &Path, all: usize) -> Result<()> {
    let mut log = File::create(log).with_context(|| format!("create {}", log.display()))?;
    let start = Instant::now();
    let (mut said, mut done, mut failed) = (start, 0, 0);
    let mut buffer = [0; 1 << 14];
    while let Ok(n @ 1..) = output.read(&mut buffer) {
        log.write_all(&buffer[..n])?;
        // A dot for each spec; a piece may end inside one, which is of no consequence.
        let text = String::from_utf8_lossy(&buffer[..n]);
        done += text.matches('•').count();
        failed += text.matches("• [FAILED]").count();
        if said.elapsed() > SAY_EVERY {
            said = Instant::now();
            let time = progress::seconds(start.elapsed());
            println!("  {time}: about {done} of {all} done, {failed} failed");
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_matched_as_they_are() {
        let names = ["[sig-node] a.b (c)".to_owned(), "d|e$".to_owned()];
        assert_eq!(exactly(&names), r"(?:\[sig-node\] a\.b \(c\)|d\|e\$)$");
    }
}
