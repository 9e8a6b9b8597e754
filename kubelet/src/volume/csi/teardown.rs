//! A pod's volumes of drivers given back: unpublished, and unstaged when no other pod has them.
//! All that is needed is on disk.

use super::driver::Driver;
use super::paths::{Place, RECORD};
use super::record::{self, EPHEMERAL, Record};
use super::setup::text;
use super::{Csi, attachments};
use crate::metrics::StorageOperations;
use crate::metrics::storage::{UNMAP_VOLUME, VOLUME_UNMOUNT};
use crate::proto::csi as api;
use crate::volume::disk::{failed, mountpoint};
use crate::volume::error::VolumeReason;
use crate::volume::plugin;
use std::fs;
use std::io::{self, ErrorKind};
use std::path::Path;
use std::time::Instant;

impl Csi {
    /// Gives back all that a pod has. Succeeds on what is not there.
    pub(in crate::volume) async fn tear_down(
        &self,
        pod_uid: &str,
        operations: &StorageOperations,
    ) -> Result<(), VolumeReason> {
        let dir = self.paths.volumes(pod_uid);
        for name in record::names(&dir) {
            let path = dir.join(&name).join(RECORD);
            if let Some(record) = readable(&path) {
                let (driver, handle) = (&record.driver_name, &record.volume_handle);
                let place = self.paths.mount(pod_uid, &name, driver, handle);
                let start = Instant::now();
                let given_back = self.give_back(pod_uid, &place, &record).await;
                let plugin = plugin::of_driver(driver);
                operations.ended(&plugin, VOLUME_UNMOUNT, start, given_back)?;
            }
        }
        for name in record::names(&self.paths.devices(pod_uid)) {
            let place = self.paths.device(pod_uid, &name);
            if let Some(record) = readable(&place.record) {
                let start = Instant::now();
                let given_back = self.give_back(pod_uid, &place, &record).await;
                let plugin = plugin::of_driver(&record.driver_name);
                operations.ended(&plugin, UNMAP_VOLUME, start, given_back)?;
            }
        }
        self.attachments.release(None, pod_uid);
        Ok(())
    }

    async fn give_back(
        &self,
        pod_uid: &str,
        place: &Place,
        record: &Record,
    ) -> Result<(), VolumeReason> {
        let (name, handle) = (&record.driver_name, &record.volume_handle);
        let _one = self.lock(name, handle).await;
        let driver = self.drivers.wait(name).await;
        let driver = driver.ok_or_else(|| VolumeReason::NoDriver {
            driver: name.clone(),
        })?;
        let unpublish = api::NodeUnpublishVolumeRequest {
            volume_id: handle.clone(),
            target_path: text(&place.target),
        };
        self.done().remove(&text(&place.target));
        if let Some(bound) = place.bound() {
            mountpoint::unmount_all(&bound)?;
            remove_target(&bound)?;
        }
        driver.unpublish(unpublish).await?;
        remove_target(&place.target)?;
        if !self.has_other_users(pod_uid, place, record) {
            if record.volume_lifecycle_mode != EPHEMERAL {
                self.unstage(&driver, place, record).await?;
            }
            if place.link.is_some() {
                remove_record(&place.record)?;
                // Empty now; what others put there keeps it.
                let bound = place.bound();
                let bound = bound.as_deref().and_then(Path::parent);
                let published = place.target.parent();
                let own = place.record.parent().and_then(Path::parent);
                for dir in [bound, published, own].into_iter().flatten() {
                    let _ = fs::remove_dir(dir);
                }
            }
        }
        match &place.link {
            Some(link) => gone(fs::remove_file(link), "remove", link)?,
            None => remove_record(&place.record)?,
        }
        let attached = attachments::name(name, handle);
        self.attachments.release(Some(&attached), pod_uid);
        Ok(())
    }

    pub(super) fn has_other_users(&self, pod_uid: &str, place: &Place, record: &Record) -> bool {
        let users = match (&place.link, place.target.parent()) {
            (Some(_), Some(published)) => record::names(published),
            _ => record::users(&self.paths, &record.driver_name, &record.volume_handle),
        };
        users.iter().any(|user| user != pod_uid)
    }

    async fn unstage(
        &self,
        driver: &Driver,
        place: &Place,
        record: &Record,
    ) -> Result<(), VolumeReason> {
        let staging = &place.staging;
        let staged = attachments::name(&record.driver_name, &record.volume_handle);
        if staging.symlink_metadata().is_err() {
            self.done().remove(&staged);
            return Ok(());
        }
        let request = api::NodeUnstageVolumeRequest {
            volume_id: record.volume_handle.clone(),
            staging_target_path: text(staging),
        };
        driver.unstage(request).await?;
        self.done().remove(&staged);
        remove_target(staging)?;
        match (&place.link, staging.parent()) {
            (None, Some(dir)) => remove_record(&dir.join(RECORD)),
            _ => Ok(()),
        }
    }
}

/// One that can't be read costs its own pod: what is mounted is then unmounted without its driver.
fn readable(path: &Path) -> Option<Record> {
    record::read(path).unwrap_or_else(|error| {
        tracing::warn!(%error, "a volume is taken down without its driver");
        None
    })
}

/// What a driver may have left of its target: an empty folder or file, never what is in it.
fn remove_target(target: &Path) -> Result<(), VolumeReason> {
    if mountpoint::is_mounted(target)? {
        let still = io::Error::other("its driver left it mounted");
        return Err(failed("remove", target)(still));
    }
    match fs::symlink_metadata(target) {
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(()),
        Ok(seen) if seen.is_dir() => gone(fs::remove_dir(target), "rmdir", target),
        _ => gone(fs::remove_file(target), "remove", target),
    }
}

fn remove_record(path: &Path) -> Result<(), VolumeReason> {
    gone(fs::remove_file(path), "remove", path)?;
    // Others may keep something beside it.
    if let Some(dir) = path.parent() {
        let _ = fs::remove_dir(dir);
    }
    Ok(())
}

fn gone(done: io::Result<()>, call: &'static str, path: &Path) -> Result<(), VolumeReason> {
    match done {
        Err(e) if e.kind() != ErrorKind::NotFound => Err(failed(call, path)(e)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::volume::disk::scratch::Scratch;

    #[test]
    fn a_target_with_something_in_it_stays() {
        let dir = Scratch::new();
        let target = dir.0.join("mount");
        remove_target(&target).unwrap();
        fs::create_dir(&target).unwrap();
        fs::write(target.join("precious"), "x").unwrap();
        assert!(remove_target(&target).is_err());
        assert!(target.join("precious").exists());
    }
}
