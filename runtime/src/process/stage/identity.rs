//! Who a process is and what it may do.

use std::os::fd::BorrowedFd;

use rustix::fs::{FileType, Gid, Mode, Uid};
use rustix::io::Errno;
use rustix::process::{Resource, Rlimit};
use rustix::thread::{CapabilitySet, CapabilitySets};

use super::super::kit;
use super::super::plan::{Capabilities, Process};
use super::super::step::{At, Failure, Step};
use super::path;
use crate::sys;

type Answer = Result<(), Failure>;

/// Highest capability this kernel may know; asking for one more is `INVAL`.
const CAPABILITIES_MAX: u32 = 63;

pub fn oom_score_adj(process: &Process) -> Answer {
    // Never that of the monitor, which is the last to be killed.
    let value = process.oom_score_adj.unwrap_or(0);
    match std::fs::write("/proc/self/oom_score_adj", value.to_string()) {
        // Lowering takes CAP_SYS_RESOURCE, which a nested host may lack.
        Err(error) if error.raw_os_error() == Some(libc::EACCES) => Ok(()),
        Err(error) if error.raw_os_error() == Some(libc::EPERM) => Ok(()),
        other => other.on(Step::OomScoreAdj, value),
    }
}

/// Labels of security modules, for the next execve; they are kept over a fork.
pub fn labels(process: &Process) -> Answer {
    if !process.selinux.is_empty() {
        let selinux = process.selinux.as_str();
        kit::security_attribute("exec", selinux).on(Step::Label, selinux)?;
        // Also of the session keyring, which is made next.
        let _ = kit::security_attribute("keycreate", selinux);
    }
    if !process.apparmor.is_empty() {
        let value = format!("exec {}", process.apparmor);
        // The file of its own came with Linux 5.8's stacking.
        kit::security_attribute("apparmor/exec", &value)
            .or_else(|_| kit::security_attribute("exec", &value))
            .on(Step::Label, &process.apparmor)?;
    }
    Ok(())
}

pub fn rlimits(process: &Process) -> Answer {
    for limit in &process.rlimits {
        let Some(resource) = resource(limit.resource) else {
            return Err(Errno::INVAL).on(Step::Rlimit, limit.resource);
        };
        let bound = |value| (value != u64::MAX).then_some(value);
        let new = Rlimit {
            current: bound(limit.soft),
            maximum: bound(limit.hard),
        };
        rustix::process::setrlimit(resource, new).on(Step::Rlimit, format!("{resource:?}"))?;
    }
    Ok(())
}

/// `RLIMIT_*` of include/uapi/asm-generic/resource.h.
fn resource(number: u32) -> Option<Resource> {
    const ALL: [Resource; 16] = [
        Resource::Cpu,
        Resource::Fsize,
        Resource::Data,
        Resource::Stack,
        Resource::Core,
        Resource::Rss,
        Resource::Nproc,
        Resource::Nofile,
        Resource::Memlock,
        Resource::As,
        Resource::Locks,
        Resource::Sigpending,
        Resource::Msgqueue,
        Resource::Nice,
        Resource::Rtprio,
        Resource::Rttime,
    ];
    ALL.get(number as usize).copied()
}

/// Gives pipes and terminals to the user, who may want to open them again as
/// /dev/stdout.
pub fn own_streams(process: &Process, streams: [BorrowedFd<'_>; 3]) -> Answer {
    for stream in streams {
        let kind = path::kind(stream).at(Step::Streams)?;
        let null =
            || rustix::fs::fstat(stream).is_ok_and(|s| s.st_rdev == rustix::fs::makedev(1, 3));
        if kind == FileType::Fifo || (kind == FileType::CharacterDevice && !null()) {
            match rustix::fs::fchown(stream, Some(Uid::from_raw(process.uid)), None) {
                // An owner that the user namespace does not map.
                Ok(()) | Err(Errno::INVAL | Errno::PERM) => {}
                Err(errno) => return Err(errno).at(Step::Streams),
            }
        }
    }
    Ok(())
}

/// Becomes the user. Answers whether the seccomp filter is still to be loaded:
/// with no_new_privs it may come last, without it has to come before the
/// capability that loading takes is dropped.
pub fn take(process: &Process) -> Result<bool, Failure> {
    let caps = process.capabilities.unwrap_or_default();
    let groups: Vec<_> = process.groups.iter().copied().map(Gid::from_raw).collect();
    rustix::thread::set_thread_groups(&groups).on(Step::SetUser, "groups")?;
    let gid = Some(Gid::from_raw(process.gid));
    rustix::thread::set_thread_res_gid(gid, gid, gid).on(Step::SetUser, process.gid)?;
    drop_bounding(caps)?;
    // As root first: the directory may be one that only root may enter ...
    let early = enter(process);
    let filter = !process.seccomp.is_empty();
    if filter && !process.no_new_privileges {
        seccomp(process)?;
    }
    rustix::thread::set_keep_capabilities(true).at(Step::Capabilities)?;
    let uid = Some(Uid::from_raw(process.uid));
    rustix::thread::set_thread_res_uid(uid, uid, uid).on(Step::SetUser, process.uid)?;
    set_capabilities(caps)?;
    // ... or one on NFS that root may not.
    if early.is_err() {
        enter(process)?;
    }
    rustix::process::umask(Mode::from_raw_mode(process.umask));
    if process.no_new_privileges {
        rustix::thread::set_no_new_privs(true).at(Step::NoNewPrivileges)?;
    }
    Ok(filter && process.no_new_privileges)
}

/// Changes to the working directory, which must be in the container's root: one
/// reached through a leaked descriptor would not be (CVE-2024-21626).
fn enter(process: &Process) -> Answer {
    let cwd = if process.cwd.is_empty() {
        "/"
    } else {
        &process.cwd
    };
    rustix::process::chdir(cwd).on(Step::WorkingDirectory, cwd)?;
    let real = rustix::process::getcwd(Vec::new()).on(Step::WorkingDirectory, cwd)?;
    if real.as_bytes().starts_with(b"/") {
        Ok(())
    } else {
        Err(Errno::XDEV).on(Step::WorkingDirectory, cwd)
    }
}

pub fn seccomp(process: &Process) -> Answer {
    sys::load_seccomp(&process.seccomp).at(Step::Seccomp)
}

fn drop_bounding(caps: Capabilities) -> Answer {
    for number in 0..=CAPABILITIES_MAX {
        let one = CapabilitySet::from_bits_retain(1 << number);
        if caps.bounding & (1 << number) != 0 {
            continue;
        }
        match rustix::thread::remove_capability_from_bounding_set(one) {
            Ok(()) => {}
            // Past the last capability of this kernel.
            Err(Errno::INVAL) => break,
            Err(errno) => return Err(errno).on(Step::Capabilities, "bounding"),
        }
    }
    Ok(())
}

/// No set can exceed what we have ourselves: a nested host lacks some.
fn set_capabilities(caps: Capabilities) -> Answer {
    let ours = rustix::thread::capabilities(None).at(Step::Capabilities)?;
    let most = ours.permitted.bits();
    let permitted = caps.permitted & most;
    // Inheritable capabilities leak into files' (CVE-2022-29162): only as many
    // as ambient ones need.
    let ambient = caps.ambient & permitted;
    let sets = CapabilitySets {
        effective: CapabilitySet::from_bits_retain(caps.effective & permitted),
        permitted: CapabilitySet::from_bits_retain(permitted),
        inheritable: CapabilitySet::from_bits_retain(ambient),
    };
    rustix::thread::set_capabilities(None, sets).at(Step::Capabilities)?;
    rustix::thread::clear_ambient_capability_set().on(Step::Capabilities, "ambient")?;
    for number in (0..=CAPABILITIES_MAX).filter(|n| ambient & (1 << n) != 0) {
        let one = CapabilitySet::from_bits_retain(1 << number);
        rustix::thread::configure_capability_in_ambient_set(one, true)
            .on(Step::Capabilities, "ambient")?;
    }
    Ok(())
}
