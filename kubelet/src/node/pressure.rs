//! What is short, since when, and for how long it still counts. Pure.

use super::conditions::Seen;
use super::disk::Disk;
use crate::config::{Config, Signal, Threshold};
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

/// A threshold whose time has come: something is to be done about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Shortage {
    pub signal: Signal,
    pub available: u64,
    pub threshold: u64,
    /// Of a soft threshold: pods may take their time.
    pub soft: bool,
}

/// A threshold: its signal, and whether it is a soft one.
type Key = (Signal, bool);

/// What was short before: pressure is taken back only after a quiet period.
#[derive(Debug, Default)]
pub struct Pressure {
    last_met: BTreeMap<Signal, Instant>,
    since: BTreeMap<Key, Instant>,
    /// Due once, and not relieved by as much as is to be reclaimed.
    due: BTreeSet<Key>,
}

impl Pressure {
    /// Takes note of what is below its threshold now; answers what is due.
    pub fn observe(&mut self, seen: &Seen, config: &Config, now: Instant) -> Vec<Shortage> {
        let mut due = Vec::new();
        for threshold in config.eviction_hard.iter().chain(&config.eviction_soft) {
            due.extend(self.one(threshold, seen, now));
        }
        let quiet = config.eviction_pressure_transition_period;
        self.last_met
            .retain(|_, met| now.duration_since(*met) <= quiet);
        due
    }

    fn one(&mut self, threshold: &Threshold, seen: &Seen, now: Instant) -> Option<Shortage> {
        let key = (threshold.signal, threshold.grace.is_some());
        let measured = measured(threshold.signal, seen);
        let least = |capacity| threshold.value.amount(capacity);
        let wanted = |capacity| match threshold.reclaim {
            Some(more) if self.due.contains(&key) => least(capacity) + more.amount(capacity),
            _ => least(capacity),
        };
        let short = measured.filter(|(available, capacity)| *available < wanted(*capacity));
        let Some((available, capacity)) = short else {
            self.since.remove(&key);
            self.due.remove(&key);
            return None;
        };
        self.last_met.insert(threshold.signal, now);
        let since = *self.since.entry(key).or_insert(now);
        if now.duration_since(since) < threshold.grace.unwrap_or(Duration::ZERO) {
            return None;
        }
        self.due.insert(key);
        Some(Shortage {
            signal: threshold.signal,
            available,
            threshold: least(capacity),
            soft: key.1,
        })
    }

    pub(super) fn any(&self, signals: &[Signal]) -> bool {
        signals.iter().any(|s| self.last_met.contains_key(s))
    }
}

/// What there is of it, and how much there could be.
fn measured(signal: Signal, seen: &Seen) -> Option<(u64, u64)> {
    let disk = |disk: Option<Disk>| disk.map(|d| (d.available, d.capacity));
    // File systems that have no inodes to count (btrfs) report none at all.
    let inodes = |disk: Option<Disk>| {
        disk.filter(|d| d.inodes > 0)
            .map(|d| (d.inodes_free, d.inodes))
    };
    match signal {
        Signal::MemoryAvailable => seen.memory,
        Signal::PidAvailable => seen.pids,
        Signal::NodefsAvailable => disk(seen.nodefs),
        Signal::NodefsInodesFree => inodes(seen.nodefs),
        Signal::ImagefsAvailable | Signal::ContainerfsAvailable => disk(seen.imagefs),
        Signal::ImagefsInodesFree | Signal::ContainerfsInodesFree => inodes(seen.imagefs),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MEMORY: &[Signal] = &[Signal::MemoryAvailable];

    fn memory(mebibytes: u64) -> Seen {
        Seen {
            memory: Some((mebibytes << 20, 4 << 30)),
            ..Seen::default()
        }
    }

    fn config(text: &str) -> Config {
        crate::config::parse(&[("test", text)]).unwrap().config
    }

    #[test]
    fn pressure_stays_until_the_quiet_period_is_over() {
        let config = Config::default();
        let mut pressure = Pressure::default();
        let now = Instant::now();
        let after = |seconds| now + Duration::from_secs(seconds);
        assert_eq!(pressure.observe(&memory(50), &config, now).len(), 1);
        assert!(pressure.any(MEMORY));
        assert_eq!(pressure.observe(&memory(1024), &config, after(299)), []);
        assert!(pressure.any(MEMORY));
        pressure.observe(&memory(1024), &config, after(301));
        assert!(!pressure.any(MEMORY));
    }

    #[test]
    fn disk_pressure_is_a_share_of_the_disk() {
        let mut pressure = Pressure::default();
        let disk = Disk {
            capacity: 1000,
            available: 99,
            ..Disk::default()
        };
        let seen = Seen {
            nodefs: Some(disk),
            ..Seen::default()
        };
        pressure.observe(&seen, &Config::default(), Instant::now());
        assert!(pressure.any(&[Signal::NodefsAvailable]));
        assert!(
            !pressure.any(&[Signal::NodefsInodesFree]),
            "no inodes to count"
        );
    }

    #[test]
    fn soft_threshold_is_pressure_at_once_and_due_when_it_held_without_a_break() {
        let config = config(
            "evictionSoft: {memory.available: 1Gi}\n\
             evictionSoftGracePeriod: {memory.available: 30s}",
        );
        let mut pressure = Pressure::default();
        let now = Instant::now();
        let mut at = |mebibytes, seconds| {
            let now = now + Duration::from_secs(seconds);
            pressure.observe(&memory(mebibytes), &config, now).len()
        };
        assert_eq!(at(500, 0), 0);
        assert_eq!(at(500, 29), 0);
        assert_eq!(at(2000, 29), 0, "a break");
        assert_eq!(at(500, 30), 0);
        assert_eq!(at(500, 60), 1);
        assert!(pressure.any(MEMORY));
    }

    #[test]
    fn shortage_lasts_until_the_minimum_is_reclaimed() {
        let config = config(
            "evictionHard: {memory.available: 100Mi}\n\
             evictionMinimumReclaim: {memory.available: 400Mi}",
        );
        let mut pressure = Pressure::default();
        let mut due = |mebibytes| {
            let due = pressure.observe(&memory(mebibytes), &config, Instant::now());
            due.first().map(|s| s.threshold >> 20)
        };
        assert_eq!(due(300), None);
        assert_eq!(due(50), Some(100));
        assert_eq!(due(300), Some(100));
        assert_eq!(due(500), None);
        assert_eq!(due(300), None);
    }
}
