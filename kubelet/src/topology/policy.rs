//! The topology manager: one place for all that a container asks for. Pure.
//!
//! As kubernetes v1.37 pkg/kubelet/cm/topologymanager/policy.go merges hints.

use super::numa::Numa;
use super::{Hint, NodeMask};

/// `topologyManagerPolicy`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[allow(missing_docs)]
pub enum Alignment {
    #[default]
    None,
    BestEffort,
    Restricted,
    SingleNumaNode,
}

/// `topologyManagerScope`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[allow(missing_docs)]
pub enum Scope {
    #[default]
    Container,
    Pod,
}

/// What is configured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TopologyPolicy {
    /// How strict.
    pub alignment: Alignment,
    /// Of what.
    pub scope: Scope,
    /// Nodes near each other rather than those with low numbers.
    pub prefer_closest_numa_nodes: bool,
    /// More than so many take too long to try out.
    pub max_allowable_numa_nodes: usize,
}

impl Default for TopologyPolicy {
    fn default() -> Self {
        TopologyPolicy {
            alignment: Alignment::None,
            scope: Scope::Container,
            prefer_closest_numa_nodes: false,
            max_allowable_numa_nodes: MAX_NUMA_NODES,
        }
    }
}

/// kubernetes v1.37 pkg/kubelet/cm/topologymanager `defaultMaxAllowableNUMANodes`.
pub const MAX_NUMA_NODES: usize = 8;

/// Hints for one resource; `None`: it does not matter where.
pub type Hints = Option<Vec<Hint>>;

const ANYWHERE: Hint = Hint {
    nodes: None,
    preferred: true,
};
const NOWHERE: Hint = Hint {
    nodes: None,
    preferred: false,
};

/// The machine and how to align on it.
#[derive(Debug, Clone, Default)]
pub struct Aligner {
    /// As configured.
    pub policy: TopologyPolicy,
    /// The machine's nodes.
    pub numa: Numa,
}

impl Aligner {
    /// The place for all of it, if the policy lets the container run there.
    pub fn place(&self, hints: Vec<Hints>) -> Option<Hint> {
        let lists = hints.into_iter().map(|one| match one {
            None => vec![ANYWHERE],
            Some(none) if none.is_empty() => vec![NOWHERE],
            Some(some) => some,
        });
        let lists: Vec<Vec<Hint>> = lists.collect();
        match self.policy.alignment {
            Alignment::None => Some(NOWHERE),
            Alignment::BestEffort => Some(self.best(&lists)),
            Alignment::Restricted => Some(self.best(&lists)).filter(|best| best.preferred),
            Alignment::SingleNumaNode => {
                let single = |h: &Hint| h.preferred && h.nodes.is_none_or(|n| n.count() == 1);
                let lists = lists
                    .into_iter()
                    .map(|l| l.into_iter().filter(single).collect());
                let mut best = self.best(&lists.collect::<Vec<_>>());
                best.nodes = best.nodes.filter(|n| *n != self.numa.nodes());
                Some(best).filter(|best| best.preferred)
            }
        }
    }

    /// The best of all ways to pick one hint of each list.
    fn best(&self, lists: &[Vec<Hint>]) -> Hint {
        let narrowest = |list: &Vec<Hint>| list.iter().filter_map(|h| Some(h.nodes?.count())).min();
        let count = lists.iter().filter_map(narrowest).max().unwrap_or(0);
        let mut best = None;
        self.walk(lists, &mut Vec::new(), &mut |picked| {
            let merged = self.merged(picked);
            let nodes = merged.nodes.unwrap_or_default();
            if !nodes.is_empty() && best.is_none_or(|b| self.is_better(merged, b, count)) {
                best = Some(merged);
            }
        });
        best.unwrap_or(Hint {
            nodes: Some(self.numa.nodes()),
            preferred: false,
        })
    }

    fn walk(&self, lists: &[Vec<Hint>], picked: &mut Vec<Hint>, of: &mut impl FnMut(&[Hint])) {
        let Some((first, rest)) = lists.split_first() else {
            return of(picked);
        };
        for hint in first {
            picked.push(*hint);
            self.walk(rest, picked, of);
            picked.pop();
        }
    }

    /// What is in all of them.
    fn merged(&self, picked: &[Hint]) -> Hint {
        let mut nodes = picked.iter().filter_map(|h| h.nodes);
        let first = nodes.clone().next();
        let same = nodes.clone().all(|n| Some(n) == first);
        Hint {
            nodes: Some(
                nodes
                    .try_fold(self.numa.nodes(), |all, n| Some(all.and(n)))
                    .unwrap_or_default(),
            ),
            preferred: same && picked.iter().all(|h| h.preferred),
        }
    }

    /// Whether a candidate is better than the best so far. Of two that nobody prefers
    /// that is better which has as many nodes as the hungriest resource needs.
    fn is_better(&self, candidate: Hint, best: Hint, count: u32) -> bool {
        if candidate.preferred != best.preferred {
            return candidate.preferred;
        }
        let (new, old) = (
            candidate.nodes.unwrap_or_default(),
            best.nodes.unwrap_or_default(),
        );
        if candidate.preferred || old.count() > count {
            return self.fits_better(new, old);
        }
        let by_size = new.count().cmp(&old.count());
        if old.count() == count || by_size.is_eq() {
            return by_size.is_eq() && self.fits_better(new, old);
        }
        new.count() <= count && by_size.is_gt()
    }

    fn fits_better(&self, new: NodeMask, old: NodeMask) -> bool {
        let closest = self.policy.prefer_closest_numa_nodes
            && self.policy.alignment != Alignment::SingleNumaNode;
        if !closest || new.count() != old.count() {
            return new.is_narrower_than(old);
        }
        let (new_distance, old_distance) = (self.numa.distance(new), self.numa.distance(old));
        if new_distance == old_distance {
            return new.is_narrower_than(old);
        }
        new_distance < old_distance
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn aligner(alignment: Alignment, nodes: u32) -> Aligner {
        Aligner {
            policy: TopologyPolicy {
                alignment,
                ..TopologyPolicy::default()
            },
            numa: Numa::of((0..nodes).map(|n| (n, Vec::new()))),
        }
    }

    fn hint(nodes: &[u32], preferred: bool) -> Hint {
        Hint {
            nodes: Some(NodeMask::of(nodes.iter().copied())),
            preferred,
        }
    }

    fn place(aligner: &Aligner, hints: &[Hints]) -> String {
        match aligner.place(hints.to_vec()) {
            None => "refused".to_owned(),
            Some(Hint { nodes: None, .. }) => "anywhere".to_owned(),
            Some(Hint { nodes, .. }) => nodes.unwrap_or_default().to_string(),
        }
    }

    const ALL: [Alignment; 3] = [
        Alignment::BestEffort,
        Alignment::Restricted,
        Alignment::SingleNumaNode,
    ];

    #[test]
    fn what_all_prefer_is_taken_by_every_policy() {
        let cpus = Some(vec![
            hint(&[0], true),
            hint(&[1], true),
            hint(&[0, 1], false),
        ]);
        let device = Some(vec![hint(&[1], true), hint(&[0, 1], false)]);
        for alignment in ALL {
            let aligner = aligner(alignment, 2);
            assert_eq!(place(&aligner, &[cpus.clone(), None, device.clone()]), "1");
        }
        assert_eq!(
            place(&aligner(Alignment::None, 2), &[cpus, device]),
            "anywhere"
        );
    }

    #[test]
    fn what_can_not_be_aligned_is_refused_by_strict_policies() {
        let apart = [
            Some(vec![hint(&[0], true)]),
            Some(vec![hint(&[1], true), hint(&[0, 1], false)]),
        ];
        let answers = ALL.map(|a| place(&aligner(a, 2), &apart));
        assert_eq!(answers, ["0", "refused", "refused"]);
        let nowhere = [Some(vec![]), None];
        let answers = ALL.map(|a| place(&aligner(a, 2), &nowhere));
        assert_eq!(answers, ["0,1", "refused", "refused"]);
    }

    #[test]
    fn two_nodes_that_are_needed_are_refused_only_where_one_is_demanded() {
        let both = [Some(vec![hint(&[0, 1], true)])];
        let answers = ALL.map(|a| place(&aligner(a, 2), &both));
        assert_eq!(answers, ["0,1", "0,1", "refused"]);
    }

    #[test]
    fn one_node_is_all_there_is_and_no_place_of_its_own() {
        let one = [Some(vec![hint(&[0], true)])];
        let answers = ALL.map(|a| place(&aligner(a, 1), &one));
        assert_eq!(answers, ["0", "0", "anywhere"]);
    }

    #[test]
    fn of_what_nobody_prefers_that_is_taken_which_is_as_wide_as_needed() {
        let cpus = Some(vec![hint(&[0, 1], false), hint(&[0, 1, 2], false)]);
        let device = Some(vec![
            hint(&[0], false),
            hint(&[0, 1], false),
            hint(&[1, 2, 3], false),
        ]);
        let aligner = aligner(Alignment::BestEffort, 4);
        assert_eq!(place(&aligner, &[cpus, device]), "0,1");
    }

    #[test]
    fn closest_nodes_are_preferred_when_asked_for() {
        let distances = [
            vec![10, 30, 20, 40],
            vec![30, 10, 40, 20],
            vec![20, 40, 10, 30],
            vec![40, 20, 30, 10],
        ];
        let mut aligner = aligner(Alignment::BestEffort, 4);
        aligner.numa = Numa::of((0..4).zip(distances));
        let pairs = [Some(vec![
            hint(&[0, 1], true),
            hint(&[0, 2], true),
            hint(&[1, 3], true),
        ])];
        assert_eq!(place(&aligner, &pairs), "0,1");
        aligner.policy.prefer_closest_numa_nodes = true;
        assert_eq!(place(&aligner, &pairs), "0,2");
    }
}
