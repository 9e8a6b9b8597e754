//! Containers that the runtime has removed. Pure.
//!
//! An event tells of all containers of its pod as they were then, and is read when its turn comes,
//! as a list is: either may name a container whose removal is known already. No id comes twice.

use std::collections::{BTreeSet, HashMap};
use std::time::Instant;

/// Their ids, and when it was known.
#[derive(Debug, Default)]
pub(super) struct Removed(HashMap<String, Instant>);

impl Removed {
    /// One more.
    pub(super) fn add(&mut self, id: &str) {
        self.0.insert(id.to_owned(), Instant::now());
    }

    /// Whether news of it are old.
    pub(super) fn has(&self, id: &str) -> bool {
        self.0.contains_key(id)
    }

    /// A list that was asked for at that moment does not name these any more: whatever was told
    /// before the removal has been read by then.
    pub(super) fn settle(&mut self, listed: &BTreeSet<&str>, asked: Instant) {
        let may_come = |id: &String, at: &mut Instant| *at >= asked || listed.contains(id.as_str());
        self.0.retain(may_come);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn removed_containers_are_known_until_a_later_list_is_without_them() {
        let before = Instant::now();
        let mut removed = Removed::default();
        removed.add("a");
        removed.add("b");
        removed.settle(&BTreeSet::new(), before);
        assert!(removed.has("a") && removed.has("b") && !removed.has("c"));
        let after = Instant::now() + std::time::Duration::from_secs(1);
        removed.settle(&BTreeSet::from(["b"]), after);
        assert!(!removed.has("a") && removed.has("b"));
    }
}
