//! The agent's end of the spawner: makes, finds and adopts sandboxes.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use rustix::fs::{Mode, OFlags};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use tokio::sync::mpsc;

use super::connection::Connection;
use super::link::{Answer, Link, Unasked};
use super::wire::{self, Body, Hello};
use super::{
    AdoptError, EngineConfig, Event, Exit, PidMode, ProcessError, SPAWNER, Sandbox, SandboxAhead,
    SandboxSpec, answer, own, prepare, sandbox,
};

/// Makes and finds sandboxes. One for each state folder: the caller sees to it
/// that there is no second agent on it.
#[derive(Debug)]
pub struct Engine {
    config: EngineConfig,
    events: mpsc::UnboundedSender<Event>,
    /// The spawner's connection, made anew when it is found dead.
    spawner: tokio::sync::Mutex<Option<Arc<Link>>>,
}

/// The spawner ends with the engine; monitors live on.
impl Drop for Engine {
    fn drop(&mut self) {
        if let Some(link) = self.spawner.get_mut().take() {
            link.close();
        }
    }
}

/// How long a monitor has to answer an agent that adopts it; it takes microseconds.
const PATIENCE: Duration = Duration::from_secs(10);

/// Name of a monitor's socket in its sandbox's directory.
const SOCKET: &str = "m.sock";

impl Engine {
    /// Takes the state folder and starts the spawner.
    ///
    /// # Errors
    /// When the folder can't be made or the spawner can't be started.
    pub async fn open(
        config: EngineConfig,
    ) -> Result<(Self, mpsc::UnboundedReceiver<Event>), ProcessError> {
        let (events, receiver) = mpsc::unbounded_channel();
        let sandboxes = config.state.join("sandboxes");
        make_dir(&sandboxes).map_err(|source| ProcessError::State {
            action: "make",
            path: sandboxes,
            source,
        })?;
        let engine = Self {
            config,
            events,
            spawner: tokio::sync::Mutex::new(None),
        };
        engine.spawner().await?;
        Ok((engine, receiver))
    }

    /// Makes a monitor with the pod's namespaces, or has one that waits become that: the
    /// spec's id is its then.
    ///
    /// # Errors
    /// The step of the monitor that failed; nothing is left then.
    #[tracing::instrument(name = "monitor", level = "debug", skip_all, fields(sandbox = %spec.id))]
    pub async fn run_sandbox(
        &self,
        spec: SandboxSpec,
        ahead: Option<SandboxAhead>,
    ) -> Result<Arc<Sandbox>, ProcessError> {
        let dir = self.directory(&spec.id);
        if let Some(ahead) = ahead {
            let spawn = Body::Spawn(spawn_request(&spec));
            let sandbox = ahead.run(spawn, self.events.clone()).await;
            return sandbox.inspect_err(|_| self.forget(&spec.id));
        }
        // Asked for a second time, by one who has not seen the first answer.
        if let Ok(sandbox) = self.adopt(&spec.id).await {
            return Ok(sandbox);
        }
        let body = Body::Spawn(spawn_request(&spec));
        let made = self.make_monitor(&spec.id, &dir, body).await;
        let made = made.and_then(|(connection, answer)| {
            Sandbox::open(connection, answer, self.events.clone())
        });
        made.inspect_err(|_| self.forget(&spec.id))
    }

    /// Makes a monitor that waits for its pod, whose sandbox is to have this id.
    ///
    /// # Errors
    /// The step of the monitor that failed; nothing is left then.
    pub async fn sandbox_ahead(&self, id: &str) -> Result<SandboxAhead, ProcessError> {
        let dir = self.directory(id);
        let ahead = prepare::ahead(&self.config.mounts_ahead);
        let made = self.make_monitor(id, &dir, Body::Ahead(ahead));
        let made = made
            .await
            .and_then(|(connection, answer)| SandboxAhead::open(connection, answer));
        made.inspect_err(|_| self.forget(id))
    }

    /// Has the spawner make a monitor; the answer is its first.
    async fn make_monitor(
        &self,
        id: &str,
        dir: &Path,
        body: Body,
    ) -> Result<(Connection, io::Result<Answer>), ProcessError> {
        let state = |action, source: io::Error| ProcessError::State {
            action,
            path: dir.to_owned(),
            source,
        };
        make_dir(dir).map_err(|e| state("make", e))?;
        let folder = open_dir(dir).map_err(|e| state("open", e))?;
        let listener = listener(&folder).map_err(|e| state("make a socket in", e))?;
        let (ours, theirs) =
            super::seqpacket_pair().map_err(|e| state("make a socket for", e.into()))?;
        let connection = self.connection(id, ours).map_err(|e| state("watch", e))?;
        // The monitor answers; if there never is one, its end of the pair closes,
        // which tells so.
        let spawn = async {
            let fds = [theirs.as_fd(), listener.as_fd(), folder.as_fd()];
            let spawned = self.spawn(body, &fds).await;
            drop(theirs);
            spawned
        };
        let (answer, spawned) = tokio::join!(connection.link.first(), spawn);
        spawned?;
        Ok((connection, answer))
    }

    /// Takes over the sandbox of an earlier agent. Exits seen meanwhile come
    /// as [`Event`]s.
    ///
    /// # Errors
    /// [`AdoptError::Gone`] when its monitor is dead.
    pub async fn adopt(&self, id: &str) -> Result<Arc<Sandbox>, AdoptError> {
        let gone = || AdoptError::Gone { sandbox: id.into() };
        let dir = self.directory(id);
        let folder = open_dir(&dir).map_err(|_| gone())?;
        let socket = connect(&folder).map_err(|_| gone())?;
        let connection = self
            .connection(id, socket)
            .map_err(|source| AdoptError::Monitor {
                sandbox: id.into(),
                source: ProcessError::Protocol {
                    sandbox: id.into(),
                    source,
                },
            })?;
        let hello = Body::Hello(Hello {
            version: wire::VERSION,
        });
        let asked = tokio::time::timeout(PATIENCE, connection.link.ask(hello, &[])).await;
        // One that is stopped or stuck is no use, but lives: not for us to declare dead.
        let answer = asked.map_err(|_| AdoptError::Monitor {
            sandbox: id.into(),
            source: ProcessError::Protocol {
                sandbox: id.into(),
                source: io::ErrorKind::TimedOut.into(),
            },
        })?;
        if answer.is_err() {
            return Err(gone());
        }
        let opened = Sandbox::adopted(connection, answer, self.events.clone());
        let sandbox = opened.map_err(|source| AdoptError::Monitor {
            sandbox: id.into(),
            source,
        })?;
        sandbox.replay();
        Ok(sandbox)
    }

    /// Ids of the sandboxes that this state folder knows, living or not.
    pub fn found(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.config.state.join("sandboxes"));
        let mut ids: Vec<_> = entries
            .into_iter()
            .flatten()
            .flatten()
            .filter_map(|entry| entry.file_name().into_string().ok())
            .collect();
        ids.sort_unstable();
        ids
    }

    /// Exit records left by a sandbox's monitor, by container.
    pub fn exits(&self, id: &str) -> HashMap<String, Exit> {
        sandbox::exit_records(&self.directory(id))
    }

    /// Removes what the state folder holds of a sandbox whose monitor is gone
    /// (after [`Sandbox::shutdown`] there is nothing left to remove).
    pub fn forget(&self, id: &str) {
        let _ = std::fs::remove_dir_all(self.directory(id));
    }

    fn directory(&self, id: &str) -> PathBuf {
        self.config.state.join("sandboxes").join(id)
    }

    fn connection(&self, id: &str, socket: OwnedFd) -> io::Result<Connection> {
        Connection::new(id, &self.directory(id), socket, self.events.clone())
    }

    async fn spawn(
        &self,
        body: Body,
        fds: &[std::os::fd::BorrowedFd<'_>],
    ) -> Result<(), ProcessError> {
        // A spawner that died since it was last used is noticed here.
        for _ in 0..2 {
            let spawner = self.spawner().await?;
            match spawner.tell(body.clone(), fds).await {
                Ok(()) => return Ok(()),
                Err(_) => *self.spawner.lock().await = None,
            }
        }
        Err(ProcessError::Spawner {
            source: io::ErrorKind::ConnectionReset.into(),
        })
    }

    async fn spawner(&self) -> Result<Arc<Link>, ProcessError> {
        let mut spawner = self.spawner.lock().await;
        if let Some(link) = spawner.as_ref().filter(|link| !link.is_closed()) {
            return Ok(Arc::clone(link));
        }
        let link = self.start_spawner().await?;
        *spawner = Some(Arc::clone(&link));
        Ok(link)
    }

    async fn start_spawner(&self) -> Result<Arc<Link>, ProcessError> {
        let failed = |source: io::Error| ProcessError::Spawner { source };
        let (ours, theirs) = super::seqpacket_pair().map_err(|e| failed(e.into()))?;
        // The runtime reaps it when it dies; what it made lives on.
        drop(start_own(theirs).map_err(failed)?);
        let link = Link::new(ours, |_: Unasked| ()).map_err(failed)?;
        let cgroups: Vec<_> = self
            .config
            .monitor_cgroups
            .iter()
            .map(AsFd::as_fd)
            .collect();
        let hello = Body::Hello(Hello {
            version: wire::VERSION,
        });
        match link.ask(hello, &cgroups).await.map_err(failed)?.body {
            Body::Done(_) => Ok(link),
            Body::Failed(why) => Err(answer::failed("", "", why)),
            _ => Err(failed(io::ErrorKind::InvalidData.into())),
        }
    }
}

/// Starts the spawner from our own executable.
fn start_own(stdin: OwnedFd) -> io::Result<tokio::process::Child> {
    use std::os::fd::AsRawFd;
    let clone = own::program();
    let path = match &clone {
        Ok(file) => format!("/proc/self/fd/{}", file.as_raw_fd()),
        Err(error) => {
            tracing::warn!(%error, "our executable can't be protected from containers");
            "/proc/self/exe".to_owned()
        }
    };
    tokio::process::Command::new(path)
        .arg0(SPAWNER)
        .env_clear()
        .stdin(Stdio::from(stdin))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .current_dir("/")
        .spawn()
}

fn make_dir(path: &Path) -> io::Result<()> {
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
}

fn open_dir(path: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(rustix::fs::open(path, flags, Mode::empty())?)
}

/// The socket's address by way of its directory's descriptor: a path of any
/// length fits, where sun_path takes 108 bytes.
fn address(folder: &OwnedFd) -> io::Result<SocketAddrUnix> {
    use std::os::fd::AsRawFd;
    let path = format!("/proc/self/fd/{}/{SOCKET}", folder.as_raw_fd());
    Ok(SocketAddrUnix::new(path)?)
}

fn seqpacket() -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC;
    Ok(rustix::net::socket_with(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        flags,
        None,
    )?)
}

/// Bound, not yet listening: the monitor does that, so that a peer is told its pid.
fn listener(folder: &OwnedFd) -> io::Result<OwnedFd> {
    let socket = seqpacket()?;
    // What an earlier attempt has left.
    let _ = rustix::fs::unlinkat(folder, SOCKET, rustix::fs::AtFlags::empty());
    rustix::fs::fchmod(&socket, Mode::RUSR | Mode::WUSR)?;
    rustix::net::bind(&socket, &address(folder)?)?;
    Ok(socket)
}

fn connect(folder: &OwnedFd) -> io::Result<OwnedFd> {
    let socket = seqpacket()?;
    rustix::net::connect(&socket, &address(folder)?)?;
    let peer = rustix::net::sockopt::socket_peercred(&socket)?;
    if peer.uid == rustix::process::geteuid() {
        Ok(socket)
    } else {
        Err(io::ErrorKind::PermissionDenied.into())
    }
}

fn spawn_request(spec: &SandboxSpec) -> wire::Spawn {
    let maps = |maps: &[super::IdMap]| {
        maps.iter()
            .map(|m| wire::IdMap {
                container: m.container,
                host: m.host,
                length: m.length,
            })
            .collect()
    };
    let (uids, gids) = spec
        .user
        .as_ref()
        .map(|(u, g)| (maps(u), maps(g)))
        .unwrap_or_default();
    wire::Spawn {
        id: spec.id.clone(),
        hostname: spec.hostname.clone(),
        network: spec.network,
        ipc: spec.ipc,
        uts: spec.uts,
        pid: spec.pid == PidMode::Pod,
        uids,
        gids,
        sysctls: spec
            .sysctls
            .iter()
            .map(|(key, value)| wire::KeyValue {
                key: key.clone(),
                value: value.clone(),
            })
            .collect(),
        shm_size: spec.shm_size,
        mount_label: spec.mount_label.clone(),
        process_label: spec.process_label.clone(),
    }
}
