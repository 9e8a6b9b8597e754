//! Files that survive a crash.

use rustix::fs::{Mode, OFlags};
use std::fs;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

/// Makes a directory that only its owner enters: a setuid file in a layer must
/// not be reachable for the host's users (containerd's CVE-2021-41103).
pub fn private_dir(path: &Path) -> io::Result<()> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o700))
}

/// Replaces a file: after a crash its old content is there or its new one.
pub fn write_atomic(dir: &Path, name: &str, bytes: &[u8]) -> io::Result<()> {
    rename_over(dir, name, |temp| write_new(temp, bytes)?.sync_data())?;
    sync_dir(dir)
}

/// Replaces a file at once: it is whole after the death of a process, but the host's may
/// leave it empty or lose it, until the file system is synced.
pub fn write_unsynced(dir: &Path, name: &str, bytes: &[u8]) -> io::Result<()> {
    rename_over(dir, name, |temp| write_new(temp, bytes).map(drop))
}

fn rename_over(
    dir: &Path,
    name: &str,
    write: impl FnOnce(&Path) -> io::Result<()>,
) -> io::Result<()> {
    let temp = dir.join(format!(".{name}.{}", unique()));
    let written = write(&temp).and_then(|()| fs::rename(&temp, dir.join(name)));
    if written.is_err() {
        // What remains after a failed removal is skipped by every reader.
        let _ = fs::remove_file(&temp);
    }
    written
}

fn write_new(path: &Path, bytes: &[u8]) -> io::Result<fs::File> {
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    file.write_all(bytes)?;
    Ok(file)
}

/// Makes renames and removals in a directory last.
pub fn sync_dir(dir: &Path) -> io::Result<()> {
    fs::File::open(dir)?.sync_all()
}

/// Writes back everything of the file system that a directory is on.
pub fn sync_file_system(dir: &Path) -> io::Result<()> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let dir = rustix::fs::open(dir, flags, Mode::empty())?;
    Ok(rustix::fs::syncfs(dir.as_fd())?)
}

/// Removes a file or a tree, whichever it is; gone already is fine.
pub fn remove(path: &Path) -> io::Result<()> {
    let removed = match fs::symlink_metadata(path) {
        Ok(meta) if meta.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(e) => Err(e),
    };
    match removed {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    }
}

/// Names in a directory, those that begin with a dot (half-written) left out.
pub fn names(dir: &Path) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(dir)? {
        if let Ok(name) = entry?.file_name().into_string()
            && !name.starts_with('.')
        {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}

/// A path in `dir` that nobody else uses.
pub fn temp_path(dir: &Path) -> PathBuf {
    dir.join(unique())
}

fn unique() -> String {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let next = NEXT.fetch_add(1, Ordering::Relaxed);
    // The time sets it apart from what an earlier process of this number left.
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    format!(
        "{}-{next}-{}",
        std::process::id(),
        now.unwrap_or_default().as_nanos()
    )
}

/// The kernel's id of this boot; empty where it can't be read.
pub fn boot_id() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id")
        .map(|id| id.trim().to_owned())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::testing::TempDir;

    #[test]
    fn write_atomic_replaces_and_leaves_no_temporary() {
        let dir = TempDir::new();
        write_atomic(dir.path(), "a", b"1").unwrap();
        write_atomic(dir.path(), "a", b"2").unwrap();
        assert_eq!(fs::read(dir.path().join("a")).unwrap(), b"2");
        write_unsynced(dir.path(), "a", b"3").unwrap();
        assert_eq!(fs::read(dir.path().join("a")).unwrap(), b"3");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn cve_2021_41103_and_2024_25621_directory_is_its_owners_alone() {
        let dir = TempDir::new();
        let inner = dir.path().join("layers");
        fs::create_dir(&inner).unwrap();
        fs::set_permissions(&inner, fs::Permissions::from_mode(0o755)).unwrap();
        private_dir(&inner).unwrap();
        let mode = fs::metadata(&inner).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
    }

    #[test]
    fn remove_is_content_when_nothing_is_there() {
        let dir = TempDir::new();
        remove(&dir.path().join("none")).unwrap();
    }
}
