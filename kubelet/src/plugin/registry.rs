//! What is in the folder, compared with what was there. Pure.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// Ours: what failed is tried again after so long at first, and at most.
const RETRY: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));

/// Device, inode and time of change of a socket: another one of the same name differs.
pub(super) type Identity = (u64, u64, i64, i64);

/// Sockets that were handed on.
#[derive(Debug)]
pub(super) struct Registry<T> {
    known: BTreeMap<PathBuf, Known<T>>,
}

#[derive(Debug)]
struct Known<T> {
    identity: Identity,
    /// What it said, once it is taken in.
    plugin: Option<T>,
    busy: bool,
    tries: u32,
    next_try: Instant,
}

/// What is to be done.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step<T> {
    Register(PathBuf, Identity),
    Deregister(T),
}

impl<T> Default for Registry<T> {
    fn default() -> Self {
        Self {
            known: BTreeMap::new(),
        }
    }
}

impl<T> Registry<T> {
    /// Steps from what is known to what is seen, those back first.
    pub fn steps(&mut self, seen: &BTreeMap<PathBuf, Identity>, now: Instant) -> Vec<Step<T>> {
        let gone = |path: &PathBuf, known: &Known<T>| seen.get(path) != Some(&known.identity);
        let lost = self.known.extract_if(.., |path, known| gone(path, known));
        let mut steps: Vec<Step<T>> = lost
            .filter_map(|(_, known)| known.plugin.map(Step::Deregister))
            .collect();
        for (path, identity) in seen {
            let known = self.known.entry(path.clone()).or_insert_with(|| Known {
                identity: *identity,
                plugin: None,
                busy: false,
                tries: 0,
                next_try: now,
            });
            if known.plugin.is_none() && !known.busy && known.next_try <= now {
                known.busy = true;
                steps.push(Step::Register(path.clone(), *identity));
            }
        }
        steps
    }

    /// What became of a registration; back comes a plugin that nobody waits for any more.
    pub fn done(
        &mut self,
        path: &PathBuf,
        identity: Identity,
        plugin: Option<T>,
        now: Instant,
    ) -> Option<T> {
        let Some(known) = self.known.get_mut(path) else {
            return plugin;
        };
        if known.identity != identity {
            return plugin;
        }
        known.busy = false;
        if plugin.is_none() {
            let delay = RETRY.0.saturating_mul(1 << known.tries.min(16));
            known.tries += 1;
            known.next_try = now + delay.min(RETRY.1);
        }
        known.plugin = plugin;
        None
    }

    /// When a failed one is due.
    pub fn wake_at(&self) -> Option<Instant> {
        let waiting = self.known.values();
        let waiting = waiting.filter(|k| k.plugin.is_none() && !k.busy);
        waiting.map(|k| k.next_try).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(sockets: &[(&str, u64)]) -> BTreeMap<PathBuf, Identity> {
        let of = |(name, inode): &(&str, u64)| (PathBuf::from(name), (0, *inode, 0, 0));
        sockets.iter().map(of).collect()
    }

    #[test]
    fn a_socket_is_registered_once_and_given_back_when_it_has_gone_or_was_replaced() {
        let now = Instant::now();
        let mut registry = Registry::default();
        let register = |inode| Step::Register("a".into(), (0, inode, 0, 0));
        assert_eq!(registry.steps(&seen(&[("a", 1)]), now), [register(1)]);
        assert_eq!(
            registry.steps(&seen(&[("a", 1)]), now),
            [],
            "it is under way"
        );
        assert_eq!(
            registry.done(&"a".into(), (0, 1, 0, 0), Some("p"), now),
            None
        );
        assert_eq!(registry.steps(&seen(&[("a", 1)]), now), []);
        let replaced = registry.steps(&seen(&[("a", 2)]), now);
        assert_eq!(replaced, [Step::Deregister("p"), register(2)]);
        assert_eq!(registry.steps(&seen(&[]), now), [], "it was not taken in");
        let late = registry.done(&"a".into(), (0, 2, 0, 0), Some("q"), now);
        assert_eq!(late, Some("q"), "taken in after it had gone");
    }

    #[test]
    fn what_failed_is_tried_again_later_and_later() {
        let now = Instant::now();
        let mut registry: Registry<()> = Registry::default();
        registry.steps(&seen(&[("a", 1)]), now);
        registry.done(&"a".into(), (0, 1, 0, 0), None, now);
        assert_eq!(registry.steps(&seen(&[("a", 1)]), now), []);
        let due = registry.wake_at().unwrap();
        assert_eq!(due, now + RETRY.0);
        assert_eq!(registry.steps(&seen(&[("a", 1)]), due).len(), 1);
        registry.done(&"a".into(), (0, 1, 0, 0), None, due);
        assert_eq!(registry.wake_at(), Some(due + RETRY.0 * 2));
    }
}
