//! What the API server knows of volumes of drivers.

use crate::api::from_cache;
use crate::objects::{ObjectError, Quick, authorized, one_line};
use futures::StreamExt as _;
use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use k8s_openapi::api::storage::v1::{CSIDriver, VolumeAttachment};
use kube::ResourceExt as _;
use kube::api::{Patch, PatchParams};
use kube::runtime::WatchStreamExt as _;
use kube::runtime::watcher::{Event, watcher};
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::sync::watch;
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
    known: watch::Receiver<Known>,
    _task: AbortOnDropHandle<()>,
}

/// By name; `None` before the first list has ended.
///
/// kube's own store hashes with a seed that a static program reads from /dev/random: where a
/// policy says no to that, it panics.
type Known = Option<BTreeMap<String, Arc<CSIDriver>>>;

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
        let drivers = self.drivers.get_or_init(|| self.watch_drivers());
        let mut known = drivers.known.clone();
        let known = tokio::time::timeout(PATIENCE, known.wait_for(Option::is_some)).await;
        match known {
            Ok(Ok(known)) => Ok(known.as_ref().and_then(|all| all.get(name).cloned())),
            Ok(Err(_)) | Err(_) => Err(ObjectError::Unavailable {
                kind: "csidriver",
                namespace: String::new(),
                name: name.to_owned(),
                reason: "the API server does not answer".to_owned(),
            }),
        }
    }

    fn watch_drivers(&self) -> Drivers {
        let (publish, known) = watch::channel(None);
        let task = follow(kube::Api::all(self.watches.clone()), publish);
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

async fn follow(api: kube::Api<CSIDriver>, publish: watch::Sender<Known>) {
    let events = watcher(api, from_cache()).backoff(Quick::default());
    let (mut events, mut listed) = (events.boxed(), BTreeMap::new());
    while let Some(event) = events.next().await {
        match event {
            Ok(event) => publish.send_modify(|known| note(known, &mut listed, event)),
            // What was known stays good while the API server is away.
            Err(error) => tracing::debug!(error = one_line(&error), "watch of csidrivers"),
        }
    }
}

/// What is listed replaces what was known when the list ends.
fn note(known: &mut Known, listed: &mut BTreeMap<String, Arc<CSIDriver>>, event: Event<CSIDriver>) {
    match event {
        Event::Init => listed.clear(),
        Event::InitApply(driver) => drop(listed.insert(driver.name_any(), Arc::new(driver))),
        Event::InitDone => *known = Some(std::mem::take(listed)),
        Event::Apply(driver) => {
            if let Some(all) = known {
                all.insert(driver.name_any(), Arc::new(driver));
            }
        }
        Event::Delete(driver) => {
            if let Some(all) = known {
                all.remove(&driver.name_any());
            }
        }
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

#[cfg(test)]
mod tests {
    use super::*;
    use kube::api::ObjectMeta;

    fn driver(name: &str) -> CSIDriver {
        CSIDriver {
            metadata: ObjectMeta {
                name: Some(name.to_owned()),
                ..ObjectMeta::default()
            },
            ..CSIDriver::default()
        }
    }

    #[test]
    fn drivers_are_known_once_all_were_listed_and_a_new_list_forgets_those_that_went() {
        let (mut known, mut listed) = (None, BTreeMap::new());
        let mut names = |event| {
            note(&mut known, &mut listed, event);
            let names = |all: &BTreeMap<_, _>| all.keys().cloned().collect::<Vec<String>>();
            known.as_ref().map(names)
        };
        assert_eq!(names(Event::Init), None);
        assert_eq!(names(Event::InitApply(driver("a"))), None);
        assert_eq!(names(Event::InitDone).unwrap(), ["a"]);
        assert_eq!(names(Event::Apply(driver("b"))).unwrap(), ["a", "b"]);
        assert_eq!(
            names(Event::Init).unwrap(),
            ["a", "b"],
            "until the list ends"
        );
        assert_eq!(names(Event::InitApply(driver("b"))).unwrap(), ["a", "b"]);
        assert_eq!(names(Event::InitDone).unwrap(), ["b"]);
        assert_eq!(names(Event::Delete(driver("b"))).unwrap(), [""; 0]);
    }
}
