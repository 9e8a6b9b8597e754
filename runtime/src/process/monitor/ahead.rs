//! A monitor that waits for its pod, in the namespaces that most pods have: most of what a
//! sandbox takes is done when the pod comes.

use std::os::fd::{AsFd, OwnedFd};

use prost::Message;
use rustix::net::{AddressFamily, RecvFlags, SocketFlags, SocketType, socket_with};
use rustix::thread::UnshareFlags;

use super::super::kit;
use super::super::stage::MadeAhead;
use super::super::step::{At, Failure, Step};
use super::super::wire::{Ahead, Body, Done, Frame};
use super::{Given, Waited, become_monitor, leave_spawner, mark};
use crate::sys;

/// Becomes a monitor when a pod comes. Until then it ends with the agent that had it made:
/// nobody else knows of it, and it listens to nobody.
pub fn main(seq: u64, ahead: &Ahead, given: Given) -> ! {
    let netns = match make(&given) {
        Ok([netns, route]) => {
            let fds = [netns.as_fd(), route.as_fd()];
            tell(seq, &given, Body::Done(Done::default()), &fds);
            netns
        }
        Err(failure) => {
            tell(seq, &given, Body::Failed(failure.into()), &[]);
            sys::exit_now(1)
        }
    };
    // After the answer, since the network's part takes as long. What can't be had is the
    // container's to tell.
    let mounts = MadeAhead::make(&ahead.plan).unwrap_or_default();
    let Ok(Some(packet)) = sys::receive(&given.connection, RecvFlags::empty()) else {
        sys::exit_now(0)
    };
    let begun = mark("spec read");
    match Frame::decode(packet.data.as_slice()) {
        Ok(Frame {
            seq,
            body: Some(Body::Spawn(spec)),
        }) => {
            let waited = Waited { netns, mounts };
            become_monitor(seq, &spec, given, Ok((begun, Some(waited))))
        }
        _ => sys::exit_now(1),
    }
}

fn tell(seq: u64, given: &Given, body: Body, fds: &[std::os::fd::BorrowedFd<'_>]) {
    let body = Some(body);
    let frame = Frame { seq, body }.encode_to_vec();
    if sys::send(&given.connection, &frame, fds).is_err() {
        sys::exit_now(0);
    }
}

/// The network namespace, its loopback up, and a NETLINK_ROUTE socket in it.
fn make(given: &Given) -> Result<[OwnedFd; 2], Failure> {
    leave_spawner(&mut given.numbers())?;
    let _ = rustix::thread::set_name(c"lighter-ahead");
    let namespaces =
        UnshareFlags::NEWNET | UnshareFlags::NEWIPC | UnshareFlags::NEWUTS | UnshareFlags::NEWNS;
    kit::unshare(namespaces).at(Step::UnshareNamespaces)?;
    sys::loopback_up().at(Step::Loopback)?;
    let netns = kit::open_namespace("net").on(Step::UnshareNamespaces, "net")?;
    let (family, flags) = (AddressFamily::NETLINK, SocketFlags::CLOEXEC);
    // NETLINK_ROUTE is 0, the protocol that a socket has when none is named.
    let route = socket_with(family, SocketType::RAW, flags, None).at(Step::OpenSocket)?;
    Ok([netns, route])
}
