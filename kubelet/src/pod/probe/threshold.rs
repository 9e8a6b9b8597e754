//! How many results in a row make a verdict. Pure.

use k8s_openapi::api::core::v1::Probe;

/// Counts results of one probe of one container.
#[derive(Debug, Clone)]
pub struct Thresholds {
    success: i32,
    failure: i32,
    last: Option<bool>,
    run: i32,
    verdict: Option<bool>,
}

impl Thresholds {
    /// `known` is the verdict to start from: that of an adopted container.
    #[must_use]
    pub fn new(probe: &Probe, known: Option<bool>) -> Self {
        Self {
            success: probe.success_threshold.unwrap_or(1).max(1),
            failure: probe.failure_threshold.unwrap_or(3).max(1),
            last: None,
            run: 0,
            verdict: known,
        }
    }

    /// Counts a result; answers a verdict if it is a new one.
    pub fn record(&mut self, succeeded: bool) -> Option<bool> {
        self.run = if self.last == Some(succeeded) {
            self.run.saturating_add(1)
        } else {
            1
        };
        self.last = Some(succeeded);
        let needed = if succeeded {
            self.success
        } else {
            self.failure
        };
        if self.run < needed || self.verdict == Some(succeeded) {
            return None;
        }
        self.verdict = Some(succeeded);
        self.verdict
    }

    /// Whether there is a verdict yet.
    #[must_use]
    pub fn decided(&self) -> bool {
        self.verdict.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(success: i32, failure: i32, results: &[bool]) -> Vec<Option<bool>> {
        let probe = Probe {
            success_threshold: Some(success),
            failure_threshold: Some(failure),
            ..Probe::default()
        };
        let mut thresholds = Thresholds::new(&probe, None);
        results.iter().map(|r| thresholds.record(*r)).collect()
    }

    #[test]
    fn verdict_comes_after_so_many_in_a_row_and_only_once() {
        let found = run(1, 3, &[false, false, false, false, true, true]);
        assert_eq!(found, vec![None, None, Some(false), None, Some(true), None]);
    }

    #[test]
    fn run_begins_anew_when_results_change() {
        let found = run(2, 2, &[true, false, true, false, false]);
        assert_eq!(found, vec![None, None, None, None, Some(false)]);
    }
}
