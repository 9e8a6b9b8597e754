//! The last starts of pods, each with its rows.

use serde::{Deserialize, Serialize};
use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Starts that are kept: enough to find the slow one of a burst.
const STARTS: usize = 64;
/// Rows of one start: three containers with all their steps.
const ROWS: usize = 128;

/// One pod's start.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Start {
    /// The pod's uid; of a pod that no kubelet of ours runs, its sandbox.
    pub key: String,
    pub namespace: String,
    pub name: String,
    /// CLOCK_MONOTONIC, nanoseconds.
    pub begun: u64,
    pub rows: Vec<Row>,
    /// Ready or over: what comes later is no part of the start.
    pub settled: bool,
}

/// One span of it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Row {
    pub name: String,
    /// How many spans it is within.
    pub depth: usize,
    /// Nanoseconds since the start begun.
    pub from: u64,
    /// Nanoseconds.
    pub took: u64,
}

impl Start {
    /// Nanoseconds until the last row ended.
    pub fn took(&self) -> u64 {
        self.rows.iter().map(|r| r.from + r.took).max().unwrap_or(0)
    }
}

/// A bounded number of starts, the oldest first.
#[derive(Debug, Default)]
pub struct Starts(Mutex<VecDeque<Start>>);

impl Starts {
    fn lock(&self) -> MutexGuard<'_, VecDeque<Start>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a start, unless that one is known.
    pub fn begin(&self, start: Start) {
        let mut starts = self.lock();
        if starts.iter().any(|s| s.key == start.key) {
            return;
        }
        if starts.len() == STARTS {
            starts.pop_front();
        }
        starts.push_back(start);
    }

    /// Adds a row whose `from` is a moment of CLOCK_MONOTONIC still.
    pub fn row(&self, key: &str, row: Row) {
        let mut starts = self.lock();
        let Some(start) = starts.iter_mut().rev().find(|s| s.key == key) else {
            return;
        };
        if !start.settled && start.rows.len() < ROWS {
            let from = row.from.saturating_sub(start.begun);
            start.rows.push(Row { from, ..row });
        }
    }

    /// The start is over.
    pub fn settle(&self, key: &str) {
        if let Some(start) = self.lock().iter_mut().rev().find(|s| s.key == key) {
            start.settled = true;
        }
    }

    /// Those of which something was seen, each with its rows in order.
    pub fn list(&self) -> Vec<Start> {
        let seen = self.lock().clone().into_iter();
        let mut seen: Vec<Start> = seen.filter(|s| !s.rows.is_empty()).collect();
        for start in &mut seen {
            start.rows.sort_by_key(|r| (r.from, r.depth));
        }
        seen
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn start(key: &str) -> Start {
        Start {
            key: key.into(),
            begun: 1000,
            ..Start::default()
        }
    }

    fn row(from: u64, depth: usize) -> Row {
        Row {
            from,
            depth,
            took: 5,
            ..Row::default()
        }
    }

    #[test]
    fn rows_are_counted_from_the_start_and_listed_in_order() {
        let starts = Starts::default();
        starts.begin(start("a"));
        starts.row("a", row(1020, 1));
        starts.row("a", row(1020, 0));
        starts.row("a", row(1001, 0));
        starts.row("nobody", row(1001, 0));
        let listed = starts.list();
        let order: Vec<_> = listed[0].rows.iter().map(|r| (r.from, r.depth)).collect();
        assert_eq!(order, [(1, 0), (20, 0), (20, 1)]);
        assert_eq!(listed[0].took(), 25);
    }

    #[test]
    fn nothing_is_added_when_the_pod_is_ready() {
        let starts = Starts::default();
        starts.begin(start("a"));
        starts.row("a", row(1001, 0));
        starts.settle("a");
        starts.row("a", row(2000, 0));
        assert_eq!(starts.list()[0].rows.len(), 1);
    }

    #[test]
    fn the_oldest_start_goes_first() {
        let starts = Starts::default();
        for number in 0..=STARTS {
            starts.begin(start(&number.to_string()));
            starts.row(&number.to_string(), row(1001, 0));
        }
        let listed = starts.list();
        assert_eq!(listed.len(), STARTS);
        assert_eq!(listed[0].key, "1");
    }
}
