//! After a start: goes on with what runs, ends what is half-made or dead,
//! sweeps what belongs to nobody.

use super::VerbError;
use super::container_record::SPEC;
use super::core::{Core, delete, now};
use super::create_container::undo;
use super::error::chain;
use super::events::lost;
use crate::cgroup::CgroupPath;
use crate::container::{Container, Record as ContainerRecord, State as ContainerState};
use crate::process::AdoptError;
use crate::sandbox::{Identified, Record, RecordError, Sandbox, State, read_record};
use futures::future::join_all;
use oci_spec::runtime::Spec;
use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

impl Core {
    /// Never fails as a whole: what can't be read takes down its own pod.
    pub(super) async fn recover(self: &Arc<Self>) {
        let started = now();
        let mut found = Vec::new();
        for dir in entries(&self.sandboxes_dir()) {
            match load(&dir, &self.layers_dir()) {
                Ok(sandbox) => found.push(sandbox),
                Err(error) => {
                    tracing::error!(error, "a pod is taken down: its record can't be read");
                    self.sweep_unreadable(&dir).await;
                }
            }
        }
        join_all(found.into_iter().map(|f| self.take_over(f))).await;
        self.sweep().await;
        tracing::info!(
            sandboxes = self.sandboxes.list().len(),
            containers = self.containers.list().len(),
            milliseconds = (now() - started) / 1_000_000,
            "recovered"
        );
    }

    async fn take_over(self: &Arc<Self>, found: Found) {
        let Found {
            sandbox,
            containers,
            cut_short,
            broken,
        } = found;
        let id = sandbox.id().to_owned();
        let state = sandbox.read(|r| r.state);
        sandbox.read(|r| {
            let made = r.cgroup_made.clone();
            self.pod_cgroups.adopt(&id, &r.cgroup, made);
        });
        let adopted = match state {
            State::NotReady => false,
            State::Creating | State::Ready => self.adopt(&sandbox).await,
        };
        self.levels.adopt(&sandbox);
        self.sandboxes.insert(sandbox.clone());
        let mut half_made = Vec::new();
        for container in containers {
            match container.state() {
                ContainerState::Creating => half_made.push(container.clone()),
                ContainerState::Running if !adopted => {
                    let exit = self.engine.exits(&id).get(container.id()).copied();
                    self.container_ended(&container, exit.unwrap_or_else(lost));
                }
                _ => {}
            }
            self.containers.insert(container);
        }
        for container in half_made {
            let taken = self.take_container(&container).await;
            warn(&id, "a half-made container stays", taken);
        }
        for container in cut_short {
            tracing::info!(container, "what is left of a container is removed");
            undo(self, &sandbox, &container).await;
        }
        if state == State::Creating {
            self.sandboxes.remove(&id);
            self.discard_sandbox(&sandbox).await;
        } else if !adopted || broken {
            let ended = self.end_sandbox(&sandbox).await;
            warn(&id, "leftovers of a dead sandbox", ended);
        }
    }

    async fn adopt(&self, sandbox: &Arc<Sandbox>) -> bool {
        match self.engine.adopt(sandbox.id()).await {
            Ok(engine) => {
                sandbox.set_engine(Some(engine));
                true
            }
            Err(AdoptError::Gone { .. }) => false,
            Err(error) => {
                tracing::error!(sandbox = sandbox.id(), error = chain(&error), "not adopted");
                false
            }
        }
    }

    /// Nothing is known but the id: monitor and directory go.
    async fn sweep_unreadable(&self, dir: &Path) {
        let id = dir.file_name().unwrap_or_default().to_string_lossy();
        self.end_monitor(&id).await;
        for container in entries(&dir.join("containers")) {
            let name = container.file_name().unwrap_or_default().to_string_lossy();
            if let Ok(record) = read_record::<ContainerRecord>(&container) {
                let removed = self.cgroups.kill_and_remove(&record.cgroup).await;
                warn(&id, "a cgroup stays", removed.map_err(VerbError::from));
                // Who made the pod's cgroup is not known any more; an empty one is no loss.
                if let Some(pod) = record.cgroup.parent() {
                    self.cgroups.prune(&pod, &pod);
                }
            }
            self.release_layers(&name);
        }
        delete(dir);
    }

    async fn end_monitor(&self, id: &str) {
        if let Ok(engine) = self.engine.adopt(id).await {
            tracing::warn!(sandbox = id, "a sandbox without a record is ended");
            let ended = engine.shutdown().await;
            warn(
                id,
                "a monitor without a record lives on",
                ended.map_err(VerbError::from),
            );
        }
        self.engine.forget(id);
    }

    /// Monitors, cgroups, layers and addresses that belong to nobody.
    async fn sweep(&self) {
        for id in self.engine.found() {
            if self.sandboxes.get(&id).is_none() {
                self.end_monitor(&id).await;
            }
        }
        self.sweep_cgroups().await;
        for owner in self.images.owners() {
            let id = owner.split('-').next().unwrap_or_default();
            if self.containers.get(id).is_none()
                && let Err(error) = self.images.release(&owner)
            {
                tracing::warn!(owner, %error, "image layers stay held");
            }
        }
        let valid: Vec<String> = self
            .sandboxes
            .list()
            .iter()
            .filter(|s| s.read(|r| r.network.as_ref().is_some_and(|n| !n.released)))
            .map(|s| s.id().to_owned())
            .collect();
        if let Err(error) = self.network.gc(&valid).await {
            tracing::warn!(error = chain(&error), "the pod network was not cleaned");
        }
        for layer in entries(&self.layers_dir()) {
            let id = layer.file_name().unwrap_or_default().to_string_lossy();
            if self.containers.get(&id).is_none() {
                self.discard_layer(&layer);
            }
        }
        for dir in entries(&self.trash_dir()) {
            tokio::task::spawn_blocking(move || std::fs::remove_dir_all(dir));
        }
    }

    /// Containers' cgroups have their ids in their names, below the parents that
    /// we know of.
    async fn sweep_cgroups(&self) {
        let mut parents: HashSet<CgroupPath> = HashSet::new();
        for sandbox in self.sandboxes.list() {
            parents.insert(sandbox.read(|r| r.cgroup.clone()));
        }
        parents.insert(self.cgroups.own_parent());
        for parent in parents {
            for child in self.cgroups.children(&parent) {
                let Some(id) = self.cgroups.owner(&child) else {
                    continue;
                };
                if self.containers.get(id).is_none() && self.sandboxes.get(id).is_none() {
                    let removed = self.cgroups.kill_and_remove(&parent.child(&child)).await;
                    warn(&child, "a cgroup stays", removed.map_err(VerbError::from));
                }
            }
        }
    }
}

fn warn(id: &str, what: &str, result: Result<(), VerbError>) {
    if let Err(error) = result {
        tracing::warn!(id, error = chain(&error), "{what}");
    }
}

/// A sandbox on disk with those of its containers that can be read.
struct Found {
    sandbox: Arc<Sandbox>,
    containers: Vec<Arc<Container>>,
    /// Ids of those whose creation or removal was cut short.
    cut_short: Vec<String>,
    /// A container's record can't be read: the pod is stopped.
    broken: bool,
}

fn load(dir: &Path, layers: &Path) -> Result<Found, String> {
    let record: Record = read_record(dir).map_err(|e| chain(&e))?;
    let sandbox = Arc::new(Sandbox::new(dir.to_owned(), record));
    let mut found = Found {
        containers: Vec::new(),
        cut_short: Vec::new(),
        broken: false,
        sandbox: sandbox.clone(),
    };
    for dir in entries(&sandbox.containers_dir()) {
        match load_container(&dir, layers, &sandbox) {
            Ok(Some(container)) => found.containers.push(Arc::new(container)),
            Ok(None) => {
                let id = dir.file_name().unwrap_or_default().to_string_lossy();
                found.cut_short.push(id.into_owned());
            }
            Err(error) => {
                tracing::error!(
                    sandbox = sandbox.id(),
                    error,
                    "a pod is stopped: the record of one of its containers can't be read"
                );
                found.broken = true;
            }
        }
    }
    Ok(found)
}

/// None: it is half-made or half-removed. The spec is written before the record,
/// and a container that is being removed has ended.
fn load_container(
    dir: &Path,
    layers: &Path,
    sandbox: &Arc<Sandbox>,
) -> Result<Option<Container>, String> {
    let missing = |e: &std::io::Error| e.kind() == std::io::ErrorKind::NotFound;
    let record: ContainerRecord = match read_record(dir) {
        Err(RecordError::Read { source, .. }) if missing(&source) => return Ok(None),
        record => record.map_err(|e| chain(&e))?,
    };
    let path = dir.join(SPEC);
    let text = match std::fs::read(&path) {
        Err(e) if missing(&e) && record.state == ContainerState::Exited => return Ok(None),
        text => text.map_err(|e| format!("read {}: {e}", path.display()))?,
    };
    let spec: Spec =
        serde_json::from_slice(&text).map_err(|e| format!("read {}: {e}", path.display()))?;
    let layer = layers.join(&record.id);
    let dir = dir.to_owned();
    Ok(Some(Container::new(
        dir,
        layer,
        sandbox.clone(),
        spec.into(),
        record,
    )))
}

fn entries(dir: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).collect()
}
