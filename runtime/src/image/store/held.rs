//! Layers in use: by a guard in memory, or by an owner on disk.

use super::state::State;
use super::{Shared, Store};
use crate::image::{Image, disk};
use std::collections::hash_map::Entry;
use std::io;
use std::sync::Arc;

/// Keeps an image's layers on disk while it lives, also when the image is
/// removed. [`Hold::keep`] makes that outlive the process.
#[must_use = "layers are free to go when this is dropped"]
pub struct Hold {
    shared: Arc<Shared>,
    keys: Vec<String>,
}

impl Store {
    /// Holds the layers of an image.
    pub fn hold(&self, image: &Image) -> Hold {
        let mut state = self.shared.state();
        let keys = image.layers.iter().filter_map(|dir| {
            let key = dir.parent()?.file_name()?.to_str()?;
            Some(key.to_owned())
        });
        Hold::new(&self.shared, &mut state, keys.collect())
    }

    /// Lets go of what [`Hold::keep`] kept for an owner; unknown owners are fine.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn release(&self, owner: &str) -> io::Result<()> {
        let mut state = self.shared.state();
        if is_owner(owner) && state.kept.contains_key(owner) {
            disk::remove(&self.shared.layout.held.join(format!("{owner}.json")))?;
            state.kept.remove(owner);
        }
        Ok(())
    }

    /// Everyone who keeps layers.
    pub fn owners(&self) -> Vec<String> {
        self.shared.state().kept.keys().cloned().collect()
    }
}

impl Hold {
    pub(super) fn new(shared: &Arc<Shared>, state: &mut State, keys: Vec<String>) -> Self {
        for key in &keys {
            *state.guarded.entry(key.clone()).or_default() += 1;
        }
        Self {
            shared: shared.clone(),
            keys,
        }
    }

    /// Writes down that `owner` (a container's id) uses the layers, until
    /// [`Store::release`]. Repeating it replaces what the owner kept.
    ///
    /// # Errors
    /// When the owner is no plain file name, or the disk refuses.
    pub fn keep(self, owner: &str) -> io::Result<()> {
        if !is_owner(owner) {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("{owner:?} can't own layers: letters, digits, - and _ only"),
            ));
        }
        let text = serde_json::to_vec(&self.keys)?;
        let mut state = self.shared.state();
        // Every container waits for this. It needs its layers while it runs, so no longer than
        // this boot; a file that is empty after a crash keeps everything until it is released.
        disk::write_unsynced(&self.shared.layout.held, &format!("{owner}.json"), &text)?;
        state.kept.insert(owner.to_owned(), Some(self.keys.clone()));
        Ok(())
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        let mut state = self.shared.state();
        for key in &self.keys {
            if let Entry::Occupied(mut count) = state.guarded.entry(key.clone()) {
                *count.get_mut() -= 1;
                if *count.get() == 0 {
                    count.remove();
                }
            }
        }
    }
}

fn is_owner(owner: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_');
    !owner.is_empty() && owner.len() <= 200 && owner.bytes().all(plain)
}
