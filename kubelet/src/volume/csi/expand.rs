//! A volume that has grown: its file system grows on the node.
//! Rules: kubernetes v1.37 pkg/volume/util/operationexecutor/node_expander.go.

use super::Csi;
use super::setup::{Call, text};
use crate::proto::csi as api;
use crate::proto::csi::node_service_capability::rpc::Type as Capability;
use crate::volume::error::VolumeReason;
use serde_json::json;

impl Csi {
    /// Lets the driver grow it to what the PersistentVolume is by now, and tells the claim.
    pub(super) async fn grow(&self, call: &Call<'_>) -> Result<(), VolumeReason> {
        let found = &call.job.found;
        let (Some(growth), Some((namespace, name))) = (&found.growth, &found.claim) else {
            return Ok(());
        };
        if !call.can.has(Capability::ExpandVolume) {
            return Ok(());
        }
        let staging = call.stages().then(|| text(&call.place.staging));
        let request = api::NodeExpandVolumeRequest {
            volume_id: call.volume.handle.clone(),
            volume_path: text(&call.place.target),
            capacity_range: Some(api::CapacityRange {
                required_bytes: growth.bytes,
                limit_bytes: 0,
            }),
            staging_target_path: staging.unwrap_or_default(),
            volume_capability: Some(call.volume.capability(&call.can, None)),
            secrets: call.secret(call.volume.expand_secret.as_ref()).await?,
        };
        call.driver.expand(request).await?;
        let over = ["Resizing", "FileSystemResizePending"];
        let left = growth.conditions.iter();
        let left: Vec<_> = left.filter(|c| !over.contains(&c.type_.as_str())).collect();
        let patch = json!({"status": {
            "capacity": {"storage": growth.to},
            "conditions": left,
            "allocatedResourceStatuses": {"storage": null},
        }});
        tracing::info!(claim = name, to = growth.to.0, "volume grown");
        Ok(self.api.patch_claim((namespace, name), patch).await?)
    }
}
