//! What the runtime calls: one pod in, its addresses out.

mod config;
mod error;
mod record;

pub use config::{Builtin, NetworkConfig};
pub use error::{AddError, CheckError, DelError, GcError, NotReady, OpenError, SetCidrsError};

use crate::builtin::BridgeNetwork;
use crate::{Attachment, Cidr, Netns, PodNetwork};
use record::{Record, Records};
use std::path::PathBuf;
use std::sync::Arc;

/// The pod network of one node.
#[derive(Debug)]
pub struct Network {
    config: NetworkConfig,
    records: Records,
    builtin: BridgeNetwork,
}

impl Network {
    /// Reads what earlier runs left; nothing of the host is touched before the
    /// first pod.
    pub fn open(config: NetworkConfig) -> Result<Arc<Self>, OpenError> {
        let results = config.state_dir.join("results");
        let records = Records::open(results.clone()).map_err(|source| OpenError::State {
            path: results,
            source,
        })?;
        let ipam = config.state_dir.join("ipam");
        let builtin = BridgeNetwork::open(config.builtin.clone(), ipam)?;
        let network = Self {
            config,
            records,
            builtin,
        };
        network.builtin.set_ranges(&network.kept_cidrs())?;
        Ok(Arc::new(network))
    }

    /// Ranges to give addresses from, at most one of each family. Kept over
    /// restarts. Pods that have addresses keep them.
    pub fn set_pod_cidrs(&self, cidrs: &[Cidr]) -> Result<(), SetCidrsError> {
        if cidrs == self.kept_cidrs() {
            return Ok(());
        }
        self.builtin.set_ranges(cidrs)?;
        let path = self.cidrs_path();
        let lines: String = cidrs.iter().map(|c| format!("{c}\n")).collect();
        record::write_whole(&path, lines.as_bytes())
            .map_err(|source| SetCidrsError::State { path, source })
    }

    /// Whether a pod could be wired now; if not, why and what to do.
    pub async fn status(&self) -> Result<(), NotReady> {
        if self.builtin.has_ranges() {
            return Ok(());
        }
        Err(NotReady::NotConfigured {
            conf_dir: self.config.conf_dir.clone(),
        })
    }

    /// Wires the pod. After an error nothing is left behind; a pod that has
    /// been wired before is answered with what it has.
    pub async fn add(&self, pod: &PodNetwork, netns: &dyn Netns) -> Result<Attachment, AddError> {
        if let Some(record) = self.records.get(&pod.sandbox_id) {
            return Ok(record.attachment);
        }
        self.status().await?;
        let attachment = self.builtin.add(pod, netns).await?;
        let record = Record {
            pod: pod.clone(),
            attachment: attachment.clone(),
            conflist: None,
            netns: netns.path(),
        };
        if let Err(source) = self.records.put(&record) {
            let _ = self.builtin.del(pod, &attachment.ips).await;
            let path = self.config.state_dir.join("results");
            return Err(AddError::State { path, source });
        }
        Ok(attachment)
    }

    /// Unwires the pod. Idempotent: what is gone already, its network
    /// namespace included, is no error.
    pub async fn del(
        &self,
        pod: &PodNetwork,
        _netns: Option<&dyn Netns>,
        attachment: Option<&Attachment>,
    ) -> Result<(), DelError> {
        let record = self.records.get(&pod.sandbox_id);
        let (pod, ips) = match &record {
            Some(record) => (&record.pod, record.attachment.ips.clone()),
            None => (pod, attachment.map(|a| a.ips.clone()).unwrap_or_default()),
        };
        self.builtin.del(pod, &ips).await?;
        self.forget(&pod.sandbox_id)?;
        Ok(())
    }

    /// Compares the pod's interface and addresses with what was given.
    pub async fn check(&self, pod: &PodNetwork, netns: &dyn Netns) -> Result<(), CheckError> {
        let record = self.records.get(&pod.sandbox_id);
        let record = record.ok_or_else(|| CheckError::Unknown {
            sandbox: pod.sandbox_id.clone(),
        })?;
        Ok(self.builtin.check(netns, &record.attachment).await?)
    }

    /// Gives back whatever belongs to none of these sandboxes. Call at start,
    /// when all live sandboxes are known.
    pub async fn gc(&self, valid: &[String]) -> Result<(), GcError> {
        let state = |source| GcError::State {
            path: self.config.state_dir.clone(),
            source,
        };
        let (live, dead): (Vec<_>, Vec<_>) = self
            .records
            .all()
            .map_err(state)?
            .into_iter()
            .partition(|r| valid.contains(&r.pod.sandbox_id));
        for record in dead {
            self.del(&record.pod, None, Some(&record.attachment))
                .await?;
        }
        let pods = live.into_iter().map(|r| (r.pod, r.attachment.ips));
        Ok(self.builtin.gc(&pods.collect::<Vec<_>>()).await?)
    }

    /// Brings the namespace's loopback up; `add` does it as well.
    pub async fn loopback_up(&self, netns: &dyn Netns) -> Result<(), AddError> {
        Ok(crate::builtin::loopback_up(netns).await?)
    }

    fn forget(&self, sandbox: &str) -> Result<(), DelError> {
        self.records
            .remove(sandbox)
            .map_err(|source| DelError::State {
                path: self.config.state_dir.join("results"),
                source,
            })
    }

    fn cidrs_path(&self) -> PathBuf {
        self.config.state_dir.join("pod-cidrs")
    }

    /// The ranges of the last run; none when the file is torn.
    fn kept_cidrs(&self) -> Vec<Cidr> {
        let text = std::fs::read_to_string(self.cidrs_path()).unwrap_or_default();
        text.lines().filter_map(|l| l.parse().ok()).collect()
    }
}
