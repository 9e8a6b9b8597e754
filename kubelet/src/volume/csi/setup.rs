//! A volume staged and published.
//! Rules: kubernetes v1.37 pkg/volume/csi/{csi_attacher,csi_mounter,csi_block}.go.

use super::driver::{Capabilities, Driver};
use super::paths::{self, Place};
use super::record::{self, Record};
use super::request::{Volume, map};
use super::{Csi, attachments, selinux};
use crate::objects::{Objects, TokenSpec};
use crate::panics;
use crate::proto::csi as api;
use crate::proto::csi::node_service_capability::rpc::Type as Capability;
use crate::volume::Prepared;
use crate::volume::disk::ownership::Ownership;
use crate::volume::disk::{failed, make_dirs, mountpoint};
use crate::volume::error::VolumeReason;
use crate::volume::persistent::Persistent;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::storage::v1::CSIDriver;
use serde_json::json;
use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

/// csi_plugin.go `CsiServiceAccountTokens`.
const TOKENS: &str = "csi.storage.k8s.io/serviceAccount.tokens";
/// kubernetes v1.37 pkg/apis/authentication/v1/defaults.go: an hour.
const TOKEN_SECONDS: i64 = 3600;

/// A volume that a pod is to be given.
#[derive(Clone)]
pub(in crate::volume) struct Job {
    pub pod: Arc<Pod>,
    /// Of the volume in the pod.
    pub name: String,
    pub found: Persistent,
    pub ownership: Option<Ownership>,
    /// For Secrets and tokens.
    pub objects: Arc<dyn Objects>,
}

impl Job {
    pub(super) fn uid(&self) -> &str {
        self.pod.metadata.uid.as_deref().unwrap_or_default()
    }

    fn runs(&self) -> bool {
        let phase = self.pod.status.as_ref().and_then(|s| s.phase.as_deref());
        phase == Some("Running")
    }

    /// `None` if it is of no driver.
    pub(super) fn volume(&self) -> Option<Volume> {
        Volume::of(&self.pod, &self.found)
    }
}

/// Everything that calls about one volume need.
pub(super) struct Call<'a> {
    pub job: &'a Job,
    pub volume: Volume,
    pub place: Place,
    pub driver: Driver,
    pub can: Capabilities,
    pub about: Option<Arc<CSIDriver>>,
    publish_context: HashMap<String, String>,
    /// SELinux: what the volume is mounted with.
    label: Option<String>,
}

impl Csi {
    /// Fails as long as the driver is not there, or the volume not attached.
    pub(in crate::volume) async fn check_ready(&self, job: &Job) -> Result<(), VolumeReason> {
        let Some(volume) = job.volume() else {
            return Ok(());
        };
        let place = self.place(job.uid(), &volume);
        if job.runs() && is_published(&place)? {
            return Ok(());
        }
        let name = &volume.driver;
        let no_driver = || VolumeReason::NoDriver {
            driver: name.clone(),
        };
        self.drivers.get(name).ok_or_else(no_driver)?;
        let about = self.api.driver(name).await?;
        if !volume.is_allowed(about.as_deref()) {
            return Err(VolumeReason::Lifecycle {
                driver: name.clone(),
                mode: volume.lifecycle(),
            });
        }
        let attached = attachments::name(name, &volume.handle);
        if !volume.is_attached(about.as_deref()) {
            self.attachments.release(Some(&attached), job.uid());
            return Ok(());
        }
        self.attachments.need(&attached, job.uid());
        match self.attachments.is_ready(&attached) {
            true => Ok(()),
            false => Err(VolumeReason::NotAttached {
                volume: volume.name.clone(),
            }),
        }
    }

    /// Stages and publishes it, unless the pod runs and has it.
    pub(in crate::volume) async fn set_up(&self, job: &Job) -> Result<Prepared, VolumeReason> {
        let Some(volume) = job.volume() else {
            return Err(VolumeReason::Unsupported { kind: "csi" });
        };
        let _one = self.lock(&volume.driver, &volume.handle).await;
        let place = self.place(job.uid(), &volume);
        let target = text(&place.target);
        if (job.runs() || self.done().contains(&target)) && is_published(&place)? {
            return self.prepared(&volume, &place);
        }
        let call = self.call(job, volume, place).await?;
        self.check_label(&call)?;
        call.write_records(&self.api.node)?;
        let staged = attachments::name(&call.volume.driver, &call.volume.handle);
        if call.can.has(Capability::StageUnstageVolume) && !call.volume.ephemeral {
            if !self.done().contains(&staged) {
                call.stage().await?;
            }
            self.done().insert(staged);
        }
        call.publish().await?;
        call.own().await?;
        self.grow(&call).await?;
        self.done().insert(target);
        self.prepared(&call.volume, &call.place)
    }

    /// What is staged for another pod has that one's label.
    fn check_label(&self, call: &Call<'_>) -> Result<(), VolumeReason> {
        let (volume, place) = (&call.volume, &call.place);
        let staged = place
            .staging
            .parent()
            .filter(|_| call.stages() && !volume.block);
        let Some(staged) = staged.map(|dir| dir.join(paths::RECORD)) else {
            return Ok(());
        };
        let wanted = call.label.clone().unwrap_or_default();
        match record::read(&staged)? {
            Some(record)
                if record.se_linux_mount_context != wanted
                    && self.has_other_users(call.job.uid(), place, &record) =>
            {
                Err(VolumeReason::SelinuxConflict {
                    volume: volume.name.clone(),
                    mounted: record.se_linux_mount_context,
                    wanted,
                })
            }
            _ => Ok(()),
        }
    }

    /// Files with labels of their own are given the pod's, unless it was mounted with that.
    fn prepared(&self, volume: &Volume, place: &Place) -> Result<Prepared, VolumeReason> {
        let (path, read_only) = (place.target.clone(), volume.read_only);
        if volume.block {
            return Ok(Prepared::Device { path, read_only });
        }
        let mut owned = false;
        if self.selinux.is_some() && !read_only {
            let record = record::read(&place.record)?.unwrap_or_default();
            owned = record.se_linux_mount_context.is_empty() && mountpoint::has_labels(&path)?;
        }
        Ok(Prepared::Path {
            path,
            owned,
            read_only,
        })
    }

    /// Once in a while, for a pod that runs.
    pub(in crate::volume) async fn keep(&self, job: &Job) -> Result<(), VolumeReason> {
        let Some(volume) = job.volume() else {
            return Ok(());
        };
        let about = self.api.driver(&volume.driver).await?;
        let again = about.and_then(|d| d.spec.requires_republish) == Some(true);
        let _one = self.lock(&volume.driver, &volume.handle).await;
        let place = self.place(job.uid(), &volume);
        // The pod may have ended meanwhile.
        if !is_published(&place)? || !(again || job.found.growth.is_some()) {
            return Ok(());
        }
        let call = self.call(job, volume, place).await?;
        if again {
            call.publish().await?;
        }
        self.grow(&call).await
    }

    pub(super) fn place(&self, uid: &str, volume: &Volume) -> Place {
        let (name, driver) = (&volume.name, &volume.driver);
        match volume.block {
            true => self.paths.device(uid, name),
            false => self.paths.mount(uid, name, driver, &volume.handle),
        }
    }

    async fn call<'a>(
        &self,
        job: &'a Job,
        volume: Volume,
        place: Place,
    ) -> Result<Call<'a>, VolumeReason> {
        let name = &volume.driver;
        let driver = self
            .drivers
            .get(name)
            .ok_or_else(|| VolumeReason::NoDriver {
                driver: name.clone(),
            })?;
        let about = self.api.driver(name).await?;
        let publish_context = match volume.is_attached(about.as_deref()) {
            true => {
                let attachment = paths::attachment(&volume.handle, name, &self.api.node);
                let found = self.api.attachment(&attachment).await?;
                map(found.ok_or_else(|| VolumeReason::NotAttached {
                    volume: volume.name.clone(),
                })?)
            }
            false => HashMap::new(),
        };
        let can = driver.capabilities().await?;
        let mut volume = volume;
        let label = match &self.selinux {
            Some(policy) => policy.label(&job.pod, &job.name, (&volume, about.as_deref()))?,
            None => None,
        };
        volume
            .mount_flags
            .extend(label.as_deref().map(selinux::mount_flag));
        Ok(Call {
            job,
            label,
            volume,
            place,
            driver,
            can,
            about,
            publish_context,
        })
    }
}

impl Call<'_> {
    /// Before a driver does anything: what was begun can then be undone.
    fn write_records(&self, node: &str) -> Result<(), VolumeReason> {
        let volume = &self.volume;
        let of_staging = Record {
            volume_handle: volume.handle.clone(),
            driver_name: volume.driver.clone(),
            se_linux_mount_context: self.label.clone().unwrap_or_default(),
            ..Record::default()
        };
        let own = Record {
            spec_vol_id: volume.name.clone(),
            node_name: node.to_owned(),
            attachment_id: paths::attachment(&volume.handle, &volume.driver, node),
            // Of a device the stock kubelet does not say so.
            volume_lifecycle_mode: match volume.block {
                true => String::new(),
                false => volume.lifecycle().to_owned(),
            },
            ..of_staging.clone()
        };
        own.write(&self.place.record)?;
        if let Some(link) = &self.place.link {
            // The folder's mere name tells that the pod has it.
            let publish = self.place.target.parent().unwrap_or(link);
            make_dirs(publish).map_err(failed("mkdir", publish))?;
            self.link()?;
        }
        if !self.stages() {
            return Ok(());
        }
        let staging = &self.place.staging;
        make_dirs(staging).map_err(failed("mkdir", staging))?;
        match (volume.block, staging.parent()) {
            (false, Some(dir)) => of_staging.write(&dir.join(paths::RECORD)),
            _ => Ok(()),
        }
    }

    pub fn stages(&self) -> bool {
        self.can.has(Capability::StageUnstageVolume) && !self.volume.ephemeral
    }

    fn group(&self) -> Option<u32> {
        self.job.ownership.map(|o| o.gid)
    }

    async fn stage(&self) -> Result<(), VolumeReason> {
        let request = api::NodeStageVolumeRequest {
            volume_id: self.volume.handle.clone(),
            publish_context: self.publish_context.clone(),
            staging_target_path: text(&self.place.staging),
            volume_capability: Some(self.volume.capability(&self.can, self.group())),
            secrets: self.secret(self.volume.stage_secret.as_ref()).await?,
            volume_context: self.volume.attributes.clone(),
        };
        Ok(self.driver.stage(request).await?)
    }

    async fn publish(&self) -> Result<(), VolumeReason> {
        let mut context = self.volume.context(&self.job.pod, self.about.as_deref());
        if let Some(tokens) = self.tokens().await? {
            context.insert(TOKENS.to_owned(), tokens);
        }
        let staging = self.stages().then(|| text(&self.place.staging));
        let request = api::NodePublishVolumeRequest {
            volume_id: self.volume.handle.clone(),
            publish_context: self.publish_context.clone(),
            staging_target_path: staging.unwrap_or_default(),
            target_path: text(&self.place.target),
            volume_capability: Some(self.volume.capability(&self.can, self.group())),
            readonly: self.volume.read_only,
            secrets: self.secret(self.volume.publish_secret.as_ref()).await?,
            volume_context: context,
        };
        Ok(self.driver.publish(request).await?)
    }

    /// Tokens of the pod's ServiceAccount, by audience, if the driver wants some.
    async fn tokens(&self) -> Result<Option<String>, VolumeReason> {
        let wanted = self
            .about
            .as_ref()
            .and_then(|d| d.spec.token_requests.as_ref());
        let Some(wanted) = wanted.filter(|w| !w.is_empty()) else {
            return Ok(None);
        };
        let (meta, pod_spec) = (&self.job.pod.metadata, self.job.pod.spec.as_ref());
        let mut tokens = serde_json::Map::new();
        for request in wanted {
            let spec = TokenSpec {
                namespace: meta.namespace.clone().unwrap_or_default(),
                service_account: pod_spec
                    .and_then(|s| s.service_account_name.clone())
                    .unwrap_or_else(|| "default".to_owned()),
                pod_name: meta.name.clone().unwrap_or_default(),
                pod_uid: self.job.uid().to_owned(),
                audience: Some(request.audience.clone()).filter(|a| !a.is_empty()),
                expiration_seconds: request.expiration_seconds.unwrap_or(TOKEN_SECONDS),
            };
            let token = self.job.objects.token(&spec).await?;
            let value = json!({"token": token.token, "expirationTimestamp": token.expires});
            tokens.insert(request.audience.clone(), value);
        }
        Ok(Some(serde_json::Value::Object(tokens).to_string()))
    }

    pub async fn secret(
        &self,
        secret: Option<&(String, String)>,
    ) -> Result<HashMap<String, String>, VolumeReason> {
        let Some((namespace, name)) = secret else {
            return Ok(HashMap::new());
        };
        let secret = self.job.objects.secret(namespace, name).await?;
        let entries = secret.data.iter().flatten();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Ok(entries.map(|(k, v)| (k.clone(), text(&v.0))).collect())
    }

    async fn own(&self) -> Result<(), VolumeReason> {
        let takes = self.volume.takes_group(self.about.as_deref(), &self.can);
        let Some(ownership) = self.job.ownership.filter(|_| takes) else {
            return Ok(());
        };
        let target = self.place.target.clone();
        panics::blocking(move || ownership.apply(&target)).await
    }

    /// The pod's folder names its device.
    fn link(&self) -> Result<(), VolumeReason> {
        let Some(link) = &self.place.link else {
            return Ok(());
        };
        let dir = link.parent().unwrap_or(link);
        make_dirs(dir).map_err(failed("mkdir", dir))?;
        match std::os::unix::fs::symlink(&self.place.target, link) {
            Err(e) if e.kind() != std::io::ErrorKind::AlreadyExists => Err(failed("link", link)(e)),
            _ => Ok(()),
        }
    }
}

/// What containers are given.
/// It was begun, and something is there.
fn is_published(place: &Place) -> Result<bool, VolumeReason> {
    if record::read(&place.record)?.is_none() {
        return Ok(false);
    }
    match place.link {
        Some(_) => Ok(place.target.exists()),
        None => mountpoint::is_mounted(&place.target),
    }
}

pub(super) fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}
