//! Directories that a layer's members are in and that the layer does not speak
//! of: they are what the layers below say, be it a directory with its owner
//! and mode or a symlink to one.

use super::ExtractError;
use super::apply::{OPAQUE_XATTR, is_kept};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{
    AtFlags, CWD, Dir, Gid, Mode, OFlags, RenameFlags, ResolveFlags, Timespec, Timestamps, Uid,
    XattrFlags,
};
use rustix::io::Errno;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Linux include/linux/namei.h `MAXSYMLINKS`.
const MAX_SYMLINKS: usize = 40;

/// What a container would see at a path without this layer.
enum Below {
    Directory(OwnedFd),
    /// Its target.
    Symlink(String),
    Nothing,
}

/// Makes the implicit directories of the layer in `diff` what the layers
/// `below` (the uppermost first) say they are. What is in a directory that is
/// a symlink below moves to where the symlink leads.
///
/// # Errors
/// When the disk refuses, and when symlinks lead in a circle.
pub fn settle(diff: &Path, below: &[PathBuf], implicit: &[String]) -> Result<(), ExtractError> {
    let open = |dir: &Path| {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        rustix::fs::openat(CWD, dir, flags, Mode::empty())
            .map_err(|e| ExtractError::new("open", dir.as_os_str().as_encoded_bytes(), e))
    };
    let root = open(diff)?;
    let below: Vec<OwnedFd> = below
        .iter()
        .map(|dir| open(dir))
        .collect::<Result<_, _>>()?;
    // Outer ones come first, in this order: moving one renames those inside.
    let mut left: BTreeSet<String> = implicit.iter().cloned().collect();
    let mut directories = Vec::new();
    let mut moves = 0;
    while let Some(path) = left.pop_first() {
        let failed = |e| ExtractError::new("settle", path.as_bytes(), e);
        match look(&below, &path) {
            Below::Directory(lower) => directories.push((path, lower)),
            Below::Nothing => {}
            Below::Symlink(_) if moves == MAX_SYMLINKS => return Err(failed(Errno::LOOP)),
            Below::Symlink(target) => {
                moves += 1;
                let to = follow(&path, &target);
                move_into(&root, &path, &to, &mut left).map_err(failed)?;
            }
        }
    }
    // Inner ones first: a change inside touches the time of the directory.
    for (path, lower) in directories.iter().rev() {
        let failed = |e| ExtractError::new("set attributes of", path.as_bytes(), e);
        let upper = open_below(&root, path).map_err(failed)?;
        copy(lower, &upper).map_err(failed)?;
    }
    Ok(())
}

fn look(below: &[OwnedFd], path: &str) -> Below {
    for layer in below {
        let Ok(mut dir) = layer.try_clone() else {
            return Below::Nothing;
        };
        let mut hides_lower = false;
        let mut parts = path.split('/').peekable();
        loop {
            let Some(part) = parts.next() else {
                return Below::Directory(dir);
            };
            match open_below(&dir, part) {
                Ok(next) => dir = next,
                Err(Errno::NOENT) if !hides_lower => break,
                // A whiteout or a file; or an opaque directory that lacks
                // it: whatever is further below is not seen.
                Err(_) if parts.peek().is_some() => return Below::Nothing,
                Err(_) => {
                    let target = rustix::fs::readlinkat(&dir, part, Vec::new());
                    let target = target.ok().and_then(|t| t.into_string().ok());
                    return target.map_or(Below::Nothing, Below::Symlink);
                }
            }
            hides_lower |= is_opaque(&dir);
        }
    }
    Below::Nothing
}

/// Where a symlink at a path leads, as seen from inside; empty for `/`.
fn follow(path: &str, target: &str) -> String {
    let dir = path.rsplit_once('/').map_or("", |(dir, _)| dir);
    let start = if target.starts_with('/') { "" } else { dir };
    let mut parts: Vec<&str> = Vec::new();
    for part in start.split('/').chain(target.split('/')) {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    parts.join("/")
}

/// Moves what is in `from` to `to`; `left` gets the directories made for it,
/// and the new names of those that move.
fn move_into(
    root: &OwnedFd,
    from: &str,
    to: &str,
    left: &mut BTreeSet<String>,
) -> Result<(), Errno> {
    let mut target = root.try_clone().map_err(|_| Errno::MFILE)?;
    let mut made = String::new();
    for part in to.split('/').filter(|part| !part.is_empty()) {
        if !made.is_empty() {
            made.push('/');
        }
        made.push_str(part);
        target = match open_below(&target, part) {
            Err(Errno::NOENT) => {
                rustix::fs::mkdirat(&target, part, Mode::from_raw_mode(0o755))?;
                left.insert(made.clone());
                open_below(&target, part)?
            }
            other => other?,
        };
    }
    let source = open_below(root, from)?;
    merge(source.as_fd(), target.as_fd())?;
    rustix::fs::unlinkat(root, from, AtFlags::REMOVEDIR)?;
    let inside = format!("{from}/");
    let moved: Vec<String> = left
        .iter()
        .filter(|p| p.starts_with(&inside))
        .cloned()
        .collect();
    for path in moved {
        left.remove(&path);
        left.insert(follow("", &format!("{to}/{}", &path[inside.len()..])));
    }
    Ok(())
}

fn merge(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> Result<(), Errno> {
    for entry in Dir::read_from(from)? {
        let entry = entry?;
        let name = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        match rustix::fs::renameat_with(from, name, to, name, RenameFlags::NOREPLACE) {
            Err(Errno::EXIST) => {}
            other => {
                other?;
                continue;
            }
        }
        let open = |dir| {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            rustix::fs::openat(dir, name, flags, Mode::empty())
        };
        match (open(from), open(to)) {
            (Ok(inner), Ok(outer)) => {
                merge(inner.as_fd(), outer.as_fd())?;
                rustix::fs::unlinkat(from, name, AtFlags::REMOVEDIR)?;
            }
            _ => rustix::fs::renameat(from, name, to, name)?,
        }
    }
    Ok(())
}

fn open_below(dir: impl AsFd, path: &str) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    rustix::fs::openat2(dir, path, flags, Mode::empty(), resolve)
}

fn is_opaque(dir: &OwnedFd) -> bool {
    let mut value = [0; 4];
    matches!(rustix::fs::fgetxattr(dir, OPAQUE_XATTR, &mut value), Ok(1)) && value[0] == b'y'
}

fn copy(lower: &OwnedFd, upper: &OwnedFd) -> Result<(), Errno> {
    let stat = rustix::fs::fstat(lower)?;
    let (uid, gid) = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
    rustix::fs::fchown(upper, Some(uid), Some(gid))?;
    rustix::fs::fchmod(upper, Mode::from_raw_mode(stat.st_mode & 0o7777))?;
    let mut names = vec![0; 64 << 10];
    let length = rustix::fs::flistxattr(lower, &mut names[..]).unwrap_or(0);
    for name in names[..length]
        .split(|b| *b == 0)
        .filter(|name| is_kept(name))
    {
        let mut value = vec![0; 64 << 10];
        let length = rustix::fs::fgetxattr(lower, name, &mut value[..])?;
        rustix::fs::fsetxattr(upper, name, &value[..length], XattrFlags::empty())?;
    }
    let time = |seconds, nanos: u64| Timespec {
        tv_sec: seconds,
        tv_nsec: i64::try_from(nanos).unwrap_or(0),
    };
    let times = Timestamps {
        last_access: time(stat.st_atime, stat.st_atime_nsec),
        last_modification: time(stat.st_mtime, stat.st_mtime_nsec),
    };
    rustix::fs::futimens(upper, &times)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::testing::TempDir;
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    fn dir(root: &TempDir, path: &str, mode: u32) -> PathBuf {
        let path = root.path().join(path);
        fs::create_dir_all(&path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        path
    }

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o7777
    }

    #[test]
    fn implicit_directory_is_as_the_uppermost_layer_that_has_it() {
        let root = TempDir::new();
        dir(&root, "low/tmp", 0o1777);
        dir(&root, "low/srv", 0o700);
        dir(&root, "mid/srv", 0o750);
        let top = dir(&root, "top", 0o755);
        dir(&root, "top/tmp", 0o755);
        dir(&root, "top/srv", 0o755);
        dir(&root, "top/new", 0o755);
        let below = [root.path().join("mid"), root.path().join("low")];
        let implicit = ["new", "srv", "tmp"].map(str::to_owned);
        settle(&top, &below, &implicit).unwrap();
        assert_eq!(mode(&top.join("tmp")), 0o1777);
        assert_eq!(mode(&top.join("srv")), 0o750);
        assert_eq!(mode(&top.join("new")), 0o755);
    }

    #[test]
    fn implicit_directory_keeps_its_mode_when_something_hides_the_lower_one() {
        let root = TempDir::new();
        dir(&root, "low/srv", 0o700);
        dir(&root, "mid", 0o755);
        fs::write(root.path().join("mid/srv"), b"a file").unwrap();
        let top = dir(&root, "top", 0o755);
        dir(&root, "top/srv", 0o755);
        let below = [root.path().join("mid"), root.path().join("low")];
        settle(&top, &below, &["srv".to_owned()]).unwrap();
        assert_eq!(mode(&top.join("srv")), 0o755);
    }

    #[test]
    fn members_move_to_where_a_lower_symlink_leads() {
        let root = TempDir::new();
        dir(&root, "low/usr/lib", 0o711);
        std::os::unix::fs::symlink("usr/lib", root.path().join("low/lib")).unwrap();
        std::os::unix::fs::symlink("/lib", root.path().join("low/lib64")).unwrap();
        let top = dir(&root, "top", 0o755);
        dir(&root, "top/lib/new", 0o755);
        dir(&root, "top/lib64", 0o755);
        dir(&root, "top/usr/lib/new", 0o755);
        fs::write(top.join("lib/new/a"), b"a").unwrap();
        fs::write(top.join("lib64/b"), b"b").unwrap();
        fs::write(top.join("usr/lib/new/c"), b"c").unwrap();
        let below = [root.path().join("low")];
        let implicit = ["lib", "lib/new", "lib64"].map(str::to_owned);
        settle(&top, &below, &implicit).unwrap();
        for file in ["new/a", "b", "new/c"] {
            assert!(top.join("usr/lib").join(file).exists(), "{file}");
        }
        assert!(!top.join("lib").exists() && !top.join("lib64").exists());
    }

    #[test]
    fn symlinks_in_a_circle_are_an_error() {
        let root = TempDir::new();
        dir(&root, "low", 0o755);
        std::os::unix::fs::symlink("b", root.path().join("low/a")).unwrap();
        std::os::unix::fs::symlink("a", root.path().join("low/b")).unwrap();
        let top = dir(&root, "top", 0o755);
        dir(&root, "top/a/x", 0o755);
        let settled = settle(&top, &[root.path().join("low")], &["a".to_owned()]);
        assert!(settled.is_err());
    }

    #[test]
    fn symlink_never_leads_out() {
        assert_eq!(follow("a/b", "../../../etc"), "etc");
        assert_eq!(follow("a/b", "/"), "");
        assert_eq!(follow("a/b", "c/./d"), "a/c/d");
    }
}
