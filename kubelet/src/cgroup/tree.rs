//! Cgroups as directories, the same in every hierarchy.

use super::limits::{Limits, Write};
use cgroupfs::{DELEGATED, FileError, Hierarchy};
use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;

/// Why a cgroup is not what it should be.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum CgroupError {
    #[error("no cgroup hierarchy is mounted below /sys/fs/cgroup")]
    NoHierarchy,
    #[error("cgroup {path} does not exist")]
    Missing { path: PathBuf },
    #[error(transparent)]
    File(#[from] FileError),
    #[error("no system bus for the cgroup driver systemd; is dbus running?")]
    NoBus(#[source] Box<zbus::Error>),
    #[error("systemd: {call} {unit}")]
    Unit {
        call: &'static str,
        unit: String,
        source: Box<zbus::Error>,
    },
}

/// A cgroup's directories, told from those that have the same names later.
pub type Identity = Vec<u64>;

/// All hierarchies of the host.
#[derive(Debug, Clone)]
pub struct Tree(Vec<Hierarchy>);

impl Tree {
    /// As they are mounted.
    ///
    /// # Errors
    /// When there are none.
    pub fn read() -> Result<Tree, CgroupError> {
        let found = cgroupfs::read()?;
        match found.is_empty() {
            true => Err(CgroupError::NoHierarchy),
            false => Ok(Tree(found)),
        }
    }

    /// One hierarchy for all controllers.
    pub fn is_unified(&self) -> bool {
        self.0.iter().all(|h| h.v2)
    }

    /// Makes the cgroup and what is missing above it; answers which it is now.
    pub fn create(&self, path: &str) -> Result<Identity, CgroupError> {
        self.0.iter().map(|h| self.create_in(h, path)).collect()
    }

    fn create_in(&self, hierarchy: &Hierarchy, path: &str) -> Result<u64, CgroupError> {
        cgroupfs::make(hierarchy, path, self.0.len() == 1)?;
        let path = dir(hierarchy, path);
        match path.metadata() {
            Ok(found) => Ok(found.ino()),
            Err(source) => Err(FileError::Read { path, source })?,
        }
    }

    /// Refuses a cgroup that is not there in a hierarchy whose controllers limit something.
    pub fn check(&self, path: &str) -> Result<(), CgroupError> {
        // Beside v1 few make theirs in the hierarchy of v2.
        let counts =
            |h: &&Hierarchy| h.v2 == self.is_unified() && DELEGATED.iter().any(|c| h.has(c));
        for hierarchy in self.0.iter().filter(counts) {
            let path = dir(hierarchy, path);
            if !path.is_dir() {
                return Err(CgroupError::Missing { path });
            }
        }
        Ok(())
    }

    /// Whether systemd has made the cgroup: it tracks its units in the hierarchies that have no
    /// controller of v1.
    pub fn is_tracked(&self, path: &str) -> bool {
        let tracks = |h: &&Hierarchy| h.v2 || h.has("name=systemd");
        self.0.iter().filter(tracks).all(|h| dir(h, path).is_dir())
    }

    /// Writes limits to a cgroup that is there; answers the controllers that this host has not, or
    /// not for it: in those nothing is limited.
    pub fn apply(
        &self,
        path: &str,
        limits: &Limits,
    ) -> Result<BTreeSet<&'static str>, CgroupError> {
        let mut without = BTreeSet::new();
        for write in limits.writes(&self.0) {
            if !put(path, &write)? {
                without.insert(write.controller);
            }
        }
        Ok(without)
    }

    /// systemd has made the cgroup: what it does not pass on to those below is passed on here.
    pub fn adopt(&self, path: &str) {
        for hierarchy in self.0.iter().filter(|_| self.is_unified()) {
            cgroupfs::pass_on(hierarchy, &dir(hierarchy, path));
        }
    }
}

fn dir(hierarchy: &Hierarchy, path: &str) -> PathBuf {
    hierarchy.mount.join(path.trim_start_matches('/'))
}

/// Answers whether there is such a file.
fn put(cgroup: &str, write: &Write) -> Result<bool, CgroupError> {
    let Some(mount) = &write.mount else {
        return Ok(false);
    };
    let path = mount.join(cgroup.trim_start_matches('/')).join(&write.file);
    let value = write.value.to_string();
    match cgroupfs::put(&path, &value) {
        Ok(()) => Ok(true),
        Err(e) if write.optional && e.kind() == ErrorKind::NotFound => Ok(false),
        Err(source) => Err(FileError::Write {
            path,
            value,
            source,
        })?,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A cgroup of this test's own, gone afterwards with those in it.
    fn with_cgroup(name: &str, test: impl Fn(&Tree, &str)) {
        let tree = Tree::read().unwrap();
        let path = format!("/kubelet-{name}-{}", std::process::id());
        test(&tree, &path);
        for hierarchy in &tree.0 {
            for path in [format!("{path}/pods"), path.clone()] {
                let _ = std::fs::remove_dir(dir(hierarchy, &path));
            }
        }
    }

    /// What is read back; both versions have numbers here.
    fn value(tree: &Tree, path: &str, controller: &str, v1: &str, v2: &str) -> Option<u64> {
        let home = tree.0.iter().find(|h| h.has(controller)).unwrap();
        cgroupfs::number(&dir(home, path).join(if home.v2 { v2 } else { v1 }))
    }

    fn limits() -> Limits {
        Limits {
            memory: Some(64 << 20),
            pids: Some(9),
            ..Limits::of_shares(1024)
        }
    }

    #[test]
    #[ignore = "needs root: makes cgroups"]
    fn cgroup_is_made_in_every_hierarchy_and_limited_where_the_controller_lives() {
        with_cgroup("tree", |tree, path| {
            let pods = format!("{path}/pods");
            let first = tree.create(&pods).unwrap();
            assert_eq!(tree.create(&pods).unwrap(), first);
            tree.check(&pods).unwrap();
            let without = tree.apply(&pods, &limits()).unwrap();
            assert_eq!(without, BTreeSet::new());
            let value = |controller, v1, v2| value(tree, &pods, controller, v1, v2);
            let memory = value("memory", "memory.limit_in_bytes", "memory.max");
            assert_eq!(memory, Some(64 << 20));
            assert_eq!(value("pids", "pids.max", "pids.max"), Some(9));
            let shares = value("cpu", "cpu.shares", "cpu.weight");
            assert!(matches!(shares, Some(1024 | 100)), "{shares:?}");
            // One that went in a single hierarchy is another.
            std::fs::remove_dir(dir(&tree.0[0], &pods)).unwrap();
            assert_ne!(tree.create(&pods).unwrap(), first);
        });
    }

    #[test]
    #[ignore = "needs root: makes cgroups"]
    fn controller_that_the_host_lacks_is_told() {
        with_cgroup("lacks", |tree, path| {
            tree.create(path).unwrap();
            let rest = tree.0.iter().filter(|h| !h.has("pids")).cloned();
            let rest = Tree(rest.collect());
            let without = rest.apply(
                path,
                &Limits {
                    memory: None,
                    ..limits()
                },
            );
            let lacks: Vec<&str> = without.unwrap().into_iter().collect();
            let want: &[&str] = if tree.is_unified() {
                &["cpu", "pids"]
            } else {
                &["pids"]
            };
            assert_eq!(lacks, want);
        });
    }

    #[test]
    #[ignore = "needs root: makes cgroups"]
    fn cgroup_that_is_missing_is_named_and_no_file_is_made_for_it() {
        with_cgroup("missing", |tree, path| {
            let missing = tree.check(path).unwrap_err().to_string();
            assert!(
                missing.ends_with(&format!("{path} does not exist")),
                "{missing}"
            );
            assert!(tree.apply(path, &limits()).is_err());
            assert!(tree.check(path).is_err());
        });
    }
}
