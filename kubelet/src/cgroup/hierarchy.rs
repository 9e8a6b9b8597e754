//! Where cgroups are mounted.

use std::path::{Path, PathBuf};

/// One mounted hierarchy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hierarchy {
    pub mount: PathBuf,
    /// `memory`, `cpu` …; of cgroup v2 all that are left to it.
    pub controllers: Vec<String>,
    pub unified: bool,
}

impl Hierarchy {
    pub fn has(&self, controller: &str) -> bool {
        self.controllers.iter().any(|c| c == controller)
    }
}

/// Those that this process sees.
pub fn read() -> Vec<Hierarchy> {
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    parse(&mounts, |mount| {
        std::fs::read_to_string(mount.join("cgroup.controllers")).unwrap_or_default()
    })
}

/// proc_pid_mountinfo(5). Of several mounts of one hierarchy the first below /sys/fs/cgroup counts.
fn parse(mountinfo: &str, v2_controllers: impl Fn(&Path) -> String) -> Vec<Hierarchy> {
    let mut found: Vec<Hierarchy> = Vec::new();
    for line in mountinfo.lines() {
        let Some((left, right)) = line.split_once(" - ") else {
            continue;
        };
        let mount = PathBuf::from(left.split(' ').nth(4).unwrap_or_default());
        let mut right = right.split(' ');
        let unified = match right.next() {
            Some("cgroup2") => true,
            Some("cgroup") => false,
            _ => continue,
        };
        let options = right.nth(1).unwrap_or_default();
        let controllers: Vec<String> = match unified {
            true => words(&v2_controllers(&mount), ' '),
            // The flags among them are nobody's controller.
            false => words(options, ','),
        };
        let known =
            |h: &Hierarchy| h.unified == unified && (unified || h.controllers == controllers);
        if mount.starts_with("/sys/fs/cgroup") && !found.iter().any(known) {
            found.push(Hierarchy {
                mount,
                controllers,
                unified,
            });
        }
    }
    found
}

fn words(text: &str, between: char) -> Vec<String> {
    let all = text.trim().split(between).filter(|w| !w.is_empty());
    all.map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hierarchies_are_those_mounted_for_all_to_see() {
        let text = "\
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime - cgroup cgroup rw,cpu,cpuacct
35 31 0:32 / /sys/fs/cgroup/memory rw,relatime shared:9 - cgroup cgroup rw,memory
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
50 31 0:32 /pod /run/x/memory rw,relatime - cgroup cgroup rw,memory
51 31 0:32 /pod /sys/fs/cgroup/again rw,relatime - cgroup cgroup rw,memory
";
        let found = parse(text, |_| "hugetlb pids\n".to_owned());
        let names: Vec<_> = found.iter().map(|h| h.mount.to_str().unwrap()).collect();
        let want = ["cpu,cpuacct", "memory", "unified"];
        assert_eq!(names, want.map(|n| format!("/sys/fs/cgroup/{n}")));
        assert!(found[0].has("cpu") && found[0].has("cpuacct") && !found[0].has("memory"));
        assert!(found[2].unified && found[2].has("pids"));
    }
}
