//! fsGroup on a volume that others may hold as well.
//! Rules: kubernetes v1.37 pkg/volume/volume_linux.go.

use super::failed;
use crate::volume::error::VolumeReason;
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{
    AtFlags, Dir, FileType, Gid, Mode, OFlags, ResolveFlags, Stat, chmod, chownat, fstat, open,
    openat2,
};
use rustix::io::{Errno, Result};
use std::ffi::OsStr;
use std::os::fd::AsRawFd as _;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

/// `rwMask`, `roMask`, `execMask`.
const READ_WRITE: u32 = 0o660;
const READ_ONLY: u32 = 0o440;
const EXECUTE: u32 = 0o110;
const SETGID: u32 = 0o2000;

/// Who is to own a volume.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ownership {
    pub gid: u32,
    /// fsGroupChangePolicy OnRootMismatch.
    pub only_on_root_mismatch: bool,
    pub read_only: bool,
}

impl Ownership {
    /// Gives all that is in the folder to the group. Follows no link, and goes
    /// into no other mount: what runs in the volume meanwhile gains nothing.
    pub fn apply(self, path: &Path) -> std::result::Result<(), VolumeReason> {
        self.give(path)
            .map_err(failed("give to fsGroup what is in", path))
    }

    fn give(self, path: &Path) -> Result<()> {
        let how = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = open(path, how, Mode::empty())?;
        if self.only_on_root_mismatch && self.holds(&fstat(&root)?) {
            return Ok(());
        }
        let mut dirs = vec![PathBuf::from(".")];
        let mut next = 0;
        while let Some(dir) = dirs.get(next).cloned() {
            next += 1;
            let Some(dir_fd) = below(root.as_fd(), &dir, OFlags::RDONLY | OFlags::DIRECTORY)?
            else {
                continue;
            };
            self.files(&dir_fd, &dir, &mut dirs)?;
        }
        // The root last: it says that all below it is done.
        for dir in dirs.iter().rev() {
            if let Some(fd) = below(root.as_fd(), dir, OFlags::PATH)? {
                self.one(&fd)?;
            }
        }
        Ok(())
    }

    fn files(self, dir: &OwnedFd, path: &Path, dirs: &mut Vec<PathBuf>) -> Result<()> {
        for entry in Dir::read_from(dir)? {
            let entry = entry?;
            let name = entry.file_name();
            if name == c"." || name == c".." {
                continue;
            }
            let name = Path::new(OsStr::from_bytes(name.to_bytes()));
            let Some(fd) = below(dir.as_fd(), name, OFlags::PATH)? else {
                continue;
            };
            match FileType::from_raw_mode(fstat(&fd)?.st_mode) {
                FileType::Directory => dirs.push(path.join(name)),
                _ => self.one(&fd)?,
            }
        }
        Ok(())
    }

    fn one(self, fd: &OwnedFd) -> Result<()> {
        let seen = fstat(fd)?;
        if seen.st_gid != self.gid {
            let what = AtFlags::EMPTY_PATH;
            chownat(fd, "", None, Some(Gid::from_raw(self.gid)), what)?;
        }
        let kind = FileType::from_raw_mode(seen.st_mode);
        if kind == FileType::Symlink || self.holds(&fstat(fd)?) {
            return Ok(());
        }
        let mode = (seen.st_mode & 0o7777) | self.mask(kind);
        // A descriptor that can't be read or written has no fchmod but this.
        let path = format!("/proc/self/fd/{}", fd.as_raw_fd());
        chmod(path.as_str(), Mode::from_raw_mode(mode))
    }

    fn holds(self, seen: &Stat) -> bool {
        let mask = self.mask(FileType::from_raw_mode(seen.st_mode));
        seen.st_gid == self.gid && seen.st_mode & mask == mask
    }

    fn mask(self, kind: FileType) -> u32 {
        let mask = if self.read_only {
            READ_ONLY
        } else {
            READ_WRITE
        };
        match kind {
            FileType::Directory => mask | EXECUTE | SETGID,
            _ => mask,
        }
    }
}

/// `None` for what is gone or lies on another mount.
fn below(dir: BorrowedFd<'_>, path: &Path, how: OFlags) -> Result<Option<OwnedFd>> {
    let within = ResolveFlags::BENEATH | ResolveFlags::NO_XDEV | ResolveFlags::NO_MAGICLINKS;
    let how = how | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    match openat2(dir, path, how, Mode::empty(), within) {
        Ok(fd) => Ok(Some(fd)),
        Err(Errno::NOENT | Errno::XDEV | Errno::NOTDIR | Errno::LOOP) => Ok(None),
        Err(errno) => Err(errno),
    }
}

#[cfg(test)]
mod tests {
    use super::super::scratch::Scratch;
    use super::*;
    use std::fs;
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};

    fn mode(path: &Path) -> u32 {
        fs::symlink_metadata(path).unwrap().permissions().mode() & 0o7777
    }

    fn ours(only_on_root_mismatch: bool) -> Ownership {
        Ownership {
            gid: rustix::process::getegid().as_raw(),
            only_on_root_mismatch,
            read_only: false,
        }
    }

    #[test]
    fn files_and_folders_are_given_to_the_group_and_links_are_not_followed() {
        let dir = Scratch::new();
        let volume = dir.0.join("v");
        fs::create_dir_all(volume.join("a/b")).unwrap();
        for path in [volume.join("a/b/f"), dir.0.join("outside")] {
            fs::write(&path, "x").unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        }
        symlink(dir.0.join("outside"), volume.join("link")).unwrap();
        ours(false).apply(&volume).unwrap();
        assert_eq!(mode(&volume.join("a/b/f")), 0o660);
        assert_eq!(mode(&volume.join("a/b")) & 0o2070, 0o2070);
        assert_eq!(mode(&dir.0.join("outside")), 0o600);
    }

    #[test]
    fn a_root_that_is_in_order_saves_the_walk_when_that_is_asked_for() {
        let dir = Scratch::new();
        let file = dir.0.join("f");
        fs::write(&file, "x").unwrap();
        ours(true).apply(&dir.0).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
        ours(true).apply(&dir.0).unwrap();
        assert_eq!(mode(&file), 0o600);
        ours(false).apply(&dir.0).unwrap();
        assert_eq!(mode(&file), 0o660);
    }

    #[test]
    #[ignore = "needs root: chown"]
    fn a_foreign_group_gets_it() {
        let dir = Scratch::new();
        fs::write(dir.0.join("f"), "x").unwrap();
        let ownership = Ownership {
            gid: 4242,
            ..ours(false)
        };
        ownership.apply(&dir.0).unwrap();
        assert_eq!(fs::metadata(dir.0.join("f")).unwrap().gid(), 4242);
        assert_eq!(fs::metadata(&dir.0).unwrap().gid(), 4242);
    }
}
