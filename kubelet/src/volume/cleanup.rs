//! What is left of pods that have ended, removed; never anything below a mount.

use super::disk::{mountpoint, tree};
use super::error::VolumeReason;
use super::nfs;
use super::plugin;
use super::volumes::Volumes;
use crate::metrics::StorageOperations;
use crate::metrics::storage::VOLUME_UNMOUNT;
use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

/// Ours: how often an orphan's driver or server is looked for at least.
const RETIRE_MAX: Duration = Duration::from_secs(60);

impl Volumes {
    /// Removes the folders of pods that are not `known`; for the start, once
    /// every source has synced. Answers with the UIDs it removed; what drivers have to give back
    /// may take longer, and is done in the background.
    pub async fn orphans(self: &Arc<Self>, known: &BTreeSet<String>) -> Vec<String> {
        let mut removed = Vec::new();
        let Ok(entries) = std::fs::read_dir(self.config.kubelet_root.join("pods")) else {
            return removed;
        };
        for entry in entries.flatten() {
            let Ok(uid) = entry.file_name().into_string() else {
                continue;
            };
            if known.contains(&uid) || self.pods().contains_key(&uid) {
                continue;
            }
            if self
                .config
                .csi
                .as_ref()
                .is_some_and(|c| c.has_some_of(&uid))
                || nfs::has_some(&self.pod_dir(&uid))
            {
                tokio::spawn(retire(Arc::downgrade(self), uid));
                continue;
            }
            match self.unmount(&uid).await {
                Ok(()) => removed.push(uid),
                Err(error) => tracing::warn!(pod_uid = uid, %error, "orphaned volumes stay"),
            }
        }
        removed
    }
}

/// Gives an orphan's volumes back, as soon as their drivers are there.
async fn retire(volumes: Weak<Volumes>, uid: String) {
    let mut pause = Duration::from_secs(1);
    while let Some(volumes) = volumes.upgrade() {
        match volumes.unmount(&uid).await {
            Ok(()) => {
                tracing::info!(pod = uid, "removed the folder of a pod that is no more");
                return;
            }
            Err(error) => tracing::warn!(pod = uid, %error, "orphaned volumes stay for now"),
        }
        drop(volumes);
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(RETIRE_MAX);
    }
}

/// Volumes of these are unmounted by who mounted them.
const GIVEN_BACK: [&str; 2] = [nfs::DIR, "kubernetes.io~csi"];

/// Below `pods/<uid>/volumes`.
pub const LOCAL: &str = "kubernetes.io~local-volume";

/// Where the file system of a local volume that is a device is mounted for all pods:
/// kubernetes v1.37 pkg/volume/local/local.go `generateBlockDeviceBaseGlobalPath`.
pub fn shared(volumes_dir: &Path, name: &str) -> PathBuf {
    let root = volumes_dir.ancestors().nth(3).unwrap_or(volumes_dir);
    root.join("plugins/kubernetes.io/local-volume/mounts")
        .join(name)
}

/// Unmounts file systems of devices that a pod had and no other has.
fn unshare(volumes_dir: &Path, names: Vec<OsString>) -> Result<(), VolumeReason> {
    let pods = volumes_dir.ancestors().nth(2).unwrap_or(volumes_dir);
    for name in names {
        let of_pod = Path::new("volumes").join(LOCAL).join(&name);
        let mut pods = entries(pods).into_iter().map(|uid| pods.join(uid));
        let dir = shared(volumes_dir, "").join(&name);
        if !pods.any(|pod| pod.join(&of_pod).exists()) && mountpoint::is_mounted(&dir)? {
            mountpoint::unmount_all(&dir)?;
            let _ = std::fs::remove_dir(&dir);
        }
    }
    Ok(())
}

pub fn entries(dir: &Path) -> Vec<OsString> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    entries.map(|e| e.file_name()).collect()
}

/// Unmounts what we mounted, innermost first, then removes the folder; looks for
/// mounts of others only when that fails.
pub fn clear(pod_dir: &Path, operations: &StorageOperations) -> Result<(), VolumeReason> {
    let usual = || {
        subpaths(pod_dir)?;
        volumes(&pod_dir.join("volumes"), operations)?;
        tree::remove(pod_dir)
    };
    let volumes_dir = pod_dir.join("volumes");
    let local = entries(&volumes_dir.join(LOCAL));
    usual().or_else(|_| {
        mountpoint::unmount_below(pod_dir)?;
        tree::remove(pod_dir)
    })?;
    unshare(&volumes_dir, local)
}

/// Unmounts and removes volumes/<plugin>/<name>, one after the other.
fn volumes(dir: &Path, operations: &StorageOperations) -> Result<(), VolumeReason> {
    for kind in entries(dir) {
        // Given back before: what is left of them is no volume.
        let is_over = GIVEN_BACK.iter().any(|k| kind == *k);
        for name in entries(&dir.join(&kind)) {
            let volume = dir.join(&kind).join(name);
            let start = Instant::now();
            let removed = mountpoint::unmount_all(&volume).and_then(|()| tree::remove(&volume));
            match is_over {
                true => removed?,
                false => {
                    let plugin = plugin::of_folder(&volume);
                    operations.ended(&plugin, VOLUME_UNMOUNT, start, removed)?;
                }
            }
        }
    }
    Ok(())
}

/// Unmounts volume-subpaths/<volume>/<container>/<index>, which lie on volumes.
pub fn subpaths(pod_dir: &Path) -> Result<(), VolumeReason> {
    unmount_level(&pod_dir.join("volume-subpaths"), 3)
}

fn unmount_level(dir: &Path, depth: u32) -> Result<(), VolumeReason> {
    if depth == 0 {
        return mountpoint::unmount_all(dir);
    }
    let Ok(entries) = std::fs::read_dir(dir) else {
        return Ok(());
    };
    for entry in entries.flatten() {
        unmount_level(&entry.path(), depth - 1)?;
    }
    Ok(())
}
