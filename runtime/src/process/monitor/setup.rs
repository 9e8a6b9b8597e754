//! The pod's own namespaces, made once, before the first container.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Result;
use rustix::mount::MountAttrFlags;
use rustix::thread::UnshareFlags;

use super::super::kit;
use super::super::step::{At, Failure, Step};
use super::super::wire::{IdMap, Spawn};
use super::pod_init;
use crate::sys::{self, Child, Forked};

/// What a sandbox is made of, by descriptor.
pub struct Namespaces {
    pub netns: OwnedFd,
    pub userns: Option<OwnedFd>,
    /// Pid 1 of the pod's PID namespace.
    pub init: Option<Child>,
}

/// Makes and enters everything that the spec asks for. With `netns` the namespaces are made:
/// network, IPC, UTS and mounts, all but a user namespace.
pub fn namespaces(
    spec: &Spawn,
    netns: Option<OwnedFd>,
) -> std::result::Result<Namespaces, Failure> {
    let userns = match &netns {
        Some(_) => None,
        None => unshare(spec)?,
    };
    if let (true, Some(hostname)) = (spec.uts, &spec.hostname) {
        rustix::system::sethostname(hostname.as_bytes()).on(Step::Hostname, hostname)?;
    }
    if spec.network && netns.is_none() {
        sys::loopback_up().at(Step::Loopback)?;
    }
    sysctls(spec)?;
    if spec.ipc {
        shared_memory(spec.shm_size, &spec.mount_label).at(Step::SharedMemory)?;
    }
    if userns.is_some() {
        visible_sysfs().on(Step::MakeMount, kit::SYS)?;
    }
    let netns = match netns {
        Some(netns) => netns,
        None => kit::open_namespace("net").on(Step::UnshareNamespaces, "net")?,
    };
    let init = match spec.pid {
        true => Some(pod_init::start(userns.as_ref(), spec)?),
        false => None,
    };
    Ok(Namespaces {
        netns,
        userns,
        init,
    })
}

fn unshare(spec: &Spawn) -> std::result::Result<Option<OwnedFd>, Failure> {
    let wanted = wanted(spec);
    if spec.uids.is_empty() {
        kit::unshare(wanted | UnshareFlags::NEWNS).at(Step::UnshareNamespaces)?;
        return Ok(None);
    }
    kit::unshare(UnshareFlags::NEWNS).at(Step::UnshareNamespaces)?;
    let made = user_namespace(spec, wanted).at(Step::UserNamespace)?;
    Ok(Some(made))
}

fn wanted(spec: &Spawn) -> UnshareFlags {
    let mut flags = UnshareFlags::empty();
    flags.set(UnshareFlags::NEWNET, spec.network);
    flags.set(UnshareFlags::NEWIPC, spec.ipc);
    flags.set(UnshareFlags::NEWUTS, spec.uts);
    flags
}

fn open_ns(path: &str) -> Result<OwnedFd> {
    rustix::fs::openat(CWD, path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
}

/// A child makes the user namespace and, inside it, the others, so that they
/// belong to it (else sysfs, mqueue, sysctls and sethostname fail in the pod); we
/// enter the others and stay the host's root.
fn user_namespace(spec: &Spawn, wanted: UnshareFlags) -> Result<OwnedFd> {
    let flags = wanted.bits() as i32;
    let (wait, go) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
    let child = match sys::fork(libc::CLONE_NEWUSER | flags)? {
        Forked::Child => {
            let _ = sys::close_all_but(&mut [wait.as_raw_fd()]);
            let _ = rustix::io::read(&wait, &mut [0u8; 1]);
            sys::exit_now(0)
        }
        Forked::Parent(child) => child,
    };
    let entered = enter(spec, &child, flags);
    drop(go);
    let pid = rustix::process::Pid::from_raw(child.pid);
    let _ = rustix::process::waitpid(pid, rustix::process::WaitOptions::empty());
    entered
}

fn enter(spec: &Spawn, child: &Child, flags: i32) -> Result<OwnedFd> {
    let pid = child.pid;
    write(&format!("/proc/{pid}/uid_map"), &map(&spec.uids))?;
    write(&format!("/proc/{pid}/gid_map"), &map(&spec.gids))?;
    let userns = open_ns(&format!("/proc/{pid}/ns/user"))?;
    if flags != 0 {
        sys::join_namespaces(&child.pidfd, flags)?;
    }
    Ok(userns)
}

fn map(maps: &[IdMap]) -> String {
    maps.iter()
        .map(|m| format!("{} {} {}\n", m.container, m.host, m.length))
        .collect()
}

/// One write: maps and sysctls are taken whole.
fn write(path: &str, value: &str) -> Result<()> {
    let file = rustix::fs::openat(CWD, path, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())?;
    rustix::io::write(&file, value.as_bytes()).map(drop)
}

fn sysctls(spec: &Spawn) -> std::result::Result<(), Failure> {
    for sysctl in &spec.sysctls {
        let path = format!("/proc/sys/{}", path_of(&sysctl.key));
        write(&path, &sysctl.value).on(Step::Sysctl, &sysctl.key)?;
    }
    Ok(())
}

/// A sysctl's path: dots are slashes, but with a slash in the name it is the
/// other way round (sysctl(8): `net/ipv4/conf/eth0.1/forwarding`).
fn path_of(name: &str) -> String {
    let first = name.find(['.', '/']).map(|at| &name[at..=at]);
    if first == Some("/") {
        return name.to_owned();
    }
    name.chars()
        .map(|c| match c {
            '.' => '/',
            '/' => '.',
            other => other,
        })
        .collect()
}

fn shared_memory(size: u64, label: &str) -> Result<()> {
    let size = size.to_string();
    let mut options = vec![("mode", "1777")];
    if size != "0" {
        options.push(("size", &size));
    }
    if !label.is_empty() {
        options.push(("context", label));
    }
    let mount = kit::make("tmpfs", &options, kit::PLAIN)?;
    kit::attach(mount.as_fd(), c"/shm")
}

/// The kernel lets a user namespace mount a sysfs only where it sees one already.
fn visible_sysfs() -> Result<()> {
    let mount = kit::make("sysfs", &[], kit::PLAIN | MountAttrFlags::MOUNT_ATTR_RDONLY)?;
    kit::attach(mount.as_fd(), c"/sys")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sysctl_path_keeps_dots_of_interfaces_when_the_name_has_slashes() {
        assert_eq!(path_of("net.ipv4.ip_forward"), "net/ipv4/ip_forward");
        assert_eq!(
            path_of("net/ipv4/conf/eth0.1/forwarding"),
            "net/ipv4/conf/eth0.1/forwarding"
        );
        assert_eq!(
            path_of("net.ipv4.conf.eth0/1.forwarding"),
            "net/ipv4/conf/eth0.1/forwarding"
        );
    }

    #[test]
    fn map_has_a_line_for_each_run_when_there_are_several() {
        let run = |container, host, length| IdMap {
            container,
            host,
            length,
        };
        let text = map(&[run(0, 65536, 65536), run(70000, 1, 2)]);
        assert_eq!(text, "0 65536 65536\n70000 1 2\n");
    }
}
