//! Version, namespaces, file systems, cgroups, modules.

use super::{Finding, Place, read};
use std::path::Path;

/// DESIGN: the oldest kernel with everything that has no fallback.
const FLOOR: (u32, u32) = (5, 15);
const CONTROLLERS_V2: [&str; 5] = ["cpu", "cpuset", "memory", "pids", "io"];
const CONTROLLERS_V1: [&str; 6] = ["cpu", "cpuset", "cpuacct", "memory", "pids", "devices"];
/// With the file that shows that it works, whether loaded or built in.
const MODULES: [(&str, &str, &str); 4] = [
    ("overlay", "", "layers of images can't be put together"),
    (
        "nf_conntrack",
        "/proc/sys/net/netfilter",
        "neither Services nor host ports work",
    ),
    (
        "br_netfilter",
        "/proc/sys/net/bridge",
        "Services are not reached from pods of the same node",
    ),
    (
        "nf_tables",
        "",
        "the built-in network and kube-proxy can set no rules",
    ),
];

pub fn findings(place: &Place) -> Vec<Finding> {
    let release = rustix::system::uname()
        .release()
        .to_string_lossy()
        .into_owned();
    let mut all = vec![
        version(&release),
        namespaces(&|kind| Path::new("/proc/self/ns").join(kind).exists()),
        filesystems(&read("/proc/filesystems")),
        cgroups(
            &std::fs::read_to_string("/sys/fs/cgroup/cgroup.controllers").ok(),
            &read("/proc/cgroups"),
            place.config.as_ref().map(|c| c.fail_cgroup_v1),
        ),
    ];
    let known = Known::of(&release);
    all.extend(
        MODULES.map(|(name, shows, without)| module(name, known.state(name, shows), without)),
    );
    all
}

fn version(release: &str) -> Finding {
    let mut numbers = release
        .split(['.', '-'])
        .map_while(|n| n.parse::<u32>().ok());
    let mut next = || numbers.next().unwrap_or_default();
    let version = (next(), next());
    if version >= FLOOR {
        return Finding::ok("kernel", release);
    }
    let need = format!("Lighter needs {}.{} or newer", FLOOR.0, FLOOR.1);
    Finding::error("kernel", [release, &need, "boot a newer kernel"])
}

fn namespaces(has: &dyn Fn(&str) -> bool) -> Finding {
    let kinds = ["net", "ipc", "uts", "pid", "mnt", "cgroup", "user"];
    let missing: Vec<_> = kinds.into_iter().filter(|kind| !has(kind)).collect();
    match missing.as_slice() {
        [] => Finding::ok("namespaces", "all there"),
        ["user"] => Finding::warning(
            "namespaces",
            [
                "no user namespaces",
                "pods with hostUsers: false fail",
                "a kernel with CONFIG_USER_NS",
            ],
        ),
        missing => Finding::error(
            "namespaces",
            [
                &format!("none for {}", missing.join(", ")),
                "no container can be made",
                "a kernel with CONFIG_NAMESPACES and its parts",
            ],
        ),
    }
}

fn filesystems(known: &str) -> Finding {
    let has = |name: &&str| known.split_whitespace().any(|f| f == *name);
    let missing: Vec<_> = ["overlay", "tmpfs", "proc", "sysfs", "mqueue"]
        .into_iter()
        .filter(|name| !has(name))
        .collect();
    if missing.is_empty() {
        return Finding::ok("filesystems", "overlay, tmpfs, proc, sysfs, mqueue");
    }
    let missing = missing.join(" ");
    Finding::error(
        "filesystems",
        [
            &format!("the kernel does not know {missing}"),
            "containers need them",
            &format!("modprobe -a {missing}"),
        ],
    )
}

/// `v2` is the list of controllers, where the unified hierarchy is mounted.
fn cgroups(v2: &Option<String>, v1: &str, fail_v1: Option<bool>) -> Finding {
    const CHECK: &str = "cgroups";
    const UNIFIED: &str = "boot with systemd.unified_cgroup_hierarchy=1";
    if let Some(controllers) = v2 {
        let has = |name: &&str| controllers.split_whitespace().any(|c| c == *name);
        let missing: Vec<_> = CONTROLLERS_V2.into_iter().filter(|c| !has(c)).collect();
        if missing.is_empty() {
            return Finding::ok(CHECK, format!("v2: {}", controllers.trim_end()));
        }
        let seen = format!("v2 without {}", missing.join(", "));
        let remedy =
            "take cgroup_disable= off the kernel's command line; in a container, delegate them";
        return Finding::error(CHECK, [&seen, "limits of pods can't be set", remedy]);
    }
    // Name, hierarchy, number, enabled.
    let enabled = |name: &&str| {
        let mut lines = v1.lines().map(|l| l.split_whitespace().collect::<Vec<_>>());
        lines.any(|l| l.first() == Some(name) && l.get(3) == Some(&"1"))
    };
    let missing: Vec<_> = CONTROLLERS_V1.into_iter().filter(|c| !enabled(c)).collect();
    if !missing.is_empty() {
        let seen = format!("v1 without {}", missing.join(", "));
        return Finding::error(CHECK, [&seen, "limits of pods can't be set", UNIFIED]);
    }
    match fail_v1 {
        Some(false) => Finding::warning(
            CHECK,
            [
                "v1",
                "Kubernetes has given it up; resize and memory QoS lack parts",
                UNIFIED,
            ],
        ),
        _ => Finding::error(
            CHECK,
            [
                "v1",
                "the agent refuses to start on it, as every kubelet does",
                &format!("{UNIFIED}; or failCgroupV1: false in the kubelet's configuration"),
            ],
        ),
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Loaded, built in, or seen at work.
    There,
    Loadable,
    Missing,
    /// There are no lists of this kernel's modules.
    Unknown,
}

/// What is said about modules.
struct Known {
    filesystems: String,
    builtin: Option<String>,
    loadable: Option<String>,
    /// What nf_tables exports, which shows nowhere else when it is built in.
    nf_tables: bool,
}

impl Known {
    fn of(release: &str) -> Known {
        let dir = Path::new("/lib/modules").join(release);
        let list = |name: &str| std::fs::read_to_string(dir.join(name)).ok();
        Known {
            filesystems: read("/proc/filesystems"),
            builtin: list("modules.builtin"),
            loadable: list("modules.dep"),
            nf_tables: read("/proc/kallsyms").contains(" nft_register_chain_type"),
        }
    }

    fn state(&self, name: &str, shows: &str) -> State {
        let at_work = !shows.is_empty() && Path::new(shows).exists();
        let mounts = self.filesystems.split_whitespace().any(|f| f == name);
        let loaded = Path::new("/sys/module").join(name).exists();
        let exports = name == "nf_tables" && self.nf_tables;
        if at_work || mounts || loaded || exports || listed(self.builtin.as_deref(), name) {
            return State::There;
        }
        match (listed(self.loadable.as_deref(), name), &self.loadable) {
            (true, _) => State::Loadable,
            (false, Some(_)) => State::Missing,
            (false, None) => State::Unknown,
        }
    }
}

/// Lines are paths such as `kernel/fs/overlayfs/overlay.ko.xz: …`.
fn listed(list: Option<&str>, name: &str) -> bool {
    let is_it = |line: &str| {
        let path = line.split(':').next().unwrap_or_default();
        let file = path.rsplit('/').next().unwrap_or_default();
        file.split('.').next().map(|n| n.replace('-', "_")) == Some(name.to_owned())
    };
    list.is_some_and(|list| list.lines().any(is_it))
}

fn module(name: &'static str, state: State, without: &str) -> Finding {
    let load = format!("modprobe {name}, and a line {name} in /etc/modules-load.d/lighter.conf");
    match state {
        State::There => Finding::ok(name, "there"),
        State::Loadable => Finding::warning(name, ["not loaded", without, &load]),
        State::Missing => Finding::error(
            name,
            [
                "not part of this kernel",
                without,
                "another kernel, or its package of extra modules",
            ],
        ),
        State::Unknown => Finding::warning(
            name,
            [
                "not seen, and /lib/modules has no list for this kernel",
                without,
                &load,
            ],
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::super::Verdict;
    use super::*;

    #[test]
    fn kernel_is_compared_by_its_two_first_numbers() {
        assert_eq!(version("6.1.0-13-amd64").verdict, Verdict::Ok);
        assert_eq!(version("5.15-rc1").verdict, Verdict::Ok);
        assert_eq!(version("5.4.0").verdict, Verdict::Error);
        assert_eq!(version("4.19.0").verdict, Verdict::Error);
    }

    #[test]
    fn cgroup_v1_is_an_error_until_the_configuration_allows_it() {
        let line = |name: &str| format!("{name} 1 1 1\n");
        let v1: String = CONTROLLERS_V1.map(line).concat();
        assert_eq!(cgroups(&None, &v1, None).verdict, Verdict::Error);
        assert_eq!(cgroups(&None, &v1, Some(false)).verdict, Verdict::Warning);
        let without = cgroups(
            &None,
            &v1.replace("memory 1 1 1", "memory 1 1 0"),
            Some(false),
        );
        assert_eq!(without.seen, "v1 without memory");
        let v2 = Some("cpuset cpu io memory pids\n".to_owned());
        assert_eq!(cgroups(&v2, "", None).verdict, Verdict::Ok);
        let poor = cgroups(&Some("cpu pids".to_owned()), "", None);
        assert_eq!(poor.seen, "v2 without cpuset, memory, io");
    }

    #[test]
    fn modules_are_found_in_the_kernels_lists() {
        let list = Some("kernel/net/bridge/br_netfilter.ko.xz: kernel/net/bridge/bridge.ko.xz\n");
        assert!(listed(list, "br_netfilter"));
        assert!(!listed(list, "bridge"));
        assert!(!listed(None, "overlay"));
        assert_eq!(
            module("overlay", State::Missing, "x").verdict,
            Verdict::Error
        );
        assert_eq!(
            module("overlay", State::Loadable, "x").verdict,
            Verdict::Warning
        );
    }

    #[test]
    fn only_user_namespaces_can_be_done_without() {
        assert_eq!(namespaces(&|_| true).verdict, Verdict::Ok);
        assert_eq!(namespaces(&|k| k != "user").verdict, Verdict::Warning);
        assert_eq!(namespaces(&|k| k != "pid").verdict, Verdict::Error);
        assert!(
            filesystems("nodev tmpfs\nnodev proc\nnodev sysfs\nnodev mqueue")
                .remedy
                .contains("overlay")
        );
    }
}
