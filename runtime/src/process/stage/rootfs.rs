//! The container's mount tree, put together from outside.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::fs::{FileType, XattrFlags};
use rustix::io::Errno;
use rustix::mount::{MountAttrFlags, MoveMountFlags, OpenTreeFlags};

use super::super::kit;
use super::super::plan::{Mount, Plan, Source};
use super::super::step::{At, Failure, Step};
use super::made_ahead::DEV;
use super::{PidNamespace, Stage, device, path, procfs};
use crate::sys::{self, MountAttr};

type Answer = Result<(), Failure>;

const RDONLY: u64 = MountAttrFlags::MOUNT_ATTR_RDONLY.bits() as u64;

/// The type of a mount that shows an IPC namespace's message queues.
const MQUEUE: &str = "mqueue";

/// A rootfs while it is being furnished.
pub struct Rootfs<'a> {
    stage: &'a Stage<'a>,
    plan: &'a Plan,
    pid: PidNamespace<'a>,
    /// The container lives in a user namespace.
    user: bool,
    root: OwnedFd,
}

impl<'a> Rootfs<'a> {
    /// Attaches the prepared rootfs in our mount namespace.
    pub fn attach(
        stage: &'a Stage<'a>,
        plan: &'a Plan,
        pid: PidNamespace<'a>,
        user: bool,
    ) -> Result<Self, Failure> {
        let number = plan.rootfs.ok_or(Errno::BADMSG).at(Step::ReadPlan)?;
        let mount = super::fd(stage, number, Step::AttachRootfs)?;
        kit::attach(mount, c"/r").at(Step::AttachRootfs)?;
        let root = mount.try_clone_to_owned().at(Step::AttachRootfs)?;
        if let Some(process) = &plan.process {
            // As other runtimes do; what cannot be made is told by chdir.
            let _ = path::ensure_directory(root.as_fd(), &process.cwd);
        }
        Ok(Self {
            stage,
            plan,
            pid,
            user,
            root,
        })
    }

    pub fn fd(&self) -> BorrowedFd<'_> {
        self.root.as_fd()
    }

    /// Attaches every mount of the plan, in its order.
    pub fn mounts(&self) -> Answer {
        self.plan
            .mounts
            .iter()
            .try_for_each(|mount| self.mount(mount))
    }

    fn mount(&self, mount: &Mount) -> Answer {
        let destination = mount.destination.as_str();
        let attributes = MountAttrFlags::from_bits_retain(mount.attributes as u32);
        match mount.source() {
            Source::Prepared => {
                let prepared = super::fd(self.stage, mount.fd, Step::AttachMount)?;
                self.place(prepared, destination, mount.directory)
            }
            Source::Proc => {
                let made = procfs::make(self.pid, attributes).on(Step::MakeMount, destination)?;
                self.place_kernel(made.as_fd(), destination)
            }
            Source::Sysfs if self.user => {
                let made = kit::clone_mount(kit::SYS).on(Step::MakeMount, destination)?;
                set(&made, mount.attributes, false).on(Step::MakeMount, destination)?;
                self.place_kernel(made.as_fd(), destination)
            }
            Source::Sysfs => {
                let made = self.made(mount).on(Step::MakeMount, destination)?;
                self.place_kernel(made.as_fd(), destination)
            }
            Source::PodShm => {
                let made = kit::clone_mount(kit::SHM).on(Step::MakeMount, destination)?;
                set(&made, mount.attributes, false).on(Step::MakeMount, destination)?;
                self.place(made.as_fd(), destination, true)
            }
            Source::Cgroup => self.cgroup(destination, attributes),
            Source::Fresh => {
                let made = self.made(mount).on(Step::MakeMount, destination)?;
                if mount.fstype == MQUEUE {
                    self.label(&made);
                }
                self.place(made.as_fd(), destination, true)
            }
        }
    }

    /// Labels the root of a file system that is not mounted with one context for all: message
    /// queues, which belong to the IPC namespace. What is made below inherits it. Where a user
    /// namespace's root may not, it stays as it is.
    fn label(&self, mount: &OwnedFd) {
        let label = self.plan.mount_label.as_bytes();
        if !label.is_empty() {
            let path = format!("{}/self/fd/{}", kit::PROC, mount.as_raw_fd());
            let _ = rustix::fs::setxattr(path, c"security.selinux", label, XattrFlags::empty());
        }
    }

    /// One that was made ahead, or a new one.
    fn made(&self, mount: &Mount) -> rustix::io::Result<OwnedFd> {
        match self.stage.ahead.find(mount) {
            Some(made) => rustix::io::fcntl_dupfd_cloexec(made, 0),
            None => fresh(mount),
        }
    }

    fn place(&self, mount: BorrowedFd<'_>, destination: &str, directory: bool) -> Answer {
        let target = path::mountpoint(self.fd(), destination, directory)?;
        attach_on(mount, &target).on(Step::AttachMount, destination)
    }

    /// A kernel file system goes where it is said and nowhere else: an image that
    /// has a symlink at /proc or /sys is refused (CVE-2019-19921).
    fn place_kernel(&self, mount: BorrowedFd<'_>, destination: &str) -> Answer {
        let target = match path::open_plain(self.fd(), destination) {
            Err(Errno::NOENT) => path::mountpoint(self.fd(), destination, true)?,
            other => other.on(Step::OpenMountpoint, destination)?,
        };
        attach_on(mount, &target).on(Step::AttachMount, destination)
    }

    /// cgroup v2 is one mount; of v1, each hierarchy below a tmpfs.
    fn cgroup(&self, destination: &str, attributes: MountAttrFlags) -> Answer {
        if self.plan.hierarchies.is_empty() {
            let made = kit::make("cgroup2", &[], attributes).on(Step::MakeMount, destination)?;
            return self.place_kernel(made.as_fd(), destination);
        }
        let options = [("mode", "755"), ("size", "64k")];
        let writable = attributes.difference(MountAttrFlags::MOUNT_ATTR_RDONLY);
        let made = kit::make("tmpfs", &options, writable).on(Step::MakeMount, destination)?;
        self.place_kernel(made.as_fd(), destination)?;
        for (number, hierarchy) in self.plan.hierarchies.iter().enumerate() {
            let at = format!("{destination}/{}", hierarchy.key);
            let target = path::mountpoint(made.as_fd(), &hierarchy.key, true)?;
            let attached = match self.plan.views.get(number) {
                Some(view) => {
                    let view = super::fd(self.stage, *view, Step::AttachMount)?;
                    attach_on(view, &target)
                }
                None => {
                    let fresh = self::hierarchy(&hierarchy.value, attributes);
                    let fresh = fresh.on(Step::MakeMount, &at)?;
                    attach_on(fresh.as_fd(), &target)
                }
            };
            attached.on(Step::AttachMount, &at)?;
        }
        set(&made, u64::from(attributes.bits()), false).on(Step::AttachMount, destination)
    }

    /// /dev as every container expects it, and the devices asked for. A /dev that
    /// is the host's own is left as it is.
    pub fn devices(&self) -> Answer {
        let theirs = |m: &Mount| m.source() == Source::Prepared && m.destination == DEV;
        if self.plan.mounts.iter().any(theirs) {
            return Ok(());
        }
        let is_dev = |m: &&Mount| m.destination == DEV;
        let ours = self.plan.mounts.iter().find(is_dev);
        if ours.and_then(|m| self.stage.ahead.find(m)).is_none() {
            let dev = path::ensure_directory(self.fd(), DEV).on(Step::MakeDevice, DEV)?;
            device::defaults(dev.as_fd(), self.user)?;
        }
        device::asked_for(self.fd(), &self.plan.devices, self.user)
    }

    /// The terminal as /dev/console.
    pub fn console(&self, slave: &OwnedFd) -> Answer {
        const CONSOLE: &str = "/dev/console";
        let flags = OpenTreeFlags::OPEN_TREE_CLONE
            | OpenTreeFlags::OPEN_TREE_CLOEXEC
            | OpenTreeFlags::AT_EMPTY_PATH;
        let mount = rustix::mount::open_tree(slave, c"", flags).on(Step::MakeMount, CONSOLE)?;
        self.place(mount.as_fd(), CONSOLE, false)
    }

    /// Hides and protects what the plan says of /proc and /sys.
    pub fn masks(&self) -> Answer {
        for path in &self.plan.readonly {
            self.read_only(path).on(Step::ReadonlyPath, path)?;
        }
        let mut empty = None;
        for path in &self.plan.masked {
            self.mask(path, &mut empty).on(Step::MaskPath, path)?;
        }
        Ok(())
    }

    fn read_only(&self, path: &str) -> rustix::io::Result<()> {
        let Some(found) = absent(path::open(self.fd(), path))? else {
            return Ok(());
        };
        let mount = clone(&found, true)?;
        set(&mount, RDONLY, true)?;
        attach_on(mount.as_fd(), &found)
    }

    fn mask(&self, path: &str, empty: &mut Option<OwnedFd>) -> rustix::io::Result<()> {
        let Some(found) = absent(path::open(self.fd(), path))? else {
            return Ok(());
        };
        if path::kind(&found)? != FileType::Directory {
            return attach_on(kit::null_mask()?.as_fd(), &found);
        }
        // One empty directory for all: the first mount is attached, the others are
        // its clones.
        let mount = match &*empty {
            Some(first) => clone(first, false)?,
            None => kit::make(
                "tmpfs",
                &[
                    ("ro", ""),
                    ("nr_inodes", "1"),
                    ("size", "4k"),
                    ("mode", "755"),
                ],
                kit::PLAIN | MountAttrFlags::MOUNT_ATTR_RDONLY,
            )?,
        };
        attach_on(mount.as_fd(), &found)?;
        empty.get_or_insert(mount);
        Ok(())
    }

    /// No more mountpoints are to be made.
    pub fn finish(&self) -> Answer {
        if self.plan.read_only {
            set(&self.root, RDONLY, false).at(Step::ReadonlyRootfs)?;
        }
        Ok(())
    }

    /// Of the root alone: what is mounted below has its own.
    pub fn propagation(&self) -> Answer {
        if self.plan.propagation == 0 {
            return Ok(());
        }
        let attr = MountAttr {
            propagation: self.plan.propagation,
            ..MountAttr::default()
        };
        sys::set_mount_attr(&self.root, attr).at(Step::Propagation)
    }
}

/// A new file system, detached: of [`Source::Fresh`] or [`Source::Sysfs`].
pub fn fresh(mount: &Mount) -> rustix::io::Result<OwnedFd> {
    let attributes = MountAttrFlags::from_bits_retain(mount.attributes as u32);
    let options: Vec<_> = mount
        .options
        .iter()
        .map(|option| (option.key.as_str(), option.value.as_str()))
        .collect();
    let fstype = match mount.source() {
        Source::Sysfs => "sysfs",
        _ => mount.fstype.as_str(),
    };
    kit::make(fstype, &options, attributes)
}

/// A hierarchy of cgroup v1 by its options; without any, that of v2.
fn hierarchy(options: &str, attributes: MountAttrFlags) -> rustix::io::Result<OwnedFd> {
    let options: Vec<_> = options
        .split(',')
        .filter(|option| !option.is_empty())
        .map(|option| option.split_once('=').unwrap_or((option, "")))
        .collect();
    let fstype = if options.is_empty() {
        "cgroup2"
    } else {
        "cgroup"
    };
    kit::make(fstype, &options, attributes)
}

/// Attaches a detached mount on what an O_PATH descriptor refers to.
pub fn attach_on(mount: BorrowedFd<'_>, target: impl AsFd) -> rustix::io::Result<()> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    rustix::mount::move_mount(mount, c"", target, c"", flags)
}

fn clone(found: &OwnedFd, recursive: bool) -> rustix::io::Result<OwnedFd> {
    let mut flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_EMPTY_PATH;
    flags.set(OpenTreeFlags::AT_RECURSIVE, recursive);
    rustix::mount::open_tree(found, c"", flags)
}

fn set(mount: &OwnedFd, attributes: u64, recursive: bool) -> rustix::io::Result<()> {
    let attr = MountAttr {
        set: attributes,
        recursive,
        ..MountAttr::default()
    };
    sys::set_mount_attr(mount, attr)
}

/// What is not there needs no protection.
fn absent(found: rustix::io::Result<OwnedFd>) -> rustix::io::Result<Option<OwnedFd>> {
    match found {
        Ok(found) => Ok(Some(found)),
        Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
        Err(errno) => Err(errno),
    }
}
