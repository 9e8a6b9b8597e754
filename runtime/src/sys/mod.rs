//! System calls that no library covers, each with its safety note.
//!
//! What is here takes and gives owned or borrowed file descriptors and typed
//! results; nothing outside knows a raw pointer.

#![allow(unsafe_code)]

mod bpf;
mod fork;
mod mount;
mod packet;
mod process;
mod ring;
mod signal;
mod watch;

pub use bpf::attach_device_filter;
pub use fork::{Child, Forked, fork, fork_into};
pub use mount::{MountAttr, set_mount_attr, unmount_detach};
pub use packet::{Packet, receive, send};
pub use process::{
    close_all_but, execve, execve_fd, exit_now, inherited, join_namespaces, load_seccomp,
    loopback_up, new_session_keyring, send_signal, trim_heap, unshare,
};
pub use ring::{Completion, Ring};
pub use signal::{block_all, ignore, reset, reset_all, signalfd, unblock_all};
pub use watch::watch;

/// Result of a system call made through libc.
fn checked(result: libc::c_long) -> rustix::io::Result<libc::c_long> {
    if result >= 0 {
        return Ok(result);
    }
    // SAFETY: errno is a thread-local integer; reading it has no precondition.
    let errno = unsafe { *libc::__errno_location() };
    Err(rustix::io::Errno::from_raw_os_error(errno))
}
