//! The rootfs: an overlay that is never attached on the host.

mod older;

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::OnceLock;

use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, OpenTreeFlags};

use super::super::Rootfs;
use super::{Trouble, trouble};
use crate::sys::{self, MountAttr};

/// Parts of a container's writable layer.
const UPPER: &str = "upper";
const WORK: &str = "work";

/// Makes the folders of a writable layer, as far as no image is known.
pub fn make_layer(writable: &Path) -> rustix::io::Result<()> {
    [UPPER, WORK]
        .iter()
        .try_for_each(|part| make_dir(&writable.join(part)))
}

/// A detached mount of the image's layers and a writable one. With a user
/// namespace the layers are seen through its map; the writable one holds the
/// host's ids, as they come.
///
/// `label` is the SELinux context of all files in it; empty = each its own.
pub fn rootfs(
    rootfs: &Rootfs,
    userns: Option<BorrowedFd<'_>>,
    label: &str,
) -> Result<OwnedFd, Trouble> {
    let upper = rootfs.writable.join(UPPER);
    make_dir(&upper).map_err(trouble("make", upper.display()))?;
    let top = rootfs.layers.last();
    if let Some(top) = top {
        copy_owner(top, &upper, userns).map_err(trouble("set the owner of", upper.display()))?;
    }
    // The kernel wants the highest first.
    let layers = rootfs.layers.iter().rev().map(|path| path.as_path());
    let layers = Layers::open(layers, userns, label)?;
    assemble(&layers, Some(&rootfs.writable), &rootfs.writable)
        .map_err(trouble("mount the overlay on", rootfs.writable.display()))
}

/// A detached read-only mount of layers alone: an image as a volume. `lower`
/// is overlay's own list, the highest first, by colons; `label` as above.
pub fn image(
    (lower, label): (&str, &str),
    scratch: &Path,
    userns: Option<BorrowedFd<'_>>,
) -> Result<OwnedFd, Trouble> {
    let layers = Layers::open(lower.split(':').map(Path::new), userns, label)?;
    assemble(&layers, None, scratch).map_err(trouble("mount the image of", lower))
}

/// What an overlay is made of, the highest first.
struct Layers {
    fds: Vec<OwnedFd>,
    /// They are mounts of their own, attached nowhere.
    detached: bool,
    /// SELinux context of the whole mount.
    label: String,
}

impl Layers {
    fn open<'a>(
        paths: impl Iterator<Item = &'a Path>,
        userns: Option<BorrowedFd<'_>>,
        label: &str,
    ) -> Result<Self, Trouble> {
        let open = |path: &'a Path| {
            open_layer(path, userns).map_err(trouble("open the layer", path.display()))
        };
        Ok(Self {
            fds: paths.map(open).collect::<Result<_, _>>()?,
            detached: userns.is_some(),
            label: label.to_owned(),
        })
    }

    /// As overlay's option: paths that stay short however deep the layers are.
    fn list(&self) -> String {
        self.fds.iter().map(by_number).collect::<Vec<_>>().join(":")
    }
}

/// How lower layers are told to the kernel.
#[derive(Clone, Copy)]
enum Lower {
    /// One by one: by descriptor since Linux 6.13, by path since 6.8.
    Each,
    /// All in one option, which holds 255 bytes.
    Whole,
}

impl Layers {
    /// What may work on this kernel, the best first. It says no to the rest in
    /// its log, where nobody wants to read it for every container.
    fn ways(&self) -> &'static [Lower] {
        match (takes_anything(), self.detached) {
            (false, false) => &[Lower::Each, Lower::Whole],
            (false, true) => &[Lower::Each],
            (true, false) => &[Lower::Whole],
            (true, true) => &[],
        }
    }
}

/// Before 6.5 overlay's options are only collected by fsconfig(2) and looked at
/// when the mount is made.
fn takes_anything() -> bool {
    static ANSWER: OnceLock<bool> = OnceLock::new();
    *ANSWER.get_or_init(|| {
        rustix::mount::fsopen(c"overlay", FsOpenFlags::FSOPEN_CLOEXEC)
            .and_then(|context| {
                rustix::mount::fsconfig_set_flag(context.as_fd(), c"no such option")
            })
            .is_ok()
    })
}

/// Each try starts with an empty work directory: the kernel refuses one that a
/// `volatile` overlay has used.
fn assemble(
    layers: &Layers,
    writable: Option<&Path>,
    scratch: &Path,
) -> rustix::io::Result<OwnedFd> {
    for lower in layers.ways() {
        empty_work(writable)?;
        match by_context(layers, *lower, writable) {
            Err(Errno::INVAL) => {}
            other => return other,
        }
    }
    empty_work(writable)?;
    older::by_way_of_the_host(layers, writable, scratch)
}

fn empty_work(writable: Option<&Path>) -> rustix::io::Result<()> {
    let Some(writable) = writable else {
        return Ok(());
    };
    let work = writable.join(WORK);
    let used = std::fs::read_dir(&work).is_ok_and(|mut entries| entries.next().is_some());
    if used {
        let _ = std::fs::remove_dir_all(&work);
    }
    make_dir(&work)
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
        return open_dir(path);
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

fn by_context(
    layers: &Layers,
    lower: Lower,
    writable: Option<&Path>,
) -> rustix::io::Result<OwnedFd> {
    let context = rustix::mount::fsopen(c"overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
    if !layers.label.is_empty() {
        rustix::mount::fsconfig_set_string(context.as_fd(), c"context", layers.label.as_str())?;
    }
    set_lower(context.as_fd(), layers, lower)?;
    // Open until the overlay is made: before 6.5 the kernel looks names up then.
    let _dirs = match writable {
        Some(writable) => set_writable(context.as_fd(), writable)?,
        None => Vec::new(),
    };
    rustix::mount::fsconfig_create(context.as_fd())?;
    let flags = FsMountFlags::FSMOUNT_CLOEXEC;
    rustix::mount::fsmount(context.as_fd(), flags, attributes(writable))
}

fn attributes(writable: Option<&Path>) -> MountAttrFlags {
    match writable {
        Some(_) => MountAttrFlags::empty(),
        None => MountAttrFlags::MOUNT_ATTR_RDONLY,
    }
}

fn set_lower(context: BorrowedFd<'_>, layers: &Layers, lower: Lower) -> rustix::io::Result<()> {
    if matches!(lower, Lower::Whole) {
        return rustix::mount::fsconfig_set_string(context, c"lowerdir", layers.list());
    }
    layers.fds.iter().try_for_each(|layer| {
        let path = || by_number(layer);
        rustix::mount::fsconfig_set_fd(context, c"lowerdir+", layer.as_fd())
            .or_else(|_| rustix::mount::fsconfig_set_string(context, c"lowerdir+", path()))
    })
}

fn set_writable(context: BorrowedFd<'_>, writable: &Path) -> rustix::io::Result<Vec<OwnedFd>> {
    let mut dirs = Vec::new();
    for (key, name) in [(c"upperdir", UPPER), (c"workdir", WORK)] {
        // By descriptor, since a path may be longer than an option.
        let dir = open_dir(&writable.join(name))?;
        rustix::mount::fsconfig_set_fd(context, key, dir.as_fd())
            .or_else(|_| rustix::mount::fsconfig_set_string(context, key, by_number(&dir)))?;
        dirs.push(dir);
    }
    // Nobody needs what a container wrote after a crash of the host, so unmounting
    // does not have to sync. An index would only guard hard links across layers.
    rustix::mount::fsconfig_set_flag(context, c"volatile")?;
    let _ = rustix::mount::fsconfig_set_string(context, c"index", c"off");
    Ok(dirs)
}

fn open_dir(path: &Path) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Mode::empty())
}

fn by_number(fd: &OwnedFd) -> String {
    use std::os::fd::AsRawFd;
    format!("/proc/self/fd/{}", fd.as_raw_fd())
}
