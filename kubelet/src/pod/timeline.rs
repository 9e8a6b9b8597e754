//! Where the time of a pod's start goes.

use super::executor::Failed;
use super::lifecycle::Effect;
use std::time::{Duration, Instant};

/// Steps kept for a pod; its start is what people ask for.
const MOST: usize = 64;

/// One step of a pod's start, for a waterfall.
#[derive(Debug, Clone, PartialEq)]
pub struct Step {
    /// `MountVolumes`, `RunSandbox`, `EnsureImage web`, ….
    pub name: String,
    /// From the moment the node heard of the pod.
    pub start: Duration,
    /// How long it took.
    pub took: Duration,
    /// What went wrong, if it did.
    pub error: Option<String>,
}

/// The steps of one pod since the node heard of it.
#[derive(Debug)]
pub struct Timeline {
    begun: Instant,
    steps: Vec<Step>,
}

impl Timeline {
    /// From now on.
    #[must_use]
    pub fn begin() -> Self {
        Self {
            begun: Instant::now(),
            steps: Vec::new(),
        }
    }

    /// A step that is over just now.
    pub fn note(&mut self, effect: &Effect, took: Duration, failed: Option<&Failed>) {
        if self.steps.len() < MOST {
            self.steps.push(Step {
                name: name(effect),
                start: self.begun.elapsed().saturating_sub(took),
                took,
                error: failed.map(ToString::to_string),
            });
        }
    }

    /// In order of their beginning.
    #[must_use]
    pub fn steps(&self) -> Vec<Step> {
        let mut steps = self.steps.clone();
        steps.sort_by_key(|s| s.start);
        steps
    }
}

/// The steps as lines of text, each with a bar where its time was.
#[must_use]
pub fn waterfall(steps: &[Step]) -> String {
    const WIDTH: u128 = 40;
    let end = steps
        .iter()
        .map(|s| s.start + s.took)
        .max()
        .unwrap_or_default();
    let column = |at: Duration| {
        let cell = at.as_micros() * WIDTH / end.as_micros().max(1);
        usize::try_from(cell).unwrap_or(0)
    };
    let mut text = String::new();
    for step in steps {
        let from = column(step.start);
        let bar = "#".repeat(column(step.start + step.took).saturating_sub(from).max(1));
        let (start, took) = (millis(step.start), millis(step.took));
        let failed = step
            .error
            .as_deref()
            .map(|e| format!("  {e}"))
            .unwrap_or_default();
        let line = format!(
            "{start:>9} {took:>9}  {:<28} {}{bar}{failed}",
            step.name,
            " ".repeat(from)
        );
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

fn millis(time: Duration) -> String {
    format!("{:.2} ms", time.as_secs_f64() * 1000.0)
}

fn name(effect: &Effect) -> String {
    match effect {
        Effect::Abandon => "Abandon".into(),
        Effect::MountVolumes => "MountVolumes".into(),
        Effect::RunSandbox { .. } => "RunSandbox".into(),
        Effect::EnsureImage { container, .. } => format!("EnsureImage {container}"),
        Effect::CreateContainer { container, .. } => format!("CreateContainer {container}"),
        Effect::StartContainer { container, .. } => format!("StartContainer {container}"),
        Effect::StopContainer { container, .. } => format!("StopContainer {container}"),
        Effect::StopSandbox { .. } => "StopSandbox".into(),
        Effect::RemoveContainer { .. } => "RemoveContainer".into(),
        Effect::RemoveSandbox { .. } => "RemoveSandbox".into(),
        Effect::UnmountVolumes => "UnmountVolumes".into(),
        Effect::ReportBackOff { .. } | Effect::ReportPullBackOff { .. } => "Report".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(name: &str, start: u64, took: u64) -> Step {
        Step {
            name: name.into(),
            start: Duration::from_millis(start),
            took: Duration::from_millis(took),
            error: None,
        }
    }

    #[test]
    fn waterfall_draws_each_step_where_its_time_was() {
        let text = waterfall(&[step("RunSandbox", 0, 10), step("StartContainer a", 10, 10)]);
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[0].ends_with(&format!("RunSandbox                   {}", "#".repeat(20))));
        let second = format!("{}{}", " ".repeat(20), "#".repeat(20));
        assert!(lines[1].ends_with(&second), "{text}");
        assert!(
            lines[1]
                .trim_start()
                .starts_with("10.00 ms  10.00 ms  StartContainer a")
        );
    }
}
