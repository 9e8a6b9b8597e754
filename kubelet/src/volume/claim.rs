//! What a claim of a pod stands for. Pure.
//! Rules: kubernetes v1.37 pkg/kubelet/volumemanager/populator/desired_state_of_world_populator.go
//! `getPVCExtractPV`, and staging/src/k8s.io/component-helpers/storage/ephemeral.

use super::error::ClaimReason;
use super::persistent::{Growth, Persistent, Source};
use crate::node::selector;
use crate::quantity::Amount;
use k8s_openapi::api::core::v1::{
    PersistentVolume, PersistentVolumeClaim, PersistentVolumeSpec, Pod, Volume,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use std::collections::BTreeMap;

/// kubernetes v1.37 pkg/volume/util/finalizer.go `PVCProtectionFinalizer`.
const PROTECTION: &str = "kubernetes.io/pvc-protection";

/// A claim that a volume of a pod names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    pub namespace: String,
    pub name: String,
    pub read_only: bool,
    /// Made for this pod alone, and to be owned by it.
    pub ephemeral: bool,
}

/// The claim behind a volume, if there is one.
pub fn wanted(pod: &Pod, volume: &Volume) -> Option<Wanted> {
    let namespace = pod.metadata.namespace.as_deref().unwrap_or("default");
    let of = |name: String, read_only, ephemeral| Wanted {
        namespace: namespace.to_owned(),
        name,
        read_only,
        ephemeral,
    };
    if let Some(claim) = &volume.persistent_volume_claim {
        let read_only = claim.read_only.unwrap_or(false);
        return Some(of(claim.claim_name.clone(), read_only, false));
    }
    volume.ephemeral.as_ref().map(|_| {
        let pod = pod.metadata.name.as_deref().unwrap_or_default();
        of(format!("{pod}-{}", volume.name), false, true)
    })
}

/// The name of the PersistentVolume that a claim is bound to.
pub fn bound<'a>(
    pod: &Pod,
    wanted: &Wanted,
    claim: &'a PersistentVolumeClaim,
) -> Result<&'a str, ClaimReason> {
    if wanted.ephemeral && !owns(pod, claim) {
        return Err(ClaimReason::Foreign {
            claim: wanted.name.clone(),
            pod: pod.metadata.name.clone().unwrap_or_default(),
        });
    }
    let mut finalizers = claim.metadata.finalizers.iter().flatten();
    // Protected, it stays as long as a pod uses it.
    if claim.metadata.deletion_timestamp.is_some() && !finalizers.any(|f| f == PROTECTION) {
        return Err(ClaimReason::Deleting {
            claim: wanted.name.clone(),
        });
    }
    let phase = claim.status.as_ref().and_then(|s| s.phase.as_deref());
    let volume = claim.spec.as_ref().and_then(|s| s.volume_name.as_deref());
    match (phase, volume) {
        (Some("Bound"), Some(volume)) if !volume.is_empty() => Ok(volume),
        _ => Err(ClaimReason::Unbound {
            claim: wanted.name.clone(),
            phase: phase.unwrap_or("Pending").to_owned(),
        }),
    }
}

fn owns(pod: &Pod, claim: &PersistentVolumeClaim) -> bool {
    let mut owners = claim.metadata.owner_references.iter().flatten();
    owners.any(|o| o.controller == Some(true) && Some(&o.uid) == pod.metadata.uid.as_ref())
}

/// What the pod is to be given of a PersistentVolume that its claim is bound to.
pub fn persistent(
    wanted: &Wanted,
    claim: &PersistentVolumeClaim,
    volume: &PersistentVolume,
    node_labels: &BTreeMap<String, String>,
) -> Result<Persistent, ClaimReason> {
    let name = volume.metadata.name.clone().unwrap_or_default();
    let spec = volume.spec.clone().unwrap_or_default();
    let holder = spec.claim_ref.as_ref().and_then(|r| r.uid.as_ref());
    if holder.is_none() || holder != claim.metadata.uid.as_ref() {
        return Err(ClaimReason::NotHolder {
            claim: wanted.name.clone(),
            volume: name,
        });
    }
    let required = spec
        .node_affinity
        .as_ref()
        .and_then(|a| a.required.as_ref());
    // While the Node is not known there is nothing to compare with.
    if required.is_some_and(|r| !node_labels.is_empty() && !selector::matches(r, node_labels)) {
        return Err(ClaimReason::Elsewhere { volume: name });
    }
    Ok(Persistent {
        source: source(&name, &spec)?,
        name,
        read_only: wanted.read_only,
        block: spec.volume_mode.as_deref() == Some("Block"),
        mount_options: spec.mount_options.unwrap_or_default(),
        access_modes: spec.access_modes.unwrap_or_default(),
        claim: Some((wanted.namespace.clone(), wanted.name.clone())),
        growth: growth(claim, spec.capacity.as_ref()),
    })
}

/// The volume is larger by now than the claim was told.
fn growth(
    claim: &PersistentVolumeClaim,
    capacity: Option<&BTreeMap<String, Quantity>>,
) -> Option<Growth> {
    let status = claim.status.as_ref()?;
    let known = status.capacity.as_ref()?.get("storage")?;
    let to = capacity?.get("storage")?;
    let bytes = Amount::from(to).units();
    (bytes > Amount::from(known).units()).then(|| Growth {
        to: to.clone(),
        bytes,
        conditions: status.conditions.clone().unwrap_or_default(),
    })
}

fn source(name: &str, spec: &PersistentVolumeSpec) -> Result<Source, ClaimReason> {
    if let Some(source) = &spec.csi {
        return Ok(Source::Csi(Box::new(source.clone())));
    }
    if let Some(source) = &spec.local {
        return Ok(Source::Local(source.clone()));
    }
    if let Some(source) = &spec.host_path {
        return match spec.mount_options.as_deref().unwrap_or_default() {
            [] => Ok(Source::HostPath(source.clone())),
            _ => Err(ClaimReason::NoOptions {
                volume: name.to_owned(),
            }),
        };
    }
    if let Some(source) = &spec.nfs {
        return Ok(Source::Nfs(source.clone()));
    }
    Err(ClaimReason::Unsupported {
        volume: name.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn pod() -> Pod {
        serde_json::from_value(json!({"metadata": {"namespace": "ns", "name": "p", "uid": "u"}}))
            .unwrap()
    }

    fn claim(fields: Value) -> PersistentVolumeClaim {
        let mut all = json!({
            "metadata": {"name": "c", "uid": "claim"}, "spec": {"volumeName": "pv"},
            "status": {"phase": "Bound"},
        });
        for (key, value) in fields.as_object().unwrap() {
            all[key] = value.clone();
        }
        serde_json::from_value(all).unwrap()
    }

    fn volume(spec: Value) -> PersistentVolume {
        let mut all = json!({"metadata": {"name": "pv"}, "spec": {
            "claimRef": {"uid": "claim"}, "local": {"path": "/disk"}}});
        for (key, value) in spec.as_object().unwrap() {
            all["spec"][key] = value.clone();
        }
        serde_json::from_value(all).unwrap()
    }

    fn of(volume: Value) -> Wanted {
        wanted(&pod(), &serde_json::from_value(volume).unwrap()).unwrap()
    }

    #[test]
    fn an_ephemeral_volumes_claim_is_named_after_pod_and_volume_and_must_be_the_pods() {
        let wanted = of(json!({"name": "v", "ephemeral": {}}));
        assert_eq!((wanted.name.as_str(), wanted.ephemeral), ("p-v", true));
        let owned_by = |uid: &str, controller: bool| {
            let owner = json!({"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": uid,
                "controller": controller});
            claim(json!({"metadata": {"ownerReferences": [owner]}}))
        };
        assert!(bound(&pod(), &wanted, &owned_by("u", true)).is_ok());
        for foreign in [owned_by("x", true), owned_by("u", false), claim(json!({}))] {
            let refused = bound(&pod(), &wanted, &foreign);
            assert!(matches!(refused, Err(ClaimReason::Foreign { .. })));
        }
    }

    #[test]
    fn a_claim_must_be_bound_and_not_on_its_way_out() {
        let wanted = of(json!({"name": "v", "persistentVolumeClaim": {"claimName": "c"}}));
        let of = |fields| bound(&pod(), &wanted, &claim(fields)).map(str::to_owned);
        assert_eq!(of(json!({})).unwrap(), "pv");
        for fields in [json!({"status": {"phase": "Pending"}}), json!({"spec": {}})] {
            assert!(of(fields).unwrap_err().may_pass());
        }
        let gone = |finalizer: &str| {
            of(json!({"metadata": {
                "deletionTimestamp": "2030-01-01T00:00:00Z", "finalizers": [finalizer]}}))
        };
        assert!(gone(PROTECTION).is_ok());
        assert!(matches!(gone("a/b"), Err(ClaimReason::Deleting { .. })));
    }

    #[test]
    fn a_volume_that_grew_is_noticed_by_what_its_claim_was_told() {
        let wanted = of(json!({"name": "v", "persistentVolumeClaim": {"claimName": "c"}}));
        let status = json!({"phase": "Bound", "capacity": {"storage": "1Gi"}});
        let get = |size: &str| {
            let volume = volume(json!({ "capacity": { "storage": size } }));
            let claim = claim(json!({ "status": status }));
            persistent(&wanted, &claim, &volume, &BTreeMap::new())
                .unwrap()
                .growth
        };
        assert_eq!(get("1024Mi"), None);
        assert_eq!(get("2Gi").unwrap().bytes, 2 << 30);
    }

    #[test]
    fn a_volume_must_be_held_by_the_claim_and_be_meant_for_the_node() {
        let wanted = of(json!({"name": "v", "persistentVolumeClaim": {
            "claimName": "c", "readOnly": true}}));
        let labels = BTreeMap::from([("zone".to_owned(), "a".to_owned())]);
        let get = |spec| persistent(&wanted, &claim(json!({})), &volume(spec), &labels);
        let found = get(json!({"volumeMode": "Block"})).unwrap();
        assert!(found.read_only && found.block);
        let held = get(json!({"claimRef": {"uid": "other"}}));
        assert!(matches!(held, Err(ClaimReason::NotHolder { .. })));
        let zone = |zone: &str| {
            get(json!({"nodeAffinity": {"required": {"nodeSelectorTerms": [
                {"matchExpressions": [{"key": "zone", "operator": "In", "values": [zone]}]}]}}}))
        };
        assert!(zone("a").is_ok());
        assert!(matches!(zone("b"), Err(ClaimReason::Elsewhere { .. })));
        let exotic =
            get(json!({"local": null, "iscsi": {"targetPortal": "", "iqn": "", "lun": 0}}));
        assert!(matches!(exotic, Err(ClaimReason::Unsupported { .. })));
    }
}
