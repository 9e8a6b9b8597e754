//! Writes that never make the caller wait: io_uring(7).
//!
//! epoll cannot watch a regular file, and a frozen file system puts a writer to
//! sleep for good. The ring owns buffer and file of every write until it is done.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::rc::Rc;

use io_uring::{IoUring, opcode, types};
use rustix::io::Errno;

/// What was asked of the ring and is not done.
#[derive(Debug)]
enum Work {
    Write {
        file: Rc<OwnedFd>,
        data: Vec<u8>,
    },
    Rename {
        dir: Rc<OwnedFd>,
        from: CString,
        to: CString,
    },
    Open {
        dir: Rc<OwnedFd>,
        name: CString,
    },
    Unlink {
        dir: Rc<OwnedFd>,
        name: CString,
    },
}

/// Something that is done.
#[derive(Debug)]
pub struct Completion {
    /// As given.
    pub token: u64,
    /// Bytes written, or why not.
    pub result: Result<u32, Errno>,
    /// The buffer of a write.
    pub data: Vec<u8>,
    /// What an open has opened.
    pub opened: Option<OwnedFd>,
}

/// A small ring.
pub struct Ring {
    ring: IoUring,
    /// By the number the kernel gives back.
    work: BTreeMap<u64, (u64, Work)>,
    next: u64,
}

/// Entries of the submission queue; more in flight are queued by the kernel.
const ENTRIES: u32 = 8;

impl Ring {
    /// Makes a ring.
    ///
    /// # Errors
    /// Where io_uring is forbidden (`kernel.io_uring_disabled`, seccomp).
    pub fn new() -> std::io::Result<Self> {
        let ring = IoUring::builder().dontfork().build(ENTRIES)?;
        Ok(Self {
            ring,
            work: BTreeMap::new(),
            next: 0,
        })
    }

    /// Readable when something is done.
    pub fn fd(&self) -> BorrowedFd<'_> {
        // SAFETY: the ring owns its descriptor and is borrowed for as long as this.
        unsafe { BorrowedFd::borrow_raw(self.ring.as_raw_fd()) }
    }

    /// Appends to a file that was opened for it.
    pub fn write(&mut self, token: u64, file: Rc<OwnedFd>, data: Vec<u8>) {
        self.submit(token, Work::Write { file, data });
    }

    /// Renames within a directory.
    pub fn rename(&mut self, token: u64, dir: Rc<OwnedFd>, from: CString, to: CString) {
        self.submit(token, Work::Rename { dir, from, to });
    }

    /// Opens a log file anew: for appending, made with mode 0640.
    pub fn open_log(&mut self, token: u64, dir: Rc<OwnedFd>, name: CString) {
        self.submit(token, Work::Open { dir, name });
    }

    /// Removes a file.
    pub fn unlink(&mut self, token: u64, dir: Rc<OwnedFd>, name: CString) {
        self.submit(token, Work::Unlink { dir, name });
    }

    fn submit(&mut self, token: u64, work: Work) {
        self.next += 1;
        let number = self.next;
        let entry = entry(&work).user_data(number);
        // The map's nodes may move, the heap buffers that the entry points to
        // (Vec, CString, Rc) do not.
        self.work.insert(number, (token, work));
        // SAFETY: descriptors and buffers of the entry live in `work` until its
        // completion is taken, and nothing touches the buffers before.
        let pushed = unsafe { self.ring.submission().push(&entry) };
        if pushed.is_err() {
            // Full, which submitting at once prevents: make room and try again.
            let _ = self.ring.submit();
            // SAFETY: as above.
            let _ = unsafe { self.ring.submission().push(&entry) };
        }
        let _ = self.ring.submit();
    }

    /// Whether all is done that was asked.
    pub fn is_idle(&self) -> bool {
        self.work.is_empty()
    }

    /// Takes what is done.
    pub fn completed(&mut self) -> Vec<Completion> {
        let done: Vec<_> = self
            .ring
            .completion()
            .map(|c| (c.user_data(), c.result()))
            .collect();
        done.into_iter()
            .filter_map(|(number, result)| {
                let (token, work) = self.work.remove(&number)?;
                Some(completion(token, work, result))
            })
            .collect()
    }
}

fn completion(token: u64, work: Work, result: i32) -> Completion {
    let opened = match work {
        // SAFETY: an open that succeeded answers with a new descriptor, which
        // nobody else knows of.
        Work::Open { .. } if result >= 0 => Some(unsafe { OwnedFd::from_raw_fd(result) }),
        _ => None,
    };
    Completion {
        token,
        result: u32::try_from(result).map_err(|_| Errno::from_raw_os_error(-result)),
        opened,
        data: match work {
            Work::Write { data, .. } => data,
            _ => Vec::new(),
        },
    }
}

fn entry(work: &Work) -> io_uring::squeue::Entry {
    let at = |fd: &Rc<OwnedFd>| types::Fd(fd.as_raw_fd());
    match work {
        // Offset -1: where O_APPEND says.
        Work::Write { file, data } => {
            opcode::Write::new(at(file), data.as_ptr(), data.len() as u32)
                .offset(u64::MAX)
                .build()
        }
        Work::Rename { dir, from, to } => {
            opcode::RenameAt::new(at(dir), from.as_ptr(), at(dir), to.as_ptr()).build()
        }
        Work::Open { dir, name } => opcode::OpenAt::new(at(dir), name.as_ptr())
            .flags(
                libc::O_WRONLY
                    | libc::O_CREAT
                    | libc::O_APPEND
                    | libc::O_CLOEXEC
                    | libc::O_NOFOLLOW,
            )
            .mode(0o640)
            .build(),
        Work::Unlink { dir, name } => opcode::UnlinkAt::new(at(dir), name.as_ptr()).build(),
    }
}

impl std::fmt::Debug for Ring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ring")
            .field("in_flight", &self.work.len())
            .finish()
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        // What is in flight may still be read by the kernel: let it be.
        std::mem::forget(std::mem::take(&mut self.work));
    }
}
