//! What a status says of the resources of the pod as a whole. Pure.
//!
//! kubernetes v1.37 pkg/kubelet/kubelet_pods.go: `allocatedResources` is what was granted;
//! `resources` is the same until the pod runs, then what its cgroup was given.

use super::pod::Look;
use crate::pod::resize::{self, KINDS};
use crate::pod::spec::resources::{has_limit, whole};
use k8s_openapi::api::core::v1::{Pod, PodSpec, PodStatus, ResourceRequirements};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use std::collections::BTreeMap;

type List = BTreeMap<String, Quantity>;

/// Fills in both; `status` has its phase.
pub(super) fn fill(look: &Look<'_>, spec: &PodSpec, status: &mut PodStatus) {
    let granted = whole(spec);
    status.resources = Some(match status.phase.as_deref() {
        Some("Running") => running(look, spec, &granted),
        _ => granted.clone(),
    });
    status.allocated_resources = granted.requests;
}

fn running(
    look: &Look<'_>,
    spec: &PodSpec,
    granted: &ResourceRequirements,
) -> ResourceRequirements {
    match &look.seen.pod_applied {
        Some(given) if resize::differs(look.pod(), given) => {
            let Pod { spec: held, .. } = resize::with(look.pod(), given);
            let held = held.unwrap_or_default();
            given_to_cgroup(&held, whole(&held))
        }
        _ => given_to_cgroup(spec, granted.clone()),
    }
}

/// Of `all`, what the pod asks for itself and what its cgroup knows of.
fn given_to_cgroup(spec: &PodSpec, all: ResourceRequirements) -> ResourceRequirements {
    let own = spec.resources.as_ref();
    let requests = own.and_then(|o| o.requests.as_ref());
    let limits = own.and_then(|o| o.limits.as_ref());
    let known = |kind: &str| KINDS.contains(&kind);
    ResourceRequirements {
        requests: kept(all.requests, requests, known),
        limits: kept(all.limits, limits, |kind| {
            known(kind) && has_limit(spec, kind)
        }),
        claims: all.claims,
    }
}

/// What the pod names itself, and what else is `given`.
fn kept(all: Option<List>, own: Option<&List>, given: impl Fn(&str) -> bool) -> Option<List> {
    let mut list = all?;
    list.retain(|kind, _| given(kind) || own.is_some_and(|own| own.contains_key(kind)));
    Some(list).filter(|list| !list.is_empty())
}
