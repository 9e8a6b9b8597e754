//! Volumes of CSI drivers.
//!
//! - `drivers`: who has registered, and what is said of it in Node and CSINode.
//! - `api`: what the API server knows of a volume: CSIDriver, VolumeAttachment.
//! - [`Attachments`]: what controllers attach, and what is still needed here.
//! - `driver`: one driver, as it is called.
//! - `paths`, `record`: where things lie; upstream's layout, so that a node can change its kubelet.
//! - `request`: what a driver is asked (pure); `selinux`: and with which label.
//! - `setup`, `teardown`: staged and published, and back.
//!
//! What is on disk says what was done: nothing else is needed after a restart.

mod api;
mod attachments;
mod driver;
mod drivers;
mod expand;
mod paths;
mod record;
mod request;
mod selinux;
mod setup;
mod stats;
mod teardown;

pub use attachments::Attachments;
pub use driver::DriverError;
pub use drivers::Registrar;
pub(super) use setup::Job;
pub use stats::Usage;

use api::Api;
use drivers::Drivers;
use paths::Paths;
use std::collections::{BTreeSet, HashMap};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// CSI on one node.
pub struct Csi {
    paths: Paths,
    api: Api,
    drivers: Arc<Drivers>,
    attachments: Arc<Attachments>,
    /// `None` on a host without.
    selinux: Option<selinux::Policy>,
    /// One call at a time for each volume, by driver and handle.
    locks: Mutex<HashMap<String, Arc<tokio::sync::Mutex<()>>>>,
    /// Names of volumes that this agent had staged, and targets that it had published.
    done: Mutex<BTreeSet<String>>,
}

impl std::fmt::Debug for Csi {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Csi").field("paths", &self.paths).finish()
    }
}

impl Csi {
    /// `root` is usually /var/lib/kubelet. What is mounted there already counts as in use.
    /// `watches` is a client for those.
    pub fn new(
        client: kube::Client,
        watches: kube::Client,
        node_name: &str,
        root: &Path,
    ) -> Arc<Csi> {
        let paths = Paths::new(root);
        let attachments = Attachments::new(record::in_use(&paths));
        Arc::new(Csi {
            drivers: Drivers::new(client.clone(), node_name),
            api: Api::new(client, watches, node_name),
            attachments: Arc::new(attachments),
            selinux: selinux::Policy::of_host(),
            locks: Mutex::default(),
            done: Mutex::default(),
            paths,
        })
    }

    /// Takes drivers that announce themselves.
    pub fn registrar(&self) -> Registrar {
        Registrar(self.drivers.clone())
    }

    /// What is attached to the node.
    pub fn attachments(&self) -> Arc<Attachments> {
        self.attachments.clone()
    }

    /// No driver has registered.
    pub(super) fn is_idle(&self) -> bool {
        self.drivers.is_empty()
    }

    /// Whether an earlier agent has left volumes of a pod.
    pub(super) fn has_some_of(&self, pod_uid: &str) -> bool {
        let dirs = [self.paths.volumes(pod_uid), self.paths.devices(pod_uid)];
        dirs.iter().any(|dir| !record::names(dir).is_empty())
    }

    fn done(&self) -> MutexGuard<'_, BTreeSet<String>> {
        self.done.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn lock(&self, driver: &str, handle: &str) -> tokio::sync::OwnedMutexGuard<()> {
        let lock = {
            let mut locks = self.locks.lock().unwrap_or_else(PoisonError::into_inner);
            locks.retain(|_, lock| Arc::strong_count(lock) > 1);
            let key = attachments::name(driver, handle);
            locks.entry(key).or_default().clone()
        };
        lock.lock_owned().await
    }
}
