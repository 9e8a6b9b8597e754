//! The program that we are.

use std::fs::Metadata;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;

use rustix::fs::CWD;

use crate::sys;

/// A read-only clone of our own executable: whoever gets hold of it through a process of the
/// engine cannot open it for writing (CVE-2019-5736), and its text is shared with ours.
///
/// # Errors
/// Of open_tree(2) and mount_setattr(2).
pub fn program() -> io::Result<OwnedFd> {
    use rustix::mount::{MountAttrFlags, OpenTreeFlags};
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let file = rustix::mount::open_tree(CWD, c"/proc/self/exe", flags)?;
    let attr = sys::MountAttr {
        set: u64::from(MountAttrFlags::MOUNT_ATTR_RDONLY.bits()),
        ..sys::MountAttr::default()
    };
    sys::set_mount_attr(&file, attr)?;
    Ok(file)
}

/// Whether a process executes another program than ours. One that can't be looked at is
/// taken for ours.
pub fn is_foreign(pid: i32) -> bool {
    let file = |meta: &Metadata| (meta.dev(), meta.ino());
    let of = |process: &str| std::fs::metadata(format!("/proc/{process}/exe"));
    match (of("self"), of(&pid.to_string())) {
        (Ok(own), Ok(its)) => file(&own) != file(&its),
        _ => false,
    }
}
