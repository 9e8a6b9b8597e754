//! `lighter check`: what this machine lacks to be a node.

use std::path::Path;

/// How bad it is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Ok,
    Warn,
    Fail,
}

struct Finding {
    what: &'static str,
    verdict: Verdict,
    /// What was seen, and what to do when that is not well.
    text: String,
}

/// Prints every finding; the exit code is 1 when one of them rules a node out.
pub fn run() -> anyhow::Result<u8> {
    let findings = [
        root(),
        kernel(),
        cgroups(),
        filesystem("overlay"),
        namespaces(),
        forwarding(),
        swap(),
    ];
    for f in &findings {
        let mark = match f.verdict {
            Verdict::Ok => "ok  ",
            Verdict::Warn => "warn",
            Verdict::Fail => "FAIL",
        };
        println!("{mark}  {:<12} {}", f.what, f.text);
    }
    Ok(u8::from(
        findings.iter().any(|f| f.verdict == Verdict::Fail),
    ))
}

fn finding(what: &'static str, verdict: Verdict, text: impl Into<String>) -> Finding {
    Finding {
        what,
        verdict,
        text: text.into(),
    }
}

fn root() -> Finding {
    if rustix::process::geteuid().is_root() {
        finding("root", Verdict::Ok, "running as root")
    } else {
        finding(
            "root",
            Verdict::Fail,
            "not root: namespaces and mounts need it; use sudo",
        )
    }
}

/// DESIGN: the oldest kernel with everything that has no fallback.
const KERNEL_FLOOR: (u32, u32) = (5, 15);

fn kernel() -> Finding {
    let uname = rustix::system::uname();
    let release = uname.release().to_string_lossy();
    let mut numbers = release
        .split(['.', '-'])
        .map_while(|n| n.parse::<u32>().ok());
    let version = (
        numbers.next().unwrap_or_default(),
        numbers.next().unwrap_or_default(),
    );
    if version >= KERNEL_FLOOR {
        finding("kernel", Verdict::Ok, release)
    } else {
        let (major, minor) = KERNEL_FLOOR;
        finding(
            "kernel",
            Verdict::Fail,
            format!("{release}: Lighter needs {major}.{minor} or newer"),
        )
    }
}

fn cgroups() -> Finding {
    let v2 = std::fs::read_to_string("/sys/fs/cgroup/cgroup.controllers");
    match v2 {
        Ok(controllers) => {
            let wanted = ["cpu", "cpuset", "memory", "pids", "io"];
            let missing: Vec<_> = wanted
                .into_iter()
                .filter(|w| !controllers.split_whitespace().any(|c| c == *w))
                .collect();
            if missing.is_empty() {
                finding("cgroups", Verdict::Ok, "v2")
            } else {
                finding(
                    "cgroups",
                    Verdict::Fail,
                    format!("v2 without {}", missing.join(", ")),
                )
            }
        }
        Err(_) if Path::new("/sys/fs/cgroup/memory").exists() => finding(
            "cgroups",
            Verdict::Warn,
            "v1: set failCgroupV1: false in the kubelet's configuration, or boot with systemd.unified_cgroup_hierarchy=1",
        ),
        Err(_) => finding(
            "cgroups",
            Verdict::Fail,
            "nothing is mounted on /sys/fs/cgroup",
        ),
    }
}

fn filesystem(name: &'static str) -> Finding {
    let known = std::fs::read_to_string("/proc/filesystems").unwrap_or_default();
    if known.split_whitespace().any(|f| f == name) {
        finding(name, Verdict::Ok, "known to the kernel")
    } else {
        finding(
            name,
            Verdict::Fail,
            format!("not known to the kernel: modprobe {name}"),
        )
    }
}

fn namespaces() -> Finding {
    let missing: Vec<_> = ["net", "ipc", "uts", "pid", "mnt", "user", "cgroup"]
        .into_iter()
        .filter(|n| !Path::new("/proc/self/ns").join(n).exists())
        .collect();
    if missing.is_empty() {
        finding("namespaces", Verdict::Ok, "all there")
    } else {
        finding(
            "namespaces",
            Verdict::Fail,
            format!("the kernel has none for {}", missing.join(", ")),
        )
    }
}

fn forwarding() -> Finding {
    let on =
        std::fs::read_to_string("/proc/sys/net/ipv4/ip_forward").is_ok_and(|v| v.trim() == "1");
    if on {
        finding("ip_forward", Verdict::Ok, "on")
    } else {
        finding(
            "ip_forward",
            Verdict::Warn,
            "off; the agent turns it on for its pods",
        )
    }
}

fn swap() -> Finding {
    let swaps = std::fs::read_to_string("/proc/swaps").unwrap_or_default();
    if swaps.lines().count() <= 1 {
        finding("swap", Verdict::Ok, "none")
    } else {
        finding(
            "swap",
            Verdict::Warn,
            "in use: set failSwapOn: false, or swapoff -a",
        )
    }
}
