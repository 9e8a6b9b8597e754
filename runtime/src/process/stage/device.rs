//! /dev.

use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs::{FileType, Gid, Mode, Uid};
use rustix::io::Errno;

use super::super::kit;
use super::super::plan::Device;
use super::super::step::{At, Failure, Step};
use super::{path, rootfs};

type Answer = Result<(), Failure>;

/// OCI runtime-spec config-linux.md "Default Devices": name and minor, all of
/// major 1 but tty.
const DEFAULT: [(&str, u32, u32); 6] = [
    ("null", 1, 3),
    ("zero", 1, 5),
    ("full", 1, 7),
    ("random", 1, 8),
    ("urandom", 1, 9),
    ("tty", 5, 0),
];

/// OCI runtime-spec runtime-linux.md "Dev symbolic links", and ptmx of devpts.
const LINKS: [(&str, &str); 5] = [
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("ptmx", "pts/ptmx"),
];

/// Makes the default devices and the links in the directory that is /dev.
pub fn defaults(dev: BorrowedFd<'_>, user: bool) -> Answer {
    for (name, major, minor) in DEFAULT {
        let device = Device {
            path: format!("/{name}"),
            mode: FileType::CharacterDevice.as_raw_mode() | 0o666,
            major,
            minor,
            uid: 0,
            gid: 0,
        };
        make(dev, &device, user).on(Step::MakeDevice, name)?;
    }
    links(dev)
}

/// Makes the devices that are asked for.
pub fn asked_for(root: BorrowedFd<'_>, devices: &[Device], user: bool) -> Answer {
    devices
        .iter()
        .try_for_each(|device| make(root, device, user).on(Step::MakeDevice, &device.path))
}

/// Sees to it that there are nodes to bind, where they cannot be made later.
pub fn provide(devices: &[Device]) -> Answer {
    for device in devices {
        let kind = FileType::from_raw_mode(device.mode);
        if kind != FileType::Fifo {
            kit::node(kind, device.major, device.minor).on(Step::MakeDevice, &device.path)?;
        }
    }
    Ok(())
}

fn make(root: BorrowedFd<'_>, device: &Device, user: bool) -> rustix::io::Result<()> {
    let kind = FileType::from_raw_mode(device.mode);
    if user && kind != FileType::Fifo {
        return bind(root, device, kind);
    }
    let (parent, name) = device.path.rsplit_once('/').ok_or(Errno::INVAL)?;
    let made;
    let above = match parent {
        "" => root,
        parent => {
            made = path::ensure_directory(root, parent)?;
            made.as_fd()
        }
    };
    let mode = Mode::from_raw_mode(device.mode & 0o7777);
    let dev = rustix::fs::makedev(device.major, device.minor);
    match rustix::fs::mknodat(above, name, kind, mode, dev) {
        Ok(()) => {}
        Err(Errno::EXIST) => return check(above, name, kind, dev),
        // A host that may not make nodes can still bind them.
        Err(Errno::PERM) => return bind(root, device, kind),
        Err(errno) => return Err(errno),
    }
    if (device.uid, device.gid) == (0, 0) {
        return Ok(());
    }
    let (uid, gid) = (Uid::from_raw(device.uid), Gid::from_raw(device.gid));
    rustix::fs::chownat(
        above,
        name,
        Some(uid),
        Some(gid),
        rustix::fs::AtFlags::SYMLINK_NOFOLLOW,
    )
}

/// One of the image's own is good when it is the same.
fn check(above: BorrowedFd<'_>, name: &str, kind: FileType, dev: u64) -> rustix::io::Result<()> {
    let found = rustix::fs::statat(above, name, rustix::fs::AtFlags::SYMLINK_NOFOLLOW)?;
    if FileType::from_raw_mode(found.st_mode) == kind && found.st_rdev == dev {
        Ok(())
    } else {
        Err(Errno::EXIST)
    }
}

/// Nodes made in a user namespace are dead: the node is mounted over a file.
fn bind(root: BorrowedFd<'_>, device: &Device, kind: FileType) -> rustix::io::Result<()> {
    let mount = kit::device(kind, device.major, device.minor)?;
    let target = path::mountpoint(root, &device.path, false).map_err(|f| f.errno)?;
    rootfs::attach_on(mount.as_fd(), target)
}

fn links(dev: BorrowedFd<'_>) -> Answer {
    for (name, target) in LINKS {
        match rustix::fs::symlinkat(target, dev, name) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(errno) => return Err(errno).on(Step::LinkDevice, name),
        }
    }
    Ok(())
}
