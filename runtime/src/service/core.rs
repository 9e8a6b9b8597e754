//! What all verbs share.

use super::VerbError;
use super::ahead::Ahead;
use super::apparmor::Loader;
use super::events::Events;
use super::flights::Flights;
use super::pod_cgroups::PodCgroups;
use super::sampler::Sampler;
use super::selinux::Levels;
use crate::Config;
use crate::cgroup::Cgroups;
use crate::container::{AccountsCache, Container, Mountpoints};
use crate::image::Store;
use crate::process::Engine;
use crate::sandbox::{Index, Sandbox};
use crate::seccomp::Compiled;
use crate::spec::HostSecurity;
use crate::streaming;
use cni::network::Network;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};
use tokio_util::sync::CancellationToken;

/// Namespace, name, uid and attempt of a pod.
pub(super) type SandboxName = (String, String, String, u32);

/// Sandbox, name and attempt of a container.
pub(super) type ContainerName = (String, String, u32);

/// The runtime's parts and all that it knows.
pub(crate) struct Core {
    pub config: Config,
    pub cgroups: Cgroups,
    pub pod_cgroups: PodCgroups,
    pub images: Arc<Store>,
    pub engine: Engine,
    pub mountpoints: Mountpoints,
    pub network: Arc<Network>,
    pub ahead: Ahead,
    pub host: HostSecurity,
    pub apparmor: Loader,
    pub levels: Levels,
    pub sandboxes: Index<Sandbox>,
    pub containers: Index<Container>,
    pub events: Events,
    pub seccomp: Compiled,
    pub accounts: AccountsCache,
    pub runs: Flights<SandboxName>,
    pub creates: Flights<ContainerName>,
    pub samples: Sampler,
    pub streaming: Arc<streaming::Server>,
    pub shutdown: CancellationToken,
}

impl std::fmt::Debug for Core {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Core")
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

impl Core {
    /// A sandbox by id or a beginning of it.
    pub(super) fn find_sandbox(&self, id: &str) -> Result<Option<Arc<Sandbox>>, VerbError> {
        Ok(self.sandboxes.find(id)?)
    }

    /// A sandbox that must be there.
    pub(super) fn sandbox(&self, id: &str) -> Result<Arc<Sandbox>, VerbError> {
        self.find_sandbox(id)?
            .ok_or_else(|| VerbError::SandboxNotFound { id: id.to_owned() })
    }

    /// A container by id or a beginning of it.
    pub(super) fn find_container(&self, id: &str) -> Result<Option<Arc<Container>>, VerbError> {
        Ok(self.containers.find(id)?)
    }

    /// A container that must be there.
    pub(super) fn container(&self, id: &str) -> Result<Arc<Container>, VerbError> {
        self.find_container(id)?
            .ok_or_else(|| VerbError::ContainerNotFound { id: id.to_owned() })
    }

    /// The containers of a sandbox.
    pub(super) fn containers_of(&self, sandbox: &str) -> Vec<Arc<Container>> {
        let mut all = self.containers.list();
        all.retain(|c| c.read(|r| r.sandbox_id == sandbox));
        all
    }

    /// Where sandboxes' directories are: records and small files that many pods would
    /// otherwise make and delete on a disk, whose file system may be slow at it (ADR 11).
    pub(super) fn sandboxes_dir(&self) -> PathBuf {
        self.config.state.join("sandboxes")
    }

    /// Where containers' writable layers are.
    pub(super) fn layers_dir(&self) -> PathBuf {
        self.config.root.join("containers")
    }

    /// Where what is being deleted waits.
    pub(super) fn trash_dir(&self) -> PathBuf {
        self.config.root.join("trash")
    }

    /// Takes a writable layer away at once and deletes it when there is time: it can
    /// be large.
    pub(super) fn discard_layer(&self, dir: &std::path::Path) {
        let target = self.trash_dir().join(new_id());
        match std::fs::rename(dir, &target) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => {
                tracing::warn!(dir = %dir.display(), %error, "a directory is left to the next start");
            }
            Ok(()) => {
                tokio::task::spawn_blocking(move || delete(&target));
            }
        }
    }
}

/// Deletes a directory; one that is not there is fine.
pub(super) fn delete(dir: &std::path::Path) {
    match std::fs::remove_dir_all(dir) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            tracing::warn!(dir = %dir.display(), %error, "a directory is left to the next start");
        }
        _ => {}
    }
}

/// Runs file work that may take long where it holds up nobody.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, VerbError> + Send + 'static,
) -> Result<T, VerbError> {
    let span = tracing::Span::current();
    let task = tokio::task::spawn_blocking(move || span.in_scope(work));
    task.await.unwrap_or(Err(VerbError::ShuttingDown))
}

/// 64 hex digits.
pub(super) fn new_id() -> String {
    let bytes: [u8; 32] = random_bytes();
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Any number.
pub(super) fn random() -> u32 {
    u32::from_ne_bytes(random_bytes())
}

fn random_bytes<const N: usize>() -> [u8; N] {
    let mut bytes = [0_u8; N];
    let mut filled = 0;
    while filled < bytes.len() {
        let flags = rustix::rand::GetRandomFlags::empty();
        filled += rustix::rand::getrandom(&mut bytes[filled..], flags).unwrap_or(0);
    }
    bytes
}

/// Nanoseconds since the epoch.
pub(super) fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |d| i64::try_from(d.as_nanos()).unwrap_or(i64::MAX))
}
