//! The rootfs: an overlay that is never attached on the host.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, OpenTreeFlags};

use super::super::Rootfs;
use super::{Trouble, trouble};
use crate::sys::{self, MountAttr};

/// A detached mount of the image's layers and a writable one. With a user
/// namespace the layers are seen through its map; the writable one holds the
/// host's ids, as they come.
pub fn rootfs(rootfs: &Rootfs, userns: Option<BorrowedFd<'_>>) -> Result<OwnedFd, Trouble> {
    let (upper, work) = (rootfs.writable.join("upper"), rootfs.writable.join("work"));
    // Left by an attempt that failed: the kernel refuses a `volatile` one again.
    let _ = std::fs::remove_dir_all(&work);
    for dir in [&upper, &work] {
        make_dir(dir).map_err(trouble("make", dir.display()))?;
    }
    let top = rootfs.layers.last();
    if let Some(top) = top {
        copy_owner(top, &upper, userns).map_err(trouble("set the owner of", upper.display()))?;
    }
    // The kernel wants the highest first.
    let layers = rootfs
        .layers
        .iter()
        .rev()
        .map(|layer| open_layer(layer, userns).map_err(trouble("open the layer", layer.display())))
        .collect::<Result<Vec<_>, _>>()?;
    let made = match mount(&layers, &upper, &work) {
        // Kernels before 6.13 take neither detached layers nor long lists.
        Err(Errno::INVAL) => mount_by_way_of_the_host(&layers, rootfs),
        other => other,
    };
    made.map_err(trouble("mount the overlay on", rootfs.writable.display()))
}

/// A detached read-only mount of layers alone: an image as a volume. `lower`
/// is overlay's own list, the highest first, by colons.
pub fn image(lower: &str, userns: Option<BorrowedFd<'_>>) -> Result<OwnedFd, Trouble> {
    let layers = lower
        .split(':')
        .map(|layer| open_layer(Path::new(layer), userns).map_err(trouble("open the layer", layer)))
        .collect::<Result<Vec<_>, _>>()?;
    let mount = || {
        let context = rustix::mount::fsopen(c"overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
        set_lower(context.as_fd(), &layers)?;
        rustix::mount::fsconfig_create(context.as_fd())?;
        let flags = FsMountFlags::FSMOUNT_CLOEXEC;
        rustix::mount::fsmount(context.as_fd(), flags, MountAttrFlags::MOUNT_ATTR_RDONLY)
    };
    mount().map_err(trouble("mount the image of", lower))
}

fn make_dir(dir: &Path) -> rustix::io::Result<()> {
    if let Some(parent) = dir.parent() {
        std::fs::create_dir_all(parent)
            .map_err(|e| Errno::from_io_error(&e).unwrap_or(Errno::IO))?;
    }
    match rustix::fs::mkdir(dir, Mode::from_raw_mode(0o755)) {
        Ok(()) | Err(Errno::EXIST) => Ok(()),
        Err(errno) => Err(errno),
    }
}

/// The root directory is the writable layer's: it looks as the image's does.
fn copy_owner(top: &Path, upper: &Path, userns: Option<BorrowedFd<'_>>) -> rustix::io::Result<()> {
    let layer = open_layer(top, userns)?;
    let stat = rustix::fs::fstat(&layer)?;
    let (uid, gid) = (
        rustix::fs::Uid::from_raw(stat.st_uid),
        rustix::fs::Gid::from_raw(stat.st_gid),
    );
    rustix::fs::chown(upper, Some(uid), Some(gid))?;
    rustix::fs::chmod(upper, Mode::from_raw_mode(stat.st_mode & 0o7777))
}

fn open_layer(path: &Path, userns: Option<BorrowedFd<'_>>) -> rustix::io::Result<OwnedFd> {
    let Some(userns) = userns else {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        return rustix::fs::open(path, flags, Mode::empty());
    };
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let tree = rustix::mount::open_tree(CWD, path, flags)?;
    let attr = MountAttr {
        set: u64::from(MountAttrFlags::MOUNT_ATTR_IDMAP.bits()),
        userns: Some(userns),
        ..MountAttr::default()
    };
    sys::set_mount_attr(&tree, attr)?;
    Ok(tree)
}

fn mount(layers: &[OwnedFd], upper: &Path, work: &Path) -> rustix::io::Result<OwnedFd> {
    let context = rustix::mount::fsopen(c"overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
    set_lower(context.as_fd(), layers)?;
    for (key, path) in [(c"upperdir", upper), (c"workdir", work)] {
        set_dir(context.as_fd(), key, path)?;
    }
    // Nobody needs what a container wrote after a crash of the host, so unmounting
    // does not have to sync. An index would only guard hard links across layers.
    rustix::mount::fsconfig_set_flag(context.as_fd(), c"volatile")?;
    let _ = rustix::mount::fsconfig_set_string(context.as_fd(), c"index", c"off");
    rustix::mount::fsconfig_create(context.as_fd())?;
    rustix::mount::fsmount(
        context.as_fd(),
        FsMountFlags::FSMOUNT_CLOEXEC,
        MountAttrFlags::empty(),
    )
}

/// By descriptor (Linux 6.13), else by path to the descriptor (6.5), else all in
/// one option, which holds 256 bytes.
fn set_lower(context: BorrowedFd<'_>, layers: &[OwnedFd]) -> rustix::io::Result<()> {
    use std::os::fd::AsRawFd;
    let path = |layer: &OwnedFd| format!("/proc/self/fd/{}", layer.as_raw_fd());
    for (number, layer) in layers.iter().enumerate() {
        let set = rustix::mount::fsconfig_set_fd(context, c"lowerdir+", layer.as_fd())
            .or_else(|_| rustix::mount::fsconfig_set_string(context, c"lowerdir+", path(layer)));
        match set {
            Ok(()) => {}
            Err(Errno::INVAL) if number == 0 => {
                let all = layers.iter().map(path).collect::<Vec<_>>().join(":");
                return rustix::mount::fsconfig_set_string(context, c"lowerdir", all);
            }
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

/// By descriptor too, since a path may be longer than an option.
fn set_dir(context: BorrowedFd<'_>, key: &std::ffi::CStr, path: &Path) -> rustix::io::Result<()> {
    use std::os::fd::AsRawFd;
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let dir = rustix::fs::open(path, flags, Mode::empty())?;
    rustix::mount::fsconfig_set_fd(context, key, dir.as_fd()).or_else(|_| {
        let path = format!("/proc/self/fd/{}", dir.as_raw_fd());
        rustix::mount::fsconfig_set_string(context, key, path)
    })
}

/// For older kernels: everything is attached for a moment beside the writable
/// layer, where mount(2) takes a page of options.
fn mount_by_way_of_the_host(layers: &[OwnedFd], rootfs: &Rootfs) -> rustix::io::Result<OwnedFd> {
    use rustix::mount::{MountFlags, UnmountFlags};
    let place = Attached::new(rootfs.writable.join("merged"))?;
    let mut held = Vec::new();
    let mut lower = Vec::new();
    for (number, layer) in layers.iter().enumerate() {
        let at = Attached::new(rootfs.writable.join(format!("lower-{number}")))?;
        let detached = rustix::mount::move_mount(
            layer.as_fd(),
            c"",
            CWD,
            &at.path,
            rustix::mount::MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH,
        );
        // A layer that is no mount of its own is named where it is.
        lower.push(match detached {
            Ok(()) => at.path.display().to_string(),
            Err(_) => format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(layer)),
        });
        held.push(at);
    }
    let (upper, work) = (rootfs.writable.join("upper"), rootfs.writable.join("work"));
    let options = format!(
        "lowerdir={},upperdir={},workdir={},index=off,volatile",
        lower.join(":"),
        upper.display(),
        work.display()
    );
    let options = std::ffi::CString::new(options).map_err(|_| Errno::INVAL)?;
    rustix::mount::mount(
        "overlay",
        &place.path,
        "overlay",
        MountFlags::empty(),
        &*options,
    )?;
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let tree = rustix::mount::open_tree(CWD, &place.path, flags);
    rustix::mount::unmount(&place.path, UnmountFlags::DETACH)?;
    tree
}

/// A directory to mount on, given back when it is no longer needed.
struct Attached {
    path: std::path::PathBuf,
}

impl Attached {
    fn new(path: std::path::PathBuf) -> rustix::io::Result<Self> {
        make_dir(&path)?;
        Ok(Self { path })
    }
}

impl Drop for Attached {
    fn drop(&mut self) {
        let flags = rustix::mount::UnmountFlags::DETACH | rustix::mount::UnmountFlags::NOFOLLOW;
        let _ = rustix::mount::unmount(&self.path, flags);
        let _ = std::fs::remove_dir(&self.path);
    }
}
