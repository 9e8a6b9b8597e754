//! Whether a pod ends, and why.

use super::plan::{Plan, later};
use super::restart::{app_restarts, init_restarts, restartable_init};
use super::types::Why;
use crate::pod::observed::Observed;
use jiff::SignedDuration;
use k8s_openapi::api::core::v1::PodSpec;

/// A phase that a pod never leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Terminal {
    Succeeded,
    Failed,
}

/// Why the pod ends now; wakes up for its deadline otherwise.
pub(super) fn of(plan: &mut Plan<'_>) -> Option<Why> {
    let pod = &plan.want.pod;
    if plan.want.removed || pod.metadata.deletion_timestamp.is_some() {
        return Some(Why::Deleted);
    }
    if let Some(verdict) = &plan.want.verdict {
        return Some(Why::Rejected(verdict.clone()));
    }
    match pod.status.as_ref().and_then(|s| s.phase.as_deref()) {
        Some("Succeeded") => return Some(Why::ApiTerminal(Terminal::Succeeded)),
        Some("Failed") => return Some(Why::ApiTerminal(Terminal::Failed)),
        Some(_) | None => {}
    }
    if let Some(seconds) = plan.spec.active_deadline_seconds {
        let start = plan.memory.start_time.unwrap_or(plan.now);
        let deadline = later(start, SignedDuration::from_secs(seconds));
        if deadline <= plan.now {
            return Some(Why::DeadlineExceeded);
        }
        plan.wake(deadline);
    }
    completed(plan.spec, plan.seen).map(|_| Why::Completed)
}

/// The phase of a pod whose containers have ended for good; `None` while
/// there is something to wait for or to start.
pub(crate) fn completed(spec: &PodSpec, seen: &Observed) -> Option<Terminal> {
    if let Some(failed) = failed_init(spec, seen) {
        return Some(failed);
    }
    let mut all_succeeded = true;
    for container in &spec.containers {
        let newest = seen.newest(&container.name)?;
        let exit = newest.exit()?;
        if app_restarts(spec, container, exit.code) {
            return None;
        }
        all_succeeded &= exit.code == 0;
    }
    match (spec.containers.is_empty(), all_succeeded) {
        (true, _) => None,
        (false, true) => Some(Terminal::Succeeded),
        (false, false) => Some(Terminal::Failed),
    }
}

/// An init container that failed and won't be started again fails the pod.
fn failed_init(spec: &PodSpec, seen: &Observed) -> Option<Terminal> {
    let init = spec.init_containers.as_deref().unwrap_or_default();
    init.iter()
        .filter(|c| !restartable_init(c))
        .any(|c| {
            let exit = seen.newest(&c.name).and_then(|n| n.exit());
            exit.is_some_and(|e| e.code != 0 && !init_restarts(spec, c, e.code))
        })
        .then_some(Terminal::Failed)
}
