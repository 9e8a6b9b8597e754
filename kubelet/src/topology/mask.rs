//! Sets of NUMA nodes.

use std::fmt;

/// NUMA nodes by number, 0 to 63: more than the eight that hints are made for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct NodeMask(u64);

impl NodeMask {
    /// Of these nodes; numbers past 63 are left out.
    pub fn of(nodes: impl IntoIterator<Item = u32>) -> NodeMask {
        let bits = nodes.into_iter().filter(|n| *n < u64::BITS);
        NodeMask(bits.fold(0, |all, n| all | 1 << n))
    }

    /// How many.
    pub fn count(self) -> u32 {
        self.0.count_ones()
    }

    /// Whether none.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Whether it has this one.
    pub fn has(self, node: u32) -> bool {
        node < u64::BITS && self.0 & (1 << node) != 0
    }

    /// Whether it has all of another.
    pub fn covers(self, other: NodeMask) -> bool {
        self.0 & other.0 == other.0
    }

    /// Those in both.
    pub fn and(self, other: NodeMask) -> NodeMask {
        NodeMask(self.0 & other.0)
    }

    /// Those in either.
    pub fn or(self, other: NodeMask) -> NodeMask {
        NodeMask(self.0 | other.0)
    }

    /// Its nodes, smallest first.
    pub fn nodes(self) -> impl Iterator<Item = u32> {
        (0..u64::BITS).filter(move |n| self.has(*n))
    }

    /// Fewer nodes, or as many with smaller numbers.
    pub fn is_narrower_than(self, other: NodeMask) -> bool {
        (self.count(), self.0) < (other.count(), other.0)
    }

    /// Every set of at least one of these nodes, narrow ones first.
    pub fn subsets(self) -> Vec<NodeMask> {
        let mut all: Vec<NodeMask> = Vec::new();
        let mut subset = self.0;
        while subset != 0 {
            all.push(NodeMask(subset));
            subset = (subset - 1) & self.0;
        }
        all.sort_by_key(|m| (m.count(), m.0));
        all
    }
}

impl fmt::Display for NodeMask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let nodes: Vec<String> = self.nodes().map(|n| n.to_string()).collect();
        f.write_str(&nodes.join(","))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subsets_are_listed_from_narrow_to_wide() {
        let all: Vec<String> = NodeMask::of([0, 2])
            .subsets()
            .iter()
            .map(NodeMask::to_string)
            .collect();
        assert_eq!(all, ["0", "2", "0,2"]);
    }

    #[test]
    fn narrower_is_by_count_then_by_number() {
        let narrower = |a: &[u32], b: &[u32]| {
            NodeMask::of(a.iter().copied()).is_narrower_than(NodeMask::of(b.iter().copied()))
        };
        assert!(narrower(&[5], &[0, 1]));
        assert!(narrower(&[0], &[1]));
        assert!(!narrower(&[1], &[1]));
    }
}
