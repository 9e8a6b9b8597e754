//! What a process does to itself.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};

use rustix::io::{Errno, Result};

use super::checked;

/// Closes every descriptor from 0 up that is not listed.
///
/// # Errors
/// Of close_range(2).
pub fn close_all_but(keep: &mut [RawFd]) -> Result<()> {
    keep.sort_unstable();
    let mut next: u32 = 0;
    for fd in keep.iter().filter_map(|fd| u32::try_from(*fd).ok()) {
        if fd > next {
            close_range(next, fd - 1)?;
        }
        next = next.max(fd + 1);
    }
    close_range(next, u32::MAX)
}

fn close_range(first: u32, last: u32) -> Result<()> {
    // SAFETY: the callers are processes about to become something else; by
    // contract of `close_all_but` they use no descriptor afterwards that they did
    // not list, so no owner is left that could close one a second time: they end
    // in _exit or execve without running destructors of what was closed.
    checked(unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) }).map(drop)
}

/// setns(2) with a pidfd or namespace descriptor and `CLONE_NEW*` flags.
///
/// # Errors
/// Of setns(2).
pub fn join_namespaces(fd: impl AsFd, flags: i32) -> Result<()> {
    // SAFETY: setns takes integers; the descriptor is borrowed through the call.
    checked(i64::from(unsafe {
        libc::setns(fd.as_fd().as_raw_fd(), flags)
    }))
    .map(drop)
}

/// unshare(2) of namespaces.
///
/// # Errors
/// Of unshare(2).
pub fn unshare(flags: rustix::thread::UnshareFlags) -> Result<()> {
    // SAFETY: what is unsafe is CLONE_FILES among other threads; namespaces share
    // no memory and the callers have one thread.
    unsafe { rustix::thread::unshare_unsafe(flags) }
}

/// Sends any signal, real-time ones included.
///
/// # Errors
/// Of pidfd_send_signal(2).
pub fn send_signal(pidfd: impl AsFd, signal: i32) -> Result<()> {
    // SAFETY: a null siginfo asks for what kill(2) would send; the descriptor is
    // borrowed through the call.
    checked(unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            pidfd.as_fd().as_raw_fd(),
            signal,
            std::ptr::null::<libc::siginfo_t>(),
            0,
        )
    })
    .map(drop)
}

/// `KEYCTL_JOIN_SESSION_KEYRING`, include/uapi/linux/keyctl.h.
const KEYCTL_JOIN_SESSION_KEYRING: libc::c_long = 1;

/// Takes a new anonymous session keyring, so that none is shared with the host.
///
/// # Errors
/// Of keyctl(2); `NOSYS` on kernels without keys.
pub fn new_session_keyring() -> Result<()> {
    // SAFETY: the name may be null, which asks for an anonymous keyring.
    checked(unsafe {
        libc::syscall(
            libc::SYS_keyctl,
            KEYCTL_JOIN_SESSION_KEYRING,
            std::ptr::null::<libc::c_char>(),
        )
    })
    .map(drop)
}

/// Installs a filter: `bytes` is an array of `struct sock_filter`.
///
/// # Errors
/// `INVAL` when the bytes are no such array; others of seccomp(2).
pub fn load_seccomp(bytes: &[u8]) -> Result<()> {
    let (instructions, rest) = bytes.as_chunks::<8>();
    let length = u16::try_from(instructions.len()).map_err(|_| Errno::INVAL)?;
    if !rest.is_empty() || length == 0 {
        return Err(Errno::INVAL);
    }
    // An aligned copy: the bytes come from a message at any offset.
    let aligned: Vec<u64> = instructions
        .iter()
        .map(|i| u64::from_ne_bytes(*i))
        .collect();
    let program = libc::sock_fprog {
        len: length,
        filter: aligned.as_ptr().cast_mut().cast(),
    };
    // SAFETY: program and the instructions it points to live through the call;
    // the kernel only reads them and checks the program itself.
    checked(unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            0,
            &raw const program,
        )
    })
    .map(drop)
}

/// Takes a descriptor by the number that the program before us in this process has handed
/// on. It is closed at the next execve(2). A number is to be taken once.
///
/// # Errors
/// EBADF when it is not open, or one of the standard streams.
pub fn inherited(fd: RawFd) -> Result<OwnedFd> {
    if fd <= libc::STDERR_FILENO {
        return Err(Errno::BADF);
    }
    // SAFETY: fcntl takes integers, and answers EBADF for what is not open.
    checked(i64::from(unsafe {
        libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC)
    }))?;
    // SAFETY: it is open, and by contract nobody else in this process owns it: the program
    // that did is no more, and what it handed on is taken once.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Replaces this process by a program; comes back only with an error.
pub fn execve(path: &CStr, args: &[CString], env: &[CString]) -> Errno {
    let (args, env) = (pointers(args), pointers(env));
    // SAFETY: a NUL-terminated path and null-terminated arrays of NUL-terminated
    // strings, borrowed through the call; on success nothing of ours is left.
    let result = unsafe { libc::execve(path.as_ptr(), args.as_ptr(), env.as_ptr()) };
    checked(result.into()).err().unwrap_or(Errno::NOEXEC)
}

/// As [`execve`], of an open file, which is closed on the way.
pub fn execve_fd(file: impl AsFd, args: &[CString], env: &[CString]) -> Errno {
    let (args, env) = (pointers(args), pointers(env));
    // SAFETY: as in `execve`; the descriptor is borrowed through the call.
    let result = unsafe {
        libc::syscall(
            libc::SYS_execveat,
            file.as_fd().as_raw_fd(),
            c"".as_ptr(),
            args.as_ptr(),
            env.as_ptr(),
            libc::AT_EMPTY_PATH,
        )
    };
    checked(result).err().unwrap_or(Errno::NOEXEC)
}

fn pointers(list: &[CString]) -> Vec<*const libc::c_char> {
    let end = std::iter::once(std::ptr::null());
    list.iter().map(|s| s.as_ptr()).chain(end).collect()
}

/// Ends this process without running anybody's exit handlers.
pub fn exit_now(code: i32) -> ! {
    // SAFETY: _exit has no precondition and does not return.
    unsafe { libc::_exit(code) }
}

/// Gives free heap pages back to the kernel.
pub fn trim_heap() {
    // SAFETY: malloc_trim has no precondition.
    unsafe { libc::malloc_trim(0) };
}

/// Sets the loopback interface of the current network namespace up.
///
/// # Errors
/// Of socket(2) or ioctl(2).
pub fn loopback_up() -> Result<()> {
    let socket = rustix::net::socket_with(
        rustix::net::AddressFamily::INET,
        rustix::net::SocketType::DGRAM,
        rustix::net::SocketFlags::CLOEXEC,
        None,
    )?;
    // SAFETY: ifreq is integers and bytes; all zero is a valid value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    request.ifr_name[0] = b'l' as libc::c_char;
    request.ifr_name[1] = b'o' as libc::c_char;
    request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
    // SAFETY: SIOCSIFFLAGS reads one ifreq, which lives through the call.
    checked(i64::from(unsafe {
        libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &raw const request)
    }))
    .map(drop)
}
