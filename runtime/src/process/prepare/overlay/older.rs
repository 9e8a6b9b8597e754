//! For kernels that want what an overlay is made of attached, or its options in
//! one page: everything is on the host for a moment, beside the writable layer.

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::CWD;
use rustix::io::Result;
use rustix::mount::{MountFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags};

use super::{Layers, UPPER, WORK, by_number, make_dir, open_dir};
use crate::sys::{self, MountAttr};

/// mount(2) takes a page of options; `scratch` is a directory to attach in.
pub(super) fn by_way_of_the_host(
    layers: &Layers,
    writable: Option<&Path>,
    scratch: &Path,
) -> Result<OwnedFd> {
    let place = Attached::new(scratch.join("merged"))?;
    let _held = match layers.detached {
        true => attach(&layers.fds, scratch)?,
        false => Vec::new(),
    };
    let mut options = format!("lowerdir={}", layers.list());
    let mut flags = MountFlags::RDONLY;
    // Open until the overlay is made.
    let mut dirs = Vec::new();
    if let Some(writable) = writable {
        let (upper, work) = (
            open_dir(&writable.join(UPPER))?,
            open_dir(&writable.join(WORK))?,
        );
        let (at_upper, at_work) = (by_number(&upper), by_number(&work));
        options += &format!(",upperdir={at_upper},workdir={at_work},index=off,volatile");
        flags = MountFlags::empty();
        dirs.extend([upper, work]);
    }
    if !layers.label.is_empty() {
        // Categories have commas between them.
        options += &format!(",context=\"{}\"", layers.label);
    }
    let options = std::ffi::CString::new(options).map_err(|_| rustix::io::Errno::INVAL)?;
    rustix::mount::mount("overlay", &place.path, "overlay", flags, &*options)?;
    private_clone(&place.path)
}

/// Below a shared mount a new one is shared too, and a container's root must not
/// be: what is mounted in it would be propagated, and pivot_root(2) refuses.
fn private_clone(path: &Path) -> Result<OwnedFd> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let tree = rustix::mount::open_tree(CWD, path, flags)?;
    let attr = MountAttr {
        propagation: libc::MS_PRIVATE,
        ..MountAttr::default()
    };
    sys::set_mount_attr(&tree, attr)?;
    Ok(tree)
}

/// Attached, a layer's descriptor names it in its place.
fn attach(layers: &[OwnedFd], scratch: &Path) -> Result<Vec<Attached>> {
    let mut held = Vec::new();
    for (number, layer) in layers.iter().enumerate() {
        let at = Attached::new(scratch.join(format!("lower-{number}")))?;
        let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
        rustix::mount::move_mount(layer.as_fd(), c"", CWD, &at.path, flags)?;
        held.push(at);
    }
    Ok(held)
}

/// A directory to mount on, given back when it is no longer needed.
struct Attached {
    path: PathBuf,
}

impl Attached {
    fn new(path: PathBuf) -> Result<Self> {
        make_dir(&path)?;
        Ok(Self { path })
    }
}

impl Drop for Attached {
    fn drop(&mut self) {
        let flags = UnmountFlags::DETACH | UnmountFlags::NOFOLLOW;
        let _ = rustix::mount::unmount(&self.path, flags);
        let _ = std::fs::remove_dir(&self.path);
    }
}
