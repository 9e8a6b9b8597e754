//! emptyDir: a folder of the pod's own, on disk, in memory or in huge pages.

use super::mountpoint::{HugePages, Tmpfs, mount_huge_pages, mount_tmpfs};
use super::{failed, make_dirs};
use crate::volume::error::VolumeReason;
use rustix::fs::{CWD, Gid, Mode, chmod, chown, mkdirat, renameat};
use rustix::io::Errno;
use std::fs;
use std::path::Path;

/// kubernetes v1.36 pkg/volume/emptydir/empty_dir.go `perm`.
const MODE: u32 = 0o777;
/// A tmpfs is sticky from the kernel on, and nobody upstream takes that away.
const TMPFS_MODE: u32 = 0o1777;
/// The kernel's own for a hugetlbfs, and nobody upstream changes it: who is not root writes by fsGroup.
const HUGE_PAGES_MODE: u32 = 0o755;
/// What fsGroup adds there: kubernetes v1.37 pkg/volume/volume_linux.go `rwMask` and `execMask`.
const GROUP_MODE: u32 = 0o770;
/// With fsGroup new files inherit the group.
const SETGID: u32 = 0o2000;

/// Makes the folder. What is there stays as it is: its mode may have been
/// changed by a container since.
pub fn on_disk(path: &Path, fs_group: Option<u32>) -> Result<(), VolumeReason> {
    if fs::symlink_metadata(path).is_ok() {
        return Ok(());
    }
    make_parent(path)?;
    let draft = path.with_extension("new");
    match mkdirat(CWD, &draft, Mode::RWXU) {
        Err(errno) if errno != Errno::EXIST => return Err(failed("mkdir", &draft)(errno)),
        _ => {}
    }
    if let Some(gid) = fs_group {
        chown(&draft, None, Some(Gid::from_raw(gid))).map_err(failed("chown", &draft))?;
    }
    chmod(&draft, Mode::from_raw_mode(mode(MODE, fs_group))).map_err(failed("chmod", &draft))?;
    renameat(CWD, &draft, CWD, path).map_err(failed("rename to", path))
}

/// Mounts a tmpfs of at most `size` bytes.
pub fn in_memory(path: &Path, size: u64, fs_group: Option<u32>) -> Result<(), VolumeReason> {
    make_dirs(path).map_err(failed("mkdir", path))?;
    let tmpfs = Tmpfs {
        size,
        mode: mode(TMPFS_MODE, fs_group),
        gid: fs_group,
    };
    mount_tmpfs(path, tmpfs)
}

/// Mounts a hugetlbfs with pages of `page_size` bytes. It has no size: a `sizeLimit` is held by
/// eviction, as upstream.
pub fn in_huge_pages(
    path: &Path,
    page_size: u64,
    fs_group: Option<u32>,
) -> Result<(), VolumeReason> {
    make_dirs(path).map_err(failed("mkdir", path))?;
    let group = fs_group.map_or(0, |_| GROUP_MODE);
    let pages = HugePages {
        page_size,
        mode: mode(HUGE_PAGES_MODE | group, fs_group),
        gid: fs_group,
    };
    mount_huge_pages(path, pages)
}

fn make_parent(path: &Path) -> Result<(), VolumeReason> {
    let parent = path.parent().unwrap_or(path);
    make_dirs(parent).map_err(failed("mkdir", parent))
}

fn mode(mode: u32, fs_group: Option<u32>) -> u32 {
    fs_group.map_or(mode, |_| mode | SETGID)
}

#[cfg(test)]
mod tests {
    use super::super::scratch::Scratch;
    use super::*;
    use std::os::unix::fs::{MetadataExt, PermissionsExt};

    #[test]
    fn folder_is_open_to_all_and_left_alone_when_it_is_there() {
        let dir = Scratch::new();
        let path = dir.0.join("a/b");
        on_disk(&path, None).unwrap();
        let mode_of = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
        let mode = || mode_of(&path);
        assert_eq!(mode(), 0o777);
        assert_eq!(
            mode_of(&dir.0.join("a")) & 0o007,
            0,
            "closed to others above"
        );
        chmod(&path, Mode::RWXU).unwrap();
        on_disk(&path, None).unwrap();
        assert_eq!(mode(), 0o700);
    }

    #[test]
    fn folder_belongs_to_fs_group_and_hands_it_down() {
        let dir = Scratch::new();
        let gid = rustix::process::getegid().as_raw();
        let path = dir.0.join("v");
        on_disk(&path, Some(gid)).unwrap();
        let seen = fs::metadata(&path).unwrap();
        assert_eq!(
            (seen.permissions().mode() & 0o7777, seen.gid()),
            (0o2777, gid)
        );
    }
}
