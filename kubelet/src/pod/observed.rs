//! What is known of a pod: what the runtime says, what was done for it, what failed.

use super::lifecycle::Work;
use super::resize::{Granted, Pending};
use super::spec::security::ImageUser;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::ResourceRequirements;
use std::collections::{BTreeMap, BTreeSet};

/// A sandbox as the runtime reports it.
#[derive(Debug, Clone, PartialEq)]
#[allow(missing_docs)]
pub struct SandboxSeen {
    pub id: String,
    pub attempt: u32,
    pub ready: bool,
    pub created: Timestamp,
    /// Addresses, the primary one first; empty with hostNetwork.
    pub ips: Vec<String>,
    pub runtime_handler: String,
    /// Of its annotations [`super::resize::GRANTED`], for the next agent; empty where there is none.
    pub granted: String,
}

/// A container as the runtime reports it.
#[derive(Debug, Clone, PartialEq)]
#[allow(missing_docs)]
pub struct ContainerSeen {
    pub id: String,
    pub sandbox: String,
    pub name: String,
    pub attempt: u32,
    pub run: Run,
    pub created: Timestamp,
    /// As the user wrote it.
    pub image: String,
    pub image_id: String,
    /// Hash of the definition it was made from, in hex.
    pub hash: String,
    /// What the first process was given.
    pub user: Option<User>,
    pub log_path: String,
}

/// uid, gid and groups of a container's first process.
#[derive(Debug, Clone, PartialEq)]
#[allow(missing_docs)]
pub struct User {
    pub uid: i64,
    pub gid: i64,
    pub groups: Vec<i64>,
}

/// Where a container is in its life; only ever moves forward.
#[derive(Debug, Clone, PartialEq)]
#[allow(missing_docs)]
pub enum Run {
    Created,
    Running { started: Timestamp },
    Exited(Exit),
}

/// How a container ended.
#[derive(Debug, Clone, PartialEq)]
#[allow(missing_docs)]
pub struct Exit {
    pub code: i32,
    pub reason: String,
    pub message: String,
    pub started: Option<Timestamp>,
    pub finished: Timestamp,
}

impl Run {
    fn rank(&self) -> u8 {
        match self {
            Run::Created => 0,
            Run::Running { .. } => 1,
            Run::Exited(_) => 2,
        }
    }
}

impl ContainerSeen {
    /// Whether it has a process.
    #[must_use]
    pub fn running(&self) -> bool {
        matches!(self.run, Run::Running { .. })
    }

    /// How it ended, if it has.
    #[must_use]
    pub fn exit(&self) -> Option<&Exit> {
        match &self.run {
            Run::Exited(exit) => Some(exit),
            Run::Created | Run::Running { .. } => None,
        }
    }
}

/// Why some work failed last time, and how often in a row.
#[derive(Debug, Clone, PartialEq)]
pub struct Failure {
    /// The reason a waiting container shows, or an event's.
    pub reason: String,
    /// For people.
    pub message: String,
    /// In a row.
    pub count: u32,
    /// When.
    pub at: Timestamp,
}

/// What probes found of one container.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Verdicts {
    /// The startup probe: `None` while it is undecided.
    pub startup: Option<bool>,
    /// The liveness probe: `None` while it is undecided.
    pub liveness: Option<bool>,
    /// The readiness probe: `None` while it is undecided.
    pub readiness: Option<bool>,
}

/// An image that was found or pulled for one start of a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageReady {
    /// The start it was made ready for.
    pub attempt: u32,
    /// As the spec names it.
    pub image: String,
    /// As CreateContainer is given it.
    pub image_ref: String,
    /// Whom the image wants to run as.
    pub user: ImageUser,
}

/// Everything known of one pod at one moment.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Observed {
    /// Newest last.
    pub sandboxes: Vec<SandboxSeen>,
    /// Every container not yet removed, oldest first.
    pub containers: Vec<ContainerSeen>,
    /// Work that is being done.
    pub busy: BTreeSet<Work>,
    /// Work whose last try failed.
    pub failed: BTreeMap<Work, Failure>,
    /// What containers were given, by id; nothing where it is not known.
    pub applied: BTreeMap<String, ResourceRequirements>,
    /// What its cgroup was made for, once there is one.
    pub pod_applied: Option<Granted>,
    /// A resize that is not granted.
    pub pending: Option<Pending>,
    /// It wants devices and has not got them yet.
    pub unallocated: bool,
    /// It claims resources that drivers have not made ready for its next sandbox yet.
    pub unprepared: bool,
    /// Volumes are mounted and kept up to date.
    pub volumes: bool,
    /// Images by container name.
    pub images: BTreeMap<String, ImageReady>,
    /// By container id.
    pub probes: BTreeMap<String, Verdicts>,
    /// Sandboxes whose network was given back.
    pub stopped: BTreeSet<String>,
    /// Volumes were unmounted after the pod's end.
    pub unmounted: bool,
}

impl Observed {
    /// The newest sandbox, ready or not.
    #[must_use]
    pub fn sandbox(&self) -> Option<&SandboxSeen> {
        self.sandboxes.last()
    }

    /// The newest sandbox if it is ready.
    #[must_use]
    pub fn ready_sandbox(&self) -> Option<&SandboxSeen> {
        self.sandbox().filter(|s| s.ready)
    }

    /// The newest attempt of a container, in whatever sandbox.
    #[must_use]
    pub fn newest(&self, name: &str) -> Option<&ContainerSeen> {
        self.containers.iter().rev().find(|c| c.name == name)
    }

    /// The newest attempt of a container in one sandbox.
    #[must_use]
    pub fn newest_in(&self, sandbox: &str, name: &str) -> Option<&ContainerSeen> {
        let mut newest_first = self.containers.iter().rev();
        newest_first.find(|c| c.name == name && c.sandbox == sandbox)
    }

    /// The attempt before the newest.
    #[must_use]
    pub fn previous(&self, name: &str) -> Option<&ContainerSeen> {
        let mut newest_first = self.containers.iter().rev().filter(|c| c.name == name);
        newest_first.nth(1)
    }

    /// All attempts of a container, oldest first.
    pub fn attempts<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a ContainerSeen> {
        self.containers.iter().filter(move |c| c.name == name)
    }

    /// Takes in a newer look at a sandbox. A sandbox never becomes ready again.
    pub fn see_sandbox(&mut self, new: SandboxSeen) {
        match self.sandboxes.iter_mut().find(|s| s.id == new.id) {
            Some(old) => {
                let ready = old.ready && new.ready;
                let ips = if new.ips.is_empty() {
                    std::mem::take(&mut old.ips)
                } else {
                    new.ips.clone()
                };
                *old = SandboxSeen { ready, ips, ..new };
            }
            None => self.sandboxes.push(new),
        }
        self.sandboxes.sort_by_key(|s| (s.attempt, s.created));
    }

    /// Takes in a newer look at a container; an older look changes nothing.
    pub fn see_container(&mut self, new: ContainerSeen) {
        match self.containers.iter_mut().find(|c| c.id == new.id) {
            Some(old) if new.run.rank() > old.run.rank() => *old = new,
            Some(old) if old.user.is_none() => old.user = new.user,
            Some(_) => {}
            None => self.containers.push(new),
        }
        self.containers.sort_by_key(|c| (c.attempt, c.created));
    }

    /// A container is gone from the runtime.
    pub fn forget_container(&mut self, id: &str) {
        self.containers.retain(|c| c.id != id);
        self.probes.remove(id);
        self.applied.remove(id);
    }

    /// A sandbox and its containers are gone from the runtime.
    pub fn forget_sandbox(&mut self, id: &str) {
        self.sandboxes.retain(|s| s.id != id);
        self.containers.retain(|c| c.sandbox != id);
        self.stopped.remove(id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn container(run: Run) -> ContainerSeen {
        ContainerSeen {
            id: "c1".into(),
            sandbox: "s1".into(),
            name: "web".into(),
            attempt: 0,
            run,
            created: Timestamp::UNIX_EPOCH,
            image: "i".into(),
            image_id: "sha256:1".into(),
            hash: String::new(),
            user: None,
            log_path: String::new(),
        }
    }

    fn sandbox(ready: bool, ips: &[&str]) -> SandboxSeen {
        SandboxSeen {
            id: "s1".into(),
            attempt: 0,
            ready,
            created: Timestamp::UNIX_EPOCH,
            ips: ips.iter().map(|s| (*s).to_owned()).collect(),
            runtime_handler: String::new(),
            granted: String::new(),
        }
    }

    #[test]
    fn container_stays_exited_when_an_older_look_arrives_late() {
        let exit = Exit {
            code: 3,
            reason: "Error".into(),
            message: String::new(),
            started: None,
            finished: Timestamp::UNIX_EPOCH,
        };
        let mut seen = Observed::default();
        seen.see_container(container(Run::Exited(exit.clone())));
        seen.see_container(container(Run::Running {
            started: Timestamp::UNIX_EPOCH,
        }));
        assert_eq!(seen.newest("web").and_then(|c| c.exit()), Some(&exit));
    }

    #[test]
    fn sandbox_never_becomes_ready_again_and_keeps_its_addresses() {
        let mut seen = Observed::default();
        seen.see_sandbox(sandbox(true, &["10.0.0.2"]));
        seen.see_sandbox(sandbox(false, &[]));
        seen.see_sandbox(sandbox(true, &[]));
        assert_eq!(seen.sandboxes, vec![sandbox(false, &["10.0.0.2"])]);
    }
}
