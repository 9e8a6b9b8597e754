//! How long pods have before the machine goes down.

use super::raw::KubeletConfiguration;
use super::used::Mistakes;
use std::time::Duration;

/// kubernetes v1.37 pkg/apis/scheduling/types.go `SystemCriticalPriority`.
const SYSTEM_CRITICAL: i32 = 2_000_000_000;

/// For pods of this priority and above, up to the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ShutdownGrace {
    /// Of the pods.
    pub priority: i32,
    /// How long they have.
    pub seconds: i64,
}

/// The lowest priority first; empty when nobody asks for an orderly end.
pub(super) fn graces(m: &mut Mistakes, raw: &KubeletConfiguration) -> Vec<ShutdownGrace> {
    let all = period(m, "shutdownGracePeriod", &raw.shutdown_grace_period);
    let critical = period(
        m,
        "shutdownGracePeriodCriticalPods",
        &raw.shutdown_grace_period_critical_pods,
    );
    let by_priority = raw.shutdown_grace_period_by_pod_priority.iter().flatten();
    let mut graces: Vec<ShutdownGrace> = by_priority
        .map(|p| ShutdownGrace {
            priority: p.priority,
            seconds: p.shutdown_grace_period_seconds,
        })
        .collect();
    if graces.iter().any(|g| g.seconds < 0) {
        let text = "shutdownGracePeriodByPodPriority: shutdownGracePeriodSeconds is negative";
        m.0.push(text.to_owned());
    }
    if critical > all {
        let text = "shutdownGracePeriodCriticalPods is longer than shutdownGracePeriod";
        m.0.push(text.to_owned());
        return Vec::new();
    }
    if !graces.is_empty() && all > Duration::ZERO {
        let text = "shutdownGracePeriodByPodPriority and shutdownGracePeriod are both set";
        m.0.push(text.to_owned());
    }
    if graces.is_empty() && all > Duration::ZERO {
        graces = vec![grace(0, all - critical), grace(SYSTEM_CRITICAL, critical)];
    }
    graces.sort_by_key(|g| g.priority);
    graces
}

fn grace(priority: i32, period: Duration) -> ShutdownGrace {
    ShutdownGrace {
        priority,
        seconds: i64::try_from(period.as_secs()).unwrap_or(i64::MAX),
    }
}

/// Less than a second is no time that logind could be asked for.
fn period(m: &mut Mistakes, field: &str, text: &Option<String>) -> Duration {
    let period = m.duration(field, text, Duration::ZERO);
    if period > Duration::ZERO && period < Duration::from_secs(1) {
        m.0.push(format!("{field}: {period:?} is less than 1s"));
    }
    period
}

#[cfg(test)]
mod tests {
    use crate::config::{ShutdownGrace, parse};

    fn graces(text: &str) -> Result<Vec<(i32, i64)>, String> {
        let loaded = parse(&[("test", text)]).map_err(|e| e.to_string())?;
        let one = |g: &ShutdownGrace| (g.priority, g.seconds);
        Ok(loaded.config.shutdown.iter().map(one).collect())
    }

    #[test]
    fn two_periods_are_shared_among_two_kinds_of_pods() {
        let text = "shutdownGracePeriod: 30s\nshutdownGracePeriodCriticalPods: 10s";
        assert_eq!(graces(text).unwrap(), [(0, 20), (2_000_000_000, 10)]);
        assert_eq!(graces("").unwrap(), []);
    }

    #[test]
    fn periods_by_priority_are_sorted() {
        let text = "shutdownGracePeriodByPodPriority:\n\
                    - {priority: 100, shutdownGracePeriodSeconds: 5}\n\
                    - {priority: 0, shutdownGracePeriodSeconds: 60}\n";
        assert_eq!(graces(text).unwrap(), [(0, 60), (100, 5)]);
    }

    #[test]
    fn periods_that_contradict_each_other_are_refused() {
        let critical = "shutdownGracePeriod: 5s\nshutdownGracePeriodCriticalPods: 10s";
        assert!(graces(critical).unwrap_err().contains("longer"));
        assert!(
            graces("shutdownGracePeriod: 10ms")
                .unwrap_err()
                .contains("less than 1s")
        );
        let both = "shutdownGracePeriod: 5s\nshutdownGracePeriodByPodPriority:\n\
                    - {priority: 100, shutdownGracePeriodSeconds: 5}\n";
        assert!(graces(both).unwrap_err().contains("both set"));
    }
}
