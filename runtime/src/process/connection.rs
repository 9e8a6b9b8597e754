//! A monitor's socket and what has come over it so far.

use std::collections::HashMap;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use tokio::sync::{mpsc, oneshot};

use super::answer;
use super::link::{Link, Unasked};
use super::sandbox::{exit_records, lock};
use super::wire::{Exited, Known};
use super::{Event, Exit};

/// What is known of a container.
#[derive(Debug, Default, Clone)]
pub struct Record {
    /// 0 = it does not run.
    pub pid: i32,
    pub log: PathBuf,
    pub exit: Option<Exit>,
}

/// An exec whose end somebody waits for.
#[derive(Debug)]
pub struct Execution {
    pub ended: oneshot::Sender<Exit>,
    pub terminal: Option<OwnedFd>,
}

/// A container's id and an exec's.
type ExecKey = (String, String);

#[derive(Debug, Default)]
struct Seen {
    containers: Mutex<HashMap<String, Record>>,
    executions: Mutex<HashMap<ExecKey, Execution>>,
    /// The monitor's end is wanted, or no longer our business.
    leaving: AtomicBool,
}

/// A connection to one monitor. Dropping it ends the connection, not the monitor.
#[derive(Debug)]
pub struct Connection {
    pub sandbox: String,
    pub dir: PathBuf,
    pub link: Arc<Link>,
    seen: Arc<Seen>,
}

impl Connection {
    pub fn new(
        sandbox: &str,
        dir: &Path,
        socket: OwnedFd,
        events: mpsc::UnboundedSender<Event>,
    ) -> io::Result<Self> {
        let seen = Arc::new(Seen::default());
        let reader = Reader {
            sandbox: sandbox.to_owned(),
            dir: dir.to_owned(),
            seen: Arc::clone(&seen),
            events,
        };
        let link = Link::new(socket, move |unasked| match unasked {
            Unasked::Exited(exited) => reader.exited(exited),
            Unasked::Gone => reader.gone(),
        })?;
        Ok(Self {
            sandbox: sandbox.to_owned(),
            dir: dir.to_owned(),
            link,
            seen,
        })
    }

    pub fn containers(&self) -> MutexGuard<'_, HashMap<String, Record>> {
        lock(&self.seen.containers)
    }

    pub fn executions(&self) -> MutexGuard<'_, HashMap<ExecKey, Execution>> {
        lock(&self.seen.executions)
    }

    /// Takes over what the monitor knows.
    pub fn learn(&self, known: &[Known]) {
        let mut containers = self.containers();
        for container in known {
            let record = Record {
                pid: container.pid,
                log: PathBuf::from(&container.log),
                exit: container.exit.as_ref().map(Exit::from),
            };
            containers.insert(container.container.clone(), record);
        }
    }

    pub fn resize(&self, container: &str, exec: &str, width: u16, height: u16) {
        let key = (container.to_owned(), exec.to_owned());
        let size = rustix::termios::Winsize {
            ws_row: height,
            ws_col: width,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        if let Some(terminal) = self
            .executions()
            .get(&key)
            .and_then(|e| e.terminal.as_ref())
        {
            let _ = rustix::termios::tcsetwinsize(terminal, size);
        }
    }

    /// The monitor's end is no event from now on.
    pub fn leave(&self) {
        self.seen.leaving.store(true, Ordering::Release);
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.leave();
        self.link.close();
    }
}

/// What the reading task does with what comes unasked.
struct Reader {
    sandbox: String,
    dir: PathBuf,
    seen: Arc<Seen>,
    events: mpsc::UnboundedSender<Event>,
}

impl Reader {
    fn exited(&self, exited: Exited) {
        let exit = Exit::from(&exited);
        if !exited.exec.is_empty() {
            let key = (exited.container, exited.exec);
            if let Some(execution) = lock(&self.seen.executions).remove(&key) {
                let _ = execution.ended.send(exit);
            }
            return;
        }
        if exited.log_lost > 0 {
            tracing::warn!(
                sandbox = self.sandbox,
                container = exited.container,
                bytes = exited.log_lost,
                "the container's log could not be written in full"
            );
        }
        let mut containers = lock(&self.seen.containers);
        let record = containers.entry(exited.container.clone()).or_default();
        record.pid = 0;
        record.exit = Some(exit);
        self.tell(exited.container, exit);
    }

    fn tell(&self, container: String, exit: Exit) {
        let _ = self.events.send(Event::ContainerExited {
            sandbox: self.sandbox.clone(),
            container,
            exit,
        });
    }

    /// The monitor is dead. What ended before it did is on file; the rest nobody saw.
    fn gone(&self) {
        lock(&self.seen.executions).clear();
        if self.seen.leaving.load(Ordering::Acquire) {
            return;
        }
        let records = exit_records(&self.dir);
        for (container, record) in lock(&self.seen.containers).iter_mut() {
            if record.exit.is_some() {
                continue;
            }
            let exit = records.get(container).copied().unwrap_or(Exit {
                code: 255,
                finished_at: answer::now(),
                unknown: true,
            });
            record.pid = 0;
            record.exit = Some(exit);
            self.tell(container.clone(), exit);
        }
        let _ = self.events.send(Event::MonitorDied {
            sandbox: self.sandbox.clone(),
        });
    }
}
