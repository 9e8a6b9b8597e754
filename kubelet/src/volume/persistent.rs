//! Volumes that are not the pod's own: of a PersistentVolume, or of a source that
//! lies elsewhere.

use super::claim;
use super::csi::Job;
use super::error::{ClaimReason, VolumeReason};
use super::kind::Kind;
use super::nfs::Export;
use super::volumes::{Driving, Mounted, Volumes};
use super::{PodVolumes, VolumeError, plugin, volumes};
use crate::metrics::storage::{MAP_VOLUME, VOLUME_MOUNT};
use crate::objects::ObjectError;
use crate::panics;
use futures::future::try_join_all;
use k8s_openapi::api::core::v1::{
    CSIPersistentVolumeSource, CSIVolumeSource, Container, HostPathVolumeSource, LocalVolumeSource,
    NFSVolumeSource, PersistentVolumeClaimCondition, Pod, Volume,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use std::collections::BTreeMap;
use std::sync::Arc;
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
    pub growth: Option<Growth>,
}

/// A volume that is larger than its claim was told.
#[derive(Debug, Clone, PartialEq)]
pub struct Growth {
    pub to: Quantity,
    pub bytes: i64,
    /// Of the claim, as they are.
    pub conditions: Vec<PersistentVolumeClaimCondition>,
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
    /// claims that others are about to make or bind, for drivers, and for what is attached.
    pub(super) async fn find(&self, pod: &Arc<Pod>) -> Result<Found, VolumeError> {
        let foreign = volumes::of(pod).filter(|v| Kind::of(v).is_foreign());
        let found = foreign.map(|volume| async move {
            let found = self.patiently(pod, volume).await;
            let found = found.map_err(volumes::of_volume(&volume.name))?;
            Ok((volume.name.clone(), found))
        });
        Ok(try_join_all(found).await?.into_iter().collect())
    }

    async fn patiently(&self, pod: &Arc<Pod>, volume: &Volume) -> Result<Persistent, VolumeReason> {
        let (start, mut pause) = (Instant::now(), LOOK_AGAIN.0);
        let mut spoken = false;
        loop {
            let waits = match self.ready(pod, volume).await {
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

    async fn ready(&self, pod: &Arc<Pod>, volume: &Volume) -> Result<Persistent, VolumeReason> {
        let found = self.look(pod, volume).await?;
        let found = fits(pod, volume, found)?;
        if let Some(csi) = &self.config.csi {
            csi.check_ready(&self.job(pod, &volume.name, found.clone()))
                .await?;
        }
        Ok(found)
    }

    /// What is behind a volume just now.
    pub(super) async fn look(
        &self,
        pod: &Pod,
        volume: &Volume,
    ) -> Result<Persistent, VolumeReason> {
        let Some(wanted) = claim::wanted(pod, volume) else {
            return own(volume);
        };
        let objects = &self.objects;
        let claim = objects.claim(&wanted.namespace, &wanted.name).await?;
        let name = claim::bound(pod, &wanted, &claim)?;
        let volume = objects.persistent_volume(name).await?;
        let labels = self.config.node_labels.labels();
        Ok(claim::persistent(&wanted, &claim, &volume, &labels)?)
    }

    pub(super) fn job(&self, pod: &Arc<Pod>, name: &str, found: Persistent) -> Job {
        let volumes_dir = self.volumes_dir(pod);
        Job {
            ownership: self.place(pod, &volumes_dir).ownership(found.read_only),
            pod: pod.clone(),
            name: name.to_owned(),
            found,
            objects: self.objects.clone(),
        }
    }

    /// Has drivers and servers give what they have; goes on when its caller has gone.
    pub(super) async fn publish(
        &self,
        mut driving: Driving,
        pod: &Arc<Pod>,
        found: &Found,
    ) -> Result<PodVolumes, VolumeError> {
        let is_given = |p: &Persistent| {
            matches!(
                p.source,
                Source::Csi(_) | Source::Inline(_) | Source::Nfs(_)
            )
        };
        let jobs = found.iter().filter(|(_, p)| is_given(p));
        let jobs: Vec<_> = jobs
            .map(|(name, p)| (name.clone(), self.job(pod, name, p.clone())))
            .collect();
        let mut published = PodVolumes::new();
        if jobs.is_empty() {
            return Ok(published);
        }
        let (csi, volumes_dir) = (self.config.csi.clone(), self.volumes_dir(pod));
        let operations = self.config.operations.clone();
        let all = tokio::spawn(panics::spare(async move {
            for (name, job) in jobs {
                let start = std::time::Instant::now();
                let prepared = match (Export::of(&job.found, &volumes_dir), &csi) {
                    (Some(export), _) => export.mount(&mut driving.leaving).await,
                    (None, Some(csi)) => csi.set_up(&job).await,
                    (None, None) => Err(VolumeReason::Unsupported { kind: "csi" }),
                };
                let operation = match job.found.block {
                    true => MAP_VOLUME,
                    false => VOLUME_MOUNT,
                };
                let plugin = plugin::of_persistent(&job.found);
                let prepared = operations.ended(&plugin, operation, start, prepared);
                published.insert(name.clone(), prepared.map_err(volumes::of_volume(&name))?);
            }
            Ok(published)
        }));
        match all.await {
            Ok(Ok(result)) => result,
            // That of who waits, as if it had been done here.
            Ok(Err(panic)) => std::panic::resume_unwind(Box::new(panic)),
            Err(panicked) => std::panic::resume_unwind(panicked.into_panic()),
        }
    }

    /// Lets drivers see to the volumes of a pod that runs: they may have grown.
    pub(super) async fn keep(&self, mounted: &Mounted) {
        let Some(csi) = self.config.csi.as_ref().filter(|c| !c.is_idle()) else {
            return;
        };
        let (pod, found) = mounted.found();
        for volume in volumes::of(&pod).filter(|v| found.contains_key(&v.name)) {
            let kept = async {
                let now = self.look(&pod, volume).await?;
                csi.keep(&self.job(&pod, &volume.name, now)).await
            };
            if let Err(reason) = kept.await {
                self.warn(&pod, &volumes::of_volume(&volume.name)(reason));
            }
        }
    }
}

fn may_pass(reason: &VolumeReason) -> bool {
    match reason {
        VolumeReason::Object(ObjectError::NotFound { .. })
        | VolumeReason::NoDriver { .. }
        | VolumeReason::NotAttached { .. } => true,
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
        growth: None,
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
