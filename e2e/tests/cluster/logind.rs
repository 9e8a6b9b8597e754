//! A stand-in for systemd-logind on a real bus: no systemd is pid 1 here. It speaks what a kubelet
//! asks of org.freedesktop.login1, and of systemd to have logind read its files again.

use anyhow::{Context, Result};
use e2e::machine::{Machine, Process};
use e2e::progress;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use zbus::blocking::{Connection, connection};
use zbus::fdo;

const SOCKET: &str = "/run/dbus/system_bus_socket";
const PATH: &str = "/org/freedesktop/login1";
const MANAGER: &str = "org.freedesktop.login1.Manager";
const DROP_IN: &str = "/etc/systemd/logind.conf.d/99-kubelet.conf";
/// logind's own default.
const DELAY: Duration = Duration::from_secs(5);

/// Who holds a shutdown up. The lock lives as long as somebody has the other end of the pipe.
struct Lock {
    words: [String; 4],
    pipe: std::fs::File,
}

#[derive(Default)]
struct State {
    locks: Vec<Lock>,
    delay: Duration,
    going_down: bool,
}

type Shared = Arc<Mutex<State>>;

fn of(state: &Shared) -> std::sync::MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

struct Login(Shared);

#[zbus::interface(name = "org.freedesktop.login1.Manager")]
impl Login {
    fn inhibit(
        &self,
        what: &str,
        who: &str,
        why: &str,
        mode: &str,
    ) -> fdo::Result<zbus::zvariant::OwnedFd> {
        let failed = |e: nix::Error| fdo::Error::Failed(e.to_string());
        let flags = nix::fcntl::OFlag::O_NONBLOCK | nix::fcntl::OFlag::O_CLOEXEC;
        let (ours, theirs): (OwnedFd, OwnedFd) = nix::unistd::pipe2(flags).map_err(failed)?;
        of(&self.0).locks.push(Lock {
            words: [what, who, why, mode].map(str::to_owned),
            pipe: ours.into(),
        });
        Ok(theirs.into())
    }

    #[zbus(property, name = "InhibitDelayMaxUSec")]
    fn inhibit_delay_max_usec(&self) -> u64 {
        u64::try_from(of(&self.0).delay.as_micros()).unwrap_or(u64::MAX)
    }

    #[zbus(property)]
    fn preparing_for_shutdown(&self) -> bool {
        of(&self.0).going_down
    }
}

struct Systemd {
    state: Shared,
    drop_in: PathBuf,
}

#[zbus::interface(name = "org.freedesktop.systemd1.Manager")]
impl Systemd {
    fn kill_unit(&self, unit: &str, _who: &str, signal: i32) -> fdo::Result<()> {
        let text = std::fs::read_to_string(&self.drop_in).unwrap_or_default();
        let line = text
            .lines()
            .find_map(|l| l.strip_prefix("InhibitDelayMaxSec="));
        let seconds = line.and_then(|l| l.parse().ok());
        match (unit, signal, seconds) {
            ("systemd-logind.service", 1, Some(seconds)) => {
                of(&self.state).delay = Duration::from_secs(seconds);
                Ok(())
            }
            _ => Err(fdo::Error::Failed(format!("{unit} {signal} {text:?}"))),
        }
    }
}

/// A bus of a machine with logind on it; both end when dropped.
pub struct Logind {
    bus: Process,
    connection: Option<Connection>,
    state: Shared,
}

impl Logind {
    pub fn start(machine: &Machine) -> Result<Logind> {
        let config = format!(
            "<!DOCTYPE busconfig PUBLIC \"-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN\" \
             \"http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd\">\
             <busconfig><listen>unix:path={SOCKET}</listen><auth>EXTERNAL</auth>\
             <policy context=\"default\"><allow send_destination=\"*\" eavesdrop=\"true\"/>\
             <allow eavesdrop=\"true\"/><allow own=\"*\"/></policy></busconfig>"
        );
        machine.write("/tmp/bus.conf", &config)?;
        let socket = machine.path(SOCKET);
        std::fs::create_dir_all(socket.parent().context("no parent")?)?;
        let _ = std::fs::remove_file(&socket);
        let flags = ["--nofork", "--nopidfile", "--config-file=/tmp/bus.conf"];
        let bus = machine.start("dbus-daemon", &flags.map(str::to_owned))?;
        let state: Shared = Arc::default();
        of(&state).delay = DELAY;
        let systemd = Systemd {
            state: state.clone(),
            drop_in: machine.path(DROP_IN),
        };
        progress::wait_for("the system bus", Duration::from_secs(10), || {
            Ok(socket.exists().then_some(()))
        })?;
        let connection = connection::Builder::address(&*format!("unix:path={}", socket.display()))?
            .name("org.freedesktop.login1")?
            .name("org.freedesktop.systemd1")?
            .serve_at(PATH, Login(state.clone()))?
            .serve_at("/org/freedesktop/systemd1", systemd)?
            .build()
            .context("take logind's place on the bus")?;
        Ok(Logind {
            bus,
            connection: Some(connection),
            state,
        })
    }

    /// The words of the locks that are held now.
    pub fn locks(&self) -> Vec<[String; 4]> {
        let mut state = of(&self.state);
        // Nothing to read yet is a lock that is held; the end of the pipe is one that is not.
        state.locks.retain_mut(|lock| {
            let read = lock.pipe.read(&mut [0]);
            read.is_err_and(|e| e.kind() == std::io::ErrorKind::WouldBlock)
        });
        state.locks.iter().map(|l| l.words.clone()).collect()
    }

    pub fn wait_locks(&self, count: usize) -> Result<()> {
        progress::wait_for(&format!("{count} locks"), Duration::from_secs(40), || {
            std::thread::sleep(Duration::from_millis(50));
            Ok((self.locks().len() == count).then_some(()))
        })
    }

    pub fn delay(&self) -> Duration {
        of(&self.state).delay
    }

    /// A shutdown begins, or is called off.
    pub fn shut_down(&self, begins: bool) -> Result<()> {
        of(&self.state).going_down = begins;
        let connection = self.connection.as_ref().context("no connection")?;
        let signal = "PrepareForShutdown";
        Ok(connection.emit_signal(None::<&str>, PATH, MANAGER, signal, &begins)?)
    }
}

impl Drop for Logind {
    fn drop(&mut self) {
        self.connection = None;
        if self.bus.is_alive() {
            let _ = kill(Pid::from_raw(self.bus.pid), Signal::SIGKILL);
        }
    }
}
