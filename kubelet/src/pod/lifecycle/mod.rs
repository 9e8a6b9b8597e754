//! What is to be done for a pod: a pure function.
//!
//! [`decide`] looks at what is wanted, what is seen and what the clock says,
//! and answers with effects. It has no I/O, no clock and no log; a start, a
//! restart, a retry, an update and a deletion are all the same call. Whoever
//! runs the effects reports back through [`Observed`], and asks again.

mod ending;
mod gc;
mod init;
mod plan;
mod reset;
mod restart;
mod syncing;
mod terminating;
#[cfg(test)]
mod tests;
mod types;

pub use ending::Terminal;
pub use restart::{Backoff, back_off_message, may_reset, restart_policy, restartable_init};
pub use types::{
    Decision, Desired, Effect, Memory, Stage, StopReason, Verdict, Why, Work, WorkerState,
};

pub(crate) use ending::completed;
pub(crate) use plan::ERR_IMAGE_PULL;
pub(crate) use syncing::started;

use super::observed::Observed;
use jiff::Timestamp;
use plan::Plan;

/// Limits that a decision depends on.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// `crashLoopBackOff.maxContainerRestartPeriod`.
    pub crash_loop_max: std::time::Duration,
    /// Dead containers kept for each name.
    pub dead_containers_kept: usize,
}

/// The next state of a pod, and what to do on the way there.
#[must_use]
pub fn decide(
    state: WorkerState,
    want: &Desired,
    seen: &Observed,
    limits: Limits,
    now: Timestamp,
) -> Decision {
    let mut plan = Plan::new(state.memory, want, seen, limits, now);
    let stage = match state.stage {
        // Syncing => (Syncing | Terminating | Terminated | Finished)
        Stage::Syncing => match ending::of(&mut plan) {
            None => {
                syncing::plan(&mut plan);
                Stage::Syncing
            }
            Some(why) => {
                plan.effects.push(Effect::Abandon);
                terminating::plan(&mut plan, why, now)
            }
        },
        // Terminating => (Terminating | Terminated | Finished)
        Stage::Terminating { why, since } => terminating::plan(&mut plan, why, since),
        // Terminated => (Terminated | Terminating | Finished)
        Stage::Terminated { why, since } => terminating::plan(&mut plan, why, since),
        // Finished => Finished
        Stage::Finished { why } => Stage::Finished { why },
    };
    plan.into_decision(stage)
}
