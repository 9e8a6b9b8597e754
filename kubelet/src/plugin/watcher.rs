//! Follows the folder.

use super::registry::{Identity, Registry, Step};
use super::{Announced, Handler};
use crate::join::report::chain;
use crate::proto::pluginregistration as api;
use crate::proto::pluginregistration::registration_client::RegistrationClient;
use crate::socket;
use futures::StreamExt as _;
use inotify::{Inotify, WatchMask};
use std::collections::BTreeMap;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// Ours, beside inotify: how often the folder is looked at anyway.
const LOOK: Duration = Duration::from_secs(10);
/// kubernetes v1.37 pkg/kubelet/pluginmanager/operationexecutor `dialTimeoutDuration`.
const ASK_TIMEOUT: Duration = Duration::from_secs(10);
/// How deep folders in the folder are looked into.
const DEPTH: u32 = 3;

type Taken = (Announced, Arc<dyn Handler>);

/// What became of one socket.
struct Outcome {
    path: PathBuf,
    identity: Identity,
    taken: Option<Taken>,
}

/// Watches `plugins_registry`.
pub struct Watcher {
    dir: PathBuf,
    handlers: Vec<Arc<dyn Handler>>,
}

impl Watcher {
    /// For plugins of these kinds; `root` is usually /var/lib/kubelet.
    pub fn new(root: &Path, handlers: Vec<Arc<dyn Handler>>) -> Watcher {
        let dir = root.join("plugins_registry");
        Watcher { dir, handlers }
    }

    /// Takes plugins in and gives them back until `shutdown`.
    pub async fn run(self, shutdown: CancellationToken) {
        let watcher = Arc::new(self);
        tokio::select! {
            () = shutdown.cancelled() => {}
            () = watcher.follow() => {}
        }
    }

    async fn follow(self: Arc<Self>) {
        let mut buffer = [0; 4096];
        let stream = self
            .inotify()
            .and_then(|i| i.into_event_stream(&mut buffer).ok());
        let mut events = match stream {
            Some(events) => events.map(drop).boxed(),
            None => futures::stream::pending().boxed(),
        };
        let (tell, mut told) = mpsc::unbounded_channel();
        let mut registry: Registry<Taken> = Registry::default();
        loop {
            self.step(&mut registry, &tell).await;
            let due = registry.wake_at().map_or(LOOK, |at| {
                at.saturating_duration_since(Instant::now()).min(LOOK)
            });
            tokio::select! {
                _ = events.next() => {}
                () = tokio::time::sleep(due) => {}
                Some(outcome) = told.recv() => self.note(&mut registry, outcome).await,
            }
        }
    }

    fn inotify(&self) -> Option<Inotify> {
        let inotify = Inotify::init().ok()?;
        let mask = WatchMask::CREATE
            | WatchMask::DELETE
            | WatchMask::MOVED_TO
            | WatchMask::MOVED_FROM
            | WatchMask::ATTRIB;
        inotify.watches().add(&self.dir, mask).ok()?;
        Some(inotify)
    }

    async fn step(
        self: &Arc<Self>,
        registry: &mut Registry<Taken>,
        tell: &mpsc::UnboundedSender<Outcome>,
    ) {
        let mut seen = BTreeMap::new();
        sockets(&self.dir, DEPTH, &mut seen);
        for step in registry.steps(&seen, Instant::now()) {
            match step {
                Step::Deregister((plugin, handler)) => handler.deregister(&plugin).await,
                Step::Register(path, identity) => {
                    let (watcher, tell) = (self.clone(), tell.clone());
                    tokio::spawn(async move {
                        let taken = watcher.take(&path).await;
                        // Nobody listens when the agent ends.
                        let _ = tell.send(Outcome {
                            path,
                            identity,
                            taken,
                        });
                    });
                }
            }
        }
    }

    async fn note(&self, registry: &mut Registry<Taken>, outcome: Outcome) {
        let Outcome {
            path,
            identity,
            taken,
        } = outcome;
        if let Some((plugin, handler)) = registry.done(&path, identity, taken, Instant::now()) {
            handler.deregister(&plugin).await;
        }
    }

    /// Asks who it is, takes it in, and tells it so.
    async fn take(&self, path: &Path) -> Option<Taken> {
        let asked = tokio::time::timeout(ASK_TIMEOUT, ask(path)).await;
        let (mut client, info) = match asked {
            Ok(Ok(answer)) => answer,
            Ok(Err(why)) => {
                tracing::info!(socket = %path.display(), why, "plugin does not say who it is");
                return None;
            }
            Err(_) => {
                tracing::info!(socket = %path.display(), "plugin does not answer");
                return None;
            }
        };
        let handler = self.handlers.iter().find(|h| h.kind() == info.r#type);
        let plugin = announced(path, &info);
        let result = match handler {
            Some(handler) => handler.register(&plugin).await,
            None => Err(format!(
                "no handler registered for plugin type: {}",
                info.r#type
            )),
        };
        let error = result.as_ref().err().cloned().unwrap_or_default();
        let (kind, name) = (&info.r#type, &info.name);
        match &result {
            Ok(()) => tracing::info!(kind, name, "plugin registered"),
            Err(why) => tracing::warn!(kind, name, why, "plugin not registered"),
        }
        let status = api::RegistrationStatus {
            plugin_registered: result.is_ok(),
            error,
        };
        let told = client.notify_registration_status(status);
        match tokio::time::timeout(ASK_TIMEOUT, told).await {
            Ok(Ok(_)) => {}
            _ => tracing::info!(name, "plugin was not told what became of it"),
        }
        result.ok()?;
        handler.map(|h| (plugin, h.clone()))
    }
}

type Client = RegistrationClient<tonic::transport::Channel>;

async fn ask(path: &Path) -> Result<(Client, api::PluginInfo), String> {
    let channel = socket::connect(path).await.map_err(|e| chain(&e))?;
    let mut client = RegistrationClient::new(channel);
    let info = client.get_info(api::InfoRequest {}).await;
    let info = info.map_err(|status| status.message().to_owned())?;
    Ok((client, info.into_inner()))
}

fn announced(path: &Path, info: &api::PluginInfo) -> Announced {
    Announced {
        name: info.name.clone(),
        endpoint: match info.endpoint.as_str() {
            "" => path.to_owned(),
            endpoint => endpoint.into(),
        },
        versions: info.supported_versions.clone(),
    }
}

/// Sockets in a folder and in those in it; hidden ones left out.
fn sockets(dir: &Path, depth: u32, into: &mut BTreeMap<PathBuf, Identity>) {
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        let (path, name) = (entry.path(), entry.file_name());
        let Ok(seen) = std::fs::symlink_metadata(&path) else {
            continue;
        };
        let hidden = name.to_string_lossy().starts_with('.');
        if seen.is_dir() && depth > 0 && !hidden {
            sockets(&path, depth - 1, into);
        } else if seen.file_type().is_socket() && !hidden {
            let identity = (seen.dev(), seen.ino(), seen.ctime(), seen.ctime_nsec());
            into.insert(path, identity);
        }
    }
}
