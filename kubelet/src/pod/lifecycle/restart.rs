//! Whether and when a container that ended is started again.

use super::plan::later;
use crate::defaults::CONTAINER_BACKOFF;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Container, ContainerRestartRule, Pod, PodSpec};
use std::time::Duration;

/// A restart policy after defaults and overrides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum RestartPolicy {
    Always,
    OnFailure,
    Never,
}

impl RestartPolicy {
    fn named(name: Option<&str>) -> Option<Self> {
        match name {
            Some("Always") => Some(Self::Always),
            Some("OnFailure") => Some(Self::OnFailure),
            Some("Never") => Some(Self::Never),
            Some(_) | None => None,
        }
    }

    fn restarts(self, code: i32) -> bool {
        match self {
            Self::Always => true,
            Self::OnFailure => code != 0,
            Self::Never => false,
        }
    }
}

/// The pod's restart policy.
#[must_use]
pub fn restart_policy(spec: &PodSpec) -> RestartPolicy {
    RestartPolicy::named(spec.restart_policy.as_deref()).unwrap_or(RestartPolicy::Always)
}

/// A sidecar: an init container that stays.
#[must_use]
pub fn restartable_init(container: &Container) -> bool {
    container.restart_policy.as_deref() == Some("Always")
}

/// Whether an app container that ended with `code` is started again.
pub(super) fn app_restarts(spec: &PodSpec, container: &Container, code: i32) -> bool {
    if rule_restarts(container, code) {
        return true;
    }
    RestartPolicy::named(container.restart_policy.as_deref())
        .unwrap_or_else(|| restart_policy(spec))
        .restarts(code)
}

/// Whether an init container that ended with `code` is started again: never
/// after success, and `Always` of the pod means on failure for it.
pub(super) fn init_restarts(spec: &PodSpec, container: &Container, code: i32) -> bool {
    if code == 0 {
        return false;
    }
    rule_restarts(container, code)
        || RestartPolicy::named(container.restart_policy.as_deref())
            .unwrap_or_else(|| restart_policy(spec))
            != RestartPolicy::Never
}

fn rule_restarts(container: &Container, code: i32) -> bool {
    let rules = container
        .restart_policy_rules
        .as_deref()
        .unwrap_or_default();
    rules
        .iter()
        .any(|rule| matches!(rule.action.as_str(), "Restart" | RESET) && matches(rule, code))
}

const RESET: &str = "RestartAllContainers";

/// Whether this end has all containers of the pod begin anew: the first rule that speaks of
/// the code says so.
pub(super) fn resets(container: &Container, code: i32) -> bool {
    let mut rules = container.restart_policy_rules.iter().flatten();
    rules
        .find(|rule| matches(rule, code))
        .is_some_and(|rule| rule.action == RESET)
}

/// Whether any end could have all of the pod's containers begin anew.
#[must_use]
pub fn may_reset(spec: &PodSpec) -> bool {
    let init = spec.init_containers.iter().flatten();
    let mut rules = init
        .chain(&spec.containers)
        .flat_map(|c| c.restart_policy_rules.iter().flatten());
    rules.any(|rule| rule.action == RESET)
}

fn matches(rule: &ContainerRestartRule, code: i32) -> bool {
    let Some(codes) = &rule.exit_codes else {
        return false;
    };
    let listed = codes.values.as_ref().is_some_and(|v| v.contains(&code));
    match codes.operator.as_str() {
        "In" => listed,
        "NotIn" => !listed,
        _ => false,
    }
}

/// The crash-loop back-off of one container. The first restart is at once, the
/// next ones wait 10 s, 20 s, … since the exit; a run of twice the maximum
/// makes it forget.
///
/// kubernetes v1.36 staging/src/k8s.io/client-go/util/flowcontrol/backoff.go and
/// pkg/kubelet/kuberuntime `doBackOff`.
#[derive(Debug, Clone, PartialEq)]
pub struct Backoff {
    /// Waited before the next start; zero before the first crash.
    pub delay: Duration,
    updated: Timestamp,
    /// The attempt that was let through last.
    charged: u32,
    /// The attempt that is waiting, once that was reported.
    reported: Option<u32>,
}

/// What [`Backoff::charge`] says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Turn {
    Now,
    Wait { until: Timestamp, first: bool },
}

impl Backoff {
    /// Before any crash; `next` is the attempt about to be asked for.
    pub(super) fn idle(next: u32) -> Self {
        Self {
            delay: Duration::ZERO,
            updated: Timestamp::UNIX_EPOCH,
            charged: next.saturating_sub(1),
            reported: None,
        }
    }

    /// Whether `attempt` may start now. Asking again for the same attempt
    /// answers the same.
    pub(super) fn charge(
        &mut self,
        attempt: u32,
        finished: Timestamp,
        now: Timestamp,
        max: Duration,
    ) -> Turn {
        if self.charged == attempt {
            return Turn::Now;
        }
        if self.expired(finished, max) {
            self.delay = Duration::ZERO;
        }
        let until = later(finished, signed(self.delay));
        if until > now {
            let first = self.reported.replace(attempt) != Some(attempt);
            return Turn::Wait { until, first };
        }
        self.delay = if self.delay.is_zero() {
            CONTAINER_BACKOFF.min(max)
        } else {
            self.delay.saturating_mul(2).min(max)
        };
        self.updated = now;
        self.charged = attempt;
        Turn::Now
    }

    fn expired(&self, finished: Timestamp, max: Duration) -> bool {
        finished > later(self.updated, signed(max.saturating_mul(2)))
    }

    /// Whether a container that ended at `finished` waits at `now`.
    #[must_use]
    pub fn waits(&self, finished: Timestamp, now: Timestamp) -> bool {
        self.reported.is_some_and(|a| a != self.charged)
            && later(finished, signed(self.delay)) > now
    }
}

/// The message of a container that waits: as upstream writes it.
#[must_use]
pub fn back_off_message(delay: Duration, container: &str, pod: &Pod) -> String {
    let meta = &pod.metadata;
    format!(
        "back-off {} restarting failed container={container} pod={}_{}({})",
        go_duration(delay),
        meta.name.as_deref().unwrap_or_default(),
        meta.namespace.as_deref().unwrap_or_default(),
        meta.uid.as_deref().unwrap_or_default(),
    )
}

/// Whole seconds as Go prints a Duration: 10s, 1m20s, 5m0s.
fn go_duration(delay: Duration) -> String {
    let seconds = delay.as_secs();
    match (seconds / 60, seconds % 60) {
        (0, s) => format!("{s}s"),
        (m, s) => format!("{m}m{s}s"),
    }
}

fn signed(duration: Duration) -> SignedDuration {
    SignedDuration::try_from(duration).unwrap_or(SignedDuration::MAX)
}
