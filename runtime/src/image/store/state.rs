//! What the store knows, in memory; pure.

use crate::image::index::Index;
use crate::image::record::LayerRecord;
use std::collections::{BTreeMap, HashMap, HashSet};

#[derive(Debug, Default)]
pub struct State {
    pub index: Index,
    /// Layers on disk by key.
    pub layers: HashMap<String, LayerRecord>,
    /// Guards alive by layer.
    pub guarded: HashMap<String, usize>,
    /// Layers by the owner who asked for them to be kept; `None` when what the
    /// owner keeps can't be read: then nothing is garbage.
    pub kept: BTreeMap<String, Option<Vec<String>>>,
}

impl State {
    /// Layers that no image, guard or owner uses.
    pub fn unused_layers(&self) -> Vec<String> {
        if self.kept.values().any(Option::is_none) {
            return Vec::new();
        }
        let mut used: HashSet<&String> = self.guarded.keys().collect();
        used.extend(self.kept.values().flatten().flatten());
        used.extend(self.index.iter().flat_map(|entry| &entry.record.layers));
        let mut unused: Vec<String> = self
            .layers
            .keys()
            .filter(|key| !used.contains(key))
            .cloned()
            .collect();
        unused.sort();
        unused
    }

    /// Bytes and inodes on disk.
    pub fn usage(&self) -> (u64, u64) {
        let mut bytes = 0;
        let mut inodes = 0;
        for layer in self.layers.values() {
            bytes += layer.bytes;
            // The layer's own directory and its layer.json.
            inodes += layer.inodes + 2;
        }
        for entry in self.index.iter() {
            bytes += entry.record.config.len() as u64;
            inodes += 1;
        }
        (bytes, inodes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state() -> State {
        let layer = LayerRecord {
            diff_id: String::new(),
            bytes: 10,
            inodes: 2,
            root_dir: None,
            implicit: vec![],
            unsynced_boot: None,
        };
        let mut state = State::default();
        for key in ["a", "b", "c"] {
            state.layers.insert(key.to_owned(), layer.clone());
        }
        state
    }

    #[test]
    fn layers_are_unused_when_neither_guarded_nor_kept() {
        let mut state = state();
        state.guarded.insert("a".to_owned(), 1);
        state
            .kept
            .insert("c1".to_owned(), Some(vec!["b".to_owned()]));
        assert_eq!(state.unused_layers(), ["c"]);
        assert_eq!(state.usage(), (30, 12));
    }

    #[test]
    fn nothing_is_unused_when_an_owner_can_not_be_read() {
        let mut state = state();
        state.kept.insert("c1".to_owned(), None);
        assert!(state.unused_layers().is_empty());
    }
}
