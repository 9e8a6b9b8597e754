//! How full a volume is, as its driver says.

use super::Csi;
use super::setup::{Job, text};
use crate::proto::csi as api;
use crate::proto::csi::node_service_capability::rpc::Type as Capability;
use crate::proto::csi::volume_usage::Unit;

/// Figures of one volume; `None` where nobody knows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Usage {
    pub available: Option<u64>,
    pub capacity: Option<u64>,
    pub used: Option<u64>,
    pub inodes_free: Option<u64>,
    pub inodes: Option<u64>,
    pub inodes_used: Option<u64>,
}

impl Usage {
    fn of(answer: &[api::VolumeUsage]) -> Usage {
        let mut usage = Usage::default();
        let known = |n: i64| u64::try_from(n).ok();
        for said in answer {
            let (available, total, used) =
                (known(said.available), known(said.total), known(said.used));
            match said.unit() {
                Unit::Bytes => {
                    (usage.available, usage.capacity, usage.used) = (available, total, used);
                }
                Unit::Inodes => {
                    (usage.inodes_free, usage.inodes, usage.inodes_used) = (available, total, used);
                }
                Unit::Unknown => {}
            }
        }
        usage
    }
}

impl Csi {
    /// Asks the driver, if it is one that knows.
    pub(in crate::volume) async fn usage(&self, job: &Job) -> Option<Usage> {
        let volume = job.volume()?;
        let place = self.place(job.uid(), &volume);
        let driver = self.drivers.get(&volume.driver)?;
        let can = driver.capabilities().await.ok()?;
        if !can.has(Capability::GetVolumeStats) || !place.target.exists() {
            return None;
        }
        let staged = can.has(Capability::StageUnstageVolume) && !volume.ephemeral;
        let request = api::NodeGetVolumeStatsRequest {
            volume_id: volume.handle.clone(),
            volume_path: text(&place.target),
            staging_target_path: match staged {
                true => text(&place.staging),
                false => String::new(),
            },
        };
        let answer = driver.stats(request).await.ok()?;
        Some(Usage::of(&answer.usage))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_and_inodes_are_told_apart() {
        let said = |unit: Unit, total| api::VolumeUsage {
            available: 1,
            total,
            used: 2,
            unit: unit.into(),
        };
        let usage = Usage::of(&[said(Unit::Bytes, 3), said(Unit::Inodes, 9)]);
        assert_eq!((usage.capacity, usage.inodes), (Some(3), Some(9)));
    }
}
