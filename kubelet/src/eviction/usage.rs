//! What a pod uses of what can run short.

use cri_proto::v1;
use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// linux include/uapi/linux/magic.h `HUGETLBFS_MAGIC`.
const HUGETLBFS: rustix::fs::FsWord = 0x9584_58f6;

/// Of a pod, or of one container.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Used {
    pub memory: u64,
    pub storage: u64,
    pub inodes: u64,
    pub pids: u64,
}

/// Of a pod and each of its parts, by name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct PodUsed {
    pub pod: Used,
    pub containers: BTreeMap<String, Used>,
    /// Volumes that lie on the node's disk, or in huge pages, which are none of it.
    pub volumes: BTreeMap<String, Used>,
}

/// What the runtime knows: memory, processes, writable layers.
pub(super) fn of_sandbox(stats: &v1::PodSandboxStats) -> PodUsed {
    let Some(linux) = &stats.linux else {
        return PodUsed::default();
    };
    let named = |c: &v1::ContainerStats| {
        let name = c.attributes.as_ref()?.metadata.as_ref()?.name.clone();
        Some((name, of_container(c)))
    };
    let containers: BTreeMap<_, _> = linux.containers.iter().filter_map(named).collect();
    let memory = linux.memory.as_ref().and_then(|m| m.working_set_bytes);
    let processes = linux.process.as_ref().and_then(|p| p.process_count);
    PodUsed {
        pod: Used {
            memory: memory.map_or(0, |v| v.value),
            storage: containers.values().map(|c| c.storage).sum(),
            inodes: containers.values().map(|c| c.inodes).sum(),
            pids: processes.map_or(0, |v| v.value),
        },
        containers,
        volumes: BTreeMap::new(),
    }
}

fn of_container(stats: &v1::ContainerStats) -> Used {
    let value = |v: Option<v1::UInt64Value>| v.map_or(0, |v| v.value);
    let layer = stats.writable_layer.as_ref();
    Used {
        memory: value(stats.memory.as_ref().and_then(|m| m.working_set_bytes)),
        storage: value(layer.and_then(|l| l.used_bytes)),
        inodes: value(layer.and_then(|l| l.inodes_used)),
        pids: 0,
    }
}

/// Where a pod's files lie.
#[derive(Debug, Clone)]
pub(super) struct Folders {
    /// A folder for each container.
    pub logs: PathBuf,
    /// Each with a folder for each volume.
    pub volumes: Vec<PathBuf>,
}

impl PodUsed {
    /// Adds what lies in the pod's folders. Walks them: not for an async thread.
    pub(super) fn add_files(&mut self, folders: &Folders) {
        for (container, dir) in inside(&folders.logs) {
            let logs = tree(&dir);
            self.pod.add(logs);
            self.containers.entry(container).or_default().add(logs);
        }
        for kind in &folders.volumes {
            for (volume, dir) in inside(kind) {
                let files = tree(&dir);
                self.pod.add(files);
                self.volumes.entry(volume).or_default().add(files);
            }
            for (volume, dir) in huge_pages(kind) {
                self.volumes.entry(volume).or_default().add(tree(&dir));
            }
        }
    }
}

impl Used {
    pub fn add(&mut self, more: Used) {
        self.storage += more.storage;
        self.inodes += more.inodes;
    }
}

/// Folders in a folder that are on its file system: a tmpfs is memory.
fn inside(dir: &Path) -> Vec<(String, PathBuf)> {
    folders(dir, |_, same| same)
}

/// Folders in a folder where a hugetlbfs is mounted. Its size is not the kernel's to hold.
fn huge_pages(dir: &Path) -> Vec<(String, PathBuf)> {
    folders(dir, |path, same| !same && is_hugetlbfs(path))
}

fn is_hugetlbfs(path: &Path) -> bool {
    rustix::fs::statfs(path).is_ok_and(|seen| seen.f_type == HUGETLBFS)
}

/// Those that `are` what is looked for, by their path and whether they are on the folder's file
/// system.
fn folders(dir: &Path, are: impl Fn(&Path, bool) -> bool) -> Vec<(String, PathBuf)> {
    let Ok(top) = dir.symlink_metadata() else {
        return Vec::new();
    };
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let wanted = entries.filter(|e| {
        let path = e.path();
        let seen = path.symlink_metadata();
        seen.is_ok_and(|s| s.is_dir() && are(&path, s.dev() == top.dev()))
    });
    wanted
        .map(|e| (e.file_name().to_string_lossy().into_owned(), e.path()))
        .collect()
}

/// What lies below a folder, as far as it is on the same file system; what has several
/// names counts once.
pub(crate) fn tree(dir: &Path) -> Used {
    let mut used = Used::default();
    let Ok(top) = dir.symlink_metadata() else {
        return used;
    };
    let mut linked = std::collections::BTreeSet::new();
    let mut folders = vec![dir.to_owned()];
    while let Some(folder) = folders.pop() {
        let entries = std::fs::read_dir(&folder).into_iter().flatten().flatten();
        for entry in entries {
            let Ok(seen) = entry.path().symlink_metadata() else {
                continue;
            };
            let again = seen.nlink() > 1 && !seen.is_dir() && !linked.insert(seen.ino());
            if again || seen.dev() != top.dev() {
                continue;
            }
            used.storage += seen.blocks() * 512;
            used.inodes += 1;
            if seen.is_dir() {
                folders.push(entry.path());
            }
        }
    }
    used
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pods_folders_count_for_it_and_for_their_container_or_volume() {
        let root = std::env::temp_dir().join(format!("lighter-usage-{}", std::process::id()));
        let write = |path: &str, bytes: usize| {
            let path = root.join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, vec![1; bytes]).unwrap();
        };
        write("logs/main/0.log", 50_000);
        write("volumes/empty/cache/a/b", 100_000);
        std::fs::hard_link(
            root.join("volumes/empty/cache/a/b"),
            root.join("volumes/empty/cache/again"),
        )
        .unwrap();
        let mut used = PodUsed::default();
        used.add_files(&Folders {
            logs: root.join("logs"),
            volumes: vec![root.join("volumes/empty"), root.join("volumes/none")],
        });
        let _ = std::fs::remove_dir_all(&root);
        let (logs, cache) = (used.containers["main"], used.volumes["cache"]);
        assert_eq!((logs.inodes, cache.inodes), (1, 2));
        assert!((50_000..100_000).contains(&logs.storage), "{logs:?}");
        assert!((100_000..200_000).contains(&cache.storage), "{cache:?}");
        assert_eq!(used.pod.storage, logs.storage + cache.storage);
    }
}
