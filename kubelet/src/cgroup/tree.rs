//! Cgroups as directories, the same in every hierarchy.

use super::hierarchy::{self, Hierarchy};
use super::limits::{Limits, Write};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

/// v2 controllers that pods need where the host has them.
const DELEGATED: [&str; 6] = ["cpu", "cpuset", "io", "memory", "hugetlb", "pids"];

/// Why a cgroup is not what it should be.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum CgroupError {
    #[error("no cgroup hierarchy is mounted below /sys/fs/cgroup")]
    NoHierarchy,
    #[error("make cgroup {path}")]
    Make { path: PathBuf, source: io::Error },
    #[error("cgroup {path} does not exist")]
    Missing { path: PathBuf },
    #[error("write {value} to {path}")]
    Write {
        path: PathBuf,
        value: String,
        source: io::Error,
    },
    #[error("read {path}")]
    Read { path: PathBuf, source: io::Error },
    #[error("no system bus for the cgroup driver systemd; is dbus running?")]
    NoBus(#[source] Box<zbus::Error>),
    #[error("systemd: {call} {unit}")]
    Unit {
        call: &'static str,
        unit: String,
        source: Box<zbus::Error>,
    },
}

/// All hierarchies of the host.
#[derive(Debug, Clone)]
pub struct Tree(Vec<Hierarchy>);

impl Tree {
    /// As they are mounted.
    ///
    /// # Errors
    /// When there are none.
    pub fn read() -> Result<Tree, CgroupError> {
        let found = hierarchy::read();
        match found.is_empty() {
            true => Err(CgroupError::NoHierarchy),
            false => Ok(Tree(found)),
        }
    }

    /// One hierarchy for all controllers.
    pub fn is_unified(&self) -> bool {
        self.0.iter().all(|h| h.unified)
    }

    /// Makes the cgroup and what is missing above it; answers whether it was missing anywhere.
    pub fn create(&self, path: &str) -> Result<bool, CgroupError> {
        let mut made = false;
        for hierarchy in &self.0 {
            made |= self.create_in(hierarchy, path)?;
        }
        Ok(made)
    }

    fn create_in(&self, hierarchy: &Hierarchy, path: &str) -> Result<bool, CgroupError> {
        if dir(hierarchy, path).is_dir() {
            return Ok(false);
        }
        let mut dir = hierarchy.mount.clone();
        let mut made = false;
        for name in path.split('/').filter(|n| !n.is_empty()) {
            let above = dir.clone();
            dir.push(name);
            made = match std::fs::create_dir(&dir) {
                Ok(()) => true,
                Err(e) if e.kind() == ErrorKind::AlreadyExists => false,
                Err(source) => return Err(CgroupError::Make { path: dir, source }),
            };
            if made {
                self.prepare(hierarchy, &above, &dir)?;
            }
        }
        Ok(made)
    }

    /// What a new cgroup needs before a pod's may be made in it.
    fn prepare(&self, hierarchy: &Hierarchy, above: &Path, dir: &Path) -> Result<(), CgroupError> {
        // Beside v1 the v2 hierarchy only tracks processes.
        if self.is_unified() {
            pass_on(hierarchy, above);
        } else if hierarchy.has("cpuset") {
            // An empty one takes no process.
            inherit(above, dir, "cpuset.cpus")?;
            inherit(above, dir, "cpuset.mems")?;
        }
        Ok(())
    }

    /// Refuses a cgroup that is not there in a hierarchy whose controllers limit something.
    pub fn check(&self, path: &str) -> Result<(), CgroupError> {
        let counts = |h: &&Hierarchy| DELEGATED.iter().any(|c| h.has(c));
        for hierarchy in self.0.iter().filter(counts) {
            let path = dir(hierarchy, path);
            if !path.is_dir() {
                return Err(CgroupError::Missing { path });
            }
        }
        Ok(())
    }

    /// Writes limits to a cgroup that is there. A controller that the host lacks limits nothing.
    pub fn apply(&self, path: &str, limits: &Limits) -> Result<(), CgroupError> {
        for write in limits.writes(self.is_unified()) {
            let home = self.0.iter().find(|h| h.has(write.controller));
            if let Some(hierarchy) = home {
                put(&dir(hierarchy, path), &write)?;
            }
        }
        Ok(())
    }

    /// systemd has made the cgroup: what it does not pass on to those below is passed on here.
    pub fn adopt(&self, path: &str) {
        for hierarchy in self.0.iter().filter(|_| self.is_unified()) {
            pass_on(hierarchy, &dir(hierarchy, path));
        }
    }
}

fn dir(hierarchy: &Hierarchy, path: &str) -> PathBuf {
    hierarchy.mount.join(path.trim_start_matches('/'))
}

fn put(dir: &Path, write: &Write) -> Result<(), CgroupError> {
    let path = dir.join(&write.file);
    match std::fs::write(&path, write.value.to_string()) {
        Ok(()) => Ok(()),
        Err(e) if write.optional && e.kind() == ErrorKind::NotFound => Ok(()),
        Err(source) => Err(CgroupError::Write {
            path,
            value: write.value.to_string(),
            source,
        }),
    }
}

/// v2: lets controllers be used below a cgroup. One that can't be had shows when a limit needs it.
fn pass_on(hierarchy: &Hierarchy, dir: &Path) {
    for controller in DELEGATED.iter().filter(|c| hierarchy.has(c)) {
        let _ = std::fs::write(dir.join("cgroup.subtree_control"), format!("+{controller}"));
    }
}

/// v1.
fn inherit(above: &Path, dir: &Path, file: &str) -> Result<(), CgroupError> {
    let path = above.join(file);
    let value =
        std::fs::read_to_string(&path).map_err(|source| CgroupError::Read { path, source })?;
    let (path, value) = (dir.join(file), value.trim());
    std::fs::write(&path, value).map_err(|source| CgroupError::Write {
        path,
        value: value.to_owned(),
        source,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Folders in place of hierarchies: a file is there once it is written.
    fn with_tree(name: &str, unified: bool, test: impl Fn(&Tree, &Path)) {
        let root = std::env::temp_dir().join(format!("kubelet-{name}-{}", std::process::id()));
        let hierarchy = |mount: &str, controllers: &[&str]| {
            let mount = root.join(mount);
            std::fs::create_dir_all(&mount).unwrap();
            std::fs::write(mount.join("cpuset.cpus"), "0-1\n").unwrap();
            std::fs::write(mount.join("cpuset.mems"), "0\n").unwrap();
            Hierarchy {
                mount,
                controllers: controllers.iter().map(|c| (*c).to_owned()).collect(),
                unified,
            }
        };
        let tree = match unified {
            true => Tree(vec![hierarchy("v2", &["cpu", "memory", "pids"])]),
            false => Tree(vec![
                hierarchy("cpu", &["cpu"]),
                hierarchy("cpuset", &["cpuset"]),
                hierarchy("memory", &["memory"]),
            ]),
        };
        test(&tree, &root);
        std::fs::remove_dir_all(root).unwrap();
    }

    fn limits() -> Limits {
        Limits {
            memory: Some(7),
            pids: Some(9),
            ..Limits::of_shares(2)
        }
    }

    #[test]
    fn cgroup_is_made_in_every_hierarchy_and_limited_where_the_controller_lives() {
        with_tree("tree-v1", false, |tree, root| {
            let text = |file: &str| std::fs::read_to_string(root.join(file)).unwrap();
            assert!(tree.create("/n/kubepods").unwrap());
            assert!(!tree.create("/n/kubepods").unwrap());
            assert_eq!(text("cpuset/n/kubepods/cpuset.cpus"), "0-1");
            tree.apply("/n/kubepods", &limits()).unwrap();
            assert_eq!(text("cpu/n/kubepods/cpu.shares"), "2");
            assert_eq!(text("memory/n/kubepods/memory.limit_in_bytes"), "7");
            // One that went in a single hierarchy was missing.
            std::fs::remove_dir_all(root.join("memory/n/kubepods")).unwrap();
            assert!(tree.create("/n/kubepods").unwrap());
        });
    }

    #[test]
    fn controllers_are_passed_on_where_there_is_one_hierarchy() {
        with_tree("tree-v2", true, |tree, root| {
            let text = |file: &str| std::fs::read_to_string(root.join(file)).unwrap();
            tree.create("kubepods/burstable").unwrap();
            assert_eq!(text("v2/cgroup.subtree_control"), "+pids");
            assert_eq!(text("v2/kubepods/cgroup.subtree_control"), "+pids");
            tree.apply("kubepods", &limits()).unwrap();
            let values = ["cpu.weight", "memory.max", "pids.max"];
            let values = values.map(|f| text(&format!("v2/kubepods/{f}")));
            assert_eq!(values, ["1", "7", "9"]);
        });
    }

    #[test]
    fn cgroup_that_is_missing_is_named() {
        with_tree("tree-missing", false, |tree, root| {
            let missing = tree.check("/kube").unwrap_err().to_string();
            let want = format!("cgroup {} does not exist", root.join("cpu/kube").display());
            assert_eq!(missing, want);
            assert!(tree.apply("/kube", &limits()).is_err());
            tree.create("/kube").unwrap();
            tree.check("/kube").unwrap();
        });
    }
}
