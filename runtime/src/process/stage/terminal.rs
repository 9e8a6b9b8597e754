//! A terminal of the container's own devpts.

use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::fs::{FileType, OFlags, ResolveFlags};
use rustix::io::Errno;
use rustix::pty::OpenptFlags;
use rustix::termios::Winsize;

use super::super::plan::Process;
use super::super::step::{At, Failure, Step};
use super::path;

/// Both ends.
pub struct Terminal {
    pub master: OwnedFd,
    pub slave: OwnedFd,
}

/// Where devpts is, and its multiplexer.
const PTMX: &str = "/dev/pts/ptmx";
/// include/uapi/linux/magic.h.
const DEVPTS_SUPER_MAGIC: i64 = 0x1cd1;

/// Opens a new terminal.
pub fn open(root: BorrowedFd<'_>, process: &Process) -> Result<Terminal, Failure> {
    open_pair(root, process).on(Step::OpenTerminal, PTMX)
}

fn open_pair(root: BorrowedFd<'_>, process: &Process) -> rustix::io::Result<Terminal> {
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS | ResolveFlags::NO_SYMLINKS;
    // The file is looked at before it is opened for use: a container may have put
    // anything there before an exec.
    let found = path::open_with(root, PTMX, OFlags::PATH, resolve)?;
    let genuine = rustix::fs::fstatfs(&found)?.f_type as i64 == DEVPTS_SUPER_MAGIC
        && path::kind(&found)? == FileType::CharacterDevice;
    if !genuine {
        return Err(Errno::NODEV);
    }
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::NONBLOCK;
    let master = path::open_with(root, PTMX, flags, resolve)?;
    rustix::pty::unlockpt(&master)?;
    // By the master, not by the name that it says the slave has.
    let slave = rustix::pty::ioctl_tiocgptpeer(
        &master,
        OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC,
    )?;
    if process.width > 0 && process.height > 0 {
        let size = Winsize {
            ws_row: process.height as u16,
            ws_col: process.width as u16,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        rustix::termios::tcsetwinsize(&slave, size)?;
    }
    Ok(Terminal { master, slave })
}
