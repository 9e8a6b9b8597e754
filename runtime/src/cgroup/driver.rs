//! What the drivers see differently: names, and who makes a cgroup.

use super::stats::oom_kills_in;
use super::systemd::{self, Kind, Systemd};
use super::{CgroupError, CgroupPath, Cgroups};

/// The parent of sandboxes whose kubelet names none.
const OWN: &str = "/lighter-pods";

impl Cgroups {
    /// What CRI's `cgroup_parent` means. A kubelet that was told our root names
    /// it too, so a leading root is dropped.
    ///
    /// # Errors
    /// A name that is the other driver's, or leaves the root.
    pub fn name(&self, cgroup_parent: &str) -> Result<CgroupPath, CgroupError> {
        let name = cgroup_parent.to_owned();
        if self.systemd.is_some() {
            let path = systemd::expand(cgroup_parent).ok_or(CgroupError::NoSlice { name })?;
            return CgroupPath::parse(&path);
        }
        let path = CgroupPath::parse(cgroup_parent)?;
        if systemd::kind(path.name()) == Some(Kind::Slice) {
            return Err(CgroupError::SystemdName { name });
        }
        match path.0.strip_prefix(&self.root) {
            Some(rest) if rest.starts_with('/') && !self.root.is_empty() => {
                Ok(CgroupPath(rest.to_owned()))
            }
            _ => Ok(path),
        }
    }

    /// The cgroup of a sandbox whose kubelet names no parent.
    #[must_use]
    pub fn of_sandbox(&self, id: &str) -> CgroupPath {
        match self.systemd {
            Some(_) => CgroupPath(systemd::of_sandbox(id)),
            None => self.own_parent().child(id),
        }
    }

    /// What is above all of [`of_sandbox`](Self::of_sandbox).
    #[must_use]
    pub fn own_parent(&self) -> CgroupPath {
        match self.systemd {
            Some(_) => CgroupPath(systemd::OWN.to_owned()),
            None => CgroupPath(OWN.to_owned()),
        }
    }

    /// The cgroup of a container in its pod's.
    #[must_use]
    pub fn of_container(&self, pod: &CgroupPath, id: &str) -> CgroupPath {
        match self.systemd {
            Some(_) => pod.child(&systemd::of_container(id)),
            None => pod.child(id),
        }
    }

    /// The id of the container or sandbox that a cgroup of this name was made for.
    #[must_use]
    pub fn owner<'a>(&self, name: &'a str) -> Option<&'a str> {
        let id = match self.systemd {
            Some(_) => systemd::container_of(name).or(systemd::sandbox_of(name))?,
            None => name,
        };
        (id.len() == 64 && id.bytes().all(|b| b.is_ascii_hexdigit())).then_some(id)
    }

    /// Whether the cgroup may be empty until its container comes. systemd ends a scope that is.
    #[must_use]
    pub fn may_wait(&self, container: &CgroupPath) -> bool {
        self.unit(container).is_none()
    }

    /// The container's first process is in its cgroup, or none will ever be.
    pub fn entered(&self, container: &CgroupPath) {
        if let Some((systemd, Kind::Scope)) = self.unit(container) {
            systemd.entered(container.name());
        }
    }

    /// The unit that a cgroup belongs to, if it does.
    pub(super) fn unit(&self, path: &CgroupPath) -> Option<(&Systemd, Kind)> {
        let systemd = self.systemd.as_deref()?;
        Some((systemd, systemd::kind(path.name())?))
    }

    /// Starts the unit of a cgroup that has one; answers whether it is new.
    pub(super) fn start_unit(&self, path: &CgroupPath) -> Result<Option<bool>, CgroupError> {
        let new = match self.unit(path) {
            None => return Ok(None),
            Some((systemd, Kind::Slice)) => systemd.start_slice(path.name())?,
            Some((systemd, Kind::Scope)) => {
                let slice = path.parent().unwrap_or_else(|| CgroupPath(String::new()));
                systemd.start_scope(path.name(), slice.name())?;
                systemd.oom_kills(
                    slice.name(),
                    self.oom_kills_of(&slice).unwrap_or(0),
                    Some(0),
                );
                true
            }
        };
        self.pass_on_hugetlb(path);
        Ok(Some(new))
    }

    /// Ends the unit of a cgroup that is empty. Scopes end by themselves.
    pub(super) fn stop_unit(&self, path: &CgroupPath) {
        if let Some((systemd, Kind::Slice)) = self.unit(path) {
            systemd.forget(path.name());
            systemd.stop(path.name());
        }
    }

    /// Processes that the kernel killed here for want of memory.
    #[must_use]
    pub fn oom_kills(&self, path: &CgroupPath) -> u64 {
        let own = self.oom_kills_of(path);
        match (self.unit(path), path.parent()) {
            (Some((systemd, Kind::Scope)), Some(slice)) => {
                let total = self.oom_kills_of(&slice).unwrap_or(0);
                systemd.oom_kills(slice.name(), total, own)
            }
            _ => own.unwrap_or(0),
        }
    }

    /// `None` when the cgroup is gone.
    fn oom_kills_of(&self, path: &CgroupPath) -> Option<u64> {
        let home = self.controller("memory")?;
        oom_kills_in(&self.dir(home, path), home.v2)
    }

    /// systemd passes controllers on from level to level, but for this one, which
    /// it does not know and leaves alone.
    fn pass_on_hugetlb(&self, path: &CgroupPath) {
        let Some(home) = self.controller("hugetlb").filter(|home| home.v2) else {
            return;
        };
        let mut dir = home.mount.clone();
        for name in path.as_str().split('/').filter(|name| !name.is_empty()) {
            // Missing, it shows when a limit needs it.
            let _ = cgroupfs::put(&dir.join("cgroup.subtree_control"), "+hugetlb");
            dir.push(name);
        }
    }
}
