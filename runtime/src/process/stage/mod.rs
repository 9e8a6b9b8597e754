//! The stage: sets one container or exec up, then becomes it.
//!
//! It is forked from the monitor and has one thread. Its two lists of steps are
//! [`create`] and [`exec`]; the order of every step is said where it stands.
//!
//! The rule that shapes both: whoever is in a container's PID namespace can be
//! looked into by the container's root (/proc/PID/{root,fd,mem}). So a stage that
//! joins a namespace in which others live does all its work outside, drops every
//! descriptor of the host, and only then makes the sibling that is inside.

mod device;
mod identity;
mod made_ahead;
mod path;
mod procfs;
pub mod program;
mod rootfs;
mod terminal;

use std::convert::Infallible;
use std::ffi::CString;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use prost::Message;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::thread::UnshareFlags;

use super::kit;
use super::plan::{Plan, Process};
use super::step::{At, Failure, Step};
use super::wire::{Body, Done, Frame};
use crate::sys::{self, Forked};

pub use made_ahead::MadeAhead;

/// Where the first process of a container lives.
#[derive(Clone, Copy)]
pub enum PidNamespace<'a> {
    /// The stage is already pid 1 of it, or makes its sibling so when the pod
    /// has a user namespace.
    Own,
    Node,
    /// That of this process, whose pid is given too.
    Of(BorrowedFd<'a>, i32),
}

/// What the stage is for.
#[derive(Clone, Copy)]
pub enum Purpose<'a> {
    Create {
        pid: PidNamespace<'a>,
        userns: Option<BorrowedFd<'a>>,
    },
    Exec {
        /// The container's first process.
        container: BorrowedFd<'a>,
        /// It has a PID namespace that is not ours.
        pid: bool,
        /// It has a user namespace.
        user: bool,
    },
}

/// Everything a stage is given.
pub struct Stage<'a> {
    pub purpose: Purpose<'a>,
    /// An encoded [`Plan`].
    pub plan: &'a [u8],
    /// The plan's descriptors.
    pub fds: &'a [OwnedFd],
    /// stdin, stdout, stderr; none with a terminal.
    pub streams: Option<[BorrowedFd<'a>; 3]>,
    /// To the monitor.
    pub channel: BorrowedFd<'a>,
    /// Position of the cgroup that it is to be born in.
    pub cgroup: Option<u32>,
    /// It was born there.
    pub born: bool,
    /// Of its pod's first container.
    pub ahead: &'a MadeAhead,
}

/// Runs a stage in a process that was forked for it.
pub fn main(stage: &Stage<'_>) -> ! {
    let Err(failure) = run(stage);
    let body = Some(Body::Failed(failure.into()));
    let _ = sys::send(stage.channel, &Frame { seq: 0, body }.encode_to_vec(), &[]);
    sys::exit_now(FAILED)
}

/// Exit code of a stage that failed; nobody but the monitor sees it.
const FAILED: i32 = 70;

fn run(stage: &Stage<'_>) -> Result<Infallible, Failure> {
    let plan = Plan::decode(stage.plan).map_err(|error| Failure {
        step: Step::ReadPlan,
        errno: Errno::BADMSG,
        context: error.to_string(),
    })?;
    let process = plan
        .process
        .as_ref()
        .ok_or(Errno::BADMSG)
        .at(Step::ReadPlan)?;
    // Nothing that is made below shall have fewer rights than asked for.
    rustix::process::umask(Mode::empty());
    // All that a monitor ignores; it has no handlers.
    sys::reset(libc::SIGPIPE);
    sys::unblock_all();
    match stage.purpose {
        Purpose::Create { pid, userns } => create(stage, &plan, process, pid, userns),
        Purpose::Exec {
            container,
            pid,
            user,
        } => exec(stage, process, container, pid, user),
    }
}

fn create(
    stage: &Stage<'_>,
    plan: &Plan,
    process: &Process,
    pid: PidNamespace<'_>,
    userns: Option<BorrowedFd<'_>>,
) -> Result<Infallible, Failure> {
    // 1. What takes the host's root: cgroups first, so that all else is accounted
    //    (and a cgroup namespace is born in the right place).
    as_host_root(stage, process)?;
    // 2. Namespaces; from here a user namespace's root.
    if let Some(userns) = userns {
        // Nodes that root of a user namespace may not make.
        device::provide(&plan.devices)?;
        enter_user_namespace(userns)?;
        if matches!(pid, PidNamespace::Own) {
            continue_as_sibling(stage, libc::CLONE_NEWPID)?;
        }
    }
    let mut flags = UnshareFlags::NEWNS;
    flags.set(UnshareFlags::NEWCGROUP, plan.private_cgroup);
    kit::unshare(flags).at(Step::UnshareNamespaces)?;
    // 3. The mount tree, from outside: the old root is still there to take from.
    let root = rootfs::Rootfs::attach(stage, plan, pid, userns.is_some())?;
    root.mounts()?;
    root.devices()?;
    let terminal = match process.terminal {
        true => Some(terminal::open(root.fd(), process)?),
        false => None,
    };
    if let Some(terminal) = &terminal {
        root.console(&terminal.slave)?;
    }
    // 4. Masks last of the mounts, since they cover them; then read-only.
    root.masks()?;
    root.finish()?;
    // 5. Inside.
    kit::pivot_into(root.fd()).at(Step::PivotRoot)?;
    root.propagation()?;
    // Owners go before what they own is closed under them, below.
    drop(root);
    settle_streams(stage, process, terminal.as_ref())?;
    // A session dies with its leader: one who goes on as a sibling starts it there.
    if !matches!(pid, PidNamespace::Of(..)) {
        lead_session(process)?;
    }
    // 6. Created: wait for the word, with nothing open but the streams.
    let target = match pid {
        PidNamespace::Of(target, _) => Some(target),
        PidNamespace::Own | PidNamespace::Node => None,
    };
    report(stage, terminal.map(|t| t.master))?;
    keep_only(stage, target)?;
    wait_for_start(stage)?;
    become_process(stage, process, target)
}

fn exec(
    stage: &Stage<'_>,
    process: &Process,
    container: BorrowedFd<'_>,
    pid: bool,
    user: bool,
) -> Result<Infallible, Failure> {
    as_host_root(stage, process)?;
    let mut flags = libc::CLONE_NEWNS | libc::CLONE_NEWCGROUP;
    if user {
        flags |= libc::CLONE_NEWUSER;
    }
    sys::join_namespaces(container, flags).at(Step::JoinNamespaces)?;
    if user {
        become_root()?;
    }
    let terminal = match process.terminal {
        true => {
            let root = path::open_root().on(Step::OpenTerminal, "/")?;
            Some(terminal::open(root.as_fd(), process)?)
        }
        false => None,
    };
    settle_streams(stage, process, terminal.as_ref())?;
    if !pid {
        lead_session(process)?;
    }
    let target = pid.then_some(container);
    // Who goes on as a sibling says so, which says as well that all is set up.
    if target.is_none() || terminal.is_some() {
        report(stage, terminal.map(|t| t.master))?;
    }
    keep_only(stage, target)?;
    become_process(stage, process, target)
}

fn as_host_root(stage: &Stage<'_>, process: &Process) -> Result<(), Failure> {
    for cgroup in &process.cgroups {
        let file = fd(stage, *cgroup, Step::JoinCgroup)?;
        rustix::io::write(file, b"0").at(Step::JoinCgroup)?;
    }
    if let Some(directory) = process.cgroup_v2
        && !stage.born
    {
        let directory = fd(stage, directory, Step::JoinCgroup)?;
        let flags = OFlags::WRONLY | OFlags::CLOEXEC;
        let file = rustix::fs::openat(directory, "cgroup.procs", flags, Mode::empty());
        rustix::io::write(file.at(Step::JoinCgroup)?, b"0").at(Step::JoinCgroup)?;
    }
    identity::oom_score_adj(process)?;
    identity::labels(process)?;
    identity::rlimits(process)?;
    match sys::new_session_keyring() {
        // A kernel without keys, or a sandbox around us that forbids them.
        Ok(()) | Err(Errno::NOSYS | Errno::PERM | Errno::ACCESS) => Ok(()),
        Err(errno) => Err(errno).at(Step::Keyring),
    }
}

/// The descriptor at a position of the plan's list.
fn fd<'a>(stage: &Stage<'a>, position: u32, step: Step) -> Result<BorrowedFd<'a>, Failure> {
    let found = stage.fds.get(position as usize).ok_or(Errno::BADF);
    found.on(step, position).map(AsFd::as_fd)
}

fn enter_user_namespace(userns: BorrowedFd<'_>) -> Result<(), Failure> {
    sys::join_namespaces(userns, libc::CLONE_NEWUSER).at(Step::JoinUserNamespace)?;
    become_root()
}

fn become_root() -> Result<(), Failure> {
    use rustix::fs::{Gid, Uid};
    rustix::thread::set_thread_groups(&[]).at(Step::JoinUserNamespace)?;
    let (uid, gid) = (Uid::ROOT, Gid::ROOT);
    rustix::thread::set_thread_res_gid(Some(gid), Some(gid), Some(gid))
        .at(Step::JoinUserNamespace)?;
    rustix::thread::set_thread_res_uid(Some(uid), Some(uid), Some(uid)).at(Step::JoinUserNamespace)
}

/// Goes on in a sibling: a child of the monitor, so that it is the one to reap.
fn continue_as_sibling(stage: &Stage<'_>, flags: i32) -> Result<(), Failure> {
    match sys::fork(libc::CLONE_PARENT | flags).at(Step::Fork)? {
        Forked::Child => Ok(()),
        Forked::Parent(sibling) => {
            let done = Done {
                pid: sibling.pid,
                ..Done::default()
            };
            let frame = Frame {
                seq: 0,
                body: Some(Body::Done(done)),
            };
            let sent = sys::send(
                stage.channel,
                &frame.encode_to_vec(),
                &[sibling.pidfd.as_fd()],
            );
            sys::exit_now(i32::from(sent.is_err()));
        }
    }
}

/// A session of our own, with the terminal that is our stdin.
fn lead_session(process: &Process) -> Result<(), Failure> {
    rustix::process::setsid().at(Step::Session)?;
    if process.terminal {
        let terminal = rustix::stdio::stdin();
        rustix::process::ioctl_tiocsctty(terminal).at(Step::OpenTerminal)?;
    }
    Ok(())
}

/// Makes the streams 0, 1 and 2.
fn settle_streams(
    stage: &Stage<'_>,
    process: &Process,
    terminal: Option<&terminal::Terminal>,
) -> Result<(), Failure> {
    let streams = match (terminal, stage.streams) {
        (Some(terminal), _) => [terminal.slave.as_fd(); 3],
        (None, Some(streams)) => streams,
        (None, None) => return Err(Errno::BADF).at(Step::Streams),
    };
    identity::own_streams(process, streams)?;
    // A /dev/null of ours would be one that the container's root could chmod.
    let null = own_null(streams[0]);
    let streams = match &null {
        Some(null) => [null.as_fd(), streams[1], streams[2]],
        None => streams,
    };
    rustix::stdio::dup2_stdin(streams[0]).at(Step::Streams)?;
    rustix::stdio::dup2_stdout(streams[1]).at(Step::Streams)?;
    rustix::stdio::dup2_stderr(streams[2]).at(Step::Streams)
}

/// The container's own /dev/null, if that is what its stdin is to be and it has a
/// genuine one.
fn own_null(stdin: BorrowedFd<'_>) -> Option<OwnedFd> {
    let device = |fd: BorrowedFd<'_>| {
        let stat = rustix::fs::fstat(fd).ok()?;
        let kind = rustix::fs::FileType::from_raw_mode(stat.st_mode);
        (kind == rustix::fs::FileType::CharacterDevice).then_some(stat.st_rdev)
    };
    let null = rustix::fs::makedev(1, 3);
    if device(stdin) != Some(null) {
        return None;
    }
    let root = path::open_root().ok()?;
    let resolve = rustix::fs::ResolveFlags::IN_ROOT | rustix::fs::ResolveFlags::NO_SYMLINKS;
    let found = path::open_with(root.as_fd(), "/dev/null", OFlags::PATH, resolve).ok()?;
    if device(found.as_fd()) != Some(null) {
        return None;
    }
    let flags = OFlags::RDWR;
    path::open_with(root.as_fd(), "/dev/null", flags, resolve).ok()
}

fn report(stage: &Stage<'_>, master: Option<OwnedFd>) -> Result<(), Failure> {
    let frame = Frame {
        seq: 0,
        body: Some(Body::Done(Done::default())),
    };
    let fds: Vec<_> = master.iter().map(AsFd::as_fd).collect();
    sys::send(stage.channel, &frame.encode_to_vec(), &fds).at(Step::StageDied)
}

fn keep_only(stage: &Stage<'_>, target: Option<BorrowedFd<'_>>) -> Result<(), Failure> {
    let mut keep = vec![0, 1, 2, stage.channel.as_raw_fd()];
    keep.extend(target.iter().map(AsRawFd::as_raw_fd));
    sys::close_all_but(&mut keep).at(Step::CloseDescriptors)
}

fn wait_for_start(stage: &Stage<'_>) -> Result<(), Failure> {
    match sys::receive(stage.channel, rustix::net::RecvFlags::empty()) {
        Ok(Some(_)) => Ok(()),
        // The monitor is gone or has given us up: nobody is left to tell.
        Ok(None) | Err(_) => sys::exit_now(FAILED),
    }
}

/// From here nothing can be undone: the process is given its identity, enters
/// the PID namespace and is executed.
fn become_process(
    stage: &Stage<'_>,
    process: &Process,
    target: Option<BorrowedFd<'_>>,
) -> Result<Infallible, Failure> {
    if let Some(target) = target {
        // Takes effect for children only; we stay outside, and tell no one
        // inside anything: not by ptrace, since we are not dumpable.
        let _ =
            rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable);
        sys::join_namespaces(target, libc::CLONE_NEWPID).at(Step::JoinPidNamespace)?;
        let mut keep = vec![0, 1, 2, stage.channel.as_raw_fd()];
        sys::close_all_but(&mut keep).at(Step::CloseDescriptors)?;
    }
    let command = Command::of(process)?;
    let late_filter = identity::take(process)?;
    if target.is_some() {
        continue_as_sibling(stage, 0)?;
        lead_session(process)?;
    }
    if late_filter {
        identity::seccomp(process)?;
    }
    command.execute()
}

/// The command, with all memory it needs.
struct Command {
    candidates: Vec<CString>,
    args: Vec<CString>,
    env: Vec<CString>,
}

/// Where commands are looked for when the environment has no PATH: as runc's
/// libcontainer and the shells do.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

impl Command {
    fn of(process: &Process) -> Result<Self, Failure> {
        let name = process.args.first().ok_or(Errno::INVAL).at(Step::Execute)?;
        let search = process.env.iter().find_map(|e| e.strip_prefix("PATH="));
        let cstrings = |list: &[String]| -> Result<Vec<CString>, Failure> {
            list.iter()
                .map(|s| {
                    CString::new(s.as_str())
                        .map_err(|_| Errno::INVAL)
                        .on(Step::Execute, s)
                })
                .collect()
        };
        Ok(Self {
            candidates: cstrings(&candidates(name, search.unwrap_or(DEFAULT_PATH)))?,
            args: cstrings(&process.args)?,
            env: cstrings(&process.env)?,
        })
    }

    fn execute(&self) -> Result<Infallible, Failure> {
        let mut worst = Errno::NOENT;
        for candidate in &self.candidates {
            match sys::execve(candidate, &self.args, &self.env) {
                Errno::NOENT | Errno::NOTDIR => {}
                Errno::ACCESS => worst = Errno::ACCESS,
                errno => {
                    worst = errno;
                    break;
                }
            }
        }
        let name = self
            .args
            .first()
            .map(|a| a.to_string_lossy())
            .unwrap_or_default();
        Err(worst).on(Step::Execute, name)
    }
}

fn candidates(name: &str, path: &str) -> Vec<String> {
    if name.is_empty() || name.contains('/') {
        return vec![name.to_owned()];
    }
    // An empty element would be the working directory: never looked into, since
    // what is there may be anybody's.
    let directories = path.split(':').filter(|dir| !dir.is_empty());
    directories.map(|dir| format!("{dir}/{name}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn command_is_looked_for_along_path_when_it_has_no_slash() {
        assert_eq!(
            candidates("sh", "/bin::/usr/bin"),
            ["/bin/sh", "/usr/bin/sh"]
        );
        assert_eq!(candidates("./sh", "/bin"), ["./sh"]);
    }
}
