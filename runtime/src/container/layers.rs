//! Files of an image, found without mounting it: a path is walked through all
//! layers at once, as overlay would, by file descriptors and never leaving the
//! layers.

use rustix::fs::{AtFlags, FileType, Mode, OFlags};
use rustix::io::Errno;
use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

/// Why a path could not be walked.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum LookupError {
    #[error("look up {path} in the image's layers")]
    Walk { path: PathBuf, source: Errno },
    #[error("{path} has more than {MAX_LINKS} symbolic links in the image")]
    Links { path: PathBuf },
}

/// As many as the kernel follows.
const MAX_LINKS: usize = 40;

/// A directory of one layer.
struct Dir {
    fd: OwnedFd,
    path: PathBuf,
}

/// What stands at a place when all layers are put together.
enum Found {
    Nothing,
    /// Parts of one directory, the uppermost first.
    Dirs(Vec<Dir>),
    File(OwnedFd, PathBuf),
    Link(OsString),
}

/// Opens a regular file of the image for reading; `None` when there is no such
/// file, or what is there is no regular file.
///
/// # Errors
/// When a layer can't be read.
pub fn open_in_layers(layers: &[PathBuf], path: &Path) -> Result<Option<File>, LookupError> {
    match walk(layers, path)? {
        Found::File(handle, _) => {
            let stat = rustix::fs::fstat(&handle).map_err(|e| error(path, e))?;
            if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
                return Ok(None);
            }
            // The handle was opened with O_PATH; through /proc it is opened anew.
            let name = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&handle));
            let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
            let fd = rustix::fs::open(name, flags, Mode::empty()).map_err(|e| error(path, e))?;
            Ok(Some(fd.into()))
        }
        Found::Nothing | Found::Dirs(_) | Found::Link(_) => Ok(None),
    }
}

/// The directories (the lowest first), or the one file, that make up `path`;
/// empty when there is none.
///
/// # Errors
/// When a layer can't be read.
pub fn lookup_dirs(layers: &[PathBuf], path: &Path) -> Result<Vec<PathBuf>, LookupError> {
    Ok(match walk(layers, path)? {
        Found::Dirs(dirs) => dirs.into_iter().rev().map(|dir| dir.path).collect(),
        Found::File(_, path) => vec![path],
        Found::Nothing | Found::Link(_) => Vec::new(),
    })
}

fn walk(layers: &[PathBuf], path: &Path) -> Result<Found, LookupError> {
    let mut stack = vec![open_layers(layers, path)?];
    let mut todo = parts(path);
    let mut links = 0;
    while let Some(name) = todo.pop_front() {
        if name == ".." {
            if stack.len() > 1 {
                stack.pop();
            }
            continue;
        }
        let here = stack.last().map(Vec::as_slice).unwrap_or_default();
        match step(here, &name).map_err(|e| error(path, e))? {
            Found::Dirs(dirs) => stack.push(dirs),
            Found::Link(target) => {
                links += 1;
                if links > MAX_LINKS {
                    return Err(LookupError::Links { path: path.into() });
                }
                let target = PathBuf::from(target);
                if target.is_absolute() {
                    stack.truncate(1);
                }
                let mut new = parts(&target);
                new.append(&mut todo);
                todo = new;
            }
            found @ Found::File(..) if todo.is_empty() => return Ok(found),
            Found::File(..) | Found::Nothing => return Ok(Found::Nothing),
        }
    }
    Ok(stack.pop().map_or(Found::Nothing, Found::Dirs))
}

fn error(path: &Path, source: Errno) -> LookupError {
    LookupError::Walk {
        path: path.to_owned(),
        source,
    }
}

fn parts(path: &Path) -> VecDeque<OsString> {
    path.components()
        .filter_map(|part| match part {
            Component::Normal(name) => Some(name.to_owned()),
            Component::ParentDir => Some("..".into()),
            _ => None,
        })
        .collect()
}

fn open_layers(layers: &[PathBuf], path: &Path) -> Result<Vec<Dir>, LookupError> {
    let open = |layer: &PathBuf| {
        let fd = rustix::fs::open(layer, dir_flags(), Mode::empty());
        fd.map(|fd| Dir {
            fd,
            path: layer.clone(),
        })
    };
    let dirs: Result<Vec<Dir>, Errno> = layers.iter().rev().map(open).collect();
    dirs.map_err(|e| error(path, e))
}

fn dir_flags() -> OFlags {
    OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC
}

/// One name, in all layers that take part in the directory.
fn step(dirs: &[Dir], name: &OsStr) -> Result<Found, Errno> {
    let mut merged = Vec::new();
    for dir in dirs {
        let stat = match rustix::fs::statat(&dir.fd, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => stat,
            Err(Errno::NOENT) => continue,
            Err(errno) => return Err(errno),
        };
        let kind = FileType::from_raw_mode(stat.st_mode);
        let path = dir.path.join(name);
        if kind == FileType::Directory {
            let fd = rustix::fs::openat(&dir.fd, name, dir_flags(), Mode::empty())?;
            let opaque = is_opaque(&fd);
            merged.push(Dir { fd, path });
            if opaque {
                break;
            }
            continue;
        }
        if !merged.is_empty() {
            break;
        }
        let whiteout = kind == FileType::CharacterDevice && stat.st_rdev == 0;
        return Ok(match kind {
            _ if whiteout => Found::Nothing,
            FileType::Symlink => {
                let target = rustix::fs::readlinkat(&dir.fd, name, Vec::new())?;
                Found::Link(OsStr::from_bytes(target.as_bytes()).to_owned())
            }
            _ => {
                let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                Found::File(
                    rustix::fs::openat(&dir.fd, name, flags, Mode::empty())?,
                    path,
                )
            }
        });
    }
    Ok(if merged.is_empty() {
        Found::Nothing
    } else {
        Found::Dirs(merged)
    })
}

/// Documentation/filesystems/overlayfs.rst: hides what is below.
fn is_opaque(dir: &OwnedFd) -> bool {
    let mut value = [0_u8; 2];
    ["trusted.overlay.opaque", "user.overlay.opaque"]
        .iter()
        .any(|name| {
            let read = rustix::fs::fgetxattr(dir, *name, &mut value[..]);
            matches!(read, Ok(1)) && value[0] == b'y'
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::io::Read;
    use std::os::unix::fs::symlink;

    struct Layers(PathBuf);

    impl Layers {
        fn new(name: &str) -> Self {
            let dir = std::env::temp_dir().join(format!("lighter-{name}-{}", std::process::id()));
            let _ = fs::remove_dir_all(&dir);
            for layer in ["low", "high"] {
                fs::create_dir_all(dir.join(layer).join("etc")).expect("layer");
            }
            Self(dir)
        }

        fn layers(&self) -> Vec<PathBuf> {
            vec![self.0.join("low"), self.0.join("high")]
        }

        fn read(&self, path: &str) -> Option<String> {
            let file = open_in_layers(&self.layers(), Path::new(path)).expect("walked");
            let mut text = String::new();
            file?.read_to_string(&mut text).expect("read");
            Some(text)
        }
    }

    impl Drop for Layers {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn uppermost_layer_wins_and_lower_ones_show_through() {
        let layers = Layers::new("merge");
        fs::write(layers.0.join("low/etc/passwd"), "low").expect("file");
        fs::write(layers.0.join("low/etc/group"), "low").expect("file");
        fs::write(layers.0.join("high/etc/passwd"), "high").expect("file");
        assert_eq!(layers.read("/etc/passwd").as_deref(), Some("high"));
        assert_eq!(layers.read("/etc/group").as_deref(), Some("low"));
        assert_eq!(layers.read("/etc/shadow"), None);
        let dirs = lookup_dirs(&layers.layers(), Path::new("/etc")).expect("walked");
        assert_eq!(dirs, [layers.0.join("low/etc"), layers.0.join("high/etc")]);
    }

    #[test]
    fn links_stay_inside_the_image() {
        let layers = Layers::new("links");
        fs::write(layers.0.join("low/secret"), "inside").expect("file");
        symlink("/../../../../secret", layers.0.join("high/etc/passwd")).expect("link");
        symlink("/etc/loop", layers.0.join("high/etc/loop")).expect("link");
        assert_eq!(layers.read("/etc/passwd").as_deref(), Some("inside"));
        let looped = open_in_layers(&layers.layers(), Path::new("/etc/loop"));
        assert!(matches!(looped, Err(LookupError::Links { .. })));
    }

    #[test]
    fn cve_2026_47262_only_regular_files_are_opened() {
        let layers = Layers::new("fifo");
        let fifo = layers.0.join("high/etc/passwd");
        rustix::fs::mknodat(
            rustix::fs::CWD,
            &fifo,
            FileType::Fifo,
            Mode::from_raw_mode(0o644),
            0,
        )
        .expect("fifo");
        assert_eq!(layers.read("/etc/passwd"), None);
        symlink("/dev/zero", layers.0.join("high/etc/group")).expect("link");
        assert_eq!(layers.read("/etc/group"), None);
    }
}
