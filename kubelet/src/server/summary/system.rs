//! `systemContainers`: cgroups beside those of single pods.
//!
//! `kubelet` is the cgroup that this process is in; a runtime that is built in is counted there
//! and not told a second time. `pods` is the cgroup that all pods are in. kubernetes v1.37
//! pkg/kubelet/server/stats/summary_sys_containers.go tells `runtime` and `misc` only where
//! somebody gave a cgroup to them (`--runtime-cgroups`, `systemCgroups`), which nobody can here.

use super::figures::{put, time};
use super::host::{CpuSamples, pressure};
use cgroupfs::{field, number, text};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

/// kubernetes v1.37 pkg/kubelet/stats/helper.go `isMemoryUnlimited`.
const UNLIMITED: u64 = 1 << 62;

/// A cgroup, in the hierarchies that count.
#[derive(Debug, Clone, PartialEq)]
struct Cgroup {
    unified: bool,
    cpu: PathBuf,
    memory: PathBuf,
}

impl Cgroup {
    fn at(mount: &Path, name: &str) -> Cgroup {
        let name = name.trim_start_matches('/');
        match mount.join("cgroup.controllers").exists() {
            true => Cgroup {
                unified: true,
                cpu: mount.join(name),
                memory: mount.join(name),
            },
            false => Cgroup {
                unified: false,
                cpu: mount.join("cpuacct").join(name),
                memory: mount.join("memory").join(name),
            },
        }
    }
}

/// All that there are: without pods there is no cgroup of theirs.
pub(super) fn containers(
    pods: &str,
    started: jiff::Timestamp,
    samples: &CpuSamples,
    brief: bool,
) -> Vec<Value> {
    let mount = Path::new(cgroupfs::MOUNT);
    let unified = cgroupfs::is_unified();
    let own = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let named = [
        ("kubelet", own_name(&own, unified), Some(started)),
        ("pods", Some(pods), None),
    ];
    let told = named.into_iter().filter_map(|(name, cgroup, started)| {
        let cgroup = Cgroup::at(mount, cgroup?);
        of_cgroup(name, &cgroup, started, samples, brief)
    });
    told.collect()
}

/// The cgroup in which both CPU time and memory of this process are counted (cgroups(7));
/// kubernetes v1.37 pkg/kubelet/cm/container_manager_linux.go `getContainer`: `None` when those
/// are two.
fn own_name(table: &str, unified: bool) -> Option<&str> {
    let of = |controller: &str| {
        table.lines().find_map(|line| {
            let (controllers, path) = line.split_once(':')?.1.split_once(':')?;
            let mut all = controllers.split(',');
            all.any(|c| c == controller).then_some(path)
        })
    };
    match unified {
        true => of(""),
        false => of("cpuacct").filter(|path| of("memory") == Some(path)),
    }
}

fn of_cgroup(
    name: &'static str,
    cgroup: &Cgroup,
    started: Option<jiff::Timestamp>,
    samples: &CpuSamples,
    brief: bool,
) -> Option<Value> {
    let at_ms = jiff::Timestamp::now().as_millisecond();
    let nanos = cpu_nanos(cgroup)?;
    let cores = samples.of(name, at_ms, nanos as f64 / 1e9);
    let mut cpu = json!({"time": time(at_ms), "usageCoreNanoSeconds": nanos});
    put(&mut cpu, "usageNanoCores", cores.map(|n| json!(n)));
    let mut memory = memory(cgroup, at_ms)?;
    put(
        &mut cpu,
        "psi",
        pressure(&text(&cgroup.cpu.join("cpu.pressure"))),
    );
    let psi = pressure(&text(&cgroup.memory.join("memory.pressure")));
    put(&mut memory, "psi", psi);
    let started = started.map(jiff::Timestamp::as_millisecond);
    let mut value = json!({"name": name, "cpu": cpu, "memory": memory});
    put(
        &mut value,
        "startTime",
        started.or_else(|| made_ms(cgroup)).map(time),
    );
    put(&mut value, "swap", swap(cgroup, at_ms));
    if !brief {
        let io = pressure(&text(&cgroup.cpu.join("io.pressure")));
        let io = io.map(|psi| json!({"time": time(at_ms), "psi": psi}));
        put(&mut value, "io", io);
    }
    Some(value)
}

fn cpu_nanos(cgroup: &Cgroup) -> Option<u64> {
    match cgroup.unified {
        true => Some(field(&text(&cgroup.cpu.join("cpu.stat")), "usage_usec")? * 1000),
        false => number(&cgroup.cpu.join("cpuacct.usage")),
    }
}

fn memory(cgroup: &Cgroup, at_ms: i64) -> Option<Value> {
    let stat = text(&cgroup.memory.join("memory.stat"));
    let (usage, limit, prefix, rss) = match cgroup.unified {
        true => ("memory.current", "memory.max", "", "anon"),
        false => (
            "memory.usage_in_bytes",
            "memory.limit_in_bytes",
            "total_",
            "rss",
        ),
    };
    let usage = number(&cgroup.memory.join(usage)).or_else(|| {
        // The root of cgroup v2 has no file for it.
        Some(field(&stat, "anon")? + field(&stat, "file")?)
    })?;
    let counted = |name: &str| field(&stat, &format!("{prefix}{name}")).unwrap_or_default();
    let working_set = usage.saturating_sub(counted("inactive_file"));
    let mut told = json!({
        "time": time(at_ms),
        "usageBytes": usage,
        "workingSetBytes": working_set,
        "rssBytes": counted(rss),
        "pageFaults": counted("pgfault"),
        "majorPageFaults": counted("pgmajfault"),
    });
    // `max` is no number.
    let limit = number(&cgroup.memory.join(limit)).filter(|l| *l <= UNLIMITED);
    let available = limit.map(|l| json!(l.saturating_sub(working_set)));
    put(&mut told, "availableBytes", available);
    Some(told)
}

/// Where the kernel counts it.
fn swap(cgroup: &Cgroup, at_ms: i64) -> Option<Value> {
    let (used, limit) = match cgroup.unified {
        true => (
            number(&cgroup.memory.join("memory.swap.current"))?,
            number(&cgroup.memory.join("memory.swap.max")),
        ),
        false => {
            let both = number(&cgroup.memory.join("memory.memsw.usage_in_bytes"))?;
            let memory = number(&cgroup.memory.join("memory.usage_in_bytes"))?;
            (both.saturating_sub(memory), None)
        }
    };
    let mut told = json!({"time": time(at_ms), "swapUsageBytes": used});
    let available = limit.map(|l| json!(l.saturating_sub(used)));
    put(&mut told, "swapAvailableBytes", available);
    Some(told)
}

/// When it was made. The folder itself changes with what is below it.
fn made_ms(cgroup: &Cgroup) -> Option<i64> {
    let file = match cgroup.unified {
        true => "cgroup.events",
        false => "cgroup.clone_children",
    };
    let made = std::fs::metadata(cgroup.memory.join(file))
        .ok()?
        .modified()
        .ok()?;
    let made = jiff::Timestamp::try_from(made).ok()?;
    Some(made.as_millisecond())
}

#[cfg(test)]
mod tests {
    use super::*;

    const V1: &str = "5:memory:/a\n2:cpu,cpuacct:/a\n1:name=systemd:/b\n0::/c\n";

    #[test]
    fn own_cgroup_is_where_cpu_and_memory_are_counted() {
        assert_eq!(own_name(V1, false), Some("/a"));
        assert_eq!(own_name(V1, true), Some("/c"));
        assert_eq!(own_name(&V1.replace("memory:/a", "memory:/x"), false), None);
        assert_eq!(own_name("", true), None);
    }

    fn cgroup(unified: bool, files: &[(&str, &str)]) -> (Cgroup, PathBuf) {
        static NTH: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
        let nth = NTH.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let name = format!("kubelet-system-{}-{nth}", std::process::id());
        let dir = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&dir).unwrap();
        for (name, text) in files {
            std::fs::write(dir.join(name), text).unwrap();
        }
        let cgroup = Cgroup {
            unified,
            cpu: dir.clone(),
            memory: dir.clone(),
        };
        (cgroup, dir)
    }

    fn told(unified: bool, files: &[(&str, &str)]) -> Option<Value> {
        let (cgroup, dir) = cgroup(unified, files);
        let told = of_cgroup("pods", &cgroup, None, &CpuSamples::default(), false);
        std::fs::remove_dir_all(dir).unwrap();
        told
    }

    #[test]
    fn figures_are_those_of_cgroup_v2() {
        let line = "some avg10=1.00 avg60=0.00 avg300=0.00 total=5\n";
        let told = told(
            true,
            &[
                ("cpu.stat", "usage_usec 7\nuser_usec 1\n"),
                ("cpu.pressure", line),
                ("memory.current", "100\n"),
                ("memory.max", "max\n"),
                (
                    "memory.stat",
                    "anon 40\ninactive_file 30\npgfault 3\npgmajfault 1\n",
                ),
                ("memory.swap.current", "8\n"),
                ("memory.swap.max", "10\n"),
                ("cgroup.events", ""),
            ],
        );
        let told = told.unwrap();
        assert_eq!(told["cpu"]["usageCoreNanoSeconds"], 7000);
        assert_eq!(told["cpu"]["psi"]["some"]["total"], 5000);
        let memory = &told["memory"];
        assert_eq!(
            (&memory["workingSetBytes"], &memory["rssBytes"]),
            (&json!(70), &json!(40))
        );
        assert_eq!(
            (&memory["pageFaults"], &memory["majorPageFaults"]),
            (&json!(3), &json!(1))
        );
        assert!(memory.get("availableBytes").is_none());
        assert_eq!(told["swap"]["swapAvailableBytes"], 2);
        assert!(told["startTime"].is_string());
    }

    #[test]
    fn figures_are_those_of_cgroup_v1_with_what_is_below() {
        let told = told(
            false,
            &[
                ("cpuacct.usage", "9\n"),
                ("memory.usage_in_bytes", "100\n"),
                ("memory.limit_in_bytes", "200\n"),
                (
                    "memory.stat",
                    "rss 1\ntotal_rss 50\ntotal_inactive_file 20\ntotal_pgfault 4\n",
                ),
            ],
        );
        let told = told.unwrap();
        assert_eq!(told["cpu"]["usageCoreNanoSeconds"], 9);
        let memory = &told["memory"];
        assert_eq!(
            (&memory["workingSetBytes"], &memory["rssBytes"]),
            (&json!(80), &json!(50))
        );
        assert_eq!(
            (&memory["availableBytes"], &memory["pageFaults"]),
            (&json!(120), &json!(4))
        );
        assert!(told.get("swap").is_none());
    }

    #[test]
    fn cgroup_that_is_not_there_is_not_told() {
        assert_eq!(told(true, &[]), None);
        assert_eq!(told(false, &[("cpuacct.usage", "9\n")]), None);
    }
}
