//! Locks of folders that one process at a time may control.

use std::fs::{File, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

/// A process that was killed holds its locks until the last of its threads is gone, a
/// moment after it can't be seen running any more: so long it is waited for.
const DYING: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(5);

/// A lock on a file that holds the pid of who has it. Ends with the process.
#[derive(Debug)]
pub(crate) struct PidLock {
    _file: File,
}

/// Why a lock could not be had.
#[derive(Debug)]
pub(crate) enum LockError {
    /// Somebody who lives has it: the pid and name.
    Held(String),
    Io(io::Error),
}

impl From<io::Error> for LockError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl PidLock {
    /// Locks the file, making it if need be. Returns at once when its holder lives.
    pub(crate) fn take(path: &Path) -> Result<Self, LockError> {
        let mut file = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(path)?;
        let end = Instant::now() + DYING;
        loop {
            match file.try_lock() {
                Ok(()) => break,
                Err(TryLockError::Error(source)) => return Err(source.into()),
                Err(TryLockError::WouldBlock) => {}
            }
            let holder = holder(&mut file)?;
            if lives(&holder) || Instant::now() > end {
                return Err(LockError::Held(named(&holder)));
            }
            std::thread::sleep(PAUSE);
        }
        file.set_len(0)?;
        file.rewind()?;
        write!(file, "{}", std::process::id())?;
        Ok(Self { _file: file })
    }
}

fn holder(file: &mut File) -> io::Result<String> {
    let mut pid = String::new();
    file.rewind()?;
    file.read_to_string(&mut pid)?;
    Ok(pid.trim().to_owned())
}

/// proc_pid_stat(5): a zombie's other threads may still be at their end. Whoever has
/// locked and not yet written its pid is seen at the next look.
fn lives(pid: &str) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = stat.rsplit_once(") ").map(|(_, rest)| rest.as_bytes());
    matches!(state.and_then(<[u8]>::first), Some(state) if !b"ZX".contains(state))
}

fn named(pid: &str) -> String {
    let comm = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    match (pid, comm.trim()) {
        ("", _) => "unknown".to_owned(),
        (pid, "") => pid.to_owned(),
        (pid, comm) => format!("{pid} ({comm})"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lock_names_its_holder_when_taken_twice() {
        let path = std::env::temp_dir().join(format!("lighter-lock-{}", std::process::id()));
        let first = PidLock::take(&path).expect("free");
        let second = PidLock::take(&path).expect_err("held");
        drop(first);
        let _ = std::fs::remove_file(&path);
        let LockError::Held(holder) = second else {
            panic!("{second:?}");
        };
        assert!(
            holder.starts_with(&std::process::id().to_string()),
            "{holder}"
        );
    }

    #[test]
    fn lock_of_a_process_that_is_gone_is_waited_for() {
        let path = std::env::temp_dir().join(format!("lighter-dying-{}", std::process::id()));
        // Larger than any pid: PID_MAX_LIMIT of include/linux/threads.h is 4194304.
        std::fs::write(&path, "4194305").expect("file");
        let held = File::options().write(true).open(&path).expect("file");
        held.lock().expect("free");
        let closing = std::thread::spawn(move || {
            std::thread::sleep(PAUSE * 4);
            drop(held);
        });
        let taken = PidLock::take(&path);
        let _ = std::fs::remove_file(&path);
        closing.join().expect("closed");
        assert!(taken.is_ok(), "{taken:?}");
    }
}
