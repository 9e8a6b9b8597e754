//! NUMA nodes and how far they are from each other.

use super::NodeMask;
use std::collections::BTreeMap;
use std::path::Path;

/// By number: distances to all nodes, as the firmware tells them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Numa(BTreeMap<u32, Vec<u64>>);

impl Default for Numa {
    /// One node.
    fn default() -> Self {
        Numa::of([(0, vec![10])])
    }
}

impl Numa {
    /// Of these.
    pub fn of(nodes: impl IntoIterator<Item = (u32, Vec<u64>)>) -> Numa {
        Numa(nodes.into_iter().collect())
    }

    /// Reads it; `root` is usually /sys/devices/system. One node where there are none.
    pub fn read(root: &Path) -> Numa {
        let entries = std::fs::read_dir(root.join("node"));
        let entries = entries.into_iter().flatten().flatten();
        let one = |entry: std::fs::DirEntry| {
            let name = entry.file_name().into_string().ok()?;
            let number = name.strip_prefix("node")?.parse().ok()?;
            let text = std::fs::read_to_string(entry.path().join("distance")).unwrap_or_default();
            let distances = text.split_whitespace().filter_map(|d| d.parse().ok());
            Some((number, distances.collect()))
        };
        let nodes: BTreeMap<u32, Vec<u64>> = entries.filter_map(one).collect();
        match nodes.is_empty() {
            true => Numa::default(),
            false => Numa(nodes),
        }
    }

    /// All of them.
    pub fn nodes(&self) -> NodeMask {
        NodeMask::of(self.0.keys().copied())
    }

    /// How many.
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// Hundredths of the average distance within a set of nodes.
    pub fn distance(&self, nodes: NodeMask) -> u64 {
        let order: Vec<u32> = self.0.keys().copied().collect();
        let mut all = Vec::new();
        for from in nodes.nodes() {
            let row = self.0.get(&from);
            for to in nodes.nodes() {
                let column = order.iter().position(|n| *n == to);
                let distance = row.zip(column).and_then(|(r, c)| r.get(c));
                all.push(distance.copied().unwrap_or(0));
            }
        }
        all.iter().sum::<u64>() * 100 / (all.len().max(1) as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distance_is_the_average_of_all_pairs() {
        let two = Numa::of([(0, vec![10, 21]), (1, vec![21, 10])]);
        assert_eq!(two.distance(NodeMask::of([0])), 1000);
        assert_eq!(two.distance(NodeMask::of([0, 1])), 1550);
    }

    #[test]
    fn a_machine_without_numa_has_one_node() {
        let none = Numa::read(Path::new("/nonexistent"));
        assert_eq!((none.count(), none.nodes()), (1, NodeMask::of([0])));
    }
}
