//! Eviction thresholds: `memory.available: 100Mi`, `nodefs.available: 10%`.

use crate::quantity::Amount;

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(missing_docs)]
pub enum Signal {
    MemoryAvailable,
    NodefsAvailable,
    NodefsInodesFree,
    ImagefsAvailable,
    ImagefsInodesFree,
    ContainerfsAvailable,
    ContainerfsInodesFree,
    PidAvailable,
}

impl Signal {
    /// By its name in the configuration.
    pub fn named(name: &str) -> Option<Signal> {
        Some(match name {
            "memory.available" => Signal::MemoryAvailable,
            "nodefs.available" => Signal::NodefsAvailable,
            "nodefs.inodesFree" => Signal::NodefsInodesFree,
            "imagefs.available" => Signal::ImagefsAvailable,
            "imagefs.inodesFree" => Signal::ImagefsInodesFree,
            "containerfs.available" => Signal::ContainerfsAvailable,
            "containerfs.inodesFree" => Signal::ContainerfsInodesFree,
            "pid.available" => Signal::PidAvailable,
            _ => return None,
        })
    }
}

/// How little is too little.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum ThresholdValue {
    /// Bytes, inodes or pids.
    Quantity(u64),
    /// Of the capacity, 0.0 to 1.0.
    Fraction(f64),
}

impl ThresholdValue {
    /// The amount, for a capacity.
    pub fn amount(self, capacity: u64) -> u64 {
        match self {
            ThresholdValue::Quantity(amount) => amount,
            // Exact enough: thresholds are whole percents of at most 2^53 bytes.
            ThresholdValue::Fraction(fraction) => (capacity as f64 * fraction) as u64,
        }
    }

    /// A quantity or a percentage; `0` and `0%` switch a signal off.
    pub(super) fn parse(text: &str) -> Result<ThresholdValue, String> {
        if let Some(percent) = text.strip_suffix('%') {
            return match percent.trim().parse::<f64>() {
                Ok(p) if (0.0..=100.0).contains(&p) => Ok(ThresholdValue::Fraction(p / 100.0)),
                _ => Err(format!("{text:?} is not a percentage from 0% to 100%")),
            };
        }
        let amount = Amount::parse(text).ok_or_else(|| format!("{text:?} is not a quantity"))?;
        u64::try_from(amount.units())
            .map(ThresholdValue::Quantity)
            .map_err(|_| format!("{text:?} is negative"))
    }
}

/// One hard threshold.
#[derive(Debug, Clone, Copy, PartialEq)]
#[allow(missing_docs)]
pub struct Threshold {
    pub signal: Signal,
    pub value: ThresholdValue,
}
