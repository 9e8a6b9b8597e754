//! What the monitor knows of a container.

use std::os::fd::OwnedFd;

use super::super::wire::{Exited, Known, PidOf};
use super::line::Lines;

/// One container: from the fork of its stage until it is removed.
pub struct Container {
    pub id: String,
    /// 0 = not forked, or ended.
    pub pid: i32,
    pub pidfd: Option<OwnedFd>,
    /// Its command has been executed.
    pub started: bool,
    pub exit: Option<Exited>,
    pub pid_of: PidOf,
    pub tty: bool,
    pub stdin_once: bool,
    pub log_path: String,
    /// Write end; with a terminal a copy of its master.
    pub stdin: Option<OwnedFd>,
    pub stdout: Option<Output>,
    pub stderr: Option<Output>,
    /// Ended, its exit not yet told: until then (monotonic) the log may catch up.
    pub telling_until: Option<u64>,
    /// Requests to be answered when it has ended and is forgotten.
    pub removing: Vec<u64>,
    /// Its start failed, which was told as such: its end is not an event.
    pub silent: bool,
}

/// One of its outputs, as we read it.
pub struct Output {
    pub fd: OwnedFd,
    pub lines: Lines,
    /// Not watched, because the log is full.
    pub paused: bool,
}

impl Container {
    pub fn is_alive(&self) -> bool {
        self.pid > 0
    }

    pub fn is_running(&self) -> bool {
        self.is_alive() && self.started
    }
}

impl From<&Container> for Known {
    fn from(container: &Container) -> Self {
        Self {
            container: container.id.clone(),
            pid: container.pid,
            started: container.started,
            exit: container.exit.clone(),
            log: container.log_path.clone(),
            tty: container.tty,
        }
    }
}
