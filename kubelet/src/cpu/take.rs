//! Which CPUs are taken, packed: whole NUMA nodes and sockets, whole cores, then threads.
//!
//! The order is that of kubernetes v1.37 pkg/kubelet/cm/cpumanager/cpu_assignment.go:
//! what has the least left is taken first, so that large pieces stay whole.

use super::options::StaticOptions;
use crate::topology::{CpuSet, CpuTopology, Level};

/// What is taken from, and how.
#[derive(Debug, Clone, Copy)]
pub struct Taking<'a> {
    /// All there is.
    pub topology: &'a CpuTopology,
    /// Threads of different cores rather than whole cores.
    pub spread: bool,
    /// From as few caches as can be.
    pub by_uncore: bool,
}

impl<'a> Taking<'a> {
    /// As the options have it.
    pub fn new(topology: &'a CpuTopology, options: StaticOptions) -> Taking<'a> {
        Taking {
            topology,
            spread: options.distribute_cpus_across_cores,
            by_uncore: options.prefer_align_cpus_by_uncorecache,
        }
    }

    /// So many of these; `None` when they are too few.
    pub fn packed(self, free: &CpuSet, count: usize) -> Option<CpuSet> {
        let mut state = Accumulator {
            how: self,
            free: free.clone(),
            taken: CpuSet::default(),
            needed: count,
        };
        state.run()
    }
}

/// Taking in progress.
pub struct Accumulator<'a> {
    pub how: Taking<'a>,
    pub free: CpuSet,
    pub taken: CpuSet,
    pub needed: usize,
}

impl Accumulator<'_> {
    fn run(&mut self) -> Option<CpuSet> {
        if self.needed > self.free.len() {
            return None;
        }
        let (first, second) = match self.nodes_are_larger() {
            true => (Level::Node, Level::Socket),
            false => (Level::Socket, Level::Node),
        };
        self.take_whole(first);
        self.take_whole(second);
        if self.how.by_uncore {
            self.take_caches();
        }
        if !self.how.spread {
            self.take_whole(Level::Core);
        }
        let rest = self.threads().into_iter().take(self.needed).collect();
        self.take(&rest);
        (self.needed == 0).then(|| self.taken.clone())
    }

    /// A NUMA node has one or more sockets, rather than a socket more than one node.
    fn nodes_are_larger(&self) -> bool {
        let count = |level| self.how.topology.ids(level).len();
        count(Level::Socket) >= count(Level::Node)
    }

    pub fn take(&mut self, cpus: &CpuSet) {
        self.taken = self.taken.or(cpus);
        self.free = self.free.without(cpus);
        self.needed = self.needed.saturating_sub(cpus.len());
    }

    /// Free CPUs of one group.
    pub fn free_in(&self, level: Level, id: u32) -> CpuSet {
        self.how.topology.within(level, id, &self.free)
    }

    /// Groups in which something is free, of all or of those in a larger group: least first.
    fn sorted(&self, level: Level, inside: Option<(Level, u32)>) -> Vec<u32> {
        let within = match inside {
            Some((level, id)) => self.free_in(level, id),
            None => self.free.clone(),
        };
        let ids = self.how.topology.ids_of(level, &within);
        let mut ids: Vec<u32> = ids.into_iter().collect();
        ids.sort_by_key(|id| (self.free_in(level, *id).len(), *id));
        ids
    }

    fn sorted_in(&self, level: Level, outer: Level, groups: &[u32]) -> Vec<u32> {
        let inner = groups
            .iter()
            .flat_map(|id| self.sorted(level, Some((outer, *id))));
        inner.collect()
    }

    /// NUMA nodes in the order they are taken from.
    pub fn nodes(&self) -> Vec<u32> {
        match self.nodes_are_larger() {
            true => self.sorted(Level::Node, None),
            false => self.sorted_in(Level::Node, Level::Socket, &self.sockets()),
        }
    }

    fn sockets(&self) -> Vec<u32> {
        match self.nodes_are_larger() {
            true => self.sorted_in(Level::Socket, Level::Node, &self.nodes()),
            false => self.sorted(Level::Socket, None),
        }
    }

    fn order(&self, level: Level) -> Vec<u32> {
        match level {
            Level::Node => self.nodes(),
            Level::Socket => self.sockets(),
            Level::Uncore => self.sorted_in(Level::Uncore, Level::Node, &self.nodes()),
            Level::Core if self.nodes_are_larger() => {
                self.sorted_in(Level::Core, Level::Socket, &self.sockets())
            }
            Level::Core => self.sorted_in(Level::Core, Level::Node, &self.nodes()),
        }
    }

    fn threads(&self) -> Vec<u32> {
        let (level, groups) = match self.how.spread {
            true => (Level::Socket, self.sockets()),
            false => (Level::Core, self.order(Level::Core)),
        };
        let all = groups.into_iter().map(|id| self.free_in(level, id));
        all.flat_map(|cpus| cpus.iter().collect::<Vec<_>>())
            .collect()
    }

    /// Every group of which nothing is missing and all is needed.
    fn take_whole(&mut self, level: Level) {
        let all = self.how.topology.all();
        for id in self.order(level) {
            let whole = self.how.topology.within(level, id, &all);
            if self.free.covers(&whole) && self.needed >= whole.len() {
                self.take(&whole);
            }
        }
    }

    fn take_caches(&mut self) {
        for id in self.order(Level::Uncore) {
            if self.needed >= self.how.topology.per(Level::Uncore) {
                self.take_whole(Level::Uncore);
            }
            if self.needed == 0 {
                return;
            }
            self.take_part_of_cache(id);
        }
    }

    /// All that is still needed, if this one cache has it.
    fn take_part_of_cache(&mut self, id: u32) {
        let per_core = self.how.topology.per(Level::Core).max(1);
        let inside = self.free_in(Level::Uncore, id);
        let cores = self.how.topology.ids_of(Level::Core, &inside);
        let cores = cores.into_iter().take(self.needed.div_ceil(per_core));
        let mut cpus: CpuSet = cores
            .flat_map(|core| self.free_in(Level::Core, core).iter().collect::<Vec<_>>())
            .collect();
        // Of the last core only a part, when an odd number is wanted.
        if !self.needed.is_multiple_of(2) && per_core > 1 && cpus.len() > self.needed {
            let shorter = cpus.len() - 1;
            cpus = cpus.iter().take(shorter).collect();
        }
        if cpus.len() == self.needed {
            self.take(&cpus);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::topology::cpus::testing::{divided, machine};

    fn how(topology: &CpuTopology) -> Taking<'_> {
        Taking::new(topology, StaticOptions::default())
    }

    fn set(text: &str) -> CpuSet {
        text.parse().unwrap()
    }

    fn taken(how: Taking<'_>, free: &str, count: usize) -> String {
        let free = match free {
            "all" => how.topology.all(),
            free => set(free),
        };
        how.packed(&free, count)
            .map_or_else(|| "none".to_owned(), |c| c.to_string())
    }

    #[test]
    fn two_sockets_with_smt_are_taken_core_by_core_from_the_fuller_one() {
        // CPUs 0,2,4,6,8,10 are socket 0; 6 is the second thread of core 0.
        let two = machine(2, 3, 2, true);
        let cases = [
            ("all", 1, "0"),
            ("all", 2, "0,6"),
            ("all", 3, "0,2,6"),
            ("all", 6, "0,2,4,6,8,10"),
            ("all", 8, "0-2,4,6-8,10"),
            ("all", 13, "none"),
            // A thread of a core that is begun is taken before one of a whole core.
            ("1-11", 1, "6"),
            // The socket that has less left.
            ("1-5,7-11", 2, "2,8"),
            ("1,3,5,7,9,11,2,8", 2, "2,8"),
        ];
        for (free, count, expected) in cases {
            assert_eq!(taken(how(&two), free, count), expected, "{count} of {free}");
        }
    }

    #[test]
    fn spread_takes_threads_of_different_cores() {
        let one = machine(1, 4, 2, false);
        let spread = Taking {
            spread: true,
            ..how(&one)
        };
        assert_eq!(taken(spread, "all", 4), "0-3");
        assert_eq!(taken(how(&one), "all", 4), "0-1,4-5");
    }

    #[test]
    fn whole_nodes_of_a_socket_are_taken_before_cores() {
        // Two sockets of four cores, two NUMA nodes each.
        let four = divided(&machine(2, 4, 1, false), 2, 2);
        assert_eq!(taken(how(&four), "all", 2), "0-1");
        assert_eq!(taken(how(&four), "1-7", 2), "2-3");
        assert_eq!(taken(how(&four), "1-7", 4), "4-7");
    }

    #[test]
    fn one_cache_is_taken_from_when_it_has_all_that_is_wanted() {
        // A socket of eight cores with four caches.
        let caches = divided(&machine(1, 8, 2, false), 1, 4);
        let aligned = Taking {
            by_uncore: true,
            ..how(&caches)
        };
        // Of the first cache one core is gone: three CPUs fit only elsewhere.
        assert_eq!(taken(aligned, "1-7,9-15", 3), "2-3,10");
        assert_eq!(taken(aligned, "1-7,9-15", 2), "1,9");
        assert_eq!(taken(how(&caches), "1-7,9-15", 3), "1-2,9");
        assert_eq!(taken(aligned, "all", 6), "0-2,8-10");
    }
}
