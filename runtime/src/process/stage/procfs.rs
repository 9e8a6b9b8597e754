//! A procfs of the container's PID namespace.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::{Errno, Result};
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags};

use super::super::kit;
use super::PidNamespace;
use crate::sys::{self, Forked};

/// Makes it, detached.
pub fn make(pid: PidNamespace<'_>, attributes: MountAttrFlags) -> Result<OwnedFd> {
    match pid {
        PidNamespace::Own | PidNamespace::Node => kit::make("proc", &[], attributes),
        PidNamespace::Of(process, number) => match by_option(number, attributes) {
            // Before Linux 6.18 procfs knows no `pidns`.
            Err(Errno::INVAL | Errno::OPNOTSUPP) => by_visit(process, attributes),
            other => other,
        },
    }
}

fn by_option(pid: i32, attributes: MountAttrFlags) -> Result<OwnedFd> {
    let path = format!("{}/{pid}/ns/pid", kit::PROC);
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let namespace = rustix::fs::openat(CWD, path, flags, Mode::empty())?;
    let context = rustix::mount::fsopen(c"proc", FsOpenFlags::FSOPEN_CLOEXEC)?;
    rustix::mount::fsconfig_set_fd(context.as_fd(), c"pidns", namespace.as_fd())?;
    rustix::mount::fsconfig_create(context.as_fd())?;
    rustix::mount::fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, attributes)
}

/// A child goes inside for as long as it takes to mount: with no descriptor but
/// the one it answers on, and not to be traced.
fn by_visit(process: BorrowedFd<'_>, attributes: MountAttrFlags) -> Result<OwnedFd> {
    use std::os::fd::AsRawFd;
    let (ours, theirs) = super::super::seqpacket_pair()?;
    let _ = rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable);
    let outside = match sys::fork(0)? {
        Forked::Child => {
            let visit = || -> Result<()> {
                sys::join_namespaces(process, libc::CLONE_NEWPID)?;
                sys::close_all_but(&mut [theirs.as_raw_fd()])?;
                match sys::fork(0)? {
                    Forked::Child => {
                        let mount = kit::make("proc", &[], attributes)?;
                        sys::send(&theirs, b"proc", &[mount.as_fd()])?;
                        sys::exit_now(0)
                    }
                    Forked::Parent(inside) => wait(inside.pid),
                }
            };
            sys::exit_now(i32::from(visit().is_err()))
        }
        Forked::Parent(child) => child,
    };
    drop(theirs);
    let answer = sys::receive(&ours, rustix::net::RecvFlags::empty())?;
    wait(outside.pid)?;
    answer
        .and_then(|mut packet| packet.fds.pop())
        .ok_or(Errno::SRCH)
}

fn wait(pid: i32) -> Result<()> {
    let pid = rustix::process::Pid::from_raw(pid);
    rustix::process::waitpid(pid, rustix::process::WaitOptions::empty()).map(drop)
}
