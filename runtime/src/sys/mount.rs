//! mount_setattr(2).

use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use super::checked;

/// What to change of a mount.
#[derive(Debug, Default, Clone, Copy)]
pub struct MountAttr<'a> {
    /// `MOUNT_ATTR_*` to set.
    pub set: u64,
    /// `MOUNT_ATTR_*` to clear.
    pub clear: u64,
    /// `MS_PRIVATE`, `MS_SLAVE`, `MS_SHARED`, or 0 for no change.
    pub propagation: u64,
    /// With `MOUNT_ATTR_IDMAP` in `set`: the user namespace.
    pub userns: Option<BorrowedFd<'a>>,
    /// Also everything mounted below.
    pub recursive: bool,
}

/// `struct mount_attr` of include/uapi/linux/mount.h.
#[repr(C)]
struct Raw {
    attr_set: u64,
    attr_clr: u64,
    propagation: u64,
    userns_fd: u64,
}

/// Changes the mount that `mount` refers to.
///
/// # Errors
/// Of mount_setattr(2).
pub fn set_mount_attr(mount: impl AsFd, attr: MountAttr<'_>) -> rustix::io::Result<()> {
    let raw = Raw {
        attr_set: attr.set,
        attr_clr: attr.clear,
        propagation: attr.propagation,
        userns_fd: attr.userns.map_or(0, |fd| fd.as_raw_fd() as u64),
    };
    let recursive = if attr.recursive {
        libc::AT_RECURSIVE
    } else {
        0
    };
    // SAFETY: the path is a NUL-terminated literal, raw lives through the call
    // and its size is passed; both descriptors are borrowed for as long.
    checked(unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_fd().as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH | recursive,
            &raw const raw,
            size_of::<Raw>(),
        )
    })
    .map(drop)
}

/// Detaches the tree mounted at the working directory.
///
/// # Errors
/// Of umount2(2).
pub fn unmount_detach(path: &std::ffi::CStr) -> rustix::io::Result<()> {
    rustix::mount::unmount(path, rustix::mount::UnmountFlags::DETACH)
}
