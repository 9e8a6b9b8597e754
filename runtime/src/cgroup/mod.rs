//! Limits and accounting: cgroup v2, v1 and hybrid hosts behind one module.
//!
//! - `hierarchy`: which hierarchies the host has, where.
//! - `tree`: directories made, entered and removed in all of them.
//! - `limits`, `devices`, `filter`: what is to be written or attached, as data;
//!   `apply` does it.
//! - `kill`, `stats`: what is done with and known of the processes inside.
//!
//! The crate cgroups-rs reads pids, block I/O and huge pages; the rest is
//! plain file access here.

mod apply;
mod devices;
mod error;
mod filter;
mod hierarchy;
mod kill;
mod limits;
mod stats;
mod tree;

pub use devices::{Access, DeviceRule, Kind as DeviceKind, default_rules};
pub use error::CgroupError;
pub use hierarchy::{Hierarchy, Mode};
pub use limits::Limits;
pub use stats::{Pressure, PressureLine, Stats};

use crate::config::CgroupDriver;
use std::path::PathBuf;

/// Every hierarchy of the host, seen from one cgroup down.
#[derive(Debug, Clone)]
pub struct Cgroups {
    hierarchies: Vec<Hierarchy>,
    mode: Mode,
    /// `/a/b` or empty.
    root: String,
}

/// A cgroup by its name below [`Cgroups`]' root: `/kubepods/pod…/…`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub struct CgroupPath(String);

impl CgroupPath {
    /// # Errors
    /// When a component is `..` or the name is systemd's (`….slice`).
    pub fn parse(name: &str) -> Result<Self, CgroupError> {
        let parts: Vec<&str> = name
            .split('/')
            .filter(|p| !p.is_empty() && *p != ".")
            .collect();
        if parts.contains(&"..") || name.contains(['\0', '\n']) {
            return Err(CgroupError::Name {
                name: name.to_owned(),
            });
        }
        if parts.last().is_some_and(|part| part.ends_with(".slice")) {
            return Err(CgroupError::SystemdName {
                name: name.to_owned(),
            });
        }
        let mut path = String::new();
        for part in parts {
            path.push('/');
            path.push_str(part);
        }
        Ok(Self(path))
    }

    /// The cgroup of that name inside this one.
    #[must_use]
    pub fn child(&self, name: &str) -> Self {
        Self(format!("{}/{name}", self.0))
    }

    /// Whether it is `other` or below it.
    #[must_use]
    pub fn is_within(&self, other: &Self) -> bool {
        let rest = self.0.strip_prefix(&other.0);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }

    /// One level up; `None` at the top.
    #[must_use]
    pub fn parent(&self) -> Option<Self> {
        let (parent, _) = self.0.rsplit_once('/')?;
        (!parent.is_empty()).then(|| Self(parent.to_owned()))
    }

    /// With a leading slash.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Display for CgroupPath {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl Cgroups {
    /// Finds the host's hierarchies. All names given later are below `root`.
    ///
    /// # Errors
    /// When there are none, or `driver` is not supported.
    pub fn open(root: &str, driver: CgroupDriver) -> Result<Self, CgroupError> {
        if driver == CgroupDriver::Systemd {
            return Err(CgroupError::SystemdDriver);
        }
        let (hierarchies, mode) = hierarchy::detect()?;
        Ok(Self {
            hierarchies,
            mode,
            root: CgroupPath::parse(root)?.0,
        })
    }

    /// v2, v1 or both.
    #[must_use]
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// The host's hierarchies.
    #[must_use]
    pub fn hierarchies(&self) -> &[Hierarchy] {
        &self.hierarchies
    }

    /// What CRI's `cgroup_parent` means. A kubelet that was told our root names
    /// it too, so a leading root is dropped.
    ///
    /// # Errors
    /// As [`CgroupPath::parse`].
    pub fn name(&self, cgroup_parent: &str) -> Result<CgroupPath, CgroupError> {
        let path = CgroupPath::parse(cgroup_parent)?;
        match path.0.strip_prefix(&self.root) {
            Some(rest) if rest.starts_with('/') && !self.root.is_empty() => {
                Ok(CgroupPath(rest.to_owned()))
            }
            _ => Ok(path),
        }
    }

    /// Its directory in one hierarchy.
    #[must_use]
    pub fn dir(&self, hierarchy: &Hierarchy, path: &CgroupPath) -> PathBuf {
        let mut dir = hierarchy.mount.clone().into_os_string();
        dir.push(&self.root);
        dir.push(&path.0);
        dir.into()
    }

    fn controller(&self, name: &str) -> Option<&Hierarchy> {
        self.hierarchies.iter().find(|h| h.has(name))
    }

    /// The v2 hierarchy, full or beside v1.
    fn unified(&self) -> Option<&Hierarchy> {
        self.hierarchies.iter().find(|h| h.v2)
    }
}

#[cfg(test)]
mod tests;
