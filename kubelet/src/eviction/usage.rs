//! What a pod uses of what can run short.

use cri_proto::v1;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

/// Of one pod.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Used {
    pub memory: u64,
    pub storage: u64,
    pub inodes: u64,
    pub pids: u64,
}

/// What the runtime knows: memory, processes, writable layers.
pub(super) fn of_sandbox(stats: &v1::PodSandboxStats) -> Used {
    let Some(linux) = &stats.linux else {
        return Used::default();
    };
    let value = |v: &Option<v1::UInt64Value>| v.as_ref().map_or(0, |v| v.value);
    let layers = || {
        let containers = linux.containers.iter();
        containers.filter_map(|c| c.writable_layer.as_ref())
    };
    Used {
        memory: linux
            .memory
            .as_ref()
            .map_or(0, |m| value(&m.working_set_bytes)),
        storage: layers().map(|l| value(&l.used_bytes)).sum(),
        inodes: layers().map(|l| value(&l.inodes_used)).sum(),
        pids: linux
            .process
            .as_ref()
            .map_or(0, |p| value(&p.process_count)),
    }
}

impl Used {
    /// Adds what lies below a folder, as far as it is on the same file system: a tmpfs is memory.
    pub(super) fn add_tree(&mut self, dir: &Path) {
        let Ok(top) = dir.symlink_metadata() else {
            return;
        };
        let mut folders = vec![dir.to_owned()];
        while let Some(folder) = folders.pop() {
            let entries = std::fs::read_dir(&folder).into_iter().flatten().flatten();
            for entry in entries {
                let Ok(seen) = entry.path().symlink_metadata() else {
                    continue;
                };
                if seen.dev() != top.dev() {
                    continue;
                }
                self.storage += seen.blocks() * 512;
                self.inodes += 1;
                if seen.is_dir() {
                    folders.push(entry.path());
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tree_counts_with_all_that_is_in_it() {
        let dir = std::env::temp_dir().join(format!("lighter-usage-{}", std::process::id()));
        std::fs::create_dir_all(dir.join("a/b")).unwrap();
        std::fs::write(dir.join("a/b/file"), vec![1; 100_000]).unwrap();
        let mut used = Used::default();
        used.add_tree(&dir);
        let _ = std::fs::remove_dir_all(&dir);
        assert_eq!(used.inodes, 3);
        assert!(used.storage >= 100_000, "{used:?}");
        let before = used;
        used.add_tree(Path::new("/nonexistent"));
        assert_eq!(used, before);
    }
}
