//! Which dead containers and sandboxes of a living pod are removed.

use super::plan::Plan;
use super::types::Effect;
use crate::pod::observed::ContainerSeen;
use std::collections::BTreeSet;

/// Keeps, for each name, the newest attempt and so many dead ones, itself among them when it is
/// dead; then old sandboxes that hold nothing any more.
pub(super) fn plan(plan: &mut Plan<'_>) {
    let seen = plan.seen;
    let names: BTreeSet<&str> = seen.containers.iter().map(|c| c.name.as_str()).collect();
    for name in names {
        let attempts: Vec<&ContainerSeen> = seen.attempts(name).collect();
        let newest_is_dead = attempts.last().is_some_and(|c| c.exit().is_some());
        let kept = plan.limits.dead_containers_kept;
        let before = kept.saturating_sub(usize::from(newest_is_dead));
        let surplus = attempts.len().saturating_sub(1 + before);
        for container in attempts.iter().take(surplus).filter(|c| !c.running()) {
            plan.request(Effect::RemoveContainer {
                id: container.id.clone(),
            });
        }
    }
    let newest = seen.sandbox().map(|s| s.id.as_str());
    for sandbox in &seen.sandboxes {
        let empty = !seen.containers.iter().any(|c| c.sandbox == sandbox.id);
        if empty && Some(sandbox.id.as_str()) != newest {
            plan.request(Effect::RemoveSandbox {
                id: sandbox.id.clone(),
            });
        }
    }
}
