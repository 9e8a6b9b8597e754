//! Containers: what is known of each, in memory and on disk; what is looked
//! up on the host and in images before one is made.

mod accounts;
mod devices;
mod layers;
mod mountpoints;
mod record;
mod status;
mod usage;

pub use accounts::{AccountsCache, AccountsError};
pub use devices::{DeviceError, Devices, host_devices, requested_devices};
pub use layers::{LookupError, lookup_dirs, open_in_layers};
pub use mountpoints::Mountpoints;
pub use record::{Record, State};

use crate::process::Exit;
use crate::sandbox::{Identified, RecordError, Sandbox, write_record};
use oci_spec::runtime::Spec;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::watch;

/// A container of a sandbox.
#[derive(Debug)]
pub struct Container {
    id: String,
    dir: PathBuf,
    layer: PathBuf,
    /// The pod.
    pub sandbox: Arc<Sandbox>,
    /// As it was made; execs take its process for a model.
    pub spec: Arc<Spec>,
    record: Mutex<Record>,
    ended: watch::Sender<bool>,
    usage: Mutex<usage::Usage>,
    /// The stop signal goes out once, however often a stop is asked for.
    pub(crate) stop_sent: AtomicBool,
    /// Held by start and remove, which exclude each other.
    pub(crate) changing: tokio::sync::Mutex<()>,
    /// Set when its cgroup has been removed: by its end, the sandbox's, or its own
    /// removal, whichever comes first.
    pub(crate) cgroup_removed: tokio::sync::OnceCell<()>,
}

impl Identified for Container {
    fn id(&self) -> &str {
        &self.id
    }
}

impl Container {
    /// A container whose records are in `dir` and whose writable layer is `layer`.
    #[must_use]
    pub fn new(
        dir: PathBuf,
        layer: PathBuf,
        sandbox: Arc<Sandbox>,
        spec: Arc<Spec>,
        record: Record,
    ) -> Self {
        let (ended, _) = watch::channel(record.state == State::Exited);
        Self {
            id: record.id.clone(),
            dir,
            layer,
            sandbox,
            spec,
            record: Mutex::new(record),
            ended,
            usage: Mutex::default(),
            stop_sent: AtomicBool::new(false),
            changing: tokio::sync::Mutex::new(()),
            cgroup_removed: tokio::sync::OnceCell::new(),
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

    /// Where in its life it is.
    #[must_use]
    pub fn state(&self) -> State {
        self.lock().state
    }

    /// The directory of its records.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The directory of its writable layer.
    #[must_use]
    pub fn layer(&self) -> &Path {
        &self.layer
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

    /// It runs since `now`, unless its end has been seen already. That is true
    /// whether or not it can be written down.
    pub fn started(&self, now: i64) {
        let mut record = self.lock();
        record.started_at = now.min(record.finished_at.unwrap_or(now));
        if record.state == State::Created {
            record.state = State::Running;
        }
        if let Err(error) = write_record(&self.dir, &*record) {
            tracing::warn!(container = self.id, %error, "the start of a container is not on disk");
        }
    }

    /// It has ended; `false` when that was known. What the kernel says is true
    /// whether or not it can be written down.
    pub fn exited(&self, exit: Exit, reason: &str, message: &str) -> bool {
        let mut record = self.lock();
        if record.state == State::Exited {
            return false;
        }
        record.state = State::Exited;
        // Its end may be seen before the answer to its start: it began no later.
        if record.started_at == 0 {
            record.started_at = exit.finished_at;
        }
        record.exit_code = exit.code;
        record.finished_at = Some(exit.finished_at);
        record.reason = reason.to_owned();
        record.message = message.to_owned();
        if let Err(error) = write_record(&self.dir, &*record) {
            tracing::warn!(container = self.id, %error, "the end of a container is not on disk");
        }
        drop(record);
        self.ended.send_replace(true);
        true
    }

    /// Resolves when the container has ended.
    pub async fn wait(&self) {
        let mut ended = self.ended.subscribe();
        // The sender lives as long as this container.
        let _ = ended.wait_for(|ended| *ended).await;
    }
}
