//! The bed's own cgroups: every process it starts lives below `/lighter-bed/<cluster>`,
//! in each hierarchy, so that `down` finds all of them and nothing else.

use crate::progress;
use anyhow::{Context, Result};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

pub const TOP: &str = "lighter-bed";
const MOUNT: &str = "/sys/fs/cgroup";

/// Whether this host has one hierarchy for all controllers, that of v2.
pub fn unified() -> bool {
    Path::new(MOUNT).join("cgroup.controllers").exists()
}

/// Roots of the mounted hierarchies: one on v2, one per controller on v1 (and `unified` on hybrid).
pub fn hierarchies() -> Vec<PathBuf> {
    let mount = Path::new(MOUNT);
    if unified() {
        return vec![mount.to_owned()];
    }
    let entries = fs::read_dir(mount).into_iter().flatten().flatten();
    let mut roots: Vec<PathBuf> = entries
        .filter(|e| e.file_type().is_ok_and(|t| t.is_dir()))
        .map(|e| e.path())
        .filter(|p| p.join("cgroup.procs").exists())
        .collect();
    roots.sort();
    roots
}

/// Makes `path` (below the root, no leading slash) in every hierarchy.
pub fn create(path: &str) -> Result<()> {
    for root in hierarchies() {
        let mut dir = root.clone();
        for part in path.split('/') {
            inherit_controllers(&dir);
            dir.push(part);
            if !dir.exists() {
                fs::create_dir(&dir).with_context(|| format!("mkdir {}", dir.display()))?;
            }
            inherit_cpuset(&dir);
        }
    }
    Ok(())
}

/// v2: a controller is usable below a cgroup only if the cgroup hands it down.
fn inherit_controllers(dir: &Path) {
    let Ok(controllers) = fs::read_to_string(dir.join("cgroup.controllers")) else {
        return;
    };
    for controller in controllers.split_whitespace() {
        // Refused for a controller that v1 holds, or while the cgroup has processes: not ours to force.
        let _ = fs::write(dir.join("cgroup.subtree_control"), format!("+{controller}"));
    }
}

/// v1: a new cpuset is empty, and no process may enter it.
fn inherit_cpuset(dir: &Path) {
    for file in ["cpuset.cpus", "cpuset.mems"] {
        let (Some(parent), here) = (dir.parent(), dir.join(file)) else {
            return;
        };
        if fs::read_to_string(&here).is_ok_and(|v| v.trim().is_empty())
            && let Ok(value) = fs::read_to_string(parent.join(file))
        {
            let _ = fs::write(&here, value);
        }
    }
}

/// Moves the calling process into `path` in every hierarchy.
pub fn enter(path: &str) -> Result<()> {
    for root in hierarchies() {
        let procs = root.join(path).join("cgroup.procs");
        fs::write(&procs, "0").with_context(|| format!("write {}", procs.display()))?;
    }
    Ok(())
}

/// CPU seconds of all that is or was in it or below.
pub fn cpu_time(path: &str) -> Result<f64> {
    let read = |file: &str| {
        let mut found = hierarchies().into_iter().map(|h| h.join(path).join(file));
        found.find_map(|file| fs::read_to_string(file).ok())
    };
    let number = |text: &str| text.trim().parse::<f64>().ok();
    let v1 = || number(&read("cpuacct.usage")?).map(|nanos| nanos / 1e9);
    let v2 = || {
        let stat = read("cpu.stat")?;
        let micros = stat.lines().find_map(|l| l.strip_prefix("usage_usec "))?;
        number(micros).map(|micros| micros / 1e6)
    };
    v1().or_else(v2)
        .with_context(|| format!("CPU time of {path}"))
}

/// Process ids at and below `path`, over all hierarchies.
pub fn members(path: &str) -> Vec<i32> {
    let mut pids = Vec::new();
    for root in hierarchies() {
        for dir in tree(&root.join(path)) {
            let text = fs::read_to_string(dir.join("cgroup.procs")).unwrap_or_default();
            pids.extend(text.lines().filter_map(|l| l.parse::<i32>().ok()));
        }
    }
    pids.sort_unstable();
    pids.dedup();
    pids
}

/// The oldest process below `path` in the cgroup of a container.
pub fn first_process(path: &str, container: &str) -> Option<i32> {
    let inside = |pid: &i32| {
        let groups = fs::read_to_string(format!("/proc/{pid}/cgroup"));
        groups.is_ok_and(|groups| groups.contains(container))
    };
    let processes = members(path).into_iter().filter(inside);
    processes
        .filter_map(|pid| Some((started(pid)?, pid)))
        .min()
        .map(|(_, pid)| pid)
}

/// When a process began, in ticks since boot.
fn started(pid: i32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, fields) = stat.rsplit_once(')')?;
    fields.split_whitespace().nth(19)?.parse().ok()
}

/// Ends every process at and below `path` and removes the cgroups.
pub fn remove(path: &str) -> Result<()> {
    for root in hierarchies() {
        for dir in tree(&root.join(path)) {
            let _ = fs::write(dir.join("freezer.state"), "THAWED");
            let _ = fs::write(dir.join("cgroup.freeze"), "0");
        }
    }
    progress::wait_for(
        &format!("end of the processes in cgroup {path}"),
        LIMIT,
        || {
            let pids = members(path);
            for pid in &pids {
                let _ = kill(Pid::from_raw(*pid), Signal::SIGKILL);
            }
            Ok(pids.is_empty().then_some(()))
        },
    )?;
    progress::wait_for(&format!("removal of cgroup {path}"), LIMIT, || {
        let mut left = false;
        for root in hierarchies() {
            for dir in tree(&root.join(path)).iter().rev() {
                left |= fs::remove_dir(dir).is_err() && dir.exists();
            }
        }
        Ok((!left).then_some(()))
    })
}

const LIMIT: Duration = Duration::from_secs(20);

/// `dir` and every cgroup below it, parents first; empty if `dir` is not there.
pub fn tree(dir: &Path) -> Vec<PathBuf> {
    let mut all = Vec::new();
    if dir.is_dir() {
        all.push(dir.to_owned());
        let entries = fs::read_dir(dir).into_iter().flatten().flatten();
        for entry in entries.filter(|e| e.file_type().is_ok_and(|t| t.is_dir())) {
            all.extend(tree(&entry.path()));
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tree_lists_parents_before_children() {
        let top = std::env::temp_dir().join(format!("bed-tree-{}", std::process::id()));
        fs::create_dir_all(top.join("a/b")).unwrap();
        assert_eq!(tree(&top), [top.clone(), top.join("a"), top.join("a/b")]);
        fs::remove_dir_all(&top).unwrap();
        assert!(tree(&top).is_empty());
    }
}
