//! CPUs taken evenly from NUMA nodes, when one does not have them all.
//!
//! KEP-2902, as kubernetes v1.37 pkg/kubelet/cm/cpumanager/cpu_assignment.go has it.

use super::take::{Accumulator, Taking};
use crate::topology::{CpuSet, Level};
use std::collections::BTreeMap;

/// How it is to be done.
#[derive(Debug, Clone, Copy)]
pub struct Even {
    /// CPUs that are handed out together: those of a core, or one.
    pub group: usize,
    /// Nodes of one socket rather than of two.
    pub align_by_socket: bool,
}

/// CPUs left on each node.
type Left = BTreeMap<u32, usize>;

/// Nodes to take from, evenly, and those that give the remainder.
#[derive(Debug, Clone, PartialEq)]
struct Combination {
    balance: f64,
    one_socket: bool,
    nodes: Vec<u32>,
    remainder: Vec<u32>,
}

/// So many of these; `None` when they are too few.
pub fn distributed(how: Taking<'_>, even: Even, free: &CpuSet, count: usize) -> Option<CpuSet> {
    // Caches are not looked at, as upstream does not.
    let how = Taking {
        by_uncore: false,
        ..how
    };
    if count == 0 || !count.is_multiple_of(even.group) {
        return how.packed(free, count);
    }
    let mut state = Accumulator {
        how,
        free: free.clone(),
        taken: CpuSet::default(),
        needed: count,
    };
    if count > free.len() {
        return None;
    }
    let nodes = state.nodes();
    let (fewest, most) = range(&state, even.group, nodes.len());
    for size in fewest..=most {
        let best = best(&state, even, &nodes, size);
        if let Some(best) = best {
            return hand_out(&mut state, even.group, &best);
        }
    }
    how.packed(free, count)
}

/// How many nodes it takes at least, and at most.
fn range(state: &Accumulator<'_>, group: usize, available: usize) -> (usize, usize) {
    let topology = state.how.topology;
    let groups = topology.all().len().div_ceil(group);
    let per_node = groups.div_ceil(topology.ids(Level::Node).len().max(1));
    let needed = state.needed.div_ceil(group);
    (needed.div_ceil(per_node.max(1)), needed.min(available))
}

fn best(state: &Accumulator<'_>, even: Even, nodes: &[u32], size: usize) -> Option<Combination> {
    let mut best: Option<Combination> = None;
    for combination in combinations(nodes, size) {
        let perfect = |b: &Combination| b.balance == 0.0 && (!even.align_by_socket || b.one_socket);
        if best.as_ref().is_some_and(perfect) {
            break;
        }
        let Some(next) = judge(state, even, nodes, combination) else {
            continue;
        };
        let better = match &best {
            None => true,
            Some(b) if even.align_by_socket && b.one_socket != next.one_socket => next.one_socket,
            Some(b) => next.balance < b.balance,
        };
        if better {
            best = Some(next);
        }
    }
    best
}

/// How even the machine is after taking from these nodes; `None` if they don't have it.
fn judge(state: &Accumulator<'_>, even: Even, all: &[u32], nodes: Vec<u32>) -> Option<Combination> {
    let free = |node: &u32| state.free_in(Level::Node, *node).len();
    let whole = |node: &u32| free(node) / even.group * even.group;
    let (count, group) = (state.needed, even.group);
    if nodes.iter().map(whole).sum::<usize>() < count {
        return None;
    }
    let mut share = count / nodes.len() / group * group;
    if even.align_by_socket {
        share = nodes.iter().map(whole).fold(share, usize::min);
    }
    if nodes.iter().any(|n| free(n) < share) {
        return None;
    }
    let mut left: Left = all.iter().map(|n| (*n, free(n))).collect();
    for node in &nodes {
        left.entry(*node).and_modify(|l| *l -= share);
    }
    let remainder = count - share * nodes.len();
    let (balance, givers) = match remainder {
        0 => (deviation(&left), Vec::new()),
        _ => best_remainder(&left, &nodes, remainder, group)?,
    };
    let topology = state.how.topology;
    let sockets: std::collections::BTreeSet<u32> = nodes
        .iter()
        .flat_map(|n| {
            topology.ids_of(
                Level::Socket,
                &topology.within(Level::Node, *n, &topology.all()),
            )
        })
        .collect();
    Some(Combination {
        balance,
        one_socket: even.align_by_socket && sockets.len() == 1,
        nodes,
        remainder: givers,
    })
}

/// Which of the nodes give what can't be shared evenly: as many as can.
fn best_remainder(
    left: &Left,
    nodes: &[u32],
    remainder: usize,
    group: usize,
) -> Option<(f64, Vec<u32>)> {
    let able: Vec<u32> = nodes.iter().copied().filter(|n| left[n] >= group).collect();
    let mut best: Option<(f64, Vec<u32>)> = None;
    for size in (1..=able.len()).rev() {
        for subset in combinations(&able, size) {
            let Some(after) = after_remainder(left, &subset, remainder, group) else {
                continue;
            };
            let balance = deviation(&after);
            if best.as_ref().is_none_or(|(b, _)| balance < *b) {
                best = Some((balance, subset));
            }
        }
    }
    best
}

fn after_remainder(left: &Left, subset: &[u32], remainder: usize, group: usize) -> Option<Left> {
    let mut left = left.clone();
    let mut missing = remainder;
    while missing > 0 {
        let before = missing;
        for node in subset {
            let here = left.entry(*node).or_default();
            if missing > 0 && *here >= group {
                *here -= group;
                missing = missing.saturating_sub(group);
            }
        }
        if missing == before {
            return None;
        }
    }
    Some(left)
}

fn hand_out(state: &mut Accumulator<'_>, group: usize, best: &Combination) -> Option<CpuSet> {
    let count = state.needed;
    let whole = |node: &u32| state.free_in(Level::Node, *node).len() / group * group;
    let even = count / best.nodes.len() / group * group;
    let share = best.nodes.iter().map(whole).fold(even, usize::min);
    for node in &best.nodes {
        take_from(state, *node, share)?;
    }
    while state.needed > 0 {
        let before = state.needed;
        for node in &best.remainder {
            if state.needed > 0 && state.free_in(Level::Node, *node).len() >= group {
                take_from(state, *node, group)?;
            }
        }
        if state.needed == before {
            return None;
        }
    }
    Some(state.taken.clone())
}

fn take_from(state: &mut Accumulator<'_>, node: u32, count: usize) -> Option<()> {
    let free = state.free_in(Level::Node, node);
    let cpus = state.how.packed(&free, count)?;
    state.take(&cpus);
    Some(())
}

/// Standard deviation to three digits, which is what ties are decided on.
fn deviation(left: &Left) -> f64 {
    let round = |x: f64| (x * 1000.0).round() / 1000.0;
    let count = left.len().max(1) as f64;
    let mean = round(left.values().map(|n| *n as f64).sum::<f64>() / count);
    let squares = left.values().map(|n| (*n as f64 - mean).powi(2));
    round((squares.sum::<f64>() / count).sqrt())
}

/// Every choice of so many, in order.
fn combinations(all: &[u32], size: usize) -> Vec<Vec<u32>> {
    if size == 0 {
        return vec![Vec::new()];
    }
    let mut found = Vec::new();
    for (at, first) in all.iter().enumerate() {
        for rest in combinations(&all[at + 1..], size - 1) {
            let mut one = vec![*first];
            one.extend(rest);
            found.push(one);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::options::StaticOptions;
    use crate::topology::CpuTopology;
    use crate::topology::cpus::testing::{divided, machine};

    fn taken(topology: &CpuTopology, even: Even, free: &str, count: usize) -> String {
        let how = Taking::new(topology, StaticOptions::default());
        let free = match free {
            "all" => topology.all(),
            free => free.parse().unwrap(),
        };
        let taken = distributed(how, even, &free, count);
        taken.map_or_else(|| "none".to_owned(), |c| c.to_string())
    }

    const SINGLE: Even = Even {
        group: 1,
        align_by_socket: false,
    };

    #[test]
    fn more_than_a_node_has_is_taken_evenly_from_two() {
        // Two sockets of four cores, no SMT.
        let two = machine(2, 4, 1, false);
        assert_eq!(taken(&two, SINGLE, "all", 4), "0-3");
        assert_eq!(taken(&two, SINGLE, "all", 6), "0-2,4-6");
        assert_eq!(taken(&two, SINGLE, "all", 7), "0-6");
        assert_eq!(taken(&two, SINGLE, "all", 9), "none");
    }

    #[test]
    fn cores_stay_whole_when_they_are_the_unit() {
        let two = machine(2, 2, 2, false);
        let cores = Even { group: 2, ..SINGLE };
        // CPUs 0,1,4,5 are the first socket.
        assert_eq!(taken(&two, cores, "all", 6), "0-2,4-6");
        assert_eq!(taken(&two, cores, "0-3,5-7", 4), "2-3,6-7");
    }

    #[test]
    fn nodes_of_one_socket_go_first_when_sockets_count() {
        // Two sockets with two NUMA nodes of two CPUs each.
        let four = divided(&machine(2, 4, 1, false), 2, 1);
        let aligned = Even {
            align_by_socket: true,
            ..SINGLE
        };
        // The first node of the first socket has one CPU left; nodes 1 to 3 are whole.
        assert_eq!(taken(&four, aligned, "1-7", 3), "4-6");
        assert_eq!(taken(&four, aligned, "1-7", 4), "4-7");
    }
}
