//! What the runtime calls: one pod in, its addresses out.

mod config;
mod error;
mod record;

pub use config::{Builtin, NetworkConfig};
pub use error::{AddError, CheckError, DelError, GcError, NotReady, OpenError, SetCidrsError};

use crate::builtin::{BridgeNetwork, BuiltinError};
use crate::foreign::{self, Call, Chain, ConfList};
use crate::ipam::Store;
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
    /// Where plugins are looked for; our own links last.
    path: Vec<PathBuf>,
}

impl Network {
    /// Reads what earlier runs left; nothing of the host is touched before the
    /// first pod.
    pub fn open(config: NetworkConfig) -> Result<Arc<Self>, OpenError> {
        let results = config.state_dir.join("results");
        let state = |path: &PathBuf, source| OpenError::State {
            path: path.clone(),
            source,
        };
        let records = Records::open(results.clone(), config.run_dir.join("results"))
            .map_err(|source| state(&results, source))?;
        let own = config.run_dir.join("ipam");
        let store = match own == config.ipam_dir {
            true => Store::open(own.clone()),
            false => Store::share(config.ipam_dir.clone(), config.run_dir.clone()),
        };
        let store = store.map_err(BuiltinError::from)?;
        // Where earlier versions had them.
        for old in [config.state_dir.join("ipam"), own] {
            store.take_over(&old).map_err(BuiltinError::from)?;
        }
        let builtin = BridgeNetwork::open(config.builtin.clone(), store);
        let mut path = config.bin_dirs.clone();
        path.push(config.state_dir.join("bin"));
        let network = Self {
            config,
            records,
            builtin,
            path,
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
        if let Some(list) = self.foreign() {
            let status = self.chain(&list).status().await;
            return status.map_err(|error| NotReady::Plugin {
                reason: whole(&error),
            });
        }
        self.builtin_ready()
    }

    /// Wires the pod. After an error nothing is left behind; a pod that has
    /// been wired before is answered with what it has. One that was wired ahead, by its
    /// id alone, is given what else it asks for.
    pub async fn add(&self, pod: &PodNetwork, netns: &dyn Netns) -> Result<Attachment, AddError> {
        match self.records.get(&pod.sandbox_id) {
            Some(record) if !record.attachment.ips.is_empty() => {
                return self.settle(record, pod, netns).await;
            }
            // The agent ended within an ADD.
            Some(record) => self.undo(&record).await,
            None => {}
        }
        match self.foreign() {
            Some(list) => self.add_foreign(pod, netns, &list).await,
            None => self.add_builtin(pod, netns).await,
        }
    }

    async fn settle(
        &self,
        mut record: Record,
        pod: &PodNetwork,
        netns: &dyn Netns,
    ) -> Result<Attachment, AddError> {
        if record.pod == *pod || record.conflist.is_some() {
            return Ok(record.attachment);
        }
        record.pod = pod.clone();
        let ips = &record.attachment.ips;
        let settled = self.builtin.settle(pod, ips, netns).await;
        match settled
            .map_err(AddError::from)
            .and_then(|()| self.keep(&record))
        {
            Ok(()) => Ok(record.attachment),
            Err(error) => {
                self.undo(&record).await;
                Err(error)
            }
        }
    }

    /// Whether pods can be wired before it is known whose they are: foreign plugins
    /// want to be told.
    pub fn wires_ahead(&self) -> bool {
        self.builtin.has_ranges() && self.foreign().is_none()
    }

    /// Whether the pod would be given the like now.
    pub fn is_current(&self, attachment: &Attachment) -> bool {
        self.foreign().is_none() && self.builtin.is_current(&attachment.ips)
    }

    async fn add_builtin(
        &self,
        pod: &PodNetwork,
        netns: &dyn Netns,
    ) -> Result<Attachment, AddError> {
        self.builtin_ready()?;
        let attachment = self.builtin.add(pod, netns).await?;
        let record = Record {
            pod: pod.clone(),
            attachment: attachment.clone(),
            conflist: None,
            netns: netns.path(),
        };
        if let Err(error) = self.keep(&record) {
            self.undo(&record).await;
            return Err(error);
        }
        Ok(attachment)
    }

    async fn add_foreign(
        &self,
        pod: &PodNetwork,
        netns: &dyn Netns,
        list: &ConfList,
    ) -> Result<Attachment, AddError> {
        crate::builtin::loopback_up(netns).await?;
        let path = match netns.path() {
            Some(path) => path,
            None => foreign::pin(netns.fd(), &pod.sandbox_id)?,
        };
        let mut record = Record {
            pod: pod.clone(),
            attachment: Attachment::default(),
            conflist: Some(list.whole.clone()),
            netns: Some(path),
        };
        // Kept before as well: whatever plugins did must be undone even if the
        // agent ends in between.
        let added = async {
            self.keep(&record)?;
            let ranges = self.kept_cidrs();
            let call = call(&record, &ranges);
            Ok(self.chain(list).add(call).await?)
        };
        let kept = added.await.and_then(|attachment| {
            record.attachment = attachment;
            self.keep(&record)
        });
        match kept {
            Ok(()) => Ok(record.attachment),
            Err(error) => {
                self.undo(&record).await;
                Err(error)
            }
        }
    }

    /// Unwires the pod. Idempotent: what is gone already, its network
    /// namespace included, is no error.
    pub async fn del(
        &self,
        pod: &PodNetwork,
        _netns: Option<&dyn Netns>,
        attachment: Option<&Attachment>,
    ) -> Result<(), DelError> {
        if let Some(record) = self.records.get(&pod.sandbox_id) {
            return self.del_recorded(&record).await;
        }
        let ips = attachment.map(|a| a.ips.clone()).unwrap_or_default();
        self.builtin.del(pod, &ips).await?;
        self.forget(&pod.sandbox_id)
    }

    async fn del_recorded(&self, record: &Record) -> Result<(), DelError> {
        match record.conflist.clone().map(ConfList::from_value) {
            None => {
                self.builtin
                    .del(&record.pod, &record.attachment.ips)
                    .await?
            }
            Some(Ok(list)) => {
                let ranges = self.kept_cidrs();
                let result = &record.attachment.result;
                self.chain(&list).del(call(record, &ranges), result).await?;
            }
            // It was valid when it was kept; without it nothing can be asked.
            Some(Err(error)) => {
                let sandbox = &record.pod.sandbox_id;
                tracing::warn!(sandbox, %error, "network record without a usable configuration");
            }
        }
        if let Some(path) = &record.netns {
            foreign::unpin(path)?;
        }
        self.forget(&record.pod.sandbox_id)
    }

    /// Compares the pod's interface and addresses with what was given.
    pub async fn check(&self, pod: &PodNetwork, netns: &dyn Netns) -> Result<(), CheckError> {
        let record = self.records.get(&pod.sandbox_id);
        let record = record.ok_or_else(|| CheckError::Unknown {
            sandbox: pod.sandbox_id.clone(),
        })?;
        let Some(Ok(list)) = record.conflist.clone().map(ConfList::from_value) else {
            return Ok(self.builtin.check(netns, &record.attachment).await?);
        };
        let ranges = self.kept_cidrs();
        let result = &record.attachment.result;
        let call = call(&record, &ranges);
        Ok(self.chain(&list).check(call, result).await?)
    }

    /// Gives back whatever belongs to none of these sandboxes. Call at start,
    /// when all live sandboxes are known.
    pub async fn gc(&self, valid: &[String]) -> Result<(), GcError> {
        let state = |source| GcError::State {
            path: self.config.run_dir.clone(),
            source,
        };
        let (live, dead): (Vec<_>, Vec<_>) = self
            .records
            .all()
            .map_err(state)?
            .into_iter()
            .partition(|r| valid.contains(&r.pod.sandbox_id));
        // One that can't be unwired must not keep the others.
        let mut first = Ok(());
        for record in dead {
            first = first.and(self.del_recorded(&record).await);
        }
        if let Some(list) = self.foreign() {
            self.chain(&list).gc(valid).await?;
        }
        let builtin = live.into_iter().filter(|r| r.conflist.is_none());
        let pods = builtin.map(|r| (r.pod, r.attachment.ips));
        self.builtin.gc(&pods.collect::<Vec<_>>()).await?;
        Ok(first?)
    }

    /// Brings the namespace's loopback up; `add` does it as well.
    pub async fn loopback_up(&self, netns: &dyn Netns) -> Result<(), AddError> {
        Ok(crate::builtin::loopback_up(netns).await?)
    }

    /// The configured plugins; none = the built-in network.
    fn foreign(&self) -> Option<ConfList> {
        foreign::find(&self.config.conf_dir).map(|(_, list)| list)
    }

    fn chain<'a>(&'a self, list: &'a ConfList) -> Chain<'a> {
        if let (Some(executable), Some(dir)) = (&self.config.executable, self.path.last())
            && let Err(error) = foreign::lay_shims(dir, executable)
        {
            tracing::warn!(dir = %dir.display(), %error, "make links to our own CNI plugins");
        }
        Chain {
            list,
            path: &self.path,
        }
    }

    fn builtin_ready(&self) -> Result<(), NotReady> {
        if self.builtin.has_ranges() {
            return Ok(());
        }
        Err(NotReady::NotConfigured {
            conf_dir: self.config.conf_dir.clone(),
        })
    }

    /// After a failure, whose own error is the one to tell; `gc` finds what
    /// this leaves.
    async fn undo(&self, record: &Record) {
        if let Err(error) = self.del_recorded(record).await {
            let sandbox = &record.pod.sandbox_id;
            tracing::warn!(sandbox, error = whole(&error), "undo a pod's network");
        }
    }

    fn keep(&self, record: &Record) -> Result<(), AddError> {
        self.records.put(record).map_err(|source| AddError::State {
            path: self.config.run_dir.join("results"),
            source,
        })
    }

    fn forget(&self, sandbox: &str) -> Result<(), DelError> {
        self.records
            .remove(sandbox)
            .map_err(|source| DelError::State {
                path: self.config.run_dir.join("results"),
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

fn call<'a>(record: &'a Record, ranges: &'a [Cidr]) -> Call<'a> {
    // A namespace that has gone is told as none.
    let netns = record.netns.as_deref().filter(|path| path.exists());
    Call {
        pod: &record.pod,
        netns,
        ranges,
    }
}

/// An error with all its causes in one line.
fn whole(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
