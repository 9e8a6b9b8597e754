//! The memory of NUMA nodes and whose it is. Pure.

use crate::topology::NodeMask;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Bytes by type: `memory`, `hugepages-2Mi`.
pub type Sizes = BTreeMap<String, u64>;
/// What a container has, one of a type.
pub type Blocks = Vec<Block>;

/// One type of memory on one node, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[allow(missing_docs)]
pub struct Table {
    pub total: u64,
    pub system_reserved: u64,
    pub allocatable: u64,
    pub reserved: u64,
    pub free: u64,
}

/// One NUMA node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Node {
    /// How many blocks are on it.
    #[serde(rename = "numberOfAssignments")]
    pub blocks: i64,
    /// By type.
    pub memory_map: BTreeMap<String, Table>,
    /// The nodes that it is used together with, itself included.
    pub cells: Vec<u32>,
}

/// Memory of one type that a container has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Block {
    /// Where.
    #[serde(rename = "numaAffinity")]
    pub nodes: Vec<u32>,
    /// Of which type.
    #[serde(rename = "type")]
    pub kind: String,
    /// Bytes.
    pub size: u64,
}

/// All of it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct State {
    /// By node.
    pub machine: BTreeMap<u32, Node>,
    /// By pod's uid and container's name.
    pub entries: BTreeMap<String, BTreeMap<String, Blocks>>,
}

impl State {
    /// Nothing of it is given away yet: by node what there is and what the system keeps.
    pub fn new(nodes: impl IntoIterator<Item = (u32, Sizes, Sizes)>) -> State {
        let node = |(id, total, kept): (u32, Sizes, Sizes)| {
            let pages = total.iter().filter(|(kind, _)| *kind != "memory");
            let pages: u64 = pages.map(|(_, size)| *size).sum();
            let table = |(kind, total): (&String, &u64)| {
                let system_reserved = kept.get(kind).copied().unwrap_or(0);
                let huge = if kind == "memory" { pages } else { 0 };
                let allocatable = total.saturating_sub(system_reserved + huge);
                let table = Table {
                    total: *total,
                    system_reserved,
                    allocatable,
                    reserved: 0,
                    free: allocatable,
                };
                (kind.clone(), table)
            };
            let node = Node {
                blocks: 0,
                memory_map: total.iter().map(table).collect(),
                cells: vec![id],
            };
            (id, node)
        };
        State {
            machine: nodes.into_iter().map(node).collect(),
            entries: BTreeMap::new(),
        }
    }

    /// A figure of some nodes together.
    pub fn sum(&self, nodes: NodeMask, kind: &str, of: impl Fn(&Table) -> u64) -> u64 {
        let tables = nodes
            .nodes()
            .filter_map(|n| self.machine.get(&n)?.memory_map.get(kind));
        tables.map(of).sum()
    }

    /// A node is used alone or in one group, never both.
    pub fn may_be_used_together(&self, nodes: NodeMask) -> bool {
        let group: Vec<u32> = nodes.nodes().collect();
        let mut used = group.iter().filter_map(|n| self.machine.get(n));
        if group.len() == 1 {
            return used.all(|n| n.cells.len() <= 1);
        }
        used.all(|n| {
            n.blocks == 0 || (n.cells.len() > 1 && NodeMask::of(n.cells.iter().copied()) == nodes)
        })
    }

    /// A block of so much: from the first node as far as that has it, then the next.
    pub fn take(&mut self, nodes: NodeMask, kind: &str, size: u64) {
        let mut missing = size;
        for id in nodes.nodes() {
            let Some(node) = self.machine.get_mut(&id) else {
                continue;
            };
            node.blocks += 1;
            node.cells = nodes.nodes().collect();
            if let Some(table) = node.memory_map.get_mut(kind) {
                let here = missing.min(table.free);
                table.free -= here;
                table.reserved += here;
                missing -= here;
            }
        }
    }

    /// Takes back what pods have that don't stay; whether there was any.
    pub fn release(&mut self, keep: impl Fn(&str) -> bool) -> bool {
        let gone: Vec<_> = self.entries.extract_if(.., |pod, _| !keep(pod)).collect();
        for block in gone.iter().flat_map(|(_, all)| all.values().flatten()) {
            self.give_back(block);
        }
        !gone.is_empty()
    }

    fn give_back(&mut self, block: &Block) {
        let mut left = block.size;
        for id in &block.nodes {
            let Some(node) = self.machine.get_mut(id) else {
                continue;
            };
            node.blocks -= 1;
            if node.blocks == 0 {
                node.cells = vec![*id];
            }
            if let Some(table) = node.memory_map.get_mut(&block.kind) {
                let here = left.min(table.reserved);
                table.free += here;
                table.reserved -= here;
                left -= here;
            }
        }
    }

    /// Why what was written down is not of a machine like `fresh`, with nothing given away.
    pub fn misfit(&self, fresh: &State) -> Option<String> {
        if !self.machine.keys().eq(fresh.machine.keys()) {
            return Some("it has other NUMA nodes".to_owned());
        }
        for (id, node) in &self.machine {
            let expected = &fresh.machine[id].memory_map;
            if !node.memory_map.keys().eq(expected.keys()) {
                return Some(format!("NUMA node {id} has other types of memory"));
            }
            for (kind, table) in &node.memory_map {
                let now = &expected[kind];
                let fixed = |t: &Table| (t.total, t.system_reserved, t.allocatable);
                if fixed(table) != fixed(now) || table.free + table.reserved != table.allocatable {
                    return Some(format!("{kind} of NUMA node {id} is not what it was"));
                }
            }
        }
        let blocks = || self.entries.values().flat_map(BTreeMap::values).flatten();
        let kinds: std::collections::BTreeSet<&String> = self
            .machine
            .values()
            .flat_map(|n| n.memory_map.keys())
            .collect();
        let all = NodeMask::of(self.machine.keys().copied());
        let differs = |kind: &&&String| {
            let given: u64 = blocks().filter(|b| b.kind == ***kind).map(|b| b.size).sum();
            given != self.sum(all, kind, |t| t.reserved)
        };
        let wrong = kinds.iter().find(differs);
        wrong.map(|kind| format!("{kind} of containers is not what nodes have reserved"))
    }
}
