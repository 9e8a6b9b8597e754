//! subPath without a race: the path is walked once, beneath the volume, to a
//! descriptor; what is mounted is the descriptor. A container that swaps a
//! folder for a link meanwhile gains nothing (CVE-2017-1002101, CVE-2021-25741).

use super::disk::{make_dirs, mountpoint};
use super::error::MountError;
use k8s_openapi::api::core::v1::{Container, VolumeMount};
use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{CWD, FileType, Mode, OFlags, ResolveFlags, fstat, mkdirat, open, openat2, stat};
use rustix::io::Errno;
use rustix::mount::{MoveMountFlags, OpenTreeFlags, move_mount, open_tree};
use std::fs;
use std::io;
use std::path::{Component, Path, PathBuf};

/// A rename beside the walk makes the kernel give up with EAGAIN.
const WALK_TRIES: u32 = 64;

/// What went wrong, before it is known where.
#[derive(Debug)]
pub struct Failure {
    call: &'static str,
    source: io::Error,
}

impl Failure {
    pub fn in_mount(self, mount: &VolumeMount, container: &Container) -> MountError {
        let Failure { call, source } = self;
        if source.raw_os_error() == Some(Errno::XDEV.raw_os_error()) {
            let sub_path = mount
                .sub_path
                .clone()
                .or_else(|| mount.sub_path_expr.clone());
            return MountError::BadSubPath {
                volume: mount.name.clone(),
                sub_path: sub_path.unwrap_or_default(),
                why: "a link in it leads out of the volume",
            };
        }
        MountError::SubPath {
            volume: mount.name.clone(),
            container: container.name.clone(),
            call,
            source,
        }
    }
}

fn failed<E: Into<io::Error>>(call: &'static str) -> impl FnOnce(E) -> Failure {
    move |source| Failure {
        call,
        source: source.into(),
    }
}

/// Binds `volume`/`sub_path` onto `target`, which is made for it. A missing
/// folder is made with the mode of the volume. Bound already: kept if it is the
/// same file, else replaced (a ConfigMap has new files after an update).
pub fn bind(volume: &Path, sub_path: &Path, target: &Path) -> Result<PathBuf, Failure> {
    let root = open(volume, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
        .map_err(failed("open the volume"))?;
    let found = walk(&root, sub_path)?;
    if is_bound(&found, target)? {
        return Ok(target.to_owned());
    }
    mountpoint::unmount_all(target).map_err(|e| Failure {
        call: "unmount the former subPath",
        source: io::Error::other(e.to_string()),
    })?;
    make_target(&found, target)?;
    let flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_EMPTY_PATH;
    let tree = open_tree(&found, "", flags).map_err(failed("open_tree"))?;
    let how = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
    move_mount(&tree, "", CWD, target, how).map_err(failed("move_mount"))?;
    Ok(target.to_owned())
}

/// Opens what is there, or makes the missing folders.
fn walk(root: &OwnedFd, sub_path: &Path) -> Result<OwnedFd, Failure> {
    match beneath(root, sub_path) {
        Err(Errno::NOENT) => make_missing(root, sub_path),
        other => other.map_err(failed("open")),
    }
}

fn beneath(root: impl AsFd, path: &Path) -> Result<OwnedFd, Errno> {
    let within = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
    for _ in 1..WALK_TRIES {
        match openat2(
            &root,
            path,
            OFlags::PATH | OFlags::CLOEXEC,
            Mode::empty(),
            within,
        ) {
            Err(Errno::AGAIN) => {}
            other => return other,
        }
    }
    openat2(
        &root,
        path,
        OFlags::PATH | OFlags::CLOEXEC,
        Mode::empty(),
        within,
    )
}

/// Step by step, each beneath the volume. Links among existing folders are
/// followed as long as they stay in it.
fn make_missing(root: &OwnedFd, sub_path: &Path) -> Result<OwnedFd, Failure> {
    let of_volume = fstat(root).map_err(failed("stat the volume"))?;
    let mode = Mode::from_raw_mode(of_volume.st_mode & 0o7777);
    let mut so_far = PathBuf::new();
    let mut at = beneath(root, Path::new(".")).map_err(failed("open"))?;
    for part in sub_path.components() {
        let Component::Normal(name) = part else {
            continue;
        };
        so_far.push(name);
        at = match beneath(root, &so_far) {
            Err(Errno::NOENT) => {
                match mkdirat(&at, name, mode) {
                    Err(errno) if errno != Errno::EXIST => return Err(failed("mkdir")(errno)),
                    Err(_) => {}
                    // The umask must not narrow what the volume allows.
                    Ok(()) => open_mode(&at, name, mode)?,
                }
                beneath(root, &so_far).map_err(failed("open"))?
            }
            other => other.map_err(failed("open"))?,
        };
    }
    Ok(at)
}

fn open_mode(parent: &OwnedFd, name: &std::ffi::OsStr, mode: Mode) -> Result<(), Failure> {
    let how = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let within = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    let made = openat2(parent, name, how, Mode::empty(), within).map_err(failed("open"))?;
    rustix::fs::fchmod(&made, mode).map_err(failed("chmod"))
}

fn is_bound(found: &OwnedFd, target: &Path) -> Result<bool, Failure> {
    let mounted = mountpoint::is_mounted(target).unwrap_or(false);
    if !mounted {
        return Ok(false);
    }
    let (wanted, there) = (fstat(found).map_err(failed("stat"))?, stat(target));
    Ok(there.is_ok_and(|there| (there.st_dev, there.st_ino) == (wanted.st_dev, wanted.st_ino)))
}

/// An empty file or folder, as the mount needs it.
fn make_target(found: &OwnedFd, target: &Path) -> Result<(), Failure> {
    let kind = fstat(found).map_err(failed("stat"))?.st_mode;
    let dir = FileType::from_raw_mode(kind) == FileType::Directory;
    if target
        .symlink_metadata()
        .is_ok_and(|there| there.is_dir() != dir)
    {
        let gone = if dir {
            fs::remove_file(target)
        } else {
            fs::remove_dir(target)
        };
        gone.map_err(failed("remove the former subPath"))?;
    }
    if dir {
        return make_dirs(target).map_err(failed("mkdir"));
    }
    let parent = target.parent().unwrap_or(target);
    make_dirs(parent).map_err(failed("mkdir"))?;
    let how = fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(target);
    how.map(|_| ()).map_err(failed("create"))
}

#[cfg(test)]
mod tests {
    use super::super::disk::scratch::Scratch;
    use super::*;
    use std::os::unix::fs::{PermissionsExt, symlink};

    fn root(dir: &Path) -> OwnedFd {
        open(dir, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).unwrap()
    }

    #[test]
    fn missing_folders_get_the_mode_of_the_volume() {
        let dir = Scratch::new();
        fs::set_permissions(&dir.0, fs::Permissions::from_mode(0o777)).unwrap();
        walk(&root(&dir.0), Path::new("a/b")).unwrap();
        let mode = fs::metadata(dir.0.join("a/b"))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o7777, 0o777);
    }

    #[test]
    fn links_are_followed_inside_and_refused_outside_of_the_volume() {
        let dir = Scratch::new();
        let volume = dir.0.join("v");
        fs::create_dir_all(volume.join("real/x")).unwrap();
        fs::create_dir_all(dir.0.join("host/x")).unwrap();
        symlink("real", volume.join("inside")).unwrap();
        symlink("../host", volume.join("up")).unwrap();
        symlink(dir.0.join("host"), volume.join("absolute")).unwrap();
        assert!(walk(&root(&volume), Path::new("inside/x")).is_ok());
        for path in ["up", "up/x", "up/new", "absolute", "absolute/new"] {
            assert!(walk(&root(&volume), Path::new(path)).is_err(), "{path}");
        }
        assert_eq!(
            fs::read_dir(dir.0.join("host")).unwrap().count(),
            1,
            "nothing made outside"
        );
    }

    #[test]
    fn a_link_that_is_swapped_while_walking_never_leads_out() {
        let dir = Scratch::new();
        let volume = dir.0.join("v");
        fs::create_dir_all(volume.join("a")).unwrap();
        symlink("/", volume.join("b")).unwrap();
        let root = root(&volume);
        let inode = fstat(beneath(&root, Path::new("a")).unwrap())
            .unwrap()
            .st_ino;
        let stop = std::sync::atomic::AtomicBool::new(false);
        let relaxed = std::sync::atomic::Ordering::Relaxed;
        let swap = || {
            rustix::fs::renameat_with(
                CWD,
                volume.join("a"),
                CWD,
                volume.join("b"),
                rustix::fs::RenameFlags::EXCHANGE,
            )
        };
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !stop.load(relaxed) {
                    swap().unwrap();
                }
            });
            for _ in 0..2000 {
                if let Ok(found) = walk(&root, Path::new("a")) {
                    assert_eq!(fstat(&found).unwrap().st_ino, inode);
                }
            }
            stop.store(true, relaxed);
        });
    }

    #[test]
    #[ignore = "needs root: bind mounts"]
    fn a_file_is_bound_once_and_bound_anew_when_it_was_replaced() {
        let dir = Scratch::new();
        let (volume, target) = (dir.0.join("v"), dir.0.join("t/0"));
        fs::create_dir(&volume).unwrap();
        fs::write(volume.join("f"), "old").unwrap();
        bind(&volume, Path::new("f"), &target).unwrap();
        bind(&volume, Path::new("f"), &target).unwrap();
        assert_eq!(fs::read_to_string(&target).unwrap(), "old");
        fs::write(volume.join("g"), "new").unwrap();
        fs::rename(volume.join("g"), volume.join("f")).unwrap();
        bind(&volume, Path::new("f"), &target).unwrap();
        assert_eq!(fs::read_to_string(&target).unwrap(), "new");
        rustix::mount::unmount(&target, rustix::mount::UnmountFlags::NOFOLLOW).unwrap();
        assert!(!mountpoint::is_mounted(&target).unwrap(), "one layer only");
    }
}
