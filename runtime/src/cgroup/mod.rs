//! Limits and accounting: cgroup v2, v1 and hybrid hosts behind one module.
//!
//! - `tree`: directories made, entered and removed in all of them.
//! - `limits`, `devices`, `filter`: what is to be written or attached, as data;
//!   `apply` does it.
//! - `driver`: names and units, which the two drivers see differently; `systemd`
//!   is one of them.
//! - `kill`, `stats`: what is done with and known of the processes inside.
//!
//! Where hierarchies are and how their files are written is in the crate cgroupfs. cgroups-rs
//! reads pids, block I/O and huge pages.

mod apply;
mod devices;
mod driver;
mod error;
mod filter;
mod kill;
mod limits;
mod stats;
mod systemd;
mod tree;

pub use cgroupfs::{Hierarchy, Mode};
pub use devices::{Access, DeviceRule, Kind as DeviceKind, default_rules};
pub use error::CgroupError;
pub use limits::Limits;
pub use stats::{Pressure, PressureLine, Stats};
pub use systemd::{HOLDER, hold};

use crate::config::CgroupDriver;
use std::path::PathBuf;
use std::sync::Arc;

/// Every hierarchy of the host, seen from one cgroup down.
#[derive(Debug, Clone)]
pub struct Cgroups {
    hierarchies: Vec<Hierarchy>,
    mode: Mode,
    /// `/a/b` or empty.
    root: String,
    /// Who makes pods' and containers' cgroups, if not we.
    systemd: Option<Arc<systemd::Systemd>>,
}

/// A cgroup by its name below [`Cgroups`]' root: `/kubepods/pod…/…`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub struct CgroupPath(String);

impl CgroupPath {
    /// # Errors
    /// When a component is `..`.
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

    /// Its topmost levels, so many of them at most.
    fn first(&self, levels: usize) -> Self {
        let end = self.0.match_indices('/').nth(levels).map(|(at, _)| at);
        Self(self.0[..end.unwrap_or(self.0.len())].to_owned())
    }

    /// One level up; `None` at the top.
    #[must_use]
    pub fn parent(&self) -> Option<Self> {
        let (parent, _) = self.0.rsplit_once('/')?;
        (!parent.is_empty()).then(|| Self(parent.to_owned()))
    }

    /// Its directory's name.
    #[must_use]
    pub fn name(&self) -> &str {
        self.0.rsplit('/').next().unwrap_or_default()
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
    /// When there are none, or `root` is given to systemd, whose slices say where
    /// they are.
    pub fn open(root: &str, driver: CgroupDriver) -> Result<Self, CgroupError> {
        let systemd = match driver {
            CgroupDriver::Cgroupfs => None,
            CgroupDriver::Systemd if !root.trim_matches('/').is_empty() => {
                return Err(CgroupError::SystemdRoot);
            }
            CgroupDriver::Systemd => Some(Arc::new(systemd::Systemd::new()?)),
        };
        let hierarchies = cgroupfs::read()?;
        let mode = cgroupfs::mode(&hierarchies).ok_or(CgroupError::NoHierarchy)?;
        Ok(Self {
            hierarchies,
            mode,
            root: CgroupPath::parse(root)?.0,
            systemd,
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
