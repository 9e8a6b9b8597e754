//! clone3(2) as a fork with flags.

use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use super::checked;

/// A child and a handle that no other process can come to bear.
#[derive(Debug)]
pub struct Child {
    /// Its pid in our PID namespace.
    pub pid: i32,
    /// Becomes readable when it ends.
    pub pidfd: OwnedFd,
}

/// Which side of the fork this is.
#[derive(Debug)]
pub enum Forked {
    /// In the new process.
    Child,
    /// In the caller.
    Parent(Child),
}

/// Forks with these `CLONE_*` flags (namespaces, `CLONE_PARENT`). With
/// `CLONE_PARENT` the child is not ours to wait for.
///
/// The caller must have one thread only: the child gets a copy of it alone, and
/// a lock held by another thread (malloc's) would stay locked for ever. The
/// spawner and the monitors are the only callers, and have one.
///
/// # Errors
/// Of clone3(2).
pub fn fork(flags: i32) -> rustix::io::Result<Forked> {
    clone(flags, None)
}

/// As [`fork`], the child being born in the cgroup of this directory (v2): to move it
/// there afterwards, the kernel waits until no processor is in an old fork any more,
/// ten milliseconds or more.
///
/// # Errors
/// Of clone3(2), or where there is none.
pub fn fork_into(flags: i32, cgroup: BorrowedFd<'_>) -> rustix::io::Result<Forked> {
    clone(flags, Some(cgroup))
}

fn clone(flags: i32, cgroup: Option<BorrowedFd<'_>>) -> rustix::io::Result<Forked> {
    let mut pidfd: RawFd = -1;
    // A zeroed clone_args is valid: every field is an integer, 0 means unset.
    let mut args = CloneArgs {
        flags: flags as u32 as u64 | libc::CLONE_PIDFD as u64,
        pidfd: (&raw mut pidfd) as u64,
        ..CloneArgs::default()
    };
    let mut size = CLONE_ARGS_SIZE_VER0;
    if let Some(cgroup) = cgroup {
        args.flags |= CLONE_INTO_CGROUP;
        args.cgroup = cgroup.as_raw_fd() as u64;
        size = size_of::<CloneArgs>();
    }
    // SIGCHLD with CLONE_PARENT is refused by the kernel: the signal is then the
    // one our own parent chose for us.
    if flags & libc::CLONE_PARENT == 0 {
        args.exit_signal = libc::SIGCHLD as u64;
    }
    // SAFETY: args outlives the call and at most its size is passed; no CLONE_VM, so
    // the child runs on a copy of this stack; pidfd points to a live RawFd.
    let pid = checked(unsafe { libc::syscall(libc::SYS_clone3, &raw mut args, size) });
    let pid = match pid {
        // A stage forks under its container's filter, and the usual one knows
        // clone's flags, which clone3 hides behind a pointer.
        Err(rustix::io::Errno::NOSYS) if cgroup.is_none() => old_clone(&args, &mut pidfd)?,
        pid => pid?,
    };
    if pid == 0 {
        return Ok(Forked::Child);
    }
    // SAFETY: the kernel has stored a new descriptor there, which is ours alone.
    let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
    Ok(Forked::Parent(Child {
        pid: pid as i32,
        pidfd,
    }))
}

/// The same by clone(2).
fn old_clone(args: &CloneArgs, pidfd: &mut RawFd) -> rustix::io::Result<libc::c_long> {
    let flags = args.flags | args.exit_signal;
    // SAFETY: as above; no stack is given, so the child runs on a copy of this
    // one. With CLONE_PIDFD the third argument takes the descriptor (x86-64,
    // arm64), and the last two are unused.
    checked(unsafe { libc::syscall(libc::SYS_clone, flags, 0, std::ptr::from_mut(pidfd), 0, 0) })
}

/// include/uapi/linux/sched.h.
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;
const CLONE_ARGS_SIZE_VER0: usize = 64;

/// `struct clone_args` of include/uapi/linux/sched.h, third version (88 bytes).
#[repr(C)]
#[derive(Default)]
struct CloneArgs {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
    set_tid: u64,
    set_tid_size: u64,
    cgroup: u64,
}
