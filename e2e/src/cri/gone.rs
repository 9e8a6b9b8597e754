//! What a pod leaves on a machine until it is gone: processes, cgroups, mounts, interfaces and
//! addresses. They are counted before there is one; it is gone when they are as many again.

use super::pods::SLEEP;
use crate::cgroup;
use crate::cri::Stand;
use crate::node::Maker;
use anyhow::{Result, bail};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Files of host-local that are nobody's.
const KEPT: [&str; 3] = ["last_reserved_ip.0", "lock", ".new"];
const LONGEST: Duration = Duration::from_secs(60);
/// How long nothing must change to be taken for what there is without a pod.
const STILL: Duration = Duration::from_millis(50);
/// As many as the runtime keeps ready unless told otherwise (`networksAhead`).
pub const AHEAD: usize = 16;
/// Well below what is measured.
const PAUSE: Duration = Duration::from_micros(200);

#[derive(Debug)]
pub struct Traces {
    holder: i32,
    group: String,
    addresses: PathBuf,
    before: Counts,
}

#[derive(Debug, PartialEq, Eq)]
struct Counts {
    processes: usize,
    cgroups: usize,
    mounts: usize,
    interfaces: usize,
    addresses: usize,
}

impl Traces {
    /// As it is now, with no pod.
    pub fn of(stand: &Stand) -> Result<Self> {
        let machine = &stand.machine;
        let addresses = match stand.kind.runtime() {
            Maker::Lighter => "/run/lighter/network",
            Maker::Stock => "/var/lib/cni/networks",
        };
        let mut traces = Self {
            holder: machine.holder.pid,
            group: format!("{}/bench", machine.cgroup),
            addresses: machine.path(addresses),
            before: Counts {
                processes: 0,
                cgroups: 0,
                mounts: 0,
                interfaces: 0,
                addresses: 0,
            },
        };
        // What is made beside the answers to earlier requests has its time.
        loop {
            std::thread::sleep(STILL);
            let now = traces.count()?;
            if now == traces.before {
                break;
            }
            traces.before = now;
        }
        Ok(traces)
    }

    fn count(&self) -> Result<Counts> {
        let lines = |file: &str| -> Result<usize> {
            let text = fs::read_to_string(format!("/proc/{}/{file}", self.holder))?;
            Ok(text.lines().count())
        };
        // A network that waits for its pod has a wire, a record, and an address.
        let ahead = ahead(&self.addresses);
        let below = |root: &PathBuf| cgroup::tree(&root.join(&self.group)).len();
        Ok(Counts {
            processes: sleepers(&self.group),
            cgroups: cgroup::hierarchies().iter().map(below).sum(),
            mounts: lines("mountinfo")?,
            interfaces: lines("net/dev")?.saturating_sub(ahead),
            addresses: files(&self.addresses).saturating_sub(2 * ahead),
        })
    }

    /// Returns when all is as it was.
    pub async fn wait_gone(&self) -> Result<()> {
        let end = Instant::now() + LONGEST;
        loop {
            let now = self.count()?;
            if now == self.before {
                return Ok(());
            }
            if Instant::now() > end {
                bail!("something is left: {now:?}, and before {:?}", self.before);
            }
            tokio::time::sleep(PAUSE).await;
        }
    }
}

/// The pods' own processes.
fn sleepers(group: &str) -> usize {
    let wanted = SLEEP.join("\0") + "\0";
    let is = |pid: &i32| {
        fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|words| words == wanted.as_bytes())
    };
    cgroup::members(group).iter().filter(|pid| is(pid)).count()
}

/// Networks that our runtime keeps ready: their records name no pod. More than it is allowed
/// are leaked.
fn ahead(addresses: &Path) -> usize {
    let nobody = |path: PathBuf| {
        let record = fs::read(path).ok()?;
        let record: serde_json::Value = serde_json::from_slice(&record).ok()?;
        (record["pod"]["name"] == "").then_some(())
    };
    let records = fs::read_dir(addresses.join("results")).into_iter();
    let found = records.flatten().flatten().filter_map(|e| nobody(e.path()));
    found.count().min(AHEAD)
}

fn files(dir: &Path) -> usize {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries
        .map(|e| match e.file_type() {
            Ok(kind) if kind.is_dir() => files(&e.path()),
            // The last address stays, and so may the one temporary file that is always the same.
            _ if KEPT.iter().any(|name| e.file_name() == *name) => 0,
            _ => 1,
        })
        .sum()
}
