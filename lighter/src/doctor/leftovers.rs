//! What other nodes, or an agent that is no more, have left.

use super::{Finding, Place, read};
use std::path::{Path, PathBuf};

/// Interfaces by which networks are known.
const LINKS: [&str; 7] = [
    "cni0",
    "flannel",
    "cilium",
    "cali",
    "weave",
    "kube-",
    "nodelocaldns",
];

pub fn findings(place: &Place, agent: Option<i32>) -> Vec<Finding> {
    let root = place.runtime.cgroup_root.trim_matches('/').to_owned();
    let mut all = vec![pods(processes_of_pods(&root), agent.is_some())];
    if agent.is_none() {
        all.push(mounts(&read("/proc/self/mountinfo"), &place.root_dir));
    }
    if !place.joined() {
        let links = std::fs::read_dir("/sys/class/net")
            .into_iter()
            .flatten()
            .flatten();
        let links: Vec<_> = links
            .filter_map(|l| l.file_name().into_string().ok())
            .collect();
        all.push(interfaces(&links, &place.runtime.bridge));
    }
    all
}

/// Processes below `kubepods`, in whichever hierarchy has it.
fn processes_of_pods(root: &str) -> usize {
    let hierarchies = [
        "/sys/fs/cgroup",
        "/sys/fs/cgroup/pids",
        "/sys/fs/cgroup/memory",
    ];
    let counts = hierarchies.iter().map(|hierarchy| {
        let below = Path::new(hierarchy).join(root);
        ["kubepods", "kubepods.slice"]
            .iter()
            .map(|name| members(&below.join(name)))
            .sum()
    });
    counts.max().unwrap_or(0)
}

fn members(cgroup: &Path) -> usize {
    let own = read(cgroup.join("cgroup.procs")).lines().count();
    let entries = std::fs::read_dir(cgroup).into_iter().flatten().flatten();
    let dirs = entries.filter(|e| e.file_type().is_ok_and(|t| t.is_dir()));
    own + dirs.map(|d| members(&d.path())).sum::<usize>()
}

fn pods(processes: usize, agent: bool) -> Finding {
    match (processes, agent) {
        (0, _) => Finding::ok("pods", "none run"),
        (n, true) => Finding::ok("pods", format!("{n} processes run in pods")),
        (n, false) => Finding::warning(
            "pods",
            [
                &format!("{n} processes run in pods, and no agent does"),
                "nobody probes, restarts or ends them",
                "systemctl start lighter; pods of another kubelet: end them with its own tool before joining",
            ],
        ),
    }
}

fn mounts(mountinfo: &str, root: &Path) -> Finding {
    let below: PathBuf = root.join("pods");
    let targets = mountinfo.lines().filter_map(|l| l.split(' ').nth(4));
    let count = targets.filter(|t| Path::new(t).starts_with(&below)).count();
    match count {
        0 => Finding::ok("mounts", "none of pods"),
        n => Finding::warning(
            "mounts",
            [
                &format!("{n} mounts below {}", below.display()),
                "volumes of pods that nobody looks after; removing that folder by hand would remove what is in them",
                "start the agent: it unmounts what nobody wants; never rm -rf",
            ],
        ),
    }
}

fn interfaces(links: &[String], bridge: &str) -> Finding {
    let foreign = |link: &&String| *link == bridge || LINKS.iter().any(|l| link.starts_with(l));
    let found: Vec<&str> = links.iter().filter(foreign).map(String::as_str).collect();
    if found.is_empty() {
        return Finding::ok("interfaces", "none of a pod network");
    }
    let remedy = format!("ip link del {}, or a restart of the machine", found[0]);
    Finding::warning(
        "interfaces",
        [
            &found.join(", "),
            "left by another network: its routes may catch pods' addresses",
            &remedy,
        ],
    )
}

#[cfg(test)]
mod tests {
    use super::super::Verdict;
    use super::*;

    #[test]
    fn leftovers_are_told_and_an_agents_own_pods_are_not() {
        assert_eq!(pods(3, true).verdict, Verdict::Ok);
        assert_eq!(pods(3, false).verdict, Verdict::Warning);
        let line = "30 25 0:40 / /var/lib/kubelet/pods/u/volumes/x rw - tmpfs tmpfs rw";
        let root = Path::new("/var/lib/kubelet");
        assert_eq!(mounts(line, root).verdict, Verdict::Warning);
        assert_eq!(
            mounts(&line.replace("pods/", "podsy/"), root).verdict,
            Verdict::Ok
        );
        let links = ["lo", "eth0", "cali123"].map(str::to_owned);
        assert_eq!(interfaces(&links, "lighter0").seen, "cali123");
        assert_eq!(interfaces(&links[..2], "lighter0").verdict, Verdict::Ok);
    }
}
