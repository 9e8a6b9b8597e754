//! Mounts that the kubelet makes itself.

use super::failed;
use crate::volume::error::VolumeReason;
use rustix::fs::{AtFlags, CWD, Mode, OFlags, StatxAttributes, StatxFlags, fchmod, openat, statx};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, UnmountFlags, fsconfig_create,
    fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, move_mount, unmount,
};
use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Path, PathBuf};

const MOUNTS: &str = "/proc/self/mountinfo";

/// A tmpfs to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tmpfs {
    /// Bytes; 0 leaves it to the kernel (half of the memory).
    pub size: u64,
    /// Of its root folder.
    pub mode: u32,
    /// Group of its root folder.
    pub gid: Option<u32>,
}

/// Is something mounted exactly here? What doesn't exist is no mount. No server is asked, which
/// may be away.
pub fn is_mounted(path: &Path) -> Result<bool, VolumeReason> {
    let how = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT | AtFlags::STATX_DONT_SYNC;
    match statx(CWD, path, how, StatxFlags::empty()) {
        Ok(seen) => Ok(seen.stx_attributes.contains(StatxAttributes::MOUNT_ROOT)),
        Err(Errno::NOENT | Errno::NOTDIR) => Ok(false),
        Err(errno) => Err(failed("statx", path)(errno)),
    }
}

/// A hugetlbfs to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HugePages {
    /// Bytes of a page.
    pub page_size: u64,
    /// Of its root folder.
    pub mode: u32,
    /// Group of its root folder.
    pub gid: Option<u32>,
}

/// Mounts a tmpfs unless one is there.
pub fn mount_tmpfs(path: &Path, tmpfs: Tmpfs) -> Result<(), VolumeReason> {
    let mut options = vec![("source", "tmpfs".to_owned())];
    if tmpfs.size > 0 {
        options.push(("size", tmpfs.size.to_string()));
    }
    options.extend(owned(tmpfs.mode, tmpfs.gid));
    // Since 6.4; without it a secret may reach swap, as with any older kubelet.
    mount_new("tmpfs", path, options, Some("noswap"), None)
}

/// Mounts a hugetlbfs unless one is there.
pub fn mount_huge_pages(path: &Path, pages: HugePages) -> Result<(), VolumeReason> {
    let mut options = vec![
        ("source", "nodev".to_owned()),
        ("pagesize", pages.page_size.to_string()),
    ];
    options.extend(owned(pages.mode, pages.gid));
    // Its own option takes no set-group-ID: linux fs/hugetlbfs/inode.c `hugetlbfs_parse_param`.
    let mode = Mode::from_raw_mode(pages.mode);
    mount_new("hugetlbfs", path, options, None, Some(mode))
}

fn owned(mode: u32, gid: Option<u32>) -> impl Iterator<Item = (&'static str, String)> {
    let gid = gid.map(|gid| ("gid", gid.to_string()));
    [("mode", format!("{mode:o}"))].into_iter().chain(gid)
}

/// Mounts a new file system unless something is there; its options are set before it can be
/// seen, so that a second call has nothing to repair. Does without `wish` where it is unknown.
fn mount_new(
    kind: &'static str,
    path: &Path,
    options: Vec<(&str, String)>,
    wish: Option<&str>,
    mode: Option<Mode>,
) -> Result<(), VolumeReason> {
    if is_mounted(path)? {
        return Ok(());
    }
    let failed = |call| {
        move |source: Errno| VolumeReason::NewMount {
            call,
            kind,
            path: path.to_owned(),
            source: source.into(),
        }
    };
    let fs = fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC).map_err(failed("fsopen"))?;
    for (key, value) in options {
        fsconfig_set_string(&fs, key, value.as_str()).map_err(failed("fsconfig"))?;
    }
    if let Some(wish) = wish {
        let _ = fsconfig_set_flag(&fs, wish);
    }
    fsconfig_create(&fs).map_err(failed("create"))?;
    let mount = fsmount(&fs, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())
        .map_err(failed("fsmount"))?;
    if let Some(mode) = mode {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = openat(&mount, ".", flags, Mode::empty()).map_err(failed("open"))?;
        fchmod(&root, mode).map_err(failed("chmod"))?;
    }
    let how = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
    move_mount(&mount, "", CWD, path, how).map_err(failed("mount"))
}

/// Whether what is in a tmpfs can be kept from swap here.
pub fn tmpfs_avoids_swap() -> bool {
    let fs = fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC);
    fs.and_then(|fs| fsconfig_set_flag(&fs, "noswap")).is_ok()
}

/// Unmounts whatever is mounted here, once for each layer.
pub fn unmount_all(path: &Path) -> Result<(), VolumeReason> {
    while is_mounted(path)? {
        unmount(path, UnmountFlags::NOFOLLOW).map_err(failed("umount", path))?;
    }
    Ok(())
}

/// Unmounts everything in a folder that nobody uses any more, the latest mount
/// first: a container with Bidirectional propagation may have left some.
pub fn unmount_below(dir: &Path) -> Result<(), VolumeReason> {
    let table = fs::read_to_string(MOUNTS).map_err(failed("read", Path::new(MOUNTS)))?;
    let dir = dir.canonicalize().map_err(failed("resolve", dir))?;
    for path in table.lines().rev().filter_map(mounted_on) {
        if path.starts_with(&dir) {
            unmount(&path, UnmountFlags::NOFOLLOW).map_err(failed("umount", &path))?;
        }
    }
    Ok(())
}

/// Whether files of what is mounted here have SELinux labels of their own.
pub fn has_labels(path: &Path) -> Result<bool, VolumeReason> {
    let table = fs::read_to_string(MOUNTS).map_err(failed("read", Path::new(MOUNTS)))?;
    Ok(labels_in(&table, path))
}

fn labels_in(table: &str, path: &Path) -> bool {
    let here = |line: &&str| mounted_on(line).as_deref() == Some(path);
    let options = table.lines().rev().find(here);
    let options = options
        .and_then(|line| line.rsplit(' ').next())
        .unwrap_or_default();
    options.split(',').any(|option| option == "seclabel")
}

/// Fifth field of a line of mountinfo, proc_pid_mountinfo(5), with its octal
/// escapes undone.
fn mounted_on(line: &str) -> Option<PathBuf> {
    let field = line.split(' ').nth(4)?;
    let mut parts = field.split('\\');
    let mut path = parts.next()?.as_bytes().to_vec();
    for part in parts {
        path.push(u8::from_str_radix(part.get(..3)?, 8).ok()?);
        path.extend(part.get(3..)?.as_bytes());
    }
    Some(PathBuf::from(OsString::from_vec(path)))
}

#[cfg(test)]
mod tests {
    use super::super::scratch::Scratch;
    use super::*;
    use std::os::unix::fs::{MetadataExt, PermissionsExt};

    #[test]
    #[ignore = "needs root: mounts a tmpfs"]
    fn tmpfs_has_its_size_mode_and_group_and_is_mounted_once() {
        let dir = Scratch::new();
        let tmpfs = Tmpfs {
            size: 1 << 20,
            mode: 0o2777,
            gid: Some(1234),
        };
        assert!(!is_mounted(&dir.0).unwrap());
        mount_tmpfs(&dir.0, tmpfs).unwrap();
        mount_tmpfs(&dir.0, tmpfs).unwrap();
        let seen = fs::metadata(&dir.0).unwrap();
        assert_eq!(
            (seen.permissions().mode() & 0o7777, seen.gid()),
            (0o2777, 1234)
        );
        assert_eq!(
            rustix::fs::statvfs(&dir.0).unwrap().f_blocks * 4096,
            1 << 20
        );
        unmount(&dir.0, UnmountFlags::NOFOLLOW).unwrap();
        assert!(!is_mounted(&dir.0).unwrap(), "one layer only");
        unmount_all(&dir.0).unwrap();
    }

    #[test]
    #[ignore = "needs root: mounts a hugetlbfs"]
    fn huge_pages_have_their_size_mode_and_group() {
        let dir = Scratch::new();
        let pages = HugePages {
            page_size: 2 << 20,
            mode: 0o2775,
            gid: Some(1234),
        };
        mount_huge_pages(&dir.0, pages).unwrap();
        mount_huge_pages(&dir.0, pages).unwrap();
        let seen = fs::metadata(&dir.0).unwrap();
        let mode = seen.permissions().mode() & 0o7777;
        assert_eq!((mode, seen.gid()), (0o2775, 1234));
        assert_eq!(rustix::fs::statvfs(&dir.0).unwrap().f_bsize, 2 << 20);
        unmount(&dir.0, UnmountFlags::NOFOLLOW).unwrap();
        assert!(!is_mounted(&dir.0).unwrap(), "one layer only");
        let odd = HugePages {
            page_size: 3 << 20,
            ..pages
        };
        let refused = mount_huge_pages(&dir.0, odd).unwrap_err().to_string();
        assert!(refused.contains("hugetlbfs for"), "{refused}");
    }

    #[test]
    fn escapes_in_mountinfo_are_undone() {
        let line = r"36 35 98:0 / /mnt/a\040b\134c rw,noatime - ext4 /dev/x rw";
        assert_eq!(mounted_on(line), Some(PathBuf::from(r"/mnt/a b\c")));
        assert_eq!(mounted_on("short line"), None);
    }

    #[test]
    fn files_have_labels_where_the_mount_says_so() {
        let table = "1 0 8:1 / /a rw - ext4 /dev/a rw,seclabel\n2 0 8:2 / /b rw - nfs s:/ rw\n";
        let labels = |path: &str| labels_in(table, Path::new(path));
        assert!(labels("/a") && !labels("/b") && !labels("/c"));
    }

    #[test]
    #[ignore = "needs root: mounts a tmpfs"]
    fn what_is_mounted_below_is_unmounted_from_the_inside_out() {
        let dir = Scratch::new();
        let tmpfs = Tmpfs {
            size: 1 << 20,
            mode: 0o755,
            gid: None,
        };
        let outer = dir.0.join("with space");
        fs::create_dir(&outer).unwrap();
        mount_tmpfs(&outer, tmpfs).unwrap();
        let inner = outer.join("inner");
        fs::create_dir(&inner).unwrap();
        mount_tmpfs(&inner, tmpfs).unwrap();
        unmount_below(&dir.0).unwrap();
        assert!(!is_mounted(&outer).unwrap());
    }
}
