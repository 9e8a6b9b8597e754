//! Signal dispositions, masks and signalfd(2).

use std::os::fd::{FromRawFd, OwnedFd};

use rustix::io::Result;

use super::checked;

/// Last signal number of Linux (include/uapi/asm-generic/signal.h `_NSIG`).
const SIGNAL_MAX: i32 = 64;

/// Ignores a signal.
pub fn ignore(signal: i32) {
    // SAFETY: SIG_IGN is a valid disposition for any signal; a refusal (SIGKILL)
    // changes nothing.
    unsafe { libc::signal(signal, libc::SIG_IGN) };
}

/// Sets every signal to its default, 32 and 33 as well, which glibc keeps to
/// itself but which a parent may have left ignored.
pub fn reset_all() {
    (1..=SIGNAL_MAX).for_each(reset);
}

/// Sets one signal to its default.
pub fn reset(signal: i32) {
    // The kernel's struct sigaction (include/linux/signal_types.h): handler
    // SIG_DFL, no flags, no restorer, an empty mask.
    let default = [0u64; 4];
    // SAFETY: `default` is as large as the kernel's struct sigaction on
    // 64-bit hosts and outlives the call; nothing is written back; a refusal
    // (SIGKILL, SIGSTOP) changes nothing.
    unsafe {
        libc::syscall(
            libc::SYS_rt_sigaction,
            signal,
            default.as_ptr(),
            std::ptr::null_mut::<u64>(),
            size_of::<u64>(),
        )
    };
}

fn set_mask(how: i32, fill: bool) {
    // SAFETY: an all-zero sigset_t is valid storage for sigfillset/sigemptyset,
    // which initialize it; sigprocmask only reads it.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        if fill {
            libc::sigfillset(&raw mut set);
        } else {
            libc::sigemptyset(&raw mut set);
        }
        libc::sigprocmask(how, &raw const set, std::ptr::null_mut());
    }
}

/// Blocks every signal that can be blocked.
pub fn block_all() {
    set_mask(libc::SIG_SETMASK, true);
}

/// Blocks none.
pub fn unblock_all() {
    set_mask(libc::SIG_SETMASK, false);
}

/// Blocks these signals and makes them readable.
///
/// # Errors
/// Of signalfd(2).
pub fn signalfd(signals: &[i32]) -> Result<OwnedFd> {
    // SAFETY: the set is initialized by sigemptyset before it is read; the
    // descriptor that signalfd returns is new and ours.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        for signal in signals {
            libc::sigaddset(&raw mut set, *signal);
        }
        libc::sigprocmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut());
        let flags = libc::SFD_CLOEXEC | libc::SFD_NONBLOCK;
        let fd = checked(i64::from(libc::signalfd(-1, &raw const set, flags)))?;
        Ok(OwnedFd::from_raw_fd(fd as i32))
    }
}
