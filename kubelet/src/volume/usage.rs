//! How full volumes are, for `/stats/summary`.

use super::cleanup::LOCAL;
pub use super::csi::Usage;
use super::persistent::{Persistent, Source};
use super::volumes::Volumes;
use crate::node::disk;
use k8s_openapi::api::core::v1::Pod;
use std::sync::Arc;
use std::time::Duration;

/// Ours: a driver that takes longer is left out.
const PATIENCE: Duration = Duration::from_secs(2);

/// Of one volume of a pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VolumeUsage {
    /// Its name in the pod.
    pub name: String,
    /// Namespace and name of its claim.
    pub claim: Option<(String, String)>,
    /// The figures.
    pub usage: Usage,
}

impl Volumes {
    /// Figures of those volumes of a pod that are not its own, where they can be had.
    pub async fn usage(&self, pod_uid: &str) -> Vec<VolumeUsage> {
        let Some((pod, found)) = self.found(pod_uid) else {
            return Vec::new();
        };
        let mut all = Vec::new();
        for (name, persistent) in found {
            let claim = persistent.claim.clone();
            let usage = self.usage_of(&pod, &name, persistent);
            if let Ok(Some(usage)) = tokio::time::timeout(PATIENCE, usage).await {
                all.push(VolumeUsage { name, claim, usage });
            }
        }
        all
    }

    async fn usage_of(&self, pod: &Arc<Pod>, name: &str, found: Persistent) -> Option<Usage> {
        match &found.source {
            Source::Csi(_) | Source::Inline(_) => {
                let csi = self.config.csi.as_ref()?;
                csi.usage(&self.job(pod, name, found)).await
            }
            Source::Local(_) if !found.block => {
                let target = self.volumes_dir(pod).join(LOCAL).join(&found.name);
                let seen = disk::of(&target)?;
                Some(Usage {
                    available: Some(seen.available),
                    capacity: Some(seen.capacity),
                    used: Some(seen.used),
                    inodes_free: Some(seen.inodes_free),
                    inodes: Some(seen.inodes),
                    inodes_used: Some(seen.inodes.saturating_sub(seen.inodes_free)),
                })
            }
            // Of a server that is away nothing may be asked: it would hang.
            Source::Local(_) | Source::HostPath(_) | Source::Nfs(_) => None,
        }
    }
}
