//! A decision in the making.

use super::types::{Decision, Desired, Effect, Memory, Stage, StopReason, Work, WorkerState};
use super::{Limits, restart};
use crate::defaults;
use crate::pod::observed::{ContainerSeen, Failure, Observed};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Container, PodSpec};
use std::time::Duration;

pub(super) struct Plan<'a> {
    pub want: &'a Desired,
    pub spec: &'a PodSpec,
    pub seen: &'a Observed,
    pub limits: Limits,
    pub now: Timestamp,
    pub memory: Memory,
    pub effects: Vec<Effect>,
    wake_at: Option<Timestamp>,
}

/// Reason of a container whose pull has just failed.
pub(crate) const ERR_IMAGE_PULL: &str = "ErrImagePull";

/// A spec for pods known only from what runs.
static NO_SPEC: std::sync::LazyLock<PodSpec> = std::sync::LazyLock::new(PodSpec::default);

impl<'a> Plan<'a> {
    pub fn new(
        memory: Memory,
        want: &'a Desired,
        seen: &'a Observed,
        limits: Limits,
        now: Timestamp,
    ) -> Self {
        let spec = want.pod.spec.as_ref().unwrap_or(&NO_SPEC);
        let mut plan = Self {
            want,
            spec,
            seen,
            limits,
            now,
            memory,
            effects: Vec::new(),
            wake_at: None,
        };
        plan.remember();
        plan
    }

    pub fn into_decision(self, stage: Stage) -> Decision {
        Decision {
            next: WorkerState {
                stage,
                memory: self.memory,
            },
            effects: self.effects,
            wake_at: self.wake_at,
        }
    }

    /// Attempts outlive the containers they were counted on.
    fn remember(&mut self) {
        for container in &self.seen.containers {
            let next = self
                .memory
                .attempts
                .entry(container.name.clone())
                .or_default();
            *next = (*next).max(container.attempt + 1);
        }
        let seen = self.seen;
        self.memory
            .stopping
            .retain(|id, _| seen.containers.iter().any(|c| &c.id == id && c.running()));
    }

    pub fn wake(&mut self, at: Timestamp) {
        self.wake_at = Some(self.wake_at.map_or(at, |old| old.min(at)));
    }

    /// Asks for an effect unless it is under way, or failed and must wait.
    pub fn request(&mut self, effect: Effect) {
        let Some(work) = effect.work() else {
            self.effects.push(effect);
            return;
        };
        if self.seen.busy.contains(&work) {
            return;
        }
        if let Some(failure) = self.seen.failed.get(&work) {
            let at = retry_at(&work, failure);
            if at > self.now {
                self.wake(at);
                self.announce_back_off(&work, failure);
                return;
            }
        }
        self.effects.push(effect);
    }

    /// A failed pull is shown as such for a moment, then as a back-off.
    fn announce_back_off(&mut self, work: &Work, failure: &Failure) {
        let (Work::Image(container), ERR_IMAGE_PULL) = (work, failure.reason.as_str()) else {
            return;
        };
        let shown = later(failure.at, SignedDuration::from_secs(1));
        if self.now < shown {
            return self.wake(shown);
        }
        self.effects.push(Effect::ReportPullBackOff {
            container: container.clone(),
        });
    }

    /// Asks for a container to be stopped by `until` at the latest. A later
    /// wish may shorten the time, never lengthen it.
    pub fn stop(&mut self, container: &ContainerSeen, until: Timestamp, reason: StopReason) {
        let until = match self.memory.stopping.get(&container.id) {
            Some(earlier) if *earlier <= until => *earlier,
            Some(_) | None => until,
        };
        self.memory.stopping.insert(container.id.clone(), until);
        self.request(Effect::StopContainer {
            container: container.name.clone(),
            id: container.id.clone(),
            until,
            reason,
        });
    }

    /// Asks for the next start of a container: image, then container.
    pub fn start(&mut self, container: &Container, attempt: u32) {
        let ready = self.seen.images.get(&container.name).filter(|i| {
            i.attempt == attempt && Some(i.image.as_str()) == container.image.as_deref()
        });
        let Some(image) = ready else {
            self.request(Effect::EnsureImage {
                container: container.name.clone(),
                attempt,
            });
            return;
        };
        let (true, Some(sandbox)) = (self.seen.volumes, self.seen.ready_sandbox()) else {
            return;
        };
        self.request(Effect::CreateContainer {
            container: container.name.clone(),
            attempt,
            sandbox: sandbox.id.clone(),
            image_ref: image.image_ref.clone(),
        });
    }

    /// The attempt number of a container's next start.
    pub fn next_attempt(&self, name: &str) -> u32 {
        self.memory.attempts.get(name).copied().unwrap_or(0)
    }

    /// Starts a container again unless it must wait for its back-off.
    pub fn start_again(&mut self, container: &Container, last: &ContainerSeen) {
        if self.may_restart(container, last) {
            self.start(container, self.next_attempt(&container.name));
        }
    }

    /// Whether its back-off lets it start again now; wakes up for it otherwise.
    pub fn may_restart(&mut self, container: &Container, last: &ContainerSeen) -> bool {
        let attempt = self.next_attempt(&container.name);
        let finished = last.exit().map_or(self.now, |e| e.finished);
        let max = self.limits.crash_loop_max;
        let slot = self
            .memory
            .backoffs
            .entry(container.name.clone())
            .or_insert_with(|| restart::Backoff::idle(attempt));
        match slot.charge(attempt, finished, self.now, max) {
            restart::Turn::Now => true,
            restart::Turn::Wait { until, first } => {
                self.wake(until);
                if first {
                    self.effects.push(Effect::ReportBackOff {
                        container: container.name.clone(),
                        attempt,
                    });
                }
                false
            }
        }
    }

    /// When a stop that begins now ends by force.
    pub fn after(&self, seconds: i64) -> Timestamp {
        later(self.now, SignedDuration::from_secs(seconds.max(0)))
    }
}

/// `at + by`, saturating.
pub(super) fn later(at: Timestamp, by: SignedDuration) -> Timestamp {
    at.saturating_add(by).unwrap_or(Timestamp::MAX)
}

/// When failed work is tried again.
pub(super) fn retry_at(work: &Work, failure: &Failure) -> Timestamp {
    let (first, max) = match work {
        Work::Image(_) => (defaults::IMAGE_BACKOFF, defaults::MAX_IMAGE_BACKOFF),
        Work::Start(_) => (defaults::CONTAINER_BACKOFF, defaults::MAX_CONTAINER_BACKOFF),
        Work::Volumes => (Duration::from_millis(500), Duration::from_secs(30)),
        Work::Allocate
        | Work::PrepareResources
        | Work::Sandbox
        | Work::Create(_)
        | Work::Resize => (Duration::from_secs(1), Duration::from_secs(10)),
        Work::Stop(..)
        | Work::StopSandbox(_)
        | Work::RemoveContainer(_)
        | Work::RemoveSandbox(_)
        | Work::Unmount => (Duration::from_millis(200), Duration::from_secs(10)),
    };
    let doublings = failure.count.saturating_sub(1).min(16);
    let wait = first.saturating_mul(1 << doublings).min(max);
    later(
        failure.at,
        SignedDuration::try_from(wait).unwrap_or(SignedDuration::MAX),
    )
}
