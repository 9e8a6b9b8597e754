//! Directories that a layer's members are in and that the layer does not speak
//! of: their owner, mode and attributes are those of the layers below.

use super::ExtractError;
use super::apply::{OPAQUE_XATTR, is_kept};
use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{CWD, Gid, Mode, OFlags, ResolveFlags, Timespec, Timestamps, Uid, XattrFlags};
use rustix::io::Errno;
use std::path::{Path, PathBuf};

/// Gives the implicit directories of the layer in `diff` what the layers
/// `below` (the uppermost first) say of them.
///
/// # Errors
/// When the disk refuses.
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
    // Inner ones first: writing to a directory's inside touches its time.
    for path in implicit.iter().rev() {
        let failed = |e| ExtractError::new("set attributes of", path.as_bytes(), e);
        if let Some(lower) = look(&below, path) {
            let upper = open_below(&root, path).map_err(failed)?;
            copy(&lower, &upper).map_err(failed)?;
        }
    }
    Ok(())
}

/// The directory that a container would see at a path without this layer.
fn look(below: &[OwnedFd], path: &str) -> Option<OwnedFd> {
    for layer in below {
        let mut dir = layer.try_clone().ok()?;
        let mut hides_lower = false;
        let mut parts = path.split('/');
        loop {
            let Some(part) = parts.next() else {
                return Some(dir);
            };
            match open_below(&dir, part) {
                Ok(next) => dir = next,
                Err(Errno::NOENT) if !hides_lower => break,
                // A whiteout, a file or a symlink; or an opaque directory
                // that lacks it: whatever is further below is not seen.
                Err(_) => return None,
            }
            hides_lower |= is_opaque(&dir);
        }
    }
    None
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
}
