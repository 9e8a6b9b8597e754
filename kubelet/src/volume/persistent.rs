//! Volumes that are not the pod's own: of a PersistentVolume, or of a source that
//! lies elsewhere.

use super::claim::{self, Wanted};
use super::error::{ClaimReason, VolumeReason};
use super::kind::Kind;
use super::volumes::Volumes;
use super::{VolumeError, volumes};
use crate::objects::ObjectError;
use k8s_openapi::api::core::v1::{
    CSIPersistentVolumeSource, CSIVolumeSource, Container, HostPathVolumeSource, LocalVolumeSource,
    NFSVolumeSource, Pod, Volume,
};
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::time::Instant;

/// kubernetes v1.37 pkg/kubelet/volumemanager/volume_manager.go `podAttachAndMountTimeout`.
const PATIENCE: Duration = Duration::from_secs(123);
/// Ours: what is waited for longer is spoken of.
const SPEAK_AFTER: Duration = Duration::from_secs(1);
/// volume_manager.go `podAttachAndMountRetryInterval`, and what it grows to.
const LOOK_AGAIN: (Duration, Duration) = (Duration::from_millis(300), Duration::from_secs(2));

/// What a pod is to be given.
#[derive(Debug, Clone, PartialEq)]
pub struct Persistent {
    /// Of the PersistentVolume; without one, of the volume.
    pub name: String,
    pub source: Source,
    /// Claim or source say so.
    pub read_only: bool,
    /// `volumeMode: Block`: containers get the device.
    pub block: bool,
    pub mount_options: Vec<String>,
    pub access_modes: Vec<String>,
    /// Namespace and name.
    pub claim: Option<(String, String)>,
}

/// Where it comes from.
#[derive(Debug, Clone, PartialEq)]
pub enum Source {
    HostPath(HostPathVolumeSource),
    Local(LocalVolumeSource),
    Nfs(NFSVolumeSource),
    Csi(Box<CSIPersistentVolumeSource>),
    /// Made for the pod and gone with it.
    Inline(Box<CSIVolumeSource>),
}

/// Volume of the pod to what it stands for.
pub type Found = BTreeMap<String, Persistent>;

impl Volumes {
    /// Finds what stands behind the pod's claims and foreign sources; waits for
    /// claims that others are about to make or bind.
    pub(super) async fn find(&self, pod: &Pod) -> Result<Found, VolumeError> {
        let mut found = Found::new();
        for volume in volumes::of(pod).iter().filter(|v| Kind::of(v).is_foreign()) {
            let of_volume = volumes::of_volume(&volume.name);
            let persistent = match claim::wanted(pod, volume) {
                Some(wanted) => self.claimed(pod, volume, &wanted).await,
                None => own(volume),
            };
            let persistent = persistent.and_then(|p| fits(pod, volume, p));
            found.insert(volume.name.clone(), persistent.map_err(of_volume)?);
        }
        Ok(found)
    }

    async fn claimed(
        &self,
        pod: &Pod,
        volume: &Volume,
        wanted: &Wanted,
    ) -> Result<Persistent, VolumeReason> {
        let (start, mut pause) = (Instant::now(), LOOK_AGAIN.0);
        let mut spoken = false;
        loop {
            let waits = match self.look(pod, wanted).await {
                Err(reason) if may_pass(&reason) && start.elapsed() < PATIENCE => reason,
                other => return other,
            };
            if !spoken && start.elapsed() >= SPEAK_AFTER {
                spoken = true;
                self.warn(pod, &volumes::of_volume(&volume.name)(waits));
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LOOK_AGAIN.1);
        }
    }

    async fn look(&self, pod: &Pod, wanted: &Wanted) -> Result<Persistent, VolumeReason> {
        let objects = &self.objects;
        let claim = objects.claim(&wanted.namespace, &wanted.name).await?;
        let name = claim::bound(pod, wanted, &claim)?;
        let volume = objects.persistent_volume(name).await?;
        let labels = self.config.node_labels.labels();
        Ok(claim::persistent(wanted, &claim, &volume, &labels)?)
    }
}

fn may_pass(reason: &VolumeReason) -> bool {
    match reason {
        VolumeReason::Object(ObjectError::NotFound { .. }) => true,
        VolumeReason::Claim(reason) => reason.may_pass(),
        _ => false,
    }
}

/// A source that the pod itself names.
fn own(volume: &Volume) -> Result<Persistent, VolumeReason> {
    let (source, read_only) = match Kind::of(volume) {
        Kind::Nfs(source) => (Source::Nfs(source.clone()), source.read_only),
        Kind::Csi(source) => (Source::Inline(Box::new(source.clone())), source.read_only),
        _ => return Err(VolumeReason::Unsupported { kind: "unknown" }),
    };
    Ok(Persistent {
        name: volume.name.clone(),
        source,
        read_only: read_only.unwrap_or(false),
        block: false,
        mount_options: Vec::new(),
        access_modes: Vec::new(),
        claim: None,
    })
}

/// A device can't be mounted, and a folder is no device.
fn fits(pod: &Pod, volume: &Volume, found: Persistent) -> Result<Persistent, VolumeReason> {
    let named = |c: &Container| match found.block {
        true => c
            .volume_mounts
            .iter()
            .flatten()
            .any(|m| m.name == volume.name),
        false => c
            .volume_devices
            .iter()
            .flatten()
            .any(|d| d.name == volume.name),
    };
    let spec = pod.spec.as_ref();
    let init = spec.and_then(|s| s.init_containers.as_ref());
    let mut all = spec
        .map(|s| &s.containers)
        .into_iter()
        .chain(init)
        .flatten();
    if all.any(named) {
        let block = found.block;
        return Err(ClaimReason::Mode { block }.into());
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_device_is_not_mounted_and_a_folder_no_device() {
        let pod = |fields: serde_json::Value| -> Pod {
            let mut container = json!({"name": "c"});
            for (key, value) in fields.as_object().unwrap() {
                container[key] = value.clone();
            }
            serde_json::from_value(json!({"spec": {"containers": [container]}})).unwrap()
        };
        let mounts = pod(json!({"volumeMounts": [{"name": "v", "mountPath": "/v"}]}));
        let devices = pod(json!({"volumeDevices": [{"name": "v", "devicePath": "/v"}]}));
        let volume: Volume = serde_json::from_value(
            json!({"name": "v", "nfs": {"server": "s", "path": "/", "readOnly": true}}),
        )
        .unwrap();
        let folder = own(&volume).unwrap();
        assert!(folder.read_only);
        let device = Persistent {
            block: true,
            ..folder.clone()
        };
        assert!(fits(&mounts, &volume, folder.clone()).is_ok());
        assert!(fits(&devices, &volume, device.clone()).is_ok());
        assert!(fits(&devices, &volume, folder).is_err());
        assert!(fits(&mounts, &volume, device).is_err());
    }
}
