//! The ResourceClaims of a pod. Pure.

use k8s_openapi::api::core::v1::{Container, Pod, PodResourceClaim};
use k8s_openapi::api::resource::v1::ResourceClaim;
use std::collections::BTreeSet;

/// Why a pod can't have what it claims yet.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs)]
pub enum ClaimError {
    #[error("pod claim {name:?}: ResourceClaim not created yet")]
    NotCreated { name: String },
    #[error("ResourceClaim {claim} was not created for pod {pod} (pod is not owner)")]
    NotOwner { claim: String, pod: String },
    #[error("pod {pod} ({uid}) is not allowed to use ResourceClaim {claim} ({claim_uid})")]
    NotReserved {
        pod: String,
        uid: String,
        claim: String,
        claim_uid: String,
    },
    #[error("ResourceClaim {claim}: not allocated")]
    NotAllocated { claim: String },
}

/// A claim that a pod refers to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reference {
    /// Of the ResourceClaim.
    pub name: String,
    /// Made for this pod from a template: it must be its owner.
    pub owned: bool,
}

/// What a pod refers to, under which name of its own; `None`: no claim was needed.
pub fn reference(pod: &Pod, claim: &PodResourceClaim) -> Result<Option<Reference>, ClaimError> {
    if let Some(name) = &claim.resource_claim_name {
        return Ok(Some(Reference {
            name: name.clone(),
            owned: false,
        }));
    }
    let statuses = pod
        .status
        .as_ref()
        .and_then(|s| s.resource_claim_statuses.as_ref());
    let status = statuses
        .into_iter()
        .flatten()
        .find(|s| s.name == claim.name);
    let status = status.ok_or_else(|| ClaimError::NotCreated {
        name: claim.name.clone(),
    })?;
    let name = status.resource_claim_name.clone();
    Ok(name.map(|name| Reference { name, owned: true }))
}

/// All of them; the scheduler's claim for extended resources included.
///
/// # Errors
/// When one is still to be made.
pub fn references(pod: &Pod) -> Result<Vec<Reference>, ClaimError> {
    let listed = pod
        .spec
        .iter()
        .flat_map(|s| s.resource_claims.iter().flatten());
    let mut all = Vec::new();
    for claim in listed {
        all.extend(reference(pod, claim)?);
    }
    let extended = pod
        .status
        .as_ref()
        .and_then(|s| s.extended_resource_claim_status.as_ref());
    all.extend(extended.map(|e| Reference {
        name: e.resource_claim_name.clone(),
        owned: false,
    }));
    Ok(all)
}

/// Whether a pod claims anything.
pub fn any(pod: &Pod) -> bool {
    let listed = pod
        .spec
        .iter()
        .flat_map(|s| s.resource_claims.iter().flatten());
    let extended = pod
        .status
        .as_ref()
        .and_then(|s| s.extended_resource_claim_status.as_ref());
    listed.count() > 0 || extended.is_some()
}

/// The requests of claims that a container has: claim, and request (all of them if `None`).
pub fn requests(pod: &Pod, container: &Container) -> Vec<(String, Option<String>)> {
    let mut all = Vec::new();
    let resources = container.resources.as_ref();
    for wanted in resources
        .into_iter()
        .flat_map(|r| r.claims.iter().flatten())
    {
        let mut listed = pod
            .spec
            .iter()
            .flat_map(|s| s.resource_claims.iter().flatten());
        let found = listed.find(|c| c.name == wanted.name);
        if let Some(Ok(Some(reference))) = found.map(|c| reference(pod, c)) {
            let request = wanted.request.clone().filter(|r| !r.is_empty());
            all.push((reference.name, request));
        }
    }
    let extended = pod
        .status
        .as_ref()
        .and_then(|s| s.extended_resource_claim_status.as_ref());
    if let Some(status) = extended {
        let own = status.request_mappings.iter();
        let own = own.filter(|m| m.container_name == container.name);
        let name = &status.resource_claim_name;
        all.extend(own.map(|m| (name.clone(), Some(m.request_name.clone()))));
    }
    all
}

/// The drivers of a claim that a pod may use.
///
/// # Errors
/// When it may not, or not yet.
pub fn check(
    pod: &Pod,
    reference: &Reference,
    claim: &ResourceClaim,
) -> Result<BTreeSet<String>, ClaimError> {
    let (name, uid) = (crate::pod::spec::name(pod), crate::pod::spec::uid(pod));
    let owners = claim.metadata.owner_references.iter().flatten();
    let mut owners = owners.filter(|o| o.controller == Some(true));
    if reference.owned && !owners.any(|o| o.uid == uid) {
        return Err(ClaimError::NotOwner {
            claim: reference.name.clone(),
            pod: name.to_owned(),
        });
    }
    let status = claim.status.as_ref();
    let mut reserved = status
        .into_iter()
        .flat_map(|s| s.reserved_for.iter().flatten());
    if !reserved.any(|r| r.resource == "pods" && r.uid == uid) {
        return Err(ClaimError::NotReserved {
            pod: name.to_owned(),
            uid: uid.to_owned(),
            claim: reference.name.clone(),
            claim_uid: claim.metadata.uid.clone().unwrap_or_default(),
        });
    }
    let allocation = status.and_then(|s| s.allocation.as_ref());
    let allocation = allocation.ok_or_else(|| ClaimError::NotAllocated {
        claim: reference.name.clone(),
    })?;
    let devices = allocation.devices.as_ref();
    let results = devices.into_iter().flat_map(|d| d.results.iter().flatten());
    Ok(results.map(|r| r.driver.clone()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod() -> Pod {
        serde_json::from_value(json!({
            "metadata": { "name": "p", "uid": "u" },
            "spec": {
                "resourceClaims": [
                    { "name": "a", "resourceClaimName": "shared" },
                    { "name": "b", "resourceClaimTemplateName": "t" },
                    { "name": "none", "resourceClaimTemplateName": "t" },
                ],
                "containers": [{ "name": "c", "resources": { "claims": [
                    { "name": "a" }, { "name": "b", "request": "gpu" }, { "name": "none" },
                ]}}],
            },
            "status": {
                "resourceClaimStatuses": [
                    { "name": "b", "resourceClaimName": "p-b-x" }, { "name": "none" },
                ],
                "extendedResourceClaimStatus": { "resourceClaimName": "ext", "requestMappings": [
                    { "containerName": "c", "resourceName": "x/y", "requestName": "r0" },
                    { "containerName": "d", "resourceName": "x/y", "requestName": "r1" },
                ]},
            },
        }))
        .unwrap()
    }

    #[test]
    fn claims_are_found_by_name_template_and_extended_resource() {
        let all = references(&pod()).unwrap();
        let names: Vec<_> = all.iter().map(|r| (r.name.as_str(), r.owned)).collect();
        assert_eq!(names, [("shared", false), ("p-b-x", true), ("ext", false)]);
        let pod = pod();
        let container = &pod.spec.as_ref().unwrap().containers[0];
        let request = |name: &str| Some(name.to_owned());
        assert_eq!(
            requests(&pod, container),
            [
                ("shared".to_owned(), None),
                ("p-b-x".to_owned(), request("gpu")),
                ("ext".to_owned(), request("r0")),
            ]
        );
        let mut early = pod.clone();
        early.status = None;
        assert!(matches!(
            references(&early),
            Err(ClaimError::NotCreated { .. })
        ));
    }

    #[test]
    fn claim_is_usable_when_it_is_allocated_and_reserved_for_the_pod() {
        let claim = |owner: &str, reserved: &str, allocated: bool| -> ResourceClaim {
            let result = json!({ "driver": "d", "pool": "n", "device": "x", "request": "gpu" });
            let mut status = json!({
                "reservedFor": [{ "resource": "pods", "name": "p", "uid": reserved }],
            });
            if allocated {
                status["allocation"] = json!({ "devices": { "results": [result] } });
            }
            let owner = json!({
                "apiVersion": "v1", "kind": "Pod", "name": "p", "uid": owner, "controller": true,
            });
            serde_json::from_value(json!({
                "metadata": { "name": "p-b-x", "uid": "cu", "ownerReferences": [owner] },
                "spec": {}, "status": status,
            }))
            .unwrap()
        };
        let reference = Reference {
            name: "p-b-x".into(),
            owned: true,
        };
        let check = |claim: &ResourceClaim| check(&pod(), &reference, claim);
        assert_eq!(check(&claim("u", "u", true)), Ok(["d".to_owned()].into()));
        assert!(matches!(
            check(&claim("o", "u", true)),
            Err(ClaimError::NotOwner { .. })
        ));
        assert!(matches!(
            check(&claim("u", "o", true)),
            Err(ClaimError::NotReserved { .. })
        ));
        assert!(matches!(
            check(&claim("u", "u", false)),
            Err(ClaimError::NotAllocated { .. })
        ));
    }
}
