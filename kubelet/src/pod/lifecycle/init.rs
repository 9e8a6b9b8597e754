//! Init containers: one after the other; sidecars stay.

use super::plan::Plan;
use super::restart::restartable_init;
use super::syncing;
use crate::pod::observed::{ContainerSeen, Observed, Run};
use k8s_openapi::api::core::v1::Container;

/// Brings init containers forward; answers whether app containers may run.
pub(super) fn plan(plan: &mut Plan<'_>, sandbox: Option<&str>) -> bool {
    let spec = plan.spec;
    let init = spec.init_containers.as_deref().unwrap_or_default();
    let begun = sandbox.is_some_and(|id| app_begun(spec.containers.as_slice(), plan.seen, id));
    for (index, container) in init.iter().enumerate() {
        let newest = sandbox.and_then(|id| plan.seen.newest_in(id, &container.name));
        let passed = if restartable_init(container) {
            sidecar(plan, container, newest) || begun
        } else if begun || later_exists(plan.seen, sandbox, &init[index + 1..]) {
            true
        } else {
            ordinary(plan, container, newest)
        };
        if !passed {
            return false;
        }
    }
    true
}

/// App containers exist in this sandbox, so its init containers have all run.
fn app_begun(app: &[Container], seen: &Observed, sandbox: &str) -> bool {
    app.iter()
        .any(|c| seen.newest_in(sandbox, &c.name).is_some())
}

/// A later init container exists, so this one has succeeded, even if it was
/// removed since.
fn later_exists(seen: &Observed, sandbox: Option<&str>, rest: &[Container]) -> bool {
    sandbox.is_some_and(|id| rest.iter().any(|c| seen.newest_in(id, &c.name).is_some()))
}

/// True once it has succeeded.
fn ordinary(plan: &mut Plan<'_>, container: &Container, newest: Option<&ContainerSeen>) -> bool {
    match newest.map(|c| (&c.run, c)) {
        None => syncing::first_start(plan, container),
        Some((Run::Created, c)) => syncing::start_created(plan, container, c),
        Some((Run::Running { .. }, c)) => syncing::check_running(plan, container, c),
        Some((Run::Exited(exit), _)) if exit.code == 0 => return true,
        // One that won't be restarted has ended the pod before this is asked.
        Some((Run::Exited(_), c)) => plan.start_again(container, c),
    }
    false
}

/// True while it runs and has started up.
fn sidecar(plan: &mut Plan<'_>, container: &Container, newest: Option<&ContainerSeen>) -> bool {
    match newest.map(|c| (&c.run, c)) {
        None => syncing::first_start(plan, container),
        Some((Run::Created, c)) => syncing::start_created(plan, container, c),
        Some((Run::Running { .. }, c)) => {
            syncing::check_running(plan, container, c);
            return syncing::started(plan.seen, container, c);
        }
        Some((Run::Exited(_), c)) => plan.start_again(container, c),
    }
    false
}
