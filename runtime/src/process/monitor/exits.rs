//! Ends of processes: seen once, told to the agent, kept on file for a later one.

use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;
use rustix::process::{WaitOptions, WaitStatus};
use rustix::time::Timespec;

use super::super::wire::{Body, Exited};
use super::{Monitor, monotonic, now};
use crate::process::Exit;

/// How long an exit is held back for the last lines to reach the log: readers
/// expect them there. A frozen file system delays no exit for longer.
const LOG_GRACE: u64 = 250_000_000;

/// kubernetes v1.37.2 and containerd v2 know a failed start by this code.
const START_FAILED: i32 = 128;

/// A process that was exec'd in a container.
pub struct Execution {
    pub container: String,
    pub exec: String,
    pub pid: i32,
}

impl Monitor {
    /// Waits for every child that has ended.
    pub(super) fn reap(&mut self) {
        let mut buffer = [0u8; 128];
        while rustix::io::read(&self.signals, &mut buffer).is_ok() {}
        // A stage tells who it is before it ends, so hear it before its end.
        self.hear_stages();
        loop {
            match rustix::process::wait(WaitOptions::NOHANG) {
                Ok(Some((pid, status))) => self.ended(pid.as_raw_nonzero().get(), code(status)),
                Err(Errno::INTR) => {}
                Ok(None) | Err(_) => break,
            }
        }
        if self.pending.is_empty() {
            self.early.clear();
        }
    }

    fn ended(&mut self, pid: i32, code: i32) {
        if let Some(at) = self.executions.iter().position(|e| e.pid == pid) {
            let execution = self.executions.swap_remove(at);
            return self.tell_execution(execution, code);
        }
        let container = self.containers.iter_mut().find(|(_, c)| c.pid == pid);
        let Some((key, container)) = container.map(|(key, c)| (*key, c)) else {
            // Somebody's orphan, a stage that went on in its sibling, or a sibling
            // we have not been told of yet.
            if !self.pending.is_empty() {
                self.early.push((pid, code));
            }
            return;
        };
        container.pid = 0;
        container.pidfd = None;
        container.telling_until = Some(monotonic() + LOG_GRACE);
        container.exit = Some(Exited {
            container: container.id.clone(),
            // As kubelets report a container that could not be started.
            code: if container.silent { START_FAILED } else { code },
            finished_at: now(),
            ..Exited::default()
        });
        self.drain_all(key);
    }

    /// A process whose end was seen before its beginning.
    pub(super) fn early_end(&mut self, pid: i32) {
        if let Some(at) = self.early.iter().position(|(early, _)| *early == pid) {
            let (pid, code) = self.early.swap_remove(at);
            self.ended(pid, code);
        }
    }

    fn tell_execution(&mut self, execution: Execution, code: i32) {
        let exited = Exited {
            container: execution.container,
            exec: execution.exec,
            code,
            finished_at: now(),
            ..Exited::default()
        };
        self.answer(0, Body::Exited(exited), &[]);
    }

    /// Until when the loop may sleep.
    pub(super) fn timeout(&self) -> Option<Timespec> {
        let until = self
            .containers
            .values()
            .filter_map(|c| c.telling_until)
            .chain(self.renewal.as_ref().map(|renewal| renewal.until))
            .min()?;
        let nanos = until.saturating_sub(monotonic());
        Some(Timespec {
            tv_sec: (nanos / 1_000_000_000) as i64,
            tv_nsec: (nanos % 1_000_000_000) as i64,
        })
    }

    /// Tells the exits whose logs are complete, or have had their time.
    pub(super) fn settle_exits(&mut self) {
        let time = monotonic();
        let keys: Vec<u32> = self
            .containers
            .iter()
            .filter(|(_, c)| c.telling_until.is_some())
            .map(|(key, _)| *key)
            .collect();
        for key in keys {
            let late = |until: Option<u64>| until.is_some_and(|until| until <= time);
            let drained = self.drain_all(key) && self.logs.is_idle(key);
            let until = self.containers.get(&key).and_then(|c| c.telling_until);
            if drained || late(until) {
                self.tell(key);
            }
        }
    }

    fn tell(&mut self, key: u32) {
        let lost = self.logs.lost(key);
        let Some(container) = self.containers.get_mut(&key) else {
            return;
        };
        container.telling_until = None;
        container.stdin = None;
        let Some(exited) = container.exit.as_mut() else {
            return;
        };
        exited.log_lost = lost;
        let (exited, silent) = (exited.clone(), container.silent);
        if container.removing.is_empty() {
            let _ = self.record(&exited);
        }
        if !silent {
            self.answer(0, Body::Exited(exited), &[]);
        }
        self.forget_if_ended(key);
    }

    fn record(&self, exited: &Exited) -> rustix::io::Result<()> {
        let exit = Exit::from(exited);
        let json = serde_json::to_vec(&exit).map_err(|_| Errno::INVAL)?;
        let name = format!("{}.json", exited.container);
        let partial = format!("{name}.new");
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::CLOEXEC;
        let mode = Mode::RUSR | Mode::WUSR;
        let file = rustix::fs::openat(&self.exits, partial.as_str(), flags, mode)?;
        rustix::io::write(&file, &json)?;
        rustix::fs::renameat(&self.exits, partial.as_str(), &self.exits, name.as_str()).inspect_err(
            |_| {
                let _ = rustix::fs::unlinkat(&self.exits, partial.as_str(), AtFlags::empty());
            },
        )
    }
}

/// As shells tell it: the code, or 128 and the signal.
fn code(status: WaitStatus) -> i32 {
    match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => code,
        (None, Some(signal)) => 128 + signal,
        (None, None) => 255,
    }
}

impl From<&Exited> for Exit {
    fn from(exited: &Exited) -> Self {
        Self {
            code: exited.code,
            finished_at: exited.finished_at,
            unknown: false,
        }
    }
}
