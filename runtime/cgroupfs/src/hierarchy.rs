//! Which hierarchies a host has.

use super::file::{FileError, text};
use std::path::{Path, PathBuf};

/// How a host's controllers are spread.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// One hierarchy for all.
    V2,
    /// One for each controller.
    V1,
    /// v1 for the controllers, v2 beside it for tracking (and what is left).
    Hybrid,
}

/// One mounted hierarchy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hierarchy {
    /// Where it is mounted.
    pub mount: PathBuf,
    /// `memory`, `cpu` …; `name=systemd` for one without a controller.
    pub controllers: Vec<String>,
    /// Version 2.
    pub v2: bool,
}

impl Hierarchy {
    /// Whether this is where the controller lives.
    #[must_use]
    pub fn has(&self, controller: &str) -> bool {
        self.controllers.iter().any(|c| c == controller)
    }

    /// Its name below /sys/fs/cgroup.
    #[must_use]
    pub fn name(&self) -> String {
        let name = self.mount.file_name().unwrap_or_default();
        name.to_string_lossy().into_owned()
    }
}

/// Where cgroups are mounted.
pub const MOUNT: &str = "/sys/fs/cgroup";

/// Whether there is one hierarchy for all controllers, that of v2.
#[must_use]
pub fn is_unified() -> bool {
    Path::new(MOUNT).join("cgroup.controllers").exists()
}

/// Whether the kernel counts swap by cgroup; every cgroup but the root shows it.
#[must_use]
pub fn counts_swap() -> bool {
    let mount = Path::new(MOUNT);
    if !is_unified() {
        return mount.join("memory/memory.memsw.limit_in_bytes").exists();
    }
    let all = std::fs::read_dir(mount).into_iter().flatten().flatten();
    let mut files = all.map(|entry| entry.path().join("memory.swap.max"));
    files.any(|file| file.exists())
}

/// Those that this process sees.
///
/// # Errors
/// When its mounts can't be read.
pub fn read() -> Result<Vec<Hierarchy>, FileError> {
    let path = Path::new("/proc/self/mountinfo");
    let mounts = std::fs::read_to_string(path).map_err(|source| FileError::Read {
        path: path.to_owned(),
        source,
    })?;
    Ok(parse(&mounts, |mount| {
        text(&mount.join("cgroup.controllers"))
    }))
}

/// `None`: there are no hierarchies.
#[must_use]
pub fn mode(hierarchies: &[Hierarchy]) -> Option<Mode> {
    let v2 = hierarchies.iter().any(|h| h.v2);
    let v1 = hierarchies.iter().any(|h| !h.v2);
    match (v2, v1) {
        (true, false) => Some(Mode::V2),
        (false, true) => Some(Mode::V1),
        (true, true) => Some(Mode::Hybrid),
        (false, false) => None,
    }
}

/// Options of a v1 mount that name no controller.
const NO_CONTROLLER: [&str; 8] = [
    "rw",
    "ro",
    "clone_children",
    "cpuset_v2_mode",
    "favordynmods",
    "noprefix",
    "release_agent",
    "xattr",
];

/// Of several mounts of one hierarchy the first below /sys/fs/cgroup counts.
fn parse(mountinfo: &str, v2_controllers: impl Fn(&Path) -> String) -> Vec<Hierarchy> {
    let mut found: Vec<Hierarchy> = Vec::new();
    for line in mountinfo.lines() {
        let Some((left, right)) = line.split_once(" - ") else {
            continue;
        };
        let Some(mount) = left.split(' ').nth(4).map(unescape) else {
            continue;
        };
        let mut right = right.split(' ');
        let (kind, options) = (right.next().unwrap_or(""), right.nth(1).unwrap_or(""));
        let controllers: Vec<String> = match kind {
            "cgroup2" => v2_controllers(&mount)
                .split_whitespace()
                .map(str::to_owned)
                .collect(),
            "cgroup" => options
                .split(',')
                .filter(|o| !NO_CONTROLLER.contains(&o.split('=').next().unwrap_or("")))
                .map(str::to_owned)
                .collect(),
            _ => continue,
        };
        let v2 = kind == "cgroup2";
        let known = |h: &Hierarchy| h.v2 == v2 && (v2 || h.controllers == controllers);
        if mount.starts_with(MOUNT) && !found.iter().any(known) {
            found.push(Hierarchy {
                mount,
                controllers,
                v2,
            });
        }
    }
    found
}

/// proc(5): space, tab, newline and backslash are octal.
fn unescape(field: &str) -> PathBuf {
    field
        .replace("\\040", " ")
        .replace("\\011", "\t")
        .replace("\\012", "\n")
        .replace("\\134", "\\")
        .into()
}

#[cfg(test)]
mod tests {
    use super::*;

    const HYBRID: &str = "\
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime - cgroup cgroup rw,cpu,cpuacct
35 31 0:32 / /sys/fs/cgroup/memory rw shared:5 - cgroup cgroup rw,memory
40 31 0:37 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=systemd
41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw,nsdelegate
42 31 0:38 / /mnt/other rw - cgroup2 cgroup2 rw
";

    #[test]
    fn hybrid_host_shows_each_hierarchy_once() {
        let found = parse(HYBRID, |_| "hugetlb\n".to_owned());
        let names: Vec<String> = found.iter().map(Hierarchy::name).collect();
        assert_eq!(names, ["cpu,cpuacct", "memory", "systemd", "unified"]);
        assert!(found[0].has("cpu") && found[0].has("cpuacct") && !found[0].has("rw"));
        assert!(found[3].has("hugetlb") && found[3].v2);
        assert_eq!(mode(&found), Some(Mode::Hybrid));
    }

    #[test]
    fn unified_host_is_v2() {
        let found = parse(
            "30 23 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw,nsdelegate",
            |_| "cpuset cpu io memory pids".to_owned(),
        );
        assert_eq!(mode(&found), Some(Mode::V2));
        assert!(found[0].has("memory"));
    }

    #[test]
    fn host_without_cgroups_has_no_mode() {
        assert_eq!(mode(&parse("", |_| String::new())), None);
    }
}
