//! What the API server knows of volumes of drivers.

use crate::objects::{ObjectError, authorized, one_line};
use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use k8s_openapi::api::storage::v1::{CSIDriver, VolumeAttachment};
use kube::api::{Patch, PatchParams};
use serde_json::Value;
use std::collections::BTreeMap;

pub(super) struct Api {
    client: kube::Client,
    pub node: String,
}

impl Api {
    pub fn new(client: kube::Client, node: &str) -> Api {
        Api {
            client,
            node: node.to_owned(),
        }
    }

    /// What its installer says of a driver, if anything.
    pub async fn driver(&self, name: &str) -> Result<Option<CSIDriver>, ObjectError> {
        let api: kube::Api<CSIDriver> = kube::Api::all(self.client.clone());
        let got = authorized(|| api.get_opt(name)).await;
        got.map_err(|e| unavailable("csidriver", name, &e))
    }

    /// What came of attaching a volume: the driver's publish context.
    pub async fn attachment(
        &self,
        name: &str,
    ) -> Result<Option<BTreeMap<String, String>>, ObjectError> {
        let api: kube::Api<VolumeAttachment> = kube::Api::all(self.client.clone());
        let got = authorized(|| api.get_opt(name)).await;
        let got = got.map_err(|e| unavailable("volumeattachment", name, &e))?;
        let status = got.and_then(|a| a.status).filter(|s| s.attached);
        Ok(status.map(|s| s.attachment_metadata.unwrap_or_default()))
    }

    /// Tells the claim what became of its growth.
    pub async fn patch_claim(
        &self,
        (namespace, name): (&str, &str),
        patch: Value,
    ) -> Result<(), ObjectError> {
        let api: kube::Api<PersistentVolumeClaim> =
            kube::Api::namespaced(self.client.clone(), namespace);
        let (params, patch) = (PatchParams::default(), Patch::Merge(patch));
        let patched = api.patch_status(name, &params, &patch).await;
        patched
            .map(drop)
            .map_err(|e| unavailable("persistentvolumeclaim", name, &e))
    }
}

fn unavailable(kind: &'static str, name: &str, error: &kube::Error) -> ObjectError {
    ObjectError::Unavailable {
        kind,
        namespace: String::new(),
        name: name.to_owned(),
        reason: one_line(error),
    }
}
