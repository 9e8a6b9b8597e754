//! bpf(2).

use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

use rustix::io::{Errno, Result};

use super::checked;

/// include/uapi/linux/bpf.h `enum bpf_cmd`, `bpf_prog_type`, `bpf_attach_type`.
const PROG_LOAD: libc::c_int = 5;
const PROG_ATTACH: libc::c_int = 8;
const PROG_TYPE_CGROUP_DEVICE: u32 = 15;
const CGROUP_DEVICE: u32 = 6;
/// Beside programs of others, all of which have to allow.
const F_ALLOW_MULTI: u32 = 2;

/// The beginning of `union bpf_attr` for `BPF_PROG_LOAD`.
#[repr(C)]
#[derive(Default)]
struct Load {
    prog_type: u32,
    insn_cnt: u32,
    insns: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log_buf: u64,
    kern_version: u32,
    prog_flags: u32,
}

/// The beginning of `union bpf_attr` for `BPF_PROG_ATTACH`.
#[repr(C)]
#[derive(Default)]
struct Attach {
    target_fd: u32,
    attach_bpf_fd: u32,
    attach_type: u32,
    attach_flags: u32,
}

/// Has the kernel ask `program`, an array of `struct bpf_insn`, before a process
/// in the cgroup uses a device. It stays for as long as the cgroup.
///
/// # Errors
/// `INVAL` when the bytes are no such array; others of bpf(2).
pub fn attach_device_filter(cgroup: impl AsFd, program: &[u8]) -> Result<()> {
    let (instructions, rest) = program.as_chunks::<8>();
    let count = u32::try_from(instructions.len()).map_err(|_| Errno::INVAL)?;
    if !rest.is_empty() || count == 0 {
        return Err(Errno::INVAL);
    }
    // An aligned copy.
    let aligned: Vec<u64> = instructions
        .iter()
        .map(|i| u64::from_ne_bytes(*i))
        .collect();
    let load = Load {
        prog_type: PROG_TYPE_CGROUP_DEVICE,
        insn_cnt: count,
        insns: aligned.as_ptr() as u64,
        license: c"Apache-2.0".as_ptr() as u64,
        ..Load::default()
    };
    // SAFETY: instructions and licence, to which `load` points, live through the
    // call; the kernel reads `count` instructions and checks the program itself.
    let loaded = unsafe { bpf(PROG_LOAD, &raw const load) }?;
    // SAFETY: the kernel has just made this descriptor for us alone.
    let loaded = unsafe { OwnedFd::from_raw_fd(loaded) };
    let attach = Attach {
        target_fd: cgroup.as_fd().as_raw_fd().cast_unsigned(),
        attach_bpf_fd: loaded.as_raw_fd().cast_unsigned(),
        attach_type: CGROUP_DEVICE,
        attach_flags: F_ALLOW_MULTI,
    };
    // SAFETY: `attach` holds integers and two descriptors that are borrowed
    // through the call.
    unsafe { bpf(PROG_ATTACH, &raw const attach) }.map(drop)
}

/// # Safety
/// `attr` is what the command reads, and all it points to is valid for reads.
unsafe fn bpf<T>(command: libc::c_int, attr: *const T) -> Result<libc::c_int> {
    // SAFETY: by the caller's word; the size is that of what `attr` points to.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, attr, size_of::<T>()) };
    checked(result).map(|fd| fd as libc::c_int)
}
