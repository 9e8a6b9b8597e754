//! Directories of a cgroup, the same in every hierarchy.

use super::{CgroupError, CgroupPath, Cgroups, Hierarchy};
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::mount::OpenTreeFlags;

/// The cgroup of spawner and monitors: outside the service's unit and outside
/// kubepods, so that neither a pod's OOM nor its freeze hits them.
const MONITORS: &str = "/lighter-monitors";

impl Cgroups {
    /// Makes the cgroup and what is missing above it, in every hierarchy.
    /// Answers the topmost level that was not there before.
    ///
    /// # Errors
    /// The directory that can't be made.
    pub fn create(&self, path: &CgroupPath) -> Result<Option<CgroupPath>, CgroupError> {
        let unit = self.start_unit(path)?;
        let mut made: Option<CgroupPath> = None;
        for hierarchy in &self.hierarchies {
            if let Some(top) = self.create_in(hierarchy, path)? {
                let shorter = |old: &CgroupPath| top.as_str().len() < old.as_str().len();
                if made.as_ref().is_none_or(shorter) {
                    made = Some(top);
                }
            }
        }
        // What systemd makes above a unit is its own to remove.
        Ok(match unit {
            Some(new) => new.then(|| path.clone()),
            None => made,
        })
    }

    /// The topmost level that [`create`](Self::create) would have to make.
    #[must_use]
    pub fn missing(&self, path: &CgroupPath) -> Option<CgroupPath> {
        let whole = |path: &CgroupPath| {
            let there = |h| self.dir(h, path).exists();
            self.hierarchies.iter().all(there)
        };
        if self.systemd.is_some() {
            return (!whole(path)).then(|| path.clone());
        }
        let mut top = None;
        let mut next = Some(path.clone());
        while let Some(level) = next.filter(|level| !whole(level)) {
            next = level.parent();
            top = Some(level);
        }
        top
    }

    fn create_in(
        &self,
        hierarchy: &Hierarchy,
        path: &CgroupPath,
    ) -> Result<Option<CgroupPath>, CgroupError> {
        let whole = format!("{}{}", self.root, path.as_str());
        let there = cgroupfs::make(hierarchy, &whole, self.hierarchies.len() == 1)?;
        let names = |path: &str| path.split('/').filter(|n| !n.is_empty()).count();
        // Of a root that was not there all levels below it are new; it stays itself.
        let levels = there.map(|there| there.saturating_sub(names(&self.root)));
        Ok(levels.map(|there| path.first(there + 1)))
    }

    /// Open `cgroup.procs` files, one a hierarchy, for a process to write `0` to.
    ///
    /// # Errors
    /// The file that can't be opened.
    pub fn procs(&self, path: &CgroupPath) -> Result<Vec<OwnedFd>, CgroupError> {
        self.hierarchies
            .iter()
            .map(|hierarchy| {
                let file = self.dir(hierarchy, path).join("cgroup.procs");
                let opened = fs::File::options().write(true).open(&file);
                opened
                    .map(OwnedFd::from)
                    .map_err(|source| CgroupError::Read { path: file, source })
            })
            .collect()
    }

    /// What a process of one thread enters a cgroup by: of a v1 hierarchy the open `tasks`
    /// file, to write `0` to; of v2 the directory, for a child to be born in. Neither makes
    /// the kernel wait, as `cgroup.procs` does.
    ///
    /// # Errors
    /// What can't be opened.
    pub fn doors(&self, path: &CgroupPath) -> Result<Vec<OwnedFd>, CgroupError> {
        let door = |hierarchy: &Hierarchy| {
            let dir = self.dir(hierarchy, path);
            let (path, write) = if hierarchy.v2 {
                (dir, false)
            } else {
                (dir.join("tasks"), true)
            };
            let opened = fs::File::options().read(!write).write(write).open(&path);
            opened
                .map(OwnedFd::from)
                .map_err(|source| CgroupError::Read { path, source })
        };
        self.hierarchies.iter().map(door).collect()
    }

    /// What is below the cgroup in each v1 hierarchy, as a mount that is attached nowhere, by the
    /// name of the hierarchy's mount point: to those in the cgroup's namespace the same as the
    /// hierarchy mounted by them, at a third of the calls.
    ///
    /// # Errors
    /// The directory that can't be cloned.
    pub fn views(&self, path: &CgroupPath) -> Result<Vec<(String, OwnedFd)>, CgroupError> {
        let view = |hierarchy: &Hierarchy| {
            let path = self.dir(hierarchy, path);
            let name = hierarchy.mount.file_name().unwrap_or_default();
            let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
            match rustix::mount::open_tree(rustix::fs::CWD, &path, flags) {
                Ok(view) => Ok((name.to_string_lossy().into_owned(), view)),
                Err(errno) => Err(CgroupError::Read {
                    path,
                    source: errno.into(),
                }),
            }
        };
        let v1 = self.hierarchies.iter().filter(|h| !h.v2);
        v1.map(view).collect()
    }

    /// The cgroup of spawner and monitors, made if need be.
    ///
    /// # Errors
    /// As [`create`](Self::create) and [`procs`](Self::procs).
    pub fn monitors(&self) -> Result<Vec<OwnedFd>, CgroupError> {
        let path = CgroupPath::parse(MONITORS)?;
        self.create(&path)?;
        self.procs(&path)
    }

    /// Removes the cgroup and everything below it; gone already is fine.
    ///
    /// # Errors
    /// [`CgroupError::Busy`] with the processes that are left.
    pub fn remove(&self, path: &CgroupPath) -> Result<(), CgroupError> {
        self.entered(path);
        for hierarchy in &self.hierarchies {
            remove_tree(&self.dir(hierarchy, path))?;
        }
        self.stop_unit(path);
        Ok(())
    }

    /// Removes `path` and then its parents up to and including `top`, as far
    /// as they are empty.
    pub fn prune(&self, path: &CgroupPath, top: &CgroupPath) {
        let mut next = Some(path.clone());
        while let Some(path) = next.filter(|p| p.is_within(top)) {
            if self.pids(&path).is_empty() {
                self.stop_unit(&path);
            }
            for hierarchy in &self.hierarchies {
                let _ = fs::remove_dir(self.dir(hierarchy, &path));
            }
            next = path.parent();
        }
    }

    /// Names of the cgroups directly below, in any hierarchy.
    #[must_use]
    pub fn children(&self, path: &CgroupPath) -> std::collections::BTreeSet<String> {
        let dirs = self
            .hierarchies
            .iter()
            .flat_map(|h| children(&self.dir(h, path)));
        let name = |dir: PathBuf| Some(dir.file_name()?.to_str()?.to_owned());
        dirs.filter_map(name).collect()
    }

    /// Whether the cgroup is there in any hierarchy.
    #[must_use]
    pub fn exists(&self, path: &CgroupPath) -> bool {
        self.hierarchies.iter().any(|h| self.dir(h, path).exists())
    }
}

fn remove_tree(dir: &Path) -> Result<(), CgroupError> {
    match fs::remove_dir(dir) {
        Ok(()) => return Ok(()),
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(_) => {}
    }
    for child in children(dir) {
        remove_tree(&child)?;
    }
    match fs::remove_dir(dir) {
        Ok(()) => Ok(()),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(e) if e.kind() == io::ErrorKind::ResourceBusy => Err(CgroupError::Busy {
            path: dir.to_owned(),
            pids: pids(dir),
        }),
        Err(source) => Err(CgroupError::Remove {
            path: dir.to_owned(),
            source,
        }),
    }
}

pub(super) fn children(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries
        .filter(|e| e.file_type().is_ok_and(|t| t.is_dir()))
        .map(|e| e.path())
        .collect()
}

/// Processes in this very cgroup.
pub(super) fn pids(dir: &Path) -> Vec<i32> {
    let text = fs::read_to_string(dir.join("cgroup.procs")).unwrap_or_default();
    text.lines().filter_map(|line| line.parse().ok()).collect()
}
