//! Limits as the files that carry them; no file is touched here.

use cgroupfs::{Hierarchy, weight};
use cri_proto::v1::LinuxContainerResources;
use std::collections::BTreeMap;

const SWAP_MAX: &str = "memory.swap.max";

/// Limits of a cgroup; what is `None` or empty is left as it is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Limits {
    /// v1's scale, 2 to 262144.
    pub cpu_shares: Option<u64>,
    /// Microseconds.
    pub cpu_period: Option<u64>,
    /// Microseconds a period; -1 = no limit.
    pub cpu_quota: Option<i64>,
    /// List of CPUs, `0-3,7`.
    pub cpuset_cpus: Option<String>,
    /// List of memory nodes.
    pub cpuset_mems: Option<String>,
    /// Bytes; -1 = no limit.
    pub memory: Option<i64>,
    /// Bytes of memory and swap together; -1 = no limit.
    pub memory_swap: Option<i64>,
    /// Page size as the kernel writes it (`2MB`) and bytes.
    pub hugepages: Vec<(String, u64)>,
    /// v2's files by name, written last.
    pub unified: BTreeMap<String, String>,
}

/// A file to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Write {
    pub controller: String,
    pub file: String,
    pub value: String,
    /// Skipped when the host has no such file (swap accounting, huge pages).
    pub optional: bool,
}

impl From<&LinuxContainerResources> for Limits {
    /// CRI's zero is "not given". Without a swap limit a container with a
    /// memory limit gets no swap (containerd v2 internal/cri/opts `WithResources`).
    fn from(cri: &LinuxContainerResources) -> Self {
        let given = |value: i64| (value != 0).then_some(value);
        let text = |value: &String| (!value.is_empty()).then(|| value.clone());
        let memory = given(cri.memory_limit_in_bytes);
        Self {
            cpu_shares: given(cri.cpu_shares).map(|n| n.max(2) as u64),
            cpu_period: given(cri.cpu_period).map(|n| n.max(0) as u64),
            cpu_quota: given(cri.cpu_quota),
            cpuset_cpus: text(&cri.cpuset_cpus),
            cpuset_mems: text(&cri.cpuset_mems),
            memory,
            memory_swap: given(cri.memory_swap_limit_in_bytes).or(memory),
            hugepages: cri
                .hugepage_limits
                .iter()
                .map(|limit| (limit.page_size.clone(), limit.limit))
                .collect(),
            unified: cri.unified.clone().into_iter().collect(),
        }
    }
}

impl Limits {
    /// The writes for a host whose controllers live in these hierarchies.
    /// `memsw` is what memory and swap together may use now (v1): growing,
    /// that limit goes first; shrinking, last.
    pub(super) fn writes(&self, hierarchies: &[Hierarchy], memsw: Option<u64>) -> Vec<Write> {
        let v2 = |controller: &str| {
            let home = hierarchies.iter().find(|h| h.has(controller));
            home.is_some_and(|h| h.v2) || hierarchies.iter().all(|h| h.v2)
        };
        let mut writes = if v2("cpu") {
            self.cpu_v2()
        } else {
            self.cpu_v1()
        };
        writes.extend(self.cpuset());
        writes.extend(if v2("memory") {
            self.memory_v2()
        } else {
            self.memory_v1(memsw)
        });
        writes.extend(self.hugepages(v2("hugetlb")));
        writes.extend(self.unified());
        writes
    }

    fn cpu_v1(&self) -> Vec<Write> {
        let mut out = Vec::new();
        out.extend(self.cpu_shares.map(|n| write("cpu", "cpu.shares", n)));
        // With neither, a period alone would be refused against the old quota.
        out.extend(
            self.cpu_period
                .map(|n| write("cpu", "cpu.cfs_period_us", n)),
        );
        out.extend(self.cpu_quota.map(|n| write("cpu", "cpu.cfs_quota_us", n)));
        out
    }

    fn cpu_v2(&self) -> Vec<Write> {
        let mut out = Vec::new();
        out.extend(
            self.cpu_shares
                .map(|n| write("cpu", "cpu.weight", weight(n))),
        );
        let quota = self.cpu_quota.map(|n| {
            if n > 0 {
                n.to_string()
            } else {
                "max".to_owned()
            }
        });
        let value = match (quota, self.cpu_period) {
            (Some(quota), Some(period)) => Some(format!("{quota} {period}")),
            (Some(quota), None) => Some(quota),
            (None, Some(period)) => Some(format!("max {period}")),
            (None, None) => None,
        };
        out.extend(value.map(|value| write("cpu", "cpu.max", value)));
        out
    }

    fn cpuset(&self) -> Vec<Write> {
        let mut out = Vec::new();
        out.extend(
            self.cpuset_cpus
                .as_ref()
                .map(|s| write("cpuset", "cpuset.cpus", s)),
        );
        out.extend(
            self.cpuset_mems
                .as_ref()
                .map(|s| write("cpuset", "cpuset.mems", s)),
        );
        out
    }

    fn memory_v1(&self, memsw_now: Option<u64>) -> Vec<Write> {
        let memory = self
            .memory
            .map(|n| write("memory", "memory.limit_in_bytes", n));
        let narrow = |memory: i64| memsw_now.is_some_and(|now| memory < 0 || memory as u64 > now);
        let unlimited = self.memory.filter(|memory| narrow(*memory)).map(|_| -1);
        let memsw = self.memory_swap.or(unlimited).map(|n| Write {
            optional: true,
            ..write("memory", "memory.memsw.limit_in_bytes", n)
        });
        let grows = match (self.memory_swap.or(unlimited), memsw_now) {
            (Some(wanted), Some(now)) => wanted < 0 || wanted as u64 > now,
            _ => false,
        };
        let pair = if grows {
            [memsw, memory]
        } else {
            [memory, memsw]
        };
        pair.into_iter().flatten().collect()
    }

    fn memory_v2(&self) -> Vec<Write> {
        let max = |n: i64| {
            if n < 0 {
                "max".to_owned()
            } else {
                n.to_string()
            }
        };
        let mut out = Vec::new();
        out.extend(self.swap().map(|n| Write {
            optional: true,
            ..write("memory", SWAP_MAX, max(n))
        }));
        out.extend(self.memory.map(|n| write("memory", "memory.max", max(n))));
        out
    }

    /// Of a pod as a whole: that its containers get no swap is said of each of them, so that one
    /// may get some.
    #[must_use]
    pub fn of_pod(cri: &LinuxContainerResources) -> Self {
        let swap = cri.memory_swap_limit_in_bytes;
        Self {
            memory_swap: (swap != 0).then_some(swap),
            ..Self::from(cri)
        }
    }

    /// Bytes of swap alone, as v2 counts; -1 = no limit. Who says it in v2's own words
    /// (`unified`) has said it.
    pub(super) fn swap(&self) -> Option<i64> {
        if self.unified.contains_key(SWAP_MAX) {
            return None;
        }
        match (self.memory_swap, self.memory) {
            (Some(swap), _) if swap < 0 => Some(swap),
            (Some(swap), Some(memory)) if memory > 0 => Some((swap - memory).max(0)),
            _ => None,
        }
    }

    fn hugepages(&self, v2: bool) -> Vec<Write> {
        let end = if v2 { "max" } else { "limit_in_bytes" };
        let mut out = Vec::new();
        for (size, limit) in &self.hugepages {
            for kind in ["", "rsvd."] {
                out.push(Write {
                    optional: true,
                    ..write("hugetlb", &format!("hugetlb.{size}.{kind}{end}"), limit)
                });
            }
        }
        out
    }

    fn unified(&self) -> impl Iterator<Item = Write> + '_ {
        self.unified.iter().map(|(file, value)| {
            let controller = file.split('.').next().unwrap_or_default();
            write(controller, file, value)
        })
    }
}

fn write(controller: &str, file: &str, value: impl ToString) -> Write {
    Write {
        controller: controller.to_owned(),
        file: file.to_owned(),
        value: value.to_string(),
        optional: false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(v2: bool) -> Vec<Hierarchy> {
        let controllers = ["cpu", "cpuset", "memory", "pids", "hugetlb"];
        vec![Hierarchy {
            mount: "/sys/fs/cgroup".into(),
            controllers: controllers.map(str::to_owned).to_vec(),
            v2,
        }]
    }

    fn lines(limits: &Limits, v2: bool, memsw: Option<u64>) -> Vec<String> {
        let writes = limits.writes(&host(v2), memsw);
        writes
            .iter()
            .map(|w| format!("{}={}", w.file, w.value))
            .collect()
    }

    fn burstable() -> Limits {
        Limits::from(&LinuxContainerResources {
            cpu_shares: 1024,
            cpu_period: 100_000,
            cpu_quota: 50_000,
            memory_limit_in_bytes: 64 << 20,
            ..Default::default()
        })
    }

    #[test]
    fn v1_limits_are_written_to_v1_files() {
        let expected = [
            "cpu.shares=1024",
            "cpu.cfs_period_us=100000",
            "cpu.cfs_quota_us=50000",
            "memory.limit_in_bytes=67108864",
            "memory.memsw.limit_in_bytes=67108864",
        ];
        assert_eq!(lines(&burstable(), false, None), expected);
    }

    #[test]
    fn v2_limits_are_written_to_v2_files_without_swap() {
        let expected = [
            "cpu.weight=100",
            "cpu.max=50000 100000",
            "memory.swap.max=0",
            "memory.max=67108864",
        ];
        assert_eq!(lines(&burstable(), true, None), expected);
    }

    #[test]
    fn swap_in_words_of_v2_goes_before_what_the_memory_limit_implies() {
        let mut limits = burstable();
        limits
            .unified
            .insert("memory.swap.max".into(), "4096".into());
        let last = ["memory.max=67108864", "memory.swap.max=4096"];
        assert_eq!(lines(&limits, true, None)[2..], last);
    }

    #[test]
    fn pod_as_a_whole_is_not_kept_from_swap() {
        let resources = LinuxContainerResources {
            memory_limit_in_bytes: 64 << 20,
            ..Default::default()
        };
        let of = |v2| lines(&Limits::of_pod(&resources), v2, None);
        assert_eq!(of(true), ["memory.max=67108864"]);
        assert_eq!(of(false), ["memory.limit_in_bytes=67108864"]);
    }

    #[test]
    fn memory_and_swap_grow_from_the_outside_and_shrink_from_the_inside() {
        let order = |now| {
            let all = lines(&burstable(), false, Some(now));
            all.iter()
                .position(|l| l.starts_with("memory.memsw"))
                .expect("memsw")
        };
        assert_eq!(order(32 << 20), 3);
        assert_eq!(order(128 << 20), 4);
    }

    #[test]
    fn memory_that_outgrows_both_together_has_that_limit_taken_away_first() {
        let limits = Limits {
            memory: Some(64),
            ..Limits::default()
        };
        let both = ["memory.memsw.limit_in_bytes=-1", "memory.limit_in_bytes=64"];
        assert_eq!(lines(&limits, false, Some(32)), both);
        assert_eq!(lines(&limits, false, Some(64))[..], both[1..]);
    }

    #[test]
    fn nothing_is_written_when_nothing_is_given() {
        let none = Limits::from(&LinuxContainerResources::default());
        assert!(lines(&none, true, None).is_empty() && lines(&none, false, None).is_empty());
    }

    #[test]
    fn unlimited_is_max_on_v2() {
        let limits = Limits {
            cpu_quota: Some(-1),
            memory: Some(-1),
            memory_swap: Some(-1),
            ..Limits::default()
        };
        let expected = ["cpu.max=max", "memory.swap.max=max", "memory.max=max"];
        assert_eq!(lines(&limits, true, None), expected);
    }
}
