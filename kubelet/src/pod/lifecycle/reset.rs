//! `RestartAllContainers`: a container that ended with a certain code has all of the pod begin
//! anew, init containers included. Sandbox and volumes stay.
//!
//! The others are killed and removed first, the one that asked for it last: as long as it is
//! there, the reset is not over. kubernetes v1.37 pkg/kubelet/kuberuntime `getContainersToReset`.

use super::plan::Plan;
use super::restart::resets;
use super::types::{Effect, StopReason};
use crate::pod::observed::{ContainerSeen, Run};
use k8s_openapi::api::core::v1::{Container, PodSpec};

/// Brings a reset forward; answers whether one is under way. Upstream knows no back-off here;
/// ours is that of the container that asks.
pub(super) fn plan(plan: &mut Plan<'_>) -> bool {
    let (seen, spec) = (plan.seen, plan.spec);
    let asking: Vec<(&Container, &ContainerSeen)> = all(spec)
        .filter_map(|c| Some((c, seen.newest(&c.name)?)))
        .filter(|(c, newest)| newest.exit().is_some_and(|e| resets(c, e.code)))
        .collect();
    let due = asking.iter().any(|(c, newest)| plan.may_restart(c, newest));
    plan.memory.resetting = due;
    if !due {
        return false;
    }
    let asks = |id: &str| asking.iter().any(|(_, newest)| newest.id == id);
    let others: Vec<&ContainerSeen> = seen
        .containers
        .iter()
        .filter(|c| !asks(&c.id) && all(spec).any(|a| a.name == c.name))
        .collect();
    for container in &others {
        end(plan, container);
    }
    if others.is_empty() {
        asking.iter().for_each(|(_, newest)| end(plan, newest));
    }
    true
}

fn all(spec: &PodSpec) -> impl Iterator<Item = &Container> {
    let init = spec.init_containers.iter().flatten();
    init.chain(&spec.containers)
}

fn end(plan: &mut Plan<'_>, container: &ContainerSeen) {
    match container.run {
        Run::Running { .. } => plan.stop(container, plan.now, StopReason::Reset),
        Run::Created | Run::Exited(_) => {
            plan.memory
                .reset
                .insert(container.name.clone(), container.clone());
            plan.request(Effect::RemoveContainer {
                id: container.id.clone(),
            });
        }
    }
}
