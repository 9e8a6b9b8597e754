//! The emptied mount namespace in which spawner, monitors and stages live.
//!
//! Nothing of the host is mounted in it but a bare procfs: a mount namespace is
//! cloned in proportion to what it holds, and a stage can leak only what it sees.

use rustix::fs::{CWD, Dev, FileType, Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountPropagationFlags, MoveMountFlags,
};
use rustix::thread::UnshareFlags;
use std::os::fd::{AsFd, OwnedFd};

use super::step::{At, Failure, Step};
use crate::sys;

/// Where a stage attaches the container's root before it pivots.
pub const ROOTFS: &str = "/r";
/// The pod's shared memory, in its monitor's namespace.
pub const SHM: &str = "/shm";
/// The host's processes; also what lets a user namespace mount a procfs of its own.
pub const PROC: &str = "/proc";
/// The pod's sysfs, in the monitor of a pod with a user namespace.
pub const SYS: &str = "/sys";
/// Device nodes that were asked for so far, shared by all monitors.
const DEV: &str = "/dev";

/// Devices of every container: null, zero, full, random, urandom, tty.
const NODES: [(u32, u32); 6] = [(1, 3), (1, 5), (1, 7), (1, 8), (1, 9), (5, 0)];

/// Empties the mount namespace of this process.
pub fn empty_mount_namespace() -> Result<(), Failure> {
    let step = Step::EmptyMountNamespace;
    unshare(UnshareFlags::NEWNS).at(step)?;
    rustix::mount::mount_change(
        c"/",
        MountPropagationFlags::PRIVATE | MountPropagationFlags::REC,
    )
    .at(step)?;
    let root = make("tmpfs", &[("mode", "0755")], MountAttrFlags::empty()).on(step, "tmpfs")?;
    let proc = make("proc", &[], PLAIN).on(step, "proc")?;
    // Any directory that every host has will do to stand on for a moment.
    attach(&root, c"/proc").on(step, "tmpfs")?;
    pivot_into(&root).at(step)?;
    for dir in [ROOTFS, SHM, PROC, SYS, DEV] {
        // To be passed by stages that are root of a user namespace only.
        rustix::fs::mkdir(dir, Mode::from_raw_mode(0o755)).on(step, dir)?;
    }
    for (major, minor) in NODES {
        node(FileType::CharacterDevice, major, minor).on(step, DEV)?;
    }
    attach(&proc, c"/proc").on(step, PROC)
}

/// What a security module is told of this thread: /proc/thread-self/attr/`name`. `exec` is for
/// the program that it executes next, `keycreate` for keys made next; both are kept over a fork.
pub fn security_attribute(name: &str, value: &str) -> rustix::io::Result<()> {
    // Not to be created if missing, which would be one more thing to be denied.
    let flags = OFlags::WRONLY | OFlags::CLOEXEC;
    let path = format!("{PROC}/thread-self/attr/{name}");
    let file = rustix::fs::open(path, flags, Mode::empty())?;
    rustix::io::write(&file, value.as_bytes()).map(drop)
}

/// What a procfs or sysfs is mounted with.
pub const PLAIN: MountAttrFlags = MountAttrFlags::MOUNT_ATTR_NOSUID
    .union(MountAttrFlags::MOUNT_ATTR_NODEV)
    .union(MountAttrFlags::MOUNT_ATTR_NOEXEC);

/// Makes the mount that `root` refers to the root, and lets go of the old one.
pub fn pivot_into(root: impl AsFd) -> rustix::io::Result<()> {
    rustix::process::fchdir(root)?;
    rustix::process::pivot_root(c".", c".")?;
    sys::unmount_detach(c".")?;
    rustix::process::chdir(c"/")
}

/// unshare(2) of namespaces. The processes of the engine have one thread.
pub fn unshare(flags: UnshareFlags) -> rustix::io::Result<()> {
    sys::unshare(flags)
}

/// A namespace of this process by its name below /proc/self/ns.
pub fn open_namespace(name: &str) -> rustix::io::Result<OwnedFd> {
    let path = format!("{PROC}/self/ns/{name}");
    rustix::fs::openat(CWD, path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
}

/// A new file system as a detached mount.
pub fn make(
    fstype: &str,
    options: &[(&str, &str)],
    attributes: MountAttrFlags,
) -> rustix::io::Result<OwnedFd> {
    let context = rustix::mount::fsopen(fstype, FsOpenFlags::FSOPEN_CLOEXEC)?;
    for (key, value) in options {
        if value.is_empty() {
            rustix::mount::fsconfig_set_flag(context.as_fd(), *key)?;
        } else {
            rustix::mount::fsconfig_set_string(context.as_fd(), *key, *value)?;
        }
    }
    rustix::mount::fsconfig_create(context.as_fd())?;
    rustix::mount::fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, attributes)
}

/// Attaches a detached mount at a path of ours.
pub fn attach(mount: impl AsFd, path: &std::ffi::CStr) -> rustix::io::Result<()> {
    rustix::mount::move_mount(
        mount,
        c"",
        CWD,
        path,
        MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH,
    )
}

/// A detached clone of the mount at a path of ours.
pub fn clone_mount(path: &str) -> rustix::io::Result<OwnedFd> {
    use rustix::mount::OpenTreeFlags as Flags;
    rustix::mount::open_tree(CWD, path, Flags::OPEN_TREE_CLONE | Flags::OPEN_TREE_CLOEXEC)
}

/// /dev/null, opened.
pub fn null() -> rustix::io::Result<OwnedFd> {
    use rustix::fs::OFlags;
    let path = node(FileType::CharacterDevice, 1, 3)?;
    rustix::fs::open(path.as_str(), OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())
}

/// A device node as a mount of that one file: for containers that may not make
/// nodes themselves, and to mask files with.
pub fn device(kind: FileType, major: u32, minor: u32) -> rustix::io::Result<OwnedFd> {
    clone_mount(&node(kind, major, minor)?)
}

/// Path of a node of ours, which is made when it is first asked for: by the
/// host's root, so before a user namespace is entered.
pub fn node(kind: FileType, major: u32, minor: u32) -> rustix::io::Result<String> {
    let letter = if kind == FileType::BlockDevice {
        'b'
    } else {
        'c'
    };
    let path = format!("{DEV}/{letter}-{major}-{minor}");
    let dev: Dev = rustix::fs::makedev(major, minor);
    // The umask of stages and monitors is 0, so this is what others get.
    let mode = Mode::from_raw_mode(0o666);
    match rustix::fs::mknodat(CWD, path.as_str(), kind, mode, dev) {
        Ok(()) | Err(Errno::EXIST) => Ok(path),
        Err(errno) => Err(errno),
    }
}

/// /dev/null, with which files are masked: our own node, never one that an image
/// could have put there (CVE-2025-31133), and not to be changed through the mask.
pub fn null_mask() -> rustix::io::Result<OwnedFd> {
    let mount = device(FileType::CharacterDevice, 1, 3)?;
    sys::set_mount_attr(
        &mount,
        sys::MountAttr {
            set: u64::from(MountAttrFlags::MOUNT_ATTR_RDONLY.bits()),
            ..sys::MountAttr::default()
        },
    )?;
    Ok(mount)
}
