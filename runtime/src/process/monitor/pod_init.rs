//! Pid 1 of a pod that shares its PID namespace.
//!
//! Containers can look into it through /proc, so it must hold nothing: a program
//! of a few hundred bytes, in an empty mount namespace, with no descriptors and
//! no capabilities. It reaps, and ends on SIGTERM.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use rustix::fs::{MemfdFlags, SealFlags, XattrFlags};
use rustix::mount::MountAttrFlags;
use rustix::pipe::PipeFlags;
use rustix::thread::{CapabilitySet, CapabilitySets, UnshareFlags};

use super::super::kit;
use super::super::stage::program;
use super::super::step::{At, Failure, Step};
use super::super::wire::Spawn;
use crate::sys::{self, Child, Forked};

/// kubernetes pause images run as 65535:65535 (build/pause/linux/Dockerfile).
const USER: u32 = 65535;

/// What becomes of it.
struct Init<'a> {
    program: OwnedFd,
    /// Closed when it is executed.
    executed: OwnedFd,
    spec: &'a Spawn,
}

/// Starts it, in `userns` where the pod has one.
pub fn start(userns: Option<&OwnedFd>, spec: &Spawn) -> Result<Child, Failure> {
    let (wait, executed) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC).at(Step::PodInit)?;
    let init = Init {
        program: sealed(&program::pod_init(), &spec.mount_label).at(Step::PodInit)?,
        executed,
        spec,
    };
    let child = match userns {
        Some(userns) => in_user_namespace(&init, userns)?,
        None => match sys::fork(libc::CLONE_NEWPID).at(Step::PodInit)? {
            Forked::Child => become_init(&init),
            Forked::Parent(child) => child,
        },
    };
    drop(init);
    // Until then it is our image, which nobody may look into, and so no stage in a user
    // namespace finds its PID namespace.
    let _ = rustix::io::read(&wait, &mut [0u8; 1]);
    Ok(child)
}

/// The PID namespace must belong to the user namespace, so a child enters that
/// first and makes its sibling, whose parent is us.
fn in_user_namespace(init: &Init<'_>, userns: &OwnedFd) -> Result<Child, Failure> {
    let (ours, theirs) = super::super::seqpacket_pair().at(Step::PodInit)?;
    let between = match sys::fork(0).at(Step::PodInit)? {
        Forked::Child => {
            let code = i32::from(make_sibling(init, userns, &theirs).is_err());
            sys::exit_now(code)
        }
        Forked::Parent(child) => child,
    };
    drop(theirs);
    let answer = sys::receive(&ours, rustix::net::RecvFlags::empty()).at(Step::PodInit)?;
    let pid = rustix::process::Pid::from_raw(between.pid);
    let _ = rustix::process::waitpid(pid, rustix::process::WaitOptions::empty());
    answer
        .and_then(|mut packet| {
            let pid = i32::from_ne_bytes(packet.data.try_into().ok()?);
            let pidfd = packet.fds.pop()?;
            Some(Child { pid, pidfd })
        })
        .ok_or(rustix::io::Errno::CHILD)
        .on(Step::PodInit, "in the user namespace")
}

fn make_sibling(init: &Init<'_>, userns: &OwnedFd, answer: &OwnedFd) -> rustix::io::Result<()> {
    sys::join_namespaces(userns, libc::CLONE_NEWUSER)?;
    rustix::thread::set_thread_res_gid(Some(ROOT_GID), Some(ROOT_GID), Some(ROOT_GID))?;
    rustix::thread::set_thread_res_uid(Some(ROOT_UID), Some(ROOT_UID), Some(ROOT_UID))?;
    match sys::fork(libc::CLONE_NEWPID | libc::CLONE_PARENT)? {
        Forked::Child => become_init(init),
        Forked::Parent(child) => {
            sys::send(answer, &child.pid.to_ne_bytes(), &[child.pidfd.as_fd()])
        }
    }
}

const ROOT_UID: rustix::fs::Uid = rustix::fs::Uid::ROOT;
const ROOT_GID: rustix::fs::Gid = rustix::fs::Gid::ROOT;

/// `label` is its SELinux context, if any: a policy names what a container may begin with.
fn sealed(bytes: &[u8], label: &str) -> rustix::io::Result<OwnedFd> {
    let file =
        rustix::fs::memfd_create(c"pod-init", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
    rustix::io::write(&file, bytes)?;
    if !label.is_empty() {
        let (name, flags) = (c"security.selinux", XattrFlags::empty());
        rustix::fs::fsetxattr(&file, name, label.as_bytes(), flags)?;
    }
    rustix::fs::fchmod(&file, rustix::fs::Mode::from_raw_mode(0o555))?;
    rustix::fs::fcntl_add_seals(
        &file,
        SealFlags::SEAL | SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE,
    )?;
    Ok(file)
}

fn become_init(init: &Init<'_>) -> ! {
    let _ = drop_everything(init);
    sys::exit_now(1)
}

fn drop_everything(init: &Init<'_>) -> rustix::io::Result<()> {
    let Init {
        program,
        executed,
        spec,
    } = init;
    let label = spec.mount_label.as_str();
    // While there is a /proc.
    if !spec.process_label.is_empty() {
        kit::security_attribute("exec", &spec.process_label)?;
    }
    kit::unshare(UnshareFlags::NEWNS | UnshareFlags::NEWCGROUP)?;
    let mut options = vec![("mode", "0555"), ("nr_inodes", "2"), ("size", "4k")];
    if !label.is_empty() {
        options.push(("context", label));
    }
    let root = kit::make("tmpfs", &options, MountAttrFlags::MOUNT_ATTR_RDONLY)?;
    kit::attach(root.as_fd(), c"/r")?;
    kit::pivot_into(root.as_fd())?;
    drop(root);
    sys::close_all_but(&mut [program.as_raw_fd(), executed.as_raw_fd()])?;
    // As a stage does.
    sys::reset(libc::SIGPIPE);
    sys::unblock_all();
    rustix::process::setsid()?;
    rustix::thread::set_no_new_privs(true)?;
    let (uid, gid) = (
        rustix::fs::Uid::from_raw(USER),
        rustix::fs::Gid::from_raw(USER),
    );
    rustix::thread::set_thread_groups(&[])?;
    rustix::thread::set_thread_res_gid(Some(gid), Some(gid), Some(gid))?;
    rustix::thread::set_thread_res_uid(Some(uid), Some(uid), Some(uid))?;
    let none = CapabilitySet::empty();
    rustix::thread::set_capabilities(
        None,
        CapabilitySets {
            effective: none,
            permitted: none,
            inheritable: none,
        },
    )?;
    // A monitor that is killed takes the pod's PID namespace with it. Last,
    // because a change of ids forgets it.
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))?;
    Err(sys::execve_fd(program, &[c"pause".to_owned()], &[]))
}
