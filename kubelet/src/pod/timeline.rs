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
