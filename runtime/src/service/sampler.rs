//! CPU use as cores: the difference of two readings.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

/// Readings closer together than this say little.
const MIN_INTERVAL_NS: i64 = 100_000_000;

#[derive(Debug, Clone, Copy)]
struct Reading {
    at: i64,
    usage_ns: u64,
    /// Last computed, in billionths of a core.
    nano_cores: Option<u64>,
}

/// The last reading of each container and sandbox.
#[derive(Debug, Default)]
pub(crate) struct Sampler {
    readings: Mutex<HashMap<String, Reading>>,
}

impl Sampler {
    /// Takes a reading in; answers billionths of a core since the last one,
    /// `None` for the first.
    pub(crate) fn nano_cores(&self, id: &str, at: i64, usage_ns: u64) -> Option<u64> {
        let mut readings = self.readings.lock().unwrap_or_else(PoisonError::into_inner);
        let last = readings.get(id).copied();
        let nano_cores = match last {
            Some(last) if at - last.at < MIN_INTERVAL_NS => return last.nano_cores,
            Some(last) => {
                let used = u128::from(usage_ns.saturating_sub(last.usage_ns));
                let elapsed = (at - last.at).unsigned_abs();
                u64::try_from(used * 1_000_000_000 / u128::from(elapsed.max(1))).ok()
            }
            None => None,
        };
        readings.insert(
            id.to_owned(),
            Reading {
                at,
                usage_ns,
                nano_cores,
            },
        );
        nano_cores
    }

    /// The container or sandbox is gone.
    pub(crate) fn forget(&self, id: &str) {
        let mut readings = self.readings.lock().unwrap_or_else(PoisonError::into_inner);
        readings.remove(id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cores_are_the_difference_of_two_readings_far_enough_apart() {
        let sampler = Sampler::default();
        let second = 1_000_000_000;
        assert_eq!(sampler.nano_cores("a", 0, 0), None);
        assert_eq!(
            sampler.nano_cores("a", second, 500_000_000),
            Some(500_000_000)
        );
        assert_eq!(
            sampler.nano_cores("a", second + 1, 900_000_000),
            Some(500_000_000)
        );
        assert_eq!(sampler.nano_cores("a", 3 * second, 500_000_000), Some(0));
        sampler.forget("a");
        assert_eq!(sampler.nano_cores("a", 4 * second, 0), None);
    }
}
