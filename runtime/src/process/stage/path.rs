//! Paths inside a rootfs: walked from its descriptor, never outside of it.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{CWD, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::{Errno, Result};

use super::super::step::{At, Failure, Step};

/// As many symlinks as the kernel follows (include/linux/namei.h `MAXSYMLINKS`).
const SYMLINKS_MAX: u32 = 40;

/// Mode of directories that are made for mountpoints.
const DIRECTORY: Mode = Mode::from_raw_mode(0o755);

const WALK: ResolveFlags = ResolveFlags::IN_ROOT.union(ResolveFlags::NO_MAGICLINKS);

/// Our own root.
pub fn open_root() -> Result<OwnedFd> {
    rustix::fs::openat(
        CWD,
        c"/",
        OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )
}

/// What `path` names inside `root`, as an O_PATH descriptor.
pub fn open(root: BorrowedFd<'_>, path: &str) -> Result<OwnedFd> {
    open_with(root, path, OFlags::PATH, WALK)
}

/// As [`open`], refusing any symlink on the way.
pub fn open_plain(root: BorrowedFd<'_>, path: &str) -> Result<OwnedFd> {
    open_with(root, path, OFlags::PATH, WALK | ResolveFlags::NO_SYMLINKS)
}

/// As [`open`], for use.
pub fn open_with(
    root: BorrowedFd<'_>,
    path: &str,
    flags: OFlags,
    resolve: ResolveFlags,
) -> Result<OwnedFd> {
    loop {
        match rustix::fs::openat2(root, path, flags | OFlags::CLOEXEC, Mode::empty(), resolve) {
            // A rename somewhere on the host while we walked; the kernel asks
            // for another try.
            Err(Errno::AGAIN | Errno::INTR) => {}
            other => return other,
        }
    }
}

/// Opens a mountpoint, making it and the directories above it where they lack.
pub fn mountpoint(
    root: BorrowedFd<'_>,
    path: &str,
    directory: bool,
) -> std::result::Result<OwnedFd, Failure> {
    let made = if directory {
        self::directory(root, path, SYMLINKS_MAX)
    } else {
        file(root, path)
    };
    made.on(Step::CreateMountpoint, path)
}

/// Opens a directory, making what lacks of it.
pub fn ensure_directory(root: BorrowedFd<'_>, path: &str) -> Result<OwnedFd> {
    directory(root, path, SYMLINKS_MAX)
}

fn directory(root: BorrowedFd<'_>, path: &str, links: u32) -> Result<OwnedFd> {
    match open_with(root, path, OFlags::PATH | OFlags::DIRECTORY, WALK) {
        Err(Errno::NOENT) => {}
        other => return other,
    }
    let links = links.checked_sub(1).ok_or(Errno::LOOP)?;
    let (parent, name) = split(path).ok_or(Errno::NOENT)?;
    let above = directory(root, parent, links)?;
    match rustix::fs::mkdirat(&above, name, DIRECTORY) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(errno) => return Err(errno),
    }
    // NOFOLLOW: a symlink that leads nowhere is not in the way of mkdir.
    let flags = OFlags::PATH | OFlags::NOFOLLOW;
    let made = open_with(above.as_fd(), name, flags, ResolveFlags::BENEATH)?;
    match kind(&made)? {
        FileType::Directory => Ok(made),
        FileType::Symlink => {
            let target = rustix::fs::readlinkat(&above, name, Vec::new())?;
            let target = target.to_str().map_err(|_| Errno::ILSEQ)?;
            directory(root, &follow(parent, target), links)
        }
        _ => Err(Errno::NOTDIR),
    }
}

fn file(root: BorrowedFd<'_>, path: &str) -> Result<OwnedFd> {
    match open(root, path) {
        Err(Errno::NOENT) => {}
        other => return other,
    }
    let (parent, name) = split(path).ok_or(Errno::NOENT)?;
    let above = directory(root, parent, SYMLINKS_MAX)?;
    let mode = Mode::from_raw_mode(0o644);
    match rustix::fs::mknodat(&above, name, FileType::RegularFile, mode, 0) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(errno) => return Err(errno),
    }
    open_with(above.as_fd(), name, OFlags::PATH, ResolveFlags::BENEATH)
}

/// Type of an open file.
pub fn kind(file: impl AsFd) -> Result<FileType> {
    Ok(FileType::from_raw_mode(rustix::fs::fstat(file)?.st_mode))
}

/// Parent and last name; trailing slashes and dots do not count.
fn split(path: &str) -> Option<(&str, &str)> {
    let path = path.trim_end_matches('/');
    let (parent, name) = path.rsplit_once('/').unwrap_or(("", path));
    match name {
        "" | ".." => None,
        "." => split(parent),
        _ if parent.is_empty() => Some(("/", name)),
        _ => Some((parent, name)),
    }
}

/// Where a symlink in `parent` leads; always walked from the root again, so a
/// `..` too many stays inside.
fn follow(parent: &str, target: &str) -> String {
    if target.starts_with('/') {
        target.to_owned()
    } else {
        format!("{parent}/{target}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Tree(std::path::PathBuf);

    impl Tree {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("lighter-{name}-{}", std::process::id()));
            let _ = std::fs::remove_dir_all(&path);
            std::fs::create_dir(&path).expect("create");
            Self(path)
        }

        fn fd(&self) -> OwnedFd {
            std::fs::File::open(&self.0).expect("open").into()
        }
    }

    impl Drop for Tree {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn mountpoint_stays_in_the_root_when_a_symlink_leads_out() {
        let tree = Tree::new("out");
        std::os::unix::fs::symlink("/../../nowhere/else", tree.0.join("var")).expect("link");
        mountpoint(tree.fd().as_fd(), "/var/run", true).expect("made");
        assert!(tree.0.join("nowhere/else/run").is_dir());
    }

    #[test]
    fn mountpoint_is_a_file_when_the_source_is_one() {
        let tree = Tree::new("file");
        mountpoint(tree.fd().as_fd(), "/etc/hosts", false).expect("made");
        assert!(tree.0.join("etc/hosts").is_file());
    }

    #[test]
    fn mountpoint_fails_when_symlinks_go_in_a_circle() {
        let tree = Tree::new("circle");
        std::os::unix::fs::symlink("b", tree.0.join("a")).expect("link");
        std::os::unix::fs::symlink("a", tree.0.join("b")).expect("link");
        assert!(mountpoint(tree.fd().as_fd(), "/a/x", true).is_err());
    }

    #[test]
    fn open_plain_refuses_when_the_image_put_a_symlink_there() {
        let tree = Tree::new("plain");
        std::os::unix::fs::symlink("/tmp", tree.0.join("proc")).expect("link");
        let answer = open_plain(tree.fd().as_fd(), "/proc");
        assert_eq!(answer.expect_err("refused"), Errno::LOOP);
    }
}
