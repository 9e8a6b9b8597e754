//! When images that nobody uses are removed.

use super::raw::KubeletConfiguration;
use super::used::Mistakes;
use crate::defaults;
use std::time::Duration;

/// `imageGC*`, `imageMinimumGCAge`, `imageMaximumGCAge`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ImageGc {
    /// From so many percent of the disk in use on, unused images go.
    pub high_percent: u64,
    /// Down to so many percent.
    pub low_percent: u64,
    /// Younger ones stay: somebody may have pulled them to use them at once.
    pub min_age: Duration,
    /// Whatever was not used for so long goes, however empty the disk is.
    pub max_age: Option<Duration>,
}

impl ImageGc {
    /// Whether there is anything to do at all.
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.high_percent < 100 || self.max_age.is_some()
    }

    pub(super) fn of(m: &mut Mistakes, raw: &KubeletConfiguration) -> ImageGc {
        let mut percent = |field: &str, value: Option<i32>, default: u64| {
            let value = m.number(field, value.map(i64::from), default);
            if value > 100 {
                m.0.push(format!("{field}: {value} is not between 0 and 100"));
            }
            value
        };
        let high_percent = percent(
            "imageGCHighThresholdPercent",
            raw.image_gc_high_threshold_percent,
            defaults::IMAGE_GC_HIGH_THRESHOLD_PERCENT,
        );
        let low_percent = percent(
            "imageGCLowThresholdPercent",
            raw.image_gc_low_threshold_percent,
            defaults::IMAGE_GC_LOW_THRESHOLD_PERCENT,
        );
        if low_percent >= high_percent {
            m.0.push(format!(
                "imageGCLowThresholdPercent: {low_percent} is not less than \
                 imageGCHighThresholdPercent, {high_percent}"
            ));
        }
        let min_age = m.duration(
            "imageMinimumGCAge",
            &raw.image_minimum_gc_age,
            defaults::IMAGE_MINIMUM_GC_AGE,
        );
        let max_age = m.duration(
            "imageMaximumGCAge",
            &raw.image_maximum_gc_age,
            Duration::ZERO,
        );
        let max_age = Some(max_age).filter(|age| !age.is_zero());
        if max_age.is_some_and(|age| age <= min_age) {
            m.0.push("imageMaximumGCAge: is not greater than imageMinimumGCAge".to_owned());
        }
        ImageGc {
            high_percent,
            low_percent,
            min_age,
            max_age,
        }
    }
}
