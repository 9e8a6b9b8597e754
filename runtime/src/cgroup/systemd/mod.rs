//! The systemd driver: a pod's cgroup is a slice, a container's a scope.
//!
//! systemd is the one writer of its tree: what others make in it is undone when
//! it reloads. So units are asked for over D-Bus, limits are told to it as well
//! as written, and only below a scope, which is delegated, do we write alone.
//!
//! - `names`: kubelet's and CRI's names as units, and back.
//! - `properties`: limits as systemd calls them.
//! - `bus`: the calls. - `holder`: the process that a scope starts with.

mod bus;
mod holder;
mod names;
mod properties;

pub(super) use bus::BusError;
pub use holder::{HOLDER, hold};
pub(super) use names::{OWN, container_of, expand, of_container, of_sandbox, sandbox_of};

use super::{CgroupError, Limits};
use bus::{Bus, Call};
use holder::Holder;
use properties::Property;
use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::mpsc::sync_channel;
use std::time::Duration;
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};

/// How long pid 1 may take for a unit; its queue is long when many start at once.
/// opencontainers/cgroups v0.0.5 systemd/common.go `startUnit` has the same.
const PATIENCE: Duration = Duration::from_secs(30);

/// What a unit is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Slice,
    Scope,
}

/// The kind of unit that a cgroup's directory of this name belongs to.
pub(super) fn kind(name: &str) -> Option<Kind> {
    match name.rsplit_once('.') {
        Some((_, "slice")) => Some(Kind::Slice),
        Some((_, "scope")) => Some(Kind::Scope),
        _ => None,
    }
}

/// systemd's manager.
#[derive(Debug)]
pub(super) struct Systemd {
    calls: UnboundedSender<Call>,
    /// Of scopes that no container has entered yet.
    holders: Mutex<HashMap<String, Holder>>,
    /// OOM kills of a slice that were laid to a container's account.
    accounted: Mutex<HashMap<String, u64>>,
}

impl Systemd {
    /// Starts the thread that talks; the first call connects.
    pub fn new() -> Result<Self, CgroupError> {
        let (calls, waiting) = unbounded_channel();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        let started = runtime.and_then(|runtime| {
            std::thread::Builder::new()
                .name("systemd".to_owned())
                .spawn(move || runtime.block_on(Bus::default().serve(waiting)))
        });
        started.map_err(|source| CgroupError::SystemdThread { source })?;
        Ok(Self {
            calls,
            holders: Mutex::default(),
            accounted: Mutex::default(),
        })
    }

    /// Starts a slice; `false` when it was there.
    pub fn start_slice(&self, unit: &str) -> Result<bool, CgroupError> {
        self.start(unit, properties::of_slice())
    }

    /// Starts a scope with a process of ours in it, since none starts empty.
    pub fn start_scope(&self, unit: &str, slice: &str) -> Result<(), CgroupError> {
        let holder = Holder::start().map_err(|source| CgroupError::Holder {
            unit: unit.to_owned(),
            source,
        })?;
        self.start(unit, properties::of_scope(slice, holder.pid()))?;
        let mut holders = self.holders.lock().expect("no panic while locked");
        holders.insert(unit.to_owned(), holder);
        Ok(())
    }

    /// The container has entered its scope, or never will.
    pub fn entered(&self, unit: &str) {
        let holder = {
            let mut holders = self.holders.lock().expect("no panic while locked");
            holders.remove(unit)
        };
        drop(holder);
    }

    /// Tells limits, so that a daemon-reload writes no others. What systemd does
    /// not take is in the cgroup's files all the same.
    pub fn set(&self, unit: &str, limits: &Limits) {
        let properties = properties::of_limits(limits);
        if properties.is_empty() {
            return;
        }
        let unit = unit.to_owned();
        let answer = self.ask(&unit.clone(), |answer| Call::Set {
            unit,
            properties,
            answer,
        });
        if let Err(error) = answer {
            let error = &error as &dyn std::error::Error;
            tracing::warn!(error, "systemd was not told a limit");
        }
    }

    /// Has a unit stopped, in its own time; that it was asked for is waited for, or
    /// the end of this process would take the request along.
    pub fn stop(&self, unit: &str) {
        let name = unit.to_owned();
        let asked = self.ask(unit, |answer| Call::Stop { unit: name, answer });
        if let Err(error) = asked {
            let error = &error as &dyn std::error::Error;
            tracing::warn!(error, "a unit stays");
        }
    }

    /// Whether a slice has seen an OOM kill that is nobody's yet. `own` is what a
    /// container's own cgroup counts, when it is still there: systemd removes a
    /// scope as soon as it is empty.
    pub fn oom_kills(&self, slice: &str, total: u64, own: Option<u64>) -> u64 {
        let mut accounted = self.accounted.lock().expect("no panic while locked");
        // What was before us is not the one's who ends now.
        let before = *accounted.entry(slice.to_owned()).or_insert(total);
        let found = own.unwrap_or(total.saturating_sub(before));
        if found > 0 {
            accounted.insert(slice.to_owned(), total);
        }
        found
    }

    /// A slice is gone, and its count.
    pub fn forget(&self, slice: &str) {
        let mut accounted = self.accounted.lock().expect("no panic while locked");
        accounted.remove(slice);
    }

    fn start(&self, unit: &str, properties: Vec<Property>) -> Result<bool, CgroupError> {
        let name = unit.to_owned();
        self.ask(unit, |answer| Call::Start {
            unit: name,
            properties,
            answer,
        })
    }

    /// Blocks the caller: a worker of tokio's is given to others meanwhile.
    fn ask<T>(
        &self,
        unit: &str,
        call: impl FnOnce(bus::Answer<T>) -> Call,
    ) -> Result<T, CgroupError> {
        let (answer, waiting) = sync_channel(1);
        let _ = self.calls.send(call(answer));
        let wait = || waiting.recv_timeout(PATIENCE);
        let answered = match tokio::runtime::Handle::try_current() {
            Ok(handle) if handle.runtime_flavor() == tokio::runtime::RuntimeFlavor::MultiThread => {
                tokio::task::block_in_place(wait)
            }
            _ => wait(),
        };
        let failed = |source| CgroupError::Systemd {
            unit: unit.to_owned(),
            source,
        };
        match answered {
            Ok(answer) => answer.map_err(failed),
            Err(_) => Err(failed(Box::new(BusError::Silent))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn oom_kill_is_laid_to_one_account_when_the_scope_is_gone() {
        let systemd = Systemd::new().expect("thread");
        assert_eq!(systemd.oom_kills("a.slice", 3, None), 0, "before us");
        assert_eq!(
            systemd.oom_kills("a.slice", 4, None),
            1,
            "its scope is gone"
        );
        assert_eq!(systemd.oom_kills("a.slice", 4, None), 0, "it was the other");
        assert_eq!(systemd.oom_kills("a.slice", 5, Some(1)), 1, "its own count");
        assert_eq!(systemd.oom_kills("a.slice", 5, None), 0, "told already");
    }
}
