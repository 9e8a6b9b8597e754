//! Disk space of a container's writable layer.

use super::Container;
use std::collections::HashSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::PoisonError;
use std::time::{Duration, Instant};

/// A walk over many files is dear: its result is good for as long as a kubelet
/// takes between two looks (kubernetes v1.37 pkg/kubelet/kubelet.go
/// `evictionMonitoringPeriod`).
const GOOD_FOR: Duration = Duration::from_secs(10);

/// When it was measured, bytes, inodes.
pub(super) type Usage = Option<(Instant, u64, u64)>;

impl Container {
    /// Bytes and inodes that the container has written.
    #[must_use]
    pub fn writable_usage(&self) -> (u64, u64) {
        let mut usage = self.usage.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((at, bytes, inodes)) = *usage
            && at.elapsed() < GOOD_FOR
        {
            return (bytes, inodes);
        }
        let (bytes, inodes) = walk(self.layer().join("upper"));
        *usage = Some((Instant::now(), bytes, inodes));
        (bytes, inodes)
    }
}

/// Hard links count once.
fn walk(top: PathBuf) -> (u64, u64) {
    let mut seen = HashSet::new();
    let (mut bytes, mut inodes) = (0, 0);
    let mut todo = vec![top];
    while let Some(dir) = todo.pop() {
        inodes += 1;
        for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
            let Ok(metadata) = entry.metadata() else {
                continue;
            };
            if metadata.is_dir() {
                todo.push(entry.path());
            } else if metadata.nlink() == 1 || seen.insert(metadata.ino()) {
                inodes += 1;
                bytes += metadata.blocks() * 512;
            }
        }
    }
    (bytes, inodes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hard_links_count_once() {
        let dir = std::env::temp_dir().join(format!("lighter-usage-{}", std::process::id()));
        fs::create_dir_all(&dir).expect("dir");
        fs::write(dir.join("a"), vec![1; 8192]).expect("file");
        let (one, _) = walk(dir.clone());
        fs::hard_link(dir.join("a"), dir.join("b")).expect("link");
        let (two, inodes) = walk(dir.clone());
        let _ = fs::remove_dir_all(&dir);
        assert_eq!((one, inodes), (two, 2));
    }
}
