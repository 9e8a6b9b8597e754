//! The agent's handle of one monitor.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{mpsc, oneshot};

use super::answer::{self, failed, mark_waterfall};
use super::connection::{Connection, Execution, Record};
use super::link::Answer;
use super::netns::PodNetns;
use super::renewal::{self, Renewal};
use super::wire::{self, Body, Done, Named};
use super::{
    ContainerCgroups, ContainerSpec, Event, ExecSpec, Exit, ProcessError, Streams, prepare,
};

/// A pod's sandbox: its namespaces and its containers, through its monitor.
///
/// Every verb may be repeated; removing what is not there is no error.
/// Dropping the handle leaves the sandbox as it is.
#[derive(Debug)]
pub struct Sandbox {
    id: String,
    dir: PathBuf,
    monitor: OwnedFd,
    monitor_pid: i32,
    netns: Arc<PodNetns>,
    userns: Option<Arc<OwnedFd>>,
    ipc: bool,
    connection: Connection,
    renewal: Renewal,
    events: mpsc::UnboundedSender<Event>,
}

/// A container whose mounts are made and whose log is open.
#[derive(Debug)]
pub struct MountedContainer {
    log: PathBuf,
    mounted: prepare::Mounted,
}

impl MountedContainer {
    fn new(spec: ContainerSpec, host: &prepare::Host) -> Result<Self, ProcessError> {
        Ok(Self {
            log: spec.io.log.clone().unwrap_or_default(),
            mounted: prepare::mounts_and_log(spec, host)?,
        })
    }

    /// Puts it into its cgroups.
    ///
    /// # Errors
    /// A descriptor that is none of a cgroup, or no memory for the plan.
    pub fn in_cgroups(self, cgroups: ContainerCgroups) -> Result<PreparedContainer, ProcessError> {
        Ok(PreparedContainer {
            log: self.log,
            prepared: self.mounted.in_cgroups(cgroups)?,
        })
    }
}

/// A container that only its monitor has yet to make.
#[derive(Debug)]
pub struct PreparedContainer {
    log: PathBuf,
    prepared: prepare::Prepared<wire::Create>,
}

/// How long a monitor that has answered its last request may take to end.
const MONITOR_END: std::time::Duration = std::time::Duration::from_secs(2);

impl Sandbox {
    /// Makes the handle of the first answer of a monitor that our spawner has made.
    pub(super) fn open(
        connection: Connection,
        answer: io::Result<Answer>,
        events: mpsc::UnboundedSender<Event>,
    ) -> Result<Arc<Self>, ProcessError> {
        Self::of(connection, answer, events, |_, _| Renewal::never())
    }

    /// As [`open`](Self::open), of one that was found: it may be an earlier agent's.
    pub(super) fn adopted(
        connection: Connection,
        answer: io::Result<Answer>,
        events: mpsc::UnboundedSender<Event>,
    ) -> Result<Arc<Self>, ProcessError> {
        Self::of(connection, answer, events, Renewal::of)
    }

    fn of(
        connection: Connection,
        answer: io::Result<Answer>,
        events: mpsc::UnboundedSender<Event>,
        renewal: impl FnOnce(i32, &wire::State) -> Renewal,
    ) -> Result<Arc<Self>, ProcessError> {
        let id = connection.sandbox.clone();
        let (state, fds) = answer::state(&id, answer)?;
        mark_waterfall(&state.marks);
        let [monitor, netns] = fds.required;
        let monitor_pid = answer::pid_of(&monitor).map_err(|source| protocol(&id, source))?;
        connection.learn(&state.containers);
        let renewal = renewal(monitor_pid, &state);
        Ok(Arc::new(Self {
            dir: connection.dir.clone(),
            monitor,
            monitor_pid,
            netns: Arc::new(PodNetns {
                namespace: netns,
                link: Arc::clone(&connection.link),
            }),
            userns: fds.userns.map(Arc::new),
            ipc: state.ipc,
            connection,
            renewal,
            events,
            id,
        }))
    }

    /// 64 hex digits.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Pid of the monitor, as the agent sees it.
    pub fn monitor_pid(&self) -> i32 {
        self.monitor_pid
    }

    /// The pod's network namespace.
    pub fn netns(&self) -> Arc<dyn cni::Netns> {
        Arc::clone(&self.netns) as Arc<dyn cni::Netns>
    }

    /// Has the monitor go on as this agent's program, with all that it holds. Containers and
    /// execs do so first where the monitor is an earlier agent's.
    ///
    /// # Errors
    /// When it can't, or not now: it is what it was then.
    pub async fn renew(&self) -> Result<(), ProcessError> {
        renewal::renew(&self.id, &self.connection.link).await
    }

    /// Connects to the pod's own 127.0.0.1, then ::1.
    ///
    /// # Errors
    /// Of the first connect, when both fail.
    pub async fn connect_tcp(&self, port: u16) -> io::Result<tokio::net::TcpStream> {
        self.netns.connect(port).await
    }

    /// Sets a container up to the point before its command is executed; the
    /// answer is its pid. A container that joins a PID namespace (pod, target)
    /// gets its final pid only by [`start_container`](Self::start_container).
    ///
    /// # Errors
    /// The step that failed; nothing of the container is left then but its
    /// writable layer.
    pub async fn create_container(
        &self,
        spec: ContainerSpec,
        cgroups: ContainerCgroups,
    ) -> Result<i32, ProcessError> {
        let host = self.host();
        let prepared = blocking(move || MountedContainer::new(spec, &host)?.in_cgroups(cgroups));
        let prepared = prepared.await?;
        self.create_prepared(prepared).await
    }

    /// Makes a container's mounts and opens its log. Waits for disks.
    ///
    /// # Errors
    /// The step that failed; nothing but the writable layer is left then.
    pub fn mount(&self, spec: ContainerSpec) -> Result<MountedContainer, ProcessError> {
        MountedContainer::new(spec, &self.host())
    }

    fn host(&self) -> prepare::Host {
        prepare::Host {
            userns: self.userns.clone(),
            ipc: self.ipc,
        }
    }

    /// The rest of [`create_container`](Self::create_container).
    ///
    /// # Errors
    /// As there.
    #[tracing::instrument(name = "stage", level = "debug", skip_all, fields(sandbox = %self.id))]
    pub async fn create_prepared(&self, container: PreparedContainer) -> Result<i32, ProcessError> {
        self.renewal.settle(&self.id, &self.connection.link).await?;
        let prepare::Prepared { request, fds, .. } = container.prepared;
        let id = request.container.clone();
        let answer = self.connection.link.ask_with(Body::Create(request), fds);
        let done = self.done_of(&id, answer.await)?.0;
        mark_waterfall(&done.marks);
        let record = Record {
            pid: done.pid,
            log: container.log,
            ..Record::default()
        };
        self.connection.containers().insert(id, record);
        Ok(done.pid)
    }

    /// Executes the container's command; the answer is its pid. Its end may be
    /// told by an [`Event`] before this returns.
    ///
    /// # Errors
    /// [`ProcessError::Command`] when there is no such command: the container has
    /// ended then, with no event.
    #[tracing::instrument(name = "execute", level = "debug", skip_all, fields(sandbox = %self.id, container = %id))]
    pub async fn start_container(&self, id: &str) -> Result<i32, ProcessError> {
        let body = Body::Start(named(id));
        let answered = self.done(id, body, &[]).await;
        let mut containers = self.connection.containers();
        let record = containers.entry(id.to_owned()).or_default();
        match answered {
            Ok((done, _)) => {
                mark_waterfall(&done.marks);
                if record.exit.is_none() {
                    record.pid = done.pid;
                }
                Ok(done.pid)
            }
            Err(error) => {
                record.pid = 0;
                Err(error)
            }
        }
    }

    /// Sends a signal to the first process; none there is no error.
    ///
    /// # Errors
    /// Only of a dead monitor.
    pub async fn signal(&self, id: &str, signal: i32) -> Result<(), ProcessError> {
        let container = id.to_owned();
        let body = Body::Signal(wire::Signal { container, signal });
        self.done(id, body, &[]).await.map(drop)
    }

    /// Runs a further process in a running container.
    ///
    /// # Errors
    /// [`ProcessError::NotRunning`], [`ProcessError::Command`], or the step.
    #[tracing::instrument(level = "debug", skip_all, fields(sandbox = %self.id, container = %container))]
    pub async fn exec(&self, container: &str, spec: ExecSpec) -> Result<Exec, ProcessError> {
        self.renewal.settle(&self.id, &self.connection.link).await?;
        let key = (container.to_owned(), spec.id.clone());
        let tty = spec.process.terminal().unwrap_or(false);
        let prepared = prepare::exec(container, spec)?;
        // Before it is asked for: a short one may have ended before the answer.
        let (sender, ended) = oneshot::channel();
        let execution = Execution {
            ended: sender,
            terminal: None,
        };
        self.connection.executions().insert(key.clone(), execution);
        let fds: Vec<_> = prepared.fds.iter().map(AsFd::as_fd).collect();
        let answered = self
            .done(container, Body::Exec(prepared.request), &fds)
            .await;
        let (done, mut fds) = answered.inspect_err(|_| {
            self.connection.executions().remove(&key);
        })?;
        let streams = match (tty, fds.pop()) {
            (true, Some(master)) => self.terminal_streams(&key, master),
            _ => Ok(prepared.streams),
        };
        Ok(Exec {
            streams: streams.map_err(|source| protocol(&self.id, source))?,
            pid: done.pid,
            ended,
        })
    }

    /// A terminal is both streams, and is told its size by a third copy.
    fn terminal_streams(&self, key: &(String, String), master: OwnedFd) -> io::Result<Streams> {
        rustix::io::ioctl_fionbio(&master, true)?;
        let copy = master.try_clone()?;
        if let Some(execution) = self.connection.executions().get_mut(key) {
            execution.terminal = Some(master.try_clone()?);
        }
        Ok(Streams {
            stdin: Some(copy),
            stdout: Some(master),
            stderr: None,
        })
    }

    /// Joins the streams of the first process: output from now on.
    ///
    /// # Errors
    /// [`ProcessError::NotRunning`].
    pub async fn attach(&self, id: &str, want_stdin: bool) -> Result<Streams, ProcessError> {
        let body = Body::Attach(wire::Attach {
            container: id.to_owned(),
            stdin: want_stdin,
        });
        let (done, fds) = self.done(id, body, &[]).await?;
        let mut fds = fds.into_iter();
        let stdin = if done.stdin { fds.next() } else { None };
        Ok(Streams {
            stdin,
            stdout: fds.next(),
            stderr: fds.next(),
        })
    }

    /// Tells a terminal its size; without a terminal nothing happens.
    ///
    /// # Errors
    /// Only of a dead monitor.
    pub async fn resize(
        &self,
        id: &str,
        exec: Option<&str>,
        width: u16,
        height: u16,
    ) -> Result<(), ProcessError> {
        if let Some(exec) = exec {
            self.connection.resize(id, exec, width, height);
            return Ok(());
        }
        let body = Body::Resize(wire::Resize {
            container: id.to_owned(),
            width: width.into(),
            height: height.into(),
        });
        self.done(id, body, &[]).await.map(drop)
    }

    /// Opens the container's log anew, after somebody renamed it.
    ///
    /// # Errors
    /// When the file cannot be opened.
    pub async fn reopen_log(&self, id: &str) -> Result<(), ProcessError> {
        let log = self.connection.containers().get(id).map(|c| c.log.clone());
        let path = log.ok_or_else(|| ProcessError::NotFound {
            sandbox: self.id.clone(),
            container: id.to_owned(),
        })?;
        if path.as_os_str().is_empty() {
            return Ok(());
        }
        let file = blocking(move || prepare::open_log(&path)).await?;
        let body = Body::ReopenLog(named(id));
        self.done(id, body, &[file.as_fd()]).await.map(drop)
    }

    /// Forgets a container; its first process is killed if it runs.
    ///
    /// # Errors
    /// Only of a dead monitor.
    pub async fn remove_container(&self, id: &str) -> Result<(), ProcessError> {
        self.done(id, Body::Remove(named(id)), &[]).await?;
        self.connection.containers().remove(id);
        Ok(())
    }

    /// Pid of the container's first process while it runs.
    pub fn container_pid(&self, id: &str) -> Option<i32> {
        let containers = self.connection.containers();
        containers.get(id).map(|c| c.pid).filter(|pid| *pid > 0)
    }

    /// Kills every container and ends the monitor; the pod's namespaces go
    /// with it, and so does what the state folder holds of the sandbox.
    ///
    /// # Errors
    /// When the monitor can't be ended.
    pub async fn shutdown(&self) -> Result<(), ProcessError> {
        self.connection.leave();
        let asked = self.done("", Body::Shutdown(wire::Empty {}), &[]).await;
        match asked {
            Ok(_) | Err(ProcessError::MonitorGone { .. }) => {}
            Err(error) => return Err(error),
        }
        self.await_end().await;
        let dir = self.dir.clone();
        blocking(move || match std::fs::remove_dir_all(&dir) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(ProcessError::State {
                action: "remove",
                path: dir,
                source: error,
            }),
            _ => Ok(()),
        })
        .await
    }

    /// Until the monitor is no more, and its namespaces with it. One that still
    /// has a write in flight on a frozen file system ends when that is thawed.
    async fn await_end(&self) {
        if let Ok(copy) = self.monitor.try_clone()
            && let Ok(pidfd) = crate::sys::watch(copy)
            && tokio::time::timeout(MONITOR_END, pidfd.readable())
                .await
                .is_err()
        {
            let pid = self.monitor_pid;
            tracing::warn!(sandbox = %self.id, pid, "the monitor ends when the file system of a log takes what is in flight");
        }
    }

    /// Tells as events what ended while nobody listened.
    pub(super) fn replay(&self) {
        for (container, record) in self.connection.containers().iter() {
            if let Some(exit) = record.exit {
                let _ = self.events.send(Event::ContainerExited {
                    sandbox: self.id.clone(),
                    container: container.clone(),
                    exit,
                });
            }
        }
    }

    /// Containers that the monitor knows.
    pub fn containers(&self) -> Vec<String> {
        self.connection.containers().keys().cloned().collect()
    }

    async fn done(
        &self,
        container: &str,
        body: Body,
        fds: &[BorrowedFd<'_>],
    ) -> Result<(Done, Vec<OwnedFd>), ProcessError> {
        let answer = self.connection.link.ask(body, fds).await;
        self.done_of(container, answer)
    }

    fn done_of(
        &self,
        container: &str,
        answer: io::Result<Answer>,
    ) -> Result<(Done, Vec<OwnedFd>), ProcessError> {
        let answer = answer.map_err(|error| answer::lost(&self.id, error))?;
        match answer.body {
            Body::Done(done) => Ok((done, answer.fds)),
            Body::Failed(why) => Err(failed(&self.id, container, why)),
            _ => Err(protocol(&self.id, io::ErrorKind::InvalidData.into())),
        }
    }
}

fn named(id: &str) -> Named {
    Named {
        container: id.to_owned(),
    }
}

fn protocol(sandbox: &str, source: io::Error) -> ProcessError {
    ProcessError::Protocol {
        sandbox: sandbox.to_owned(),
        source,
    }
}

/// Runs what waits for disks away from the runtime's threads.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ProcessError> + Send + 'static,
) -> Result<T, ProcessError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(ProcessError::Spawner {
            source: io::Error::other(error),
        }),
    }
}

/// A process that was started in a running container.
#[derive(Debug)]
pub struct Exec {
    /// The caller's ends.
    pub streams: Streams,
    /// Its pid, as the agent sees it.
    pub pid: i32,
    ended: oneshot::Receiver<Exit>,
}

impl Exec {
    /// Waits for the process itself, not for those it left behind, whoever
    /// holds its streams.
    pub async fn wait(&mut self) -> Exit {
        let unknown = Exit {
            code: 255,
            finished_at: answer::now(),
            unknown: true,
        };
        (&mut self.ended).await.unwrap_or(unknown)
    }

    /// Sends it a signal; none there is no error.
    ///
    /// # Errors
    /// Of kill(2).
    pub async fn signal(&self, signal: i32) -> io::Result<()> {
        let Some(pid) = rustix::process::Pid::from_raw(self.pid) else {
            return Ok(());
        };
        let flags = rustix::process::PidfdFlags::empty();
        match rustix::process::pidfd_open(pid, flags) {
            Ok(pidfd) => Ok(crate::sys::send_signal(pidfd, signal)?),
            Err(rustix::io::Errno::SRCH) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }
}

/// Exit records in a sandbox's directory, by container.
pub(super) fn exit_records(dir: &Path) -> HashMap<String, Exit> {
    let entries = std::fs::read_dir(dir.join("exits"));
    entries
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            let container = name.strip_suffix(".json")?.to_owned();
            let exit = serde_json::from_slice(&std::fs::read(entry.path()).ok()?).ok()?;
            Some((container, exit))
        })
        .collect()
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
