//! What the API server knows of volumes of drivers.

use crate::api::from_cache;
use crate::objects::{ObjectError, Quick, authorized, one_line};
use futures::StreamExt as _;
use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use k8s_openapi::api::storage::v1::{CSIDriver, VolumeAttachment};
use kube::api::{Patch, PatchParams};
use kube::runtime::WatchStreamExt as _;
use kube::runtime::reflector::{self, ObjectRef, Store, reflector};
use kube::runtime::watcher::watcher;
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio_util::task::AbortOnDropHandle;

/// How long a volume waits for the first word of drivers.
const PATIENCE: Duration = Duration::from_secs(10);

pub(super) struct Api {
    client: kube::Client,
    watches: kube::Client,
    pub node: String,
    drivers: OnceLock<Drivers>,
}

/// All CSIDrivers, watched from the first volume of one on.
struct Drivers {
    known: Store<CSIDriver>,
    _task: AbortOnDropHandle<()>,
}

impl Api {
    pub fn new(client: kube::Client, watches: kube::Client, node: &str) -> Api {
        Api {
            client,
            watches,
            node: node.to_owned(),
            drivers: OnceLock::new(),
        }
    }

    /// What its installer says of a driver, if anything.
    pub async fn driver(&self, name: &str) -> Result<Option<Arc<CSIDriver>>, ObjectError> {
        let known = &self.drivers.get_or_init(|| self.watch_drivers()).known;
        let ready = tokio::time::timeout(PATIENCE, known.wait_until_ready()).await;
        match ready {
            Ok(Ok(())) => Ok(known.get(&ObjectRef::new(name))),
            Ok(Err(_)) | Err(_) => Err(ObjectError::Unavailable {
                kind: "csidriver",
                namespace: String::new(),
                name: name.to_owned(),
                reason: "the API server does not answer".to_owned(),
            }),
        }
    }

    fn watch_drivers(&self) -> Drivers {
        let (known, writer) = reflector::store();
        let events = watcher(kube::Api::all(self.watches.clone()), from_cache());
        let events = events.backoff(Quick::default());
        let task = reflector(writer, events).for_each(|event| async {
            if let Err(error) = event {
                tracing::debug!(error = one_line(&error), "watch of csidrivers");
            }
        });
        Drivers {
            known,
            _task: AbortOnDropHandle::new(tokio::spawn(task)),
        }
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
