//! Counts what a process changes in the world, system call by system call, and
//! kills it before the one that is asked for (ptrace(2)). Nothing is built into
//! the program for it.

#![allow(unsafe_code)]

use anyhow::{Context, Result, anyhow};
use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::Duration;

/// What was seen.
#[derive(Debug, Default)]
pub struct Seen {
    pub steps: usize,
    /// The call before which the process was killed.
    pub killed: Option<&'static str>,
}

/// A process that is watched.
pub struct Watched {
    over: Arc<AtomicBool>,
    tracer: JoinHandle<Result<Seen>>,
}

/// Watches all threads of a process, present and to come; it is killed before
/// its step of that number, counted from 1 (0 = never).
pub fn watch(pid: i32, kill_at: usize) -> Result<Watched> {
    let over = Arc::new(AtomicBool::new(false));
    let (attached, ready) = mpsc::channel();
    let stop = Arc::clone(&over);
    // Who attaches is a thread: it alone may ask, and its end lets all go on.
    let tracer = std::thread::spawn(move || {
        let mut tracer = Tracer {
            pid,
            kill_at,
            threads: BTreeSet::new(),
            seen: Seen::default(),
        };
        tracer.attach()?;
        let _ = attached.send(());
        tracer.run(&stop)
    });
    // An error is told by `end`.
    let _ = ready.recv();
    Ok(Watched { over, tracer })
}

impl Watched {
    /// Lets the process go on, if it was not killed.
    pub fn end(self) -> Result<Seen> {
        self.over.store(true, Ordering::Release);
        let seen = self.tracer.join();
        seen.map_err(|_| anyhow!("the tracer panicked"))?
    }
}

struct Tracer {
    pid: i32,
    kill_at: usize,
    threads: BTreeSet<i32>,
    seen: Seen,
}

/// include/uapi/linux/ptrace.h, `struct ptrace_syscall_info` as of an entry.
#[repr(C)]
#[derive(Default)]
struct SyscallInfo {
    op: u8,
    pad: [u8; 3],
    arch: u32,
    instruction: u64,
    stack: u64,
    number: u64,
    arguments: [u64; 6],
}

const GET_SYSCALL_INFO: libc::c_uint = 0x420e;
const ENTRY: u8 = 1;

impl Tracer {
    /// Attaches to every thread and has each stop at its next system call.
    fn attach(&mut self) -> Result<()> {
        let options = libc::PTRACE_O_TRACECLONE | libc::PTRACE_O_TRACESYSGOOD;
        // A thread made meanwhile is attached by its maker, or found in the next round.
        loop {
            let tasks = fs::read_dir(format!("/proc/{}/task", self.pid)).context("the agent")?;
            let mut new = false;
            for task in tasks.flatten() {
                let thread = task.file_name().to_string_lossy().parse::<i32>()?;
                if self.threads.contains(&thread) {
                    continue;
                }
                let seized = ptrace(libc::PTRACE_SEIZE, thread, options as usize);
                match seized.map_err(|e| e.raw_os_error()) {
                    Ok(()) => {
                        let _ = ptrace(libc::PTRACE_INTERRUPT, thread, 0);
                    }
                    // Attached by its maker; gone already.
                    Err(Some(libc::EPERM | libc::ESRCH)) => {}
                    Err(_) => return Err(io::Error::last_os_error()).context("PTRACE_SEIZE"),
                }
                self.threads.insert(thread);
                new = true;
            }
            if !new {
                break;
            }
        }
        // Each has stopped once when nothing more is reported for a moment.
        let mut stopped = BTreeSet::new();
        let mut quiet = 0;
        while stopped.len() < self.threads.len() && quiet < 200 {
            match self.one()? {
                Some(thread) => drop(stopped.insert(thread)),
                None => quiet += 1,
            }
        }
        Ok(())
    }

    fn run(mut self, over: &AtomicBool) -> Result<Seen> {
        loop {
            let killed = self.seen.killed.is_some();
            if killed && !alive(self.pid) || !killed && over.load(Ordering::Acquire) {
                return Ok(self.seen);
            }
            self.one()?;
        }
    }

    /// Takes one report, if there is one, and lets its thread go on.
    fn one(&mut self) -> Result<Option<i32>> {
        let mut status = 0;
        let flags = libc::__WALL | libc::__WNOTHREAD | libc::WNOHANG;
        // SAFETY: writes one number to a place of ours.
        let thread = unsafe { libc::waitpid(-1, &raw mut status, flags) };
        if thread <= 0 {
            std::thread::sleep(Duration::from_micros(20));
            return Ok(None);
        }
        if !libc::WIFSTOPPED(status) {
            self.threads.remove(&thread);
            return Ok(Some(thread));
        }
        let (signal, event) = (libc::WSTOPSIG(status), status >> 16);
        let deliver = match (signal, event) {
            (s, 0) if s == libc::SIGTRAP | 0x80 => {
                if self.is_fatal(thread) {
                    return Ok(Some(thread));
                }
                0
            }
            (s, 0) => s,
            _ => 0,
        };
        // One that is being killed is not there any more.
        let _ = ptrace(libc::PTRACE_SYSCALL, thread, deliver as usize);
        Ok(Some(thread))
    }

    /// Counts a step; whether it was the last.
    fn is_fatal(&mut self, thread: i32) -> bool {
        let mut info = SyscallInfo::default();
        let size = size_of::<SyscallInfo>();
        // SAFETY: the kernel writes at most `size` bytes to a place of ours.
        let got = unsafe { libc::ptrace(GET_SYSCALL_INFO, thread, size, &raw mut info) };
        if got <= 0 || info.op != ENTRY {
            return false;
        }
        let Some(name) = step(info.number as i64, &info.arguments) else {
            return false;
        };
        self.seen.steps += 1;
        if self.seen.steps != self.kill_at {
            return false;
        }
        self.seen.killed = Some(name);
        // SAFETY: plain numbers; the pid is that of a process we trace.
        unsafe { libc::kill(self.pid, libc::SIGKILL) };
        true
    }
}

fn alive(pid: i32) -> bool {
    crate::machine::Process::of(pid).is_some()
}

fn ptrace(request: libc::c_uint, thread: i32, data: usize) -> io::Result<()> {
    // SAFETY: requests that take numbers alone.
    match unsafe { libc::ptrace(request, thread, 0usize, data) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

/// The name of a call that changes something outside the process.
fn step(number: i64, arguments: &[u64; 6]) -> Option<&'static str> {
    let creates = |flags: u64| flags & libc::O_CREAT as u64 != 0;
    match number {
        libc::SYS_openat if creates(arguments[2]) => return Some("openat"),
        // Eight bytes wake a thread.
        libc::SYS_write if arguments[2] != 8 => return Some("write"),
        libc::SYS_clone if arguments[0] & libc::CLONE_THREAD as u64 == 0 => return Some("clone"),
        _ => {}
    }
    STEPS
        .iter()
        .find(|(of, _)| *of == number)
        .map(|(_, name)| *name)
}

const STEPS: [(i64, &str); 37] = [
    (libc::SYS_pwrite64, "pwrite64"),
    (libc::SYS_writev, "writev"),
    (libc::SYS_sendto, "sendto"),
    (libc::SYS_sendmsg, "sendmsg"),
    (libc::SYS_mkdirat, "mkdirat"),
    (libc::SYS_mkdir, "mkdir"),
    (libc::SYS_rmdir, "rmdir"),
    (libc::SYS_unlink, "unlink"),
    (libc::SYS_unlinkat, "unlinkat"),
    (libc::SYS_rename, "rename"),
    (libc::SYS_renameat, "renameat"),
    (libc::SYS_renameat2, "renameat2"),
    (libc::SYS_symlink, "symlink"),
    (libc::SYS_symlinkat, "symlinkat"),
    (libc::SYS_link, "link"),
    (libc::SYS_linkat, "linkat"),
    (libc::SYS_mknodat, "mknodat"),
    (libc::SYS_ftruncate, "ftruncate"),
    (libc::SYS_fsync, "fsync"),
    (libc::SYS_fchmod, "fchmod"),
    (libc::SYS_fchown, "fchown"),
    (libc::SYS_fchownat, "fchownat"),
    (libc::SYS_utimensat, "utimensat"),
    (libc::SYS_mount, "mount"),
    (libc::SYS_umount2, "umount2"),
    (libc::SYS_move_mount, "move_mount"),
    (libc::SYS_open_tree, "open_tree"),
    (libc::SYS_fsmount, "fsmount"),
    (libc::SYS_mount_setattr, "mount_setattr"),
    (libc::SYS_bind, "bind"),
    (libc::SYS_connect, "connect"),
    (libc::SYS_vfork, "vfork"),
    (libc::SYS_kill, "kill"),
    (libc::SYS_pidfd_send_signal, "pidfd_send_signal"),
    (libc::SYS_setsockopt, "setsockopt"),
    (libc::SYS_bpf, "bpf"),
    (libc::SYS_fsetxattr, "fsetxattr"),
];
