//! The spawner: makes monitors and nothing else.
//!
//! It is exec'd by the agent with their connection as descriptor 0, lives in an
//! emptied mount namespace, has one thread and ends with the agent. Monitors are
//! forked from it without exec, so it is kept small: what it has touched is what
//! they share.

use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use prost::Message;
use rustix::net::RecvFlags;

use super::step::{At, Failure, Step};
use super::wire::{Ahead, Body, Done, Frame, Spawn};
use super::{kit, monitor};
use crate::sys::{self, Forked, Packet};

/// kubernetes v1.37.2 pkg/kubelet/qos/policy.go has -999 for the kubelet and the
/// runtime: the last to be killed.
const OOM_SCORE_ADJ: &str = "-999";

/// Runs the spawner on descriptor 0.
pub fn main() -> ! {
    let code = match run() {
        Ok(()) => 0,
        Err(_) => 1,
    };
    sys::exit_now(code)
}

fn run() -> rustix::io::Result<()> {
    let agent = rustix::stdio::stdin();
    let Some(first) = sys::receive(agent, RecvFlags::empty())? else {
        return Ok(());
    };
    let seq = decode(&first).map_or(0, |frame| frame.seq);
    let body = match settle(&first.fds) {
        Ok(()) => Body::Done(Done::default()),
        Err(failure) => Body::Failed(failure.into()),
    };
    drop(first);
    sys::send(
        agent,
        &Frame {
            seq,
            body: Some(body),
        }
        .encode_to_vec(),
        &[],
    )?;
    serve(agent)
}

/// Leaves everything of the agent behind.
fn settle(cgroups: &[OwnedFd]) -> Result<(), Failure> {
    let mut keep = vec![0, 1, 2];
    keep.extend(cgroups.iter().map(AsRawFd::as_raw_fd));
    sys::close_all_but(&mut keep).at(Step::CloseDescriptors)?;
    for cgroup in cgroups {
        rustix::io::write(cgroup, b"0").at(Step::JoinCgroup)?;
    }
    // A session of its own: a ^C meant for `lighter play` ends the agent, not the pods.
    rustix::process::setsid().at(Step::Session)?;
    // What we and our children make has the mode that is asked for.
    rustix::process::umask(rustix::fs::Mode::empty());
    // Dead monitors need nobody to wait for them.
    sys::reset_all();
    sys::ignore(libc::SIGCHLD);
    sys::ignore(libc::SIGPIPE);
    sys::unblock_all();
    let _ = rustix::thread::set_name(c"lighter-spawner");
    // EPERM is a host where we lack CAP_SYS_RESOURCE: a worse place, not a wall.
    let _ = std::fs::write("/proc/self/oom_score_adj", OOM_SCORE_ADJ);
    let _ = rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable);
    kit::empty_mount_namespace()?;
    own_standard().at(Step::Streams)
}

/// A /dev/null of ours instead of the host's: what comes later takes no number below 3, and
/// monitors have all three to give to the program that they may become.
fn own_standard() -> rustix::io::Result<()> {
    let null = kit::null()?;
    rustix::stdio::dup2_stdout(&null)?;
    rustix::stdio::dup2_stderr(&null)
}

fn serve(agent: BorrowedFd<'_>) -> rustix::io::Result<()> {
    while let Some(packet) = sys::receive(agent, RecvFlags::empty())? {
        let Some(Frame {
            seq,
            body: Some(body),
        }) = decode(&packet)
        else {
            continue;
        };
        match body {
            Body::Spawn(spec) => spawn(seq, Birth::Pod(&spec), packet.fds),
            Body::Ahead(ahead) => spawn(seq, Birth::Ahead(&ahead), packet.fds),
            _ => {}
        }
    }
    Ok(())
}

fn decode(packet: &Packet) -> Option<Frame> {
    Frame::decode(packet.data.as_slice()).ok()
}

/// What a monitor is forked for.
enum Birth<'a> {
    Pod(&'a Spawn),
    /// A pod that has not come yet.
    Ahead(&'a Ahead),
}

/// Forks one monitor. If that fails the answer goes where the monitor's first one would.
fn spawn(seq: u64, birth: Birth<'_>, fds: Vec<OwnedFd>) {
    let Ok([connection, listener, dir]) = <[OwnedFd; 3]>::try_from(fds) else {
        return;
    };
    let given = monitor::Given {
        connection,
        listener,
        dir,
    };
    match (sys::fork(0), birth) {
        (Ok(Forked::Child), Birth::Pod(spec)) => monitor::main(seq, spec, given),
        (Ok(Forked::Child), Birth::Ahead(ahead)) => monitor::ahead(seq, ahead, given),
        (Ok(Forked::Parent(_)), _) => {}
        (Err(errno), _) => {
            let failure = Failure {
                step: Step::Fork,
                errno,
                context: String::new(),
            };
            let body = Some(Body::Failed(failure.into()));
            let frame = Frame { seq, body };
            let _ = sys::send(&given.connection, &frame.encode_to_vec(), &[]);
        }
    }
}
