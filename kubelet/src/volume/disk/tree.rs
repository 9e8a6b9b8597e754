//! Removal of what pods leave, which may be hostile: links that point
//! elsewhere, mounts of other owners, folders nested without end.

use super::failed;
use crate::volume::error::VolumeReason;
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{
    AtFlags, CWD, Dir, FileType, Mode, OFlags, ResolveFlags, openat2, renameat, statat, unlinkat,
};
use rustix::io::{Errno, Result};
use std::ffi::CStr;
use std::path::Path;

/// Below that many levels a folder is moved up before it is emptied, so that
/// depth costs neither stack nor open files.
const MAX_DEPTH: u32 = 32;

/// Removes a file or a folder with all that is in it. Follows no link and never
/// goes into another mount: a mount in it is an error (EXDEV or EBUSY), and
/// what is mounted stays untouched. What is gone already is fine.
pub fn remove(path: &Path) -> std::result::Result<(), VolumeReason> {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(failed("remove", path)(Errno::INVAL));
    };
    let how = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let parent = match rustix::fs::openat(CWD, parent, how, Mode::empty()) {
        Err(Errno::NOENT) => return Ok(()),
        other => other.map_err(failed("open", parent))?,
    };
    remove_at(parent.as_fd(), Path::new(name)).map_err(failed("remove", path))
}

fn remove_at(parent: BorrowedFd<'_>, name: &Path) -> Result<()> {
    match unlinkat(parent, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => return Ok(()),
        Err(Errno::ISDIR | Errno::PERM) => {}
        Err(errno) => return Err(errno),
    }
    let top = open_dir(parent, name)?;
    let mut emptier = Emptier {
        top: &top,
        moved: 0,
    };
    while emptier.empty(top.as_fd(), 0)? {}
    gone(unlinkat(parent, name, AtFlags::REMOVEDIR))
}

struct Emptier<'a> {
    top: &'a OwnedFd,
    moved: u64,
}

impl Emptier<'_> {
    /// Answers whether it moved something up to the top, which then has to be
    /// emptied again.
    fn empty(&mut self, dir: BorrowedFd<'_>, depth: u32) -> Result<bool> {
        let mut again = false;
        for entry in Dir::read_from(dir)? {
            let entry = entry?;
            let name = entry.file_name();
            if name == c"." || name == c".." {
                continue;
            }
            if !is_dir(dir, name, entry.file_type())? {
                gone(unlinkat(dir, name, AtFlags::empty()))?;
            } else if depth >= MAX_DEPTH {
                self.move_up(dir, name)?;
                again = true;
            } else {
                let below = open_dir(dir, name)?;
                again |= self.empty(below.as_fd(), depth + 1)?;
                drop(below);
                gone(unlinkat(dir, name, AtFlags::REMOVEDIR))?;
            }
        }
        Ok(again)
    }

    fn move_up(&mut self, dir: BorrowedFd<'_>, name: &CStr) -> Result<()> {
        loop {
            self.moved += 1;
            let target = format!(".removed-{}", self.moved);
            match renameat(dir, name, self.top, target.as_str()) {
                Err(Errno::EXIST | Errno::NOTEMPTY | Errno::NOTDIR) => {}
                other => return other,
            }
        }
    }
}

fn open_dir<P: rustix::path::Arg>(parent: BorrowedFd<'_>, name: P) -> Result<OwnedFd> {
    let how = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let within = ResolveFlags::BENEATH | ResolveFlags::NO_XDEV | ResolveFlags::NO_SYMLINKS;
    openat2(parent, name, how, Mode::empty(), within)
}

fn is_dir(dir: BorrowedFd<'_>, name: &CStr, known: FileType) -> Result<bool> {
    if known != FileType::Unknown {
        return Ok(known == FileType::Directory);
    }
    let seen = statat(dir, name, AtFlags::SYMLINK_NOFOLLOW)?;
    Ok(FileType::from_raw_mode(seen.st_mode) == FileType::Directory)
}

fn gone(result: Result<()>) -> Result<()> {
    match result {
        Err(Errno::NOENT) => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::super::mountpoint::{Tmpfs, mount_tmpfs, unmount_all};
    use super::super::scratch::Scratch;
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;

    #[test]
    fn links_are_removed_and_not_followed() {
        let dir = Scratch::new();
        let (kept, doomed) = (dir.0.join("kept"), dir.0.join("doomed"));
        fs::create_dir_all(doomed.join("a/b")).unwrap();
        fs::create_dir(&kept).unwrap();
        fs::write(kept.join("precious"), "x").unwrap();
        symlink(&kept, doomed.join("a/link")).unwrap();
        remove(&doomed).unwrap();
        assert!(!doomed.exists());
        assert!(kept.join("precious").exists());
        remove(&doomed).unwrap();
        symlink(&kept, &doomed).unwrap();
        remove(&doomed).unwrap();
        assert!(kept.join("precious").exists(), "the link itself goes");
    }

    #[test]
    fn depth_without_end_is_no_obstacle() {
        let dir = Scratch::new();
        let doomed = dir.0.join("doomed");
        fs::create_dir(&doomed).unwrap();
        let mut at = open_dir(CWD, &doomed)
            .or_else(|_| rustix::fs::open(&doomed, OFlags::DIRECTORY, Mode::empty()))
            .unwrap();
        for _ in 0..3000 {
            rustix::fs::mkdirat(&at, "d", Mode::RWXU).unwrap();
            at = open_dir(at.as_fd(), "d").unwrap();
        }
        drop(at);
        remove(&doomed).unwrap();
        assert!(!doomed.exists());
    }

    #[test]
    #[ignore = "needs root: mounts a tmpfs"]
    fn what_is_mounted_in_it_is_untouched_and_an_error() {
        let dir = Scratch::new();
        let mounted = dir.0.join("doomed/deep/mnt");
        fs::create_dir_all(&mounted).unwrap();
        mount_tmpfs(
            &mounted,
            Tmpfs {
                size: 0,
                mode: 0o755,
                gid: None,
            },
        )
        .unwrap();
        fs::write(mounted.join("precious"), "x").unwrap();
        assert!(remove(&dir.0.join("doomed")).is_err());
        assert!(mounted.join("precious").exists());
        unmount_all(&mounted).unwrap();
        remove(&dir.0.join("doomed")).unwrap();
    }
}
