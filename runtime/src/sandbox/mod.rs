//! Sandboxes: what is known of each, in memory and on disk.

mod files;
mod first;
mod index;
mod record;

pub use files::PodFilesError;
pub(crate) use first::{CgroupsBegun, FirstContainer};
pub use index::{Ambiguous, Identified, Index};
pub use record::{NetworkRecord, Record, RecordError, State, VERSION};
pub(crate) use record::{proto, read_record, write_record};

use crate::process;
use cri_proto::v1;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A pod's sandbox.
#[derive(Debug)]
pub struct Sandbox {
    id: String,
    dir: PathBuf,
    record: Mutex<Record>,
    engine: Mutex<Option<Arc<process::Sandbox>>>,
    first_container: Mutex<Option<FirstContainer>>,
    /// Held by the verbs that stop and remove, which exclude each other.
    pub(crate) ending: tokio::sync::Mutex<()>,
}

impl Identified for Sandbox {
    fn id(&self) -> &str {
        &self.id
    }
}

impl Sandbox {
    /// A sandbox whose files are in `dir`.
    #[must_use]
    pub fn new(dir: PathBuf, record: Record) -> Self {
        Self {
            id: record.id.clone(),
            dir,
            record: Mutex::new(record),
            engine: Mutex::new(None),
            first_container: Mutex::new(None),
            ending: tokio::sync::Mutex::new(()),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Record> {
        // A change is computed on a copy: a poisoned record is a whole one.
        self.record.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is known now.
    #[must_use]
    pub fn record(&self) -> Record {
        self.lock().clone()
    }

    /// Reads something of the record without copying it all.
    pub fn read<T>(&self, read: impl FnOnce(&Record) -> T) -> T {
        read(&self.lock())
    }

    /// Changes the record: on disk first, then for everybody to see.
    ///
    /// # Errors
    /// When it can't be written; nothing has changed then.
    pub fn update(&self, change: impl FnOnce(&mut Record)) -> Result<(), RecordError> {
        let mut record = self.lock();
        let mut next = record.clone();
        change(&mut next);
        write_record(&self.dir, &next)?;
        *record = next;
        Ok(())
    }

    /// As [`update`](Self::update), of what has happened whether or not it can be
    /// written down: a full disk keeps no pod from being taken down, and the next
    /// start finds it out anew.
    pub fn settle(&self, change: impl FnOnce(&mut Record)) {
        let mut record = self.lock();
        change(&mut record);
        if let Err(error) = write_record(&self.dir, &*record) {
            tracing::warn!(sandbox = self.id, %error, "what became of a sandbox is not on disk");
        }
    }

    /// Whether containers can be made in it.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.lock().state == State::Ready
    }

    /// The monitor, while there is one.
    #[must_use]
    pub fn engine(&self) -> Option<Arc<process::Sandbox>> {
        self.engine
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Sets or forgets the monitor.
    pub fn set_engine(&self, engine: Option<Arc<process::Sandbox>>) {
        *self.engine.lock().unwrap_or_else(PoisonError::into_inner) = engine;
    }

    /// Its first container is to come.
    pub(crate) fn set_first_container(&self, first: FirstContainer) {
        *self.first() = Some(first);
    }

    /// Its first container, while it is to come; it is the caller's.
    pub(crate) fn take_first_container(&self) -> Option<FirstContainer> {
        self.first().take()
    }

    fn first(&self) -> MutexGuard<'_, Option<FirstContainer>> {
        let first = self.first_container.lock();
        first.unwrap_or_else(PoisonError::into_inner)
    }

    /// Its directory.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Where its containers' directories are.
    #[must_use]
    pub fn containers_dir(&self) -> PathBuf {
        self.dir.join("containers")
    }

    /// As lists show it.
    #[must_use]
    pub fn to_cri(&self) -> v1::PodSandbox {
        let record = self.lock();
        v1::PodSandbox {
            id: record.id.clone(),
            metadata: record.config.metadata.clone(),
            state: record.state.to_cri().into(),
            created_at: record.created_at,
            labels: record.config.labels.clone(),
            annotations: record.config.annotations.clone(),
            runtime_handler: record.runtime_handler.clone(),
        }
    }

    /// As PodSandboxStatus shows it.
    #[must_use]
    pub fn status(&self) -> v1::PodSandboxStatus {
        let record = self.lock();
        let linux = record.config.linux.as_ref();
        let options = linux
            .and_then(|l| l.security_context.as_ref())
            .and_then(|s| s.namespace_options.clone());
        v1::PodSandboxStatus {
            id: record.id.clone(),
            metadata: record.config.metadata.clone(),
            state: record.state.to_cri().into(),
            created_at: record.created_at,
            network: Some(record.network_status()),
            linux: Some(v1::LinuxPodSandboxStatus {
                namespaces: Some(v1::Namespace {
                    options: Some(options.unwrap_or_default()),
                }),
            }),
            labels: record.config.labels.clone(),
            annotations: record.config.annotations.clone(),
            runtime_handler: record.runtime_handler.clone(),
        }
    }
}
