//! What a cgroup is held to. Pure: no file is touched here.

use crate::huge_pages;
use crate::node::machine::Machine;
use crate::node::resources::hugepage_name;
use crate::pod::spec::resources::shares;
use cgroupfs::{Hierarchy, weight};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// Amounts by resource name: thousandths of a CPU for `cpu`, bytes or pieces for the others.
pub type Amounts = BTreeMap<String, u64>;

/// kubernetes v1.37 pkg/kubelet/stats/pidlimit `PIDs`.
const PIDS: &str = "pid";

/// Limits; what is absent is left as it is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Limits {
    /// v1's scale, 2 to 262144.
    pub cpu_shares: Option<u64>,
    /// Bytes.
    pub memory: Option<u64>,
    pub pids: Option<u64>,
    /// Bytes by size of a page.
    pub hugepages: BTreeMap<u64, u64>,
}

/// A file to be written.
#[derive(Debug, PartialEq, Eq)]
pub struct Write {
    pub controller: &'static str,
    /// Where the controller is mounted; `None`: this host has none.
    pub mount: Option<PathBuf>,
    pub file: String,
    pub value: u64,
    /// Not every kernel has it, and beside v1 it may be a controller of v2, which passes nothing on.
    pub optional: bool,
}

/// What the machine has, process ids among it.
pub fn of_machine(machine: &Machine, pids: Option<u64>) -> Amounts {
    let mut all = Amounts::from([
        ("cpu".to_owned(), machine.cpus * 1000),
        ("memory".to_owned(), machine.memory),
    ]);
    all.extend(pids.map(|most| (PIDS.to_owned(), most)));
    let pages = machine.hugepages.iter();
    all.extend(pages.map(|(size, count)| (hugepage_name(*size), size * count)));
    all
}

/// What is reserved, with nothing of the huge pages that are not named: as upstream.
pub fn of_reserved(mut reserved: Amounts, machine: &Machine) -> Amounts {
    for size in machine.hugepages.keys() {
        reserved.entry(hugepage_name(*size)).or_insert(0);
    }
    reserved
}

/// What is left of `all`. Eviction comes before this limit is reached, so what it keeps free is
/// not taken away here.
pub fn without(mut all: Amounts, reserved: &Amounts) -> Amounts {
    for (name, amount) in &mut all {
        *amount = amount.saturating_sub(reserved.get(name).copied().unwrap_or(0));
    }
    all
}

impl Limits {
    /// CPU shares alone.
    pub fn of_shares(cpu_shares: u64) -> Limits {
        Limits {
            cpu_shares: Some(cpu_shares),
            ..Limits::default()
        }
    }

    /// What amounts come to; with `compressible` only those that may be too small to live.
    pub fn of(amounts: &Amounts, compressible: bool) -> Limits {
        // More than anybody has, and few enough to be multiplied.
        let most = u64::from(u32::MAX);
        let millis = amounts.get("cpu").map(|m| (*m).min(most));
        let cpu_shares = millis.map(|m| shares(i64::try_from(m).unwrap_or(i64::MAX)));
        let cpu_shares = cpu_shares.and_then(|s| u64::try_from(s).ok());
        if compressible {
            return Limits {
                cpu_shares,
                ..Limits::default()
            };
        }
        let page = |(name, bytes): (&String, &u64)| Some((huge_pages::size_of(name)?, *bytes));
        Limits {
            cpu_shares,
            // Nobody lives on nothing: as in runc, zero is no limit.
            memory: amounts.get("memory").copied().filter(|m| *m > 0),
            pids: amounts.get(PIDS).copied(),
            hugepages: amounts.iter().filter_map(page).collect(),
        }
    }

    /// The files, each as the hierarchy that has its controller names it.
    pub fn writes(&self, hierarchies: &[Hierarchy]) -> Vec<Write> {
        let home = |controller: &str| hierarchies.iter().find(|h| h.has(controller));
        let v2 = |controller: &str| home(controller).is_some_and(|h| h.v2);
        let write = |controller, file: &str, value| Write {
            controller,
            mount: home(controller).map(|h| h.mount.clone()),
            file: file.to_owned(),
            value,
            optional: controller == "hugetlb",
        };
        let cpu = |shares| match v2("cpu") {
            true => write("cpu", "cpu.weight", weight(shares)),
            false => write("cpu", "cpu.shares", shares),
        };
        let memory = match v2("memory") {
            true => "memory.max",
            false => "memory.limit_in_bytes",
        };
        let mut all = Vec::new();
        all.extend(self.cpu_shares.map(cpu));
        all.extend(self.memory.map(|bytes| write("memory", memory, bytes)));
        all.extend(self.pids.map(|most| write("pids", "pids.max", most)));
        let end = match v2("hugetlb") {
            true => "max",
            false => "limit_in_bytes",
        };
        for (size, bytes) in &self.hugepages {
            for kind in ["", "rsvd."] {
                let file = format!("hugetlb.{}.{kind}{end}", huge_pages::kernel_name(*size));
                all.push(write("hugetlb", &file, *bytes));
            }
        }
        all
    }

    /// As systemd.resource-control(5) calls them; it knows nothing of huge pages.
    pub fn properties(&self, unified: bool) -> Vec<(&'static str, u64)> {
        let (cpu, memory) = match unified {
            true => (("CPUWeight", self.cpu_shares.map(weight)), "MemoryMax"),
            false => (("CPUShares", self.cpu_shares), "MemoryLimit"),
        };
        let all = [cpu, (memory, self.memory), ("TasksMax", self.pids)];
        let given = all.into_iter();
        given.filter_map(|(name, v)| Some((name, v?))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn amounts(all: &[(&str, u64)]) -> Amounts {
        all.iter().map(|(n, a)| ((*n).to_owned(), *a)).collect()
    }

    fn machine() -> Machine {
        Machine {
            cpus: 2,
            memory: 4 << 30,
            hugepages: BTreeMap::from([(2 << 20, 8)]),
            ..Machine::default()
        }
    }

    #[test]
    fn limits_are_the_machines_less_what_is_reserved_and_never_less_than_nothing() {
        let reserved = amounts(&[("cpu", 500), ("memory", 1 << 30), ("pid", 1000), ("x", 1)]);
        let left = without(of_machine(&machine(), Some(32_768)), &reserved);
        let want = [
            ("cpu", 1500),
            ("memory", 3 << 30),
            ("pid", 31_768),
            ("hugepages-2Mi", 16 << 20),
        ];
        assert_eq!(left, amounts(&want));
        let all = amounts(&[("memory", 8 << 30)]);
        let nothing = without(of_machine(&machine(), None), &all);
        assert_eq!(nothing["memory"], 0);
        assert_eq!(Limits::of(&nothing, false).memory, None);
    }

    fn hierarchy(name: &str, controllers: &[&str], v2: bool) -> Hierarchy {
        Hierarchy {
            mount: name.into(),
            controllers: controllers.iter().map(|c| (*c).to_owned()).collect(),
            v2,
        }
    }

    fn lines(hierarchies: &[Hierarchy]) -> Vec<String> {
        let limits = Limits::of(&of_machine(&machine(), Some(100)), false);
        let line = |w: Write| {
            let mount = w
                .mount
                .as_ref()
                .map_or("none".into(), |m| m.display().to_string());
            format!("{mount} {} {}", w.file, w.value)
        };
        limits.writes(hierarchies).into_iter().map(line).collect()
    }

    #[test]
    fn limits_are_written_as_each_version_has_them() {
        let v1 = ["cpu", "memory", "pids", "hugetlb"].map(|c| hierarchy(c, &[c], false));
        let of_v1 = [
            "cpu cpu.shares 2048",
            "memory memory.limit_in_bytes 4294967296",
            "pids pids.max 100",
            "hugetlb hugetlb.2MB.limit_in_bytes 16777216",
            "hugetlb hugetlb.2MB.rsvd.limit_in_bytes 16777216",
        ];
        assert_eq!(lines(&v1), of_v1);
        let v2 = [hierarchy(
            "all",
            &["cpu", "memory", "pids", "hugetlb"],
            true,
        )];
        let of_v2 = [
            "all cpu.weight 174",
            "all memory.max 4294967296",
            "all pids.max 100",
            "all hugetlb.2MB.max 16777216",
            "all hugetlb.2MB.rsvd.max 16777216",
        ];
        assert_eq!(lines(&v2), of_v2);
    }

    #[test]
    fn files_are_named_by_the_hierarchy_that_their_controller_is_in() {
        let hybrid = [
            hierarchy("cpu", &["cpu", "cpuacct"], false),
            hierarchy("unified", &["memory", "hugetlb"], true),
        ];
        let want = [
            "cpu cpu.shares 2048",
            "unified memory.max 4294967296",
            "none pids.max 100",
            "unified hugetlb.2MB.max 16777216",
            "unified hugetlb.2MB.rsvd.max 16777216",
        ];
        assert_eq!(lines(&hybrid), want);
    }

    #[test]
    fn huge_pages_that_are_not_named_are_not_reserved() {
        let all = of_reserved(amounts(&[("memory", 1)]), &machine());
        assert_eq!(all, amounts(&[("memory", 1), ("hugepages-2Mi", 0)]));
        let named = amounts(&[("hugepages-2Mi", 7)]);
        assert_eq!(of_reserved(named.clone(), &machine()), named);
    }

    #[test]
    fn limits_are_told_to_systemd_as_it_calls_them() {
        let limits = Limits::of(&of_machine(&machine(), Some(100)), false);
        let v2 = [
            ("CPUWeight", 174),
            ("MemoryMax", 4_u64 << 30),
            ("TasksMax", 100),
        ];
        assert_eq!(limits.properties(true), v2);
        let v1 = [
            ("CPUShares", 2048),
            ("MemoryLimit", 4_u64 << 30),
            ("TasksMax", 100),
        ];
        assert_eq!(limits.properties(false), v1);
    }

    #[test]
    fn of_what_is_compressible_there_is_cpu_alone() {
        let all = amounts(&[("cpu", 1000), ("memory", 1), ("pid", 1)]);
        assert_eq!(Limits::of(&all, true), Limits::of_shares(1024));
    }
}
