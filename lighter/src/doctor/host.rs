//! Root, name, memory, swap, clock, mount propagation.

use super::{Finding, Place, read};

/// Ours: what an agent with a few pods takes.
const MEMORY_FLOOR: u64 = 256 << 20;

pub fn findings(place: &Place) -> Vec<Finding> {
    vec![
        root(rustix::process::geteuid().is_root()),
        configuration(place),
        name(place.name()),
        memory(&read("/proc/meminfo")),
        swap(&read("/proc/swaps"), place.config().fail_swap_on),
        machine_id(&read("/etc/machine-id")),
        propagation(&read("/proc/self/mountinfo")),
    ]
}

fn root(is_root: bool) -> Finding {
    match is_root {
        true => Finding::ok("root", "running as root"),
        false => Finding::error(
            "root",
            [
                "not root",
                "namespaces, mounts and cgroups need it",
                "sudo lighter doctor",
            ],
        ),
    }
}

fn configuration(place: &Place) -> Finding {
    match (&place.config_mistake, &place.config) {
        (Some(mistake), _) => Finding::error(
            "kubelet-config",
            [
                mistake,
                "the agent does not start with it",
                "mend the file, or give another with --config",
            ],
        ),
        (None, Some(_)) => Finding::ok("kubelet-config", "read without a mistake"),
        (None, None) => Finding::ok("kubelet-config", "none yet; lighter join brings it"),
    }
}

fn name(name: Result<String, String>) -> Finding {
    match name {
        Ok(name) => Finding::ok("node-name", name),
        Err(why) => Finding::error(
            "node-name",
            [
                &why,
                "the Node could not be registered",
                "hostnamectl hostname NAME, or --hostname-override NAME",
            ],
        ),
    }
}

fn memory(meminfo: &str) -> Finding {
    let line = meminfo.lines().find_map(|l| l.strip_prefix("MemTotal:"));
    let number = line.and_then(|l| l.split_whitespace().next());
    let total: u64 = number.and_then(|n| n.parse().ok()).unwrap_or(0) * 1024;
    let seen = format!("{} MiB", total >> 20);
    match total >= MEMORY_FLOOR {
        true => Finding::ok("memory", seen),
        false => Finding::warning(
            "memory",
            [
                &seen,
                "agent and pods hardly fit",
                "256 MiB are the least that makes sense",
            ],
        ),
    }
}

fn swap(swaps: &str, fail_swap_on: bool) -> Finding {
    let device = swaps
        .lines()
        .nth(1)
        .and_then(|l| l.split_whitespace().next());
    match device {
        None => Finding::ok("swap", "none"),
        Some(device) if fail_swap_on => Finding::error(
            "swap",
            [
                &format!("{device} is in use"),
                "the agent refuses to start with it, as every kubelet does",
                "swapoff -a and take it out of /etc/fstab; or failSwapOn: false in the kubelet's configuration",
            ],
        ),
        Some(device) => Finding::ok(
            "swap",
            format!("{device} is in use, which failSwapOn: false allows"),
        ),
    }
}

fn machine_id(id: &str) -> Finding {
    match id.len() == 32 && id.bytes().all(|b| b.is_ascii_hexdigit()) {
        true => Finding::ok("machine-id", id),
        false => Finding::warning(
            "machine-id",
            [
                "/etc/machine-id is missing or empty",
                "log collectors and the Node's machineID need it",
                "systemd-machine-id-setup, or: tr -d - </proc/sys/kernel/random/uuid >/etc/machine-id",
            ],
        ),
    }
}

fn propagation(mountinfo: &str) -> Finding {
    let root = mountinfo.lines().find(|l| l.split(' ').nth(4) == Some("/"));
    match root.is_some_and(|l| l.contains(" shared:")) {
        true => Finding::ok("mount-propagation", "/ is shared"),
        false => Finding::warning(
            "mount-propagation",
            [
                "/ is not shared",
                "mountPropagation: Bidirectional fails, so CSI drivers and calico or cilium do",
                "mount --make-rshared /",
            ],
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::super::Verdict;
    use super::*;

    #[test]
    fn swap_matters_as_far_as_the_configuration_says() {
        let swaps = "Filename Type Size\n/dev/sda2 partition 1";
        assert_eq!(swap("Filename", true).verdict, Verdict::Ok);
        assert_eq!(swap(swaps, true).verdict, Verdict::Error);
        assert_eq!(swap(swaps, false).verdict, Verdict::Ok);
    }

    #[test]
    fn root_mount_must_be_shared_for_volumes_to_propagate() {
        let line = |tag: &str| format!("25 1 8:1 / / rw,relatime {tag}- ext4 /dev/sda1 rw");
        assert_eq!(propagation(&line("shared:1 ")).verdict, Verdict::Ok);
        assert_eq!(propagation(&line("")).verdict, Verdict::Warning);
    }

    #[test]
    fn memory_and_machine_id_are_judged() {
        assert_eq!(memory("MemTotal:  1048576 kB").seen, "1024 MiB");
        assert_eq!(memory("MemTotal:  65536 kB").verdict, Verdict::Warning);
        assert_eq!(machine_id("").verdict, Verdict::Warning);
        assert_eq!(machine_id(&"0a".repeat(16)).verdict, Verdict::Ok);
    }
}
