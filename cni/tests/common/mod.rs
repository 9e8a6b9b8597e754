//! Network namespaces for tests: a "host" that the test's threads live in,
//! and pods that only sockets are opened in.
#![allow(dead_code)]

use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space, unshare_unsafe};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::process::{Command, Output};

/// Runs the test in a network namespace of its own, with a private /sys
/// untouched and /proc/sys/net showing that namespace.
pub fn in_host<F: Future<Output = ()>>(test: impl FnOnce() -> F + Send + 'static) {
    let thread = std::thread::spawn(|| {
        unshare();
        sh("ip link set lo up");
        // Threads of the runtime are made here, so they share the namespace.
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(test());
    });
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

/// Moves this thread into a network namespace of its own.
#[allow(unsafe_code)]
fn unshare() {
    // SAFETY: what makes unsharing unsafe is CLONE_FILES, which takes this
    // thread's descriptors away from others; it isn't given.
    unsafe { unshare_unsafe(UnshareFlags::NEWNET) }.expect("needs root");
}

/// A network namespace.
pub struct Pod(File);

impl Pod {
    /// A new one, empty.
    pub fn new() -> Self {
        let made = std::thread::spawn(|| {
            unshare();
            File::open("/proc/thread-self/ns/net").unwrap()
        });
        Self(made.join().unwrap())
    }

    /// Does something inside, on a thread that ends with it.
    pub fn inside<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        std::thread::scope(|scope| {
            let worker = scope.spawn(|| {
                move_into_link_name_space(self.0.as_fd(), Some(LinkNameSpaceType::Network))
                    .unwrap();
                work()
            });
            worker.join().unwrap()
        })
    }

    /// Output of a shell line inside.
    pub fn sh(&self, line: &str) -> String {
        self.inside(|| sh(line))
    }
}

#[async_trait::async_trait]
impl cni::Netns for Pod {
    fn fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }

    fn path(&self) -> Option<PathBuf> {
        use std::os::fd::AsRawFd;
        let (pid, fd) = (std::process::id(), self.0.as_raw_fd());
        Some(format!("/proc/{pid}/fd/{fd}").into())
    }

    async fn netlink_socket(&self, protocol: i32) -> io::Result<OwnedFd> {
        self.inside(|| {
            use rustix::net::{AddressFamily, Protocol, SocketFlags, SocketType, socket_with};
            let protocol = std::num::NonZeroU32::new(protocol as u32).map(Protocol::from_raw);
            let flags = SocketFlags::CLOEXEC;
            Ok(socket_with(
                AddressFamily::NETLINK,
                SocketType::RAW,
                flags,
                protocol,
            )?)
        })
    }
}

/// Output of a shell line here; panics with what it said if it fails.
pub fn sh(line: &str) -> String {
    let output = run(line);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{line}: {text}{errors}");
    text
}

/// Runs a shell line here.
pub fn run(line: &str) -> Output {
    Command::new("sh").args(["-c", line]).output().unwrap()
}

/// A folder that goes with its owner.
pub struct TempDir(pub PathBuf);

impl TempDir {
    pub fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("lighter-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
