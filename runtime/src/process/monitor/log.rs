//! Log files of a pod's containers, written without ever waiting for a disk.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::rc::Rc;

use super::kept::{KeptLog, KeptRotation, Open};
use crate::sys::{self, Completion, Ring};

/// Unwritten bytes at which a container has to wait for its own log.
const PENDING_MAX: usize = 64 * 1024;

/// When a log is rotated, and how many files are kept.
#[derive(Debug)]
pub struct Rotation {
    pub dir: Rc<OwnedFd>,
    pub name: String,
    pub max_size: u64,
    pub max_files: u32,
    /// Names of rotated files, the oldest first.
    rotated: Vec<CString>,
    /// Being rotated: nothing may be written.
    busy: bool,
}

impl Rotation {
    pub fn new(dir: OwnedFd, name: String, max_size: u64, max_files: u32) -> Self {
        Self {
            dir: Rc::new(dir),
            name,
            max_size,
            max_files,
            rotated: Vec::new(),
            busy: false,
        }
    }
}

/// One log file.
#[derive(Debug)]
pub struct Log {
    file: Rc<OwnedFd>,
    pending: Vec<u8>,
    in_flight: bool,
    size: u64,
    lost: u64,
    rotation: Option<Rotation>,
    /// Its container is gone: to be dropped when all is written.
    closing: bool,
}

impl Log {
    fn keep<'a>(&'a self, key: u32, open: &mut Open<'a>) -> KeptLog {
        let rotation = self.rotation.as_ref().map(|rotation| KeptRotation {
            dir: open.keep(&rotation.dir),
            name: rotation.name.clone(),
            max_size: rotation.max_size,
            max_files: rotation.max_files,
            rotated: rotation
                .rotated
                .iter()
                .map(|r| r.to_bytes().to_vec())
                .collect(),
        });
        KeptLog {
            key,
            file: open.keep(&self.file),
            pending: self.pending.clone(),
            size: self.size,
            lost: self.lost,
            closing: self.closing,
            rotation,
        }
    }

    /// As the program before left it.
    pub fn taken_over(kept: &KeptLog) -> rustix::io::Result<Self> {
        let rotation = |kept: &KeptRotation| {
            let dir = sys::inherited(kept.dir)?;
            let (name, most) = (kept.name.clone(), kept.max_files);
            let mut rotation = Rotation::new(dir, name, kept.max_size, most);
            let names = kept.rotated.iter().cloned();
            rotation.rotated = names.filter_map(|name| CString::new(name).ok()).collect();
            Ok(rotation)
        };
        Ok(Self {
            file: Rc::new(sys::inherited(kept.file)?),
            pending: kept.pending.clone(),
            in_flight: false,
            size: kept.size,
            lost: kept.lost,
            rotation: kept.rotation.as_ref().map(rotation).transpose()?,
            closing: kept.closing,
        })
    }

    /// Bytes that the file may still grow by.
    fn room(&self) -> u64 {
        let most = self.rotation.as_ref().map(|r| r.max_size);
        most.map_or(u64::MAX, |most| most.saturating_sub(self.size))
    }
}

/// How much of `data` goes in a file of `size` with this much room: whole lines,
/// and at least one in an empty file. 0 = the file is full.
fn fitting(data: &[u8], room: u64, size: u64) -> usize {
    let whole = usize::try_from(room).map_or(data.len(), |room| room.min(data.len()));
    if whole == data.len() {
        return whole;
    }
    let last = data[..whole].iter().rposition(|byte| *byte == b'\n');
    match last {
        Some(end) => end + 1,
        None if size > 0 => 0,
        None => data
            .iter()
            .position(|byte| *byte == b'\n')
            .map_or(data.len(), |end| end + 1),
    }
}

/// The logs, by the container's number.
#[derive(Debug)]
pub struct Logs {
    /// None where io_uring is forbidden; writes then wait for the disk.
    ring: Option<Ring>,
    logs: BTreeMap<u32, Log>,
    /// Nothing new is to be written for now.
    held: bool,
}

/// What a completion was of.
const WRITE: u64 = 0;
const RENAME: u64 = 1;
const OPEN: u64 = 2;
const UNLINK: u64 = 3;

impl Logs {
    pub fn new() -> Self {
        Self::of(BTreeMap::new())
    }

    /// Goes on with these.
    pub fn of(logs: BTreeMap<u32, Log>) -> Self {
        Self {
            ring: Ring::new().ok(),
            logs,
            held: false,
        }
    }

    /// Holds writes back, or lets them go.
    pub fn hold(&mut self, held: bool) {
        self.held = held;
        if !held {
            for key in self.logs.keys().copied().collect::<Vec<_>>() {
                self.flush(key);
                self.sweep(key);
            }
        }
    }

    /// Whether the kernel has nothing of ours to do.
    pub fn are_settled(&self) -> bool {
        self.ring.as_ref().is_none_or(Ring::is_idle)
    }

    /// For the program that goes on with them, once they are settled.
    pub fn keep<'a>(&'a self, open: &mut Open<'a>) -> Vec<KeptLog> {
        let logs = self.logs.iter();
        logs.map(|(key, log)| log.keep(*key, open)).collect()
    }

    /// To be watched for reading.
    pub fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.ring.as_ref().map(Ring::fd)
    }

    pub fn open(&mut self, key: u32, file: OwnedFd, rotation: Option<Rotation>) {
        let size = size_of(&file);
        self.logs.insert(
            key,
            Log {
                file: Rc::new(file),
                pending: Vec::new(),
                in_flight: false,
                size,
                lost: 0,
                rotation,
                closing: false,
            },
        );
    }

    /// Writes go to another file from now on.
    pub fn reopen(&mut self, key: u32, file: OwnedFd) {
        if let Some(log) = self.logs.get_mut(&key) {
            log.size = size_of(&file);
            log.file = Rc::new(file);
        }
    }

    /// No more is written than what was appended.
    pub fn close(&mut self, key: u32) {
        if let Some(log) = self.logs.get_mut(&key) {
            log.closing = true;
        }
        self.sweep(key);
    }

    /// Whether everything is in the file.
    pub fn is_idle(&self, key: u32) -> bool {
        self.logs
            .get(&key)
            .is_none_or(|log| !log.in_flight && log.pending.is_empty())
    }

    /// Whether the container has to wait.
    pub fn is_full(&self, key: u32) -> bool {
        self.logs
            .get(&key)
            .is_some_and(|log| log.pending.len() >= PENDING_MAX)
    }

    /// Bytes that the file system would not take.
    pub fn lost(&self, key: u32) -> u64 {
        self.logs.get(&key).map_or(0, |log| log.lost)
    }

    /// Where entries are appended; `None` without a log.
    pub fn buffer(&mut self, key: u32) -> Option<&mut Vec<u8>> {
        self.logs.get_mut(&key).map(|log| &mut log.pending)
    }

    /// Writes what was appended, one write a file at a time, which keeps order.
    pub fn flush(&mut self, key: u32) {
        let Some(log) = self.logs.get_mut(&key) else {
            return;
        };
        let rotating = log.rotation.as_ref().is_some_and(|r| r.busy);
        if self.held || log.in_flight || rotating || log.pending.is_empty() {
            return;
        }
        let mut data = std::mem::take(&mut log.pending);
        let Some(ring) = &mut self.ring else {
            write_waiting(log, &data);
            return;
        };
        let room = log.room();
        let rest = data.split_off(fitting(&data, room, log.size));
        log.pending = rest;
        if let (true, Some(rotation)) = (data.is_empty(), &mut log.rotation) {
            rotation.busy = true;
            let to = rotated_name(&rotation.name, super::now());
            rotation.rotated.push(to.clone());
            let from = cstring(&rotation.name);
            ring.rename(token(key, RENAME), Rc::clone(&rotation.dir), from, to);
            return;
        }
        log.in_flight = true;
        ring.write(token(key, WRITE), Rc::clone(&log.file), data);
    }

    /// Takes what the kernel has done; the keys of logs that moved on.
    pub fn completed(&mut self) -> Vec<u32> {
        let done = self.ring.as_mut().map(Ring::completed).unwrap_or_default();
        done.into_iter()
            .map(|completion| {
                let key = (completion.token >> 8) as u32;
                self.complete(key, completion);
                self.flush(key);
                self.sweep(key);
                key
            })
            .collect()
    }

    fn complete(&mut self, key: u32, completion: Completion) {
        let kind = completion.token & 0xff;
        let Some(log) = self.logs.get_mut(&key) else {
            return;
        };
        match (kind, completion.result) {
            (WRITE, Ok(written)) => {
                log.in_flight = false;
                log.size += u64::from(written);
                // What a full disk took only half of is tried again once.
                let rest = completion.data.get(written as usize..).unwrap_or_default();
                if written > 0 && !rest.is_empty() {
                    log.pending.splice(0..0, rest.iter().copied());
                }
            }
            (WRITE, Err(_)) => {
                log.in_flight = false;
                log.lost += completion.data.len() as u64;
            }
            (RENAME, _) => {
                if let (Some(rotation), Some(ring)) = (&log.rotation, &mut self.ring) {
                    let name = cstring(&rotation.name);
                    ring.open_log(token(key, OPEN), Rc::clone(&rotation.dir), name);
                }
            }
            (OPEN, _) => {
                // If it could not be opened, the renamed file goes on growing: a
                // log too long is better than none.
                if let Some(file) = completion.opened {
                    log.size = size_of(&file);
                    log.file = Rc::new(file);
                }
                rotate_out(key, log, self.ring.as_mut());
            }
            _ => {}
        }
    }

    fn sweep(&mut self, key: u32) {
        if self.is_idle(key) && self.logs.get(&key).is_some_and(|log| log.closing) {
            self.logs.remove(&key);
        }
    }
}

/// Ends a rotation: the oldest files go.
fn rotate_out(key: u32, log: &mut Log, ring: Option<&mut Ring>) {
    let (Some(rotation), Some(ring)) = (&mut log.rotation, ring) else {
        return;
    };
    rotation.busy = false;
    let kept = rotation.max_files.saturating_sub(1) as usize;
    while rotation.rotated.len() > kept {
        let name = rotation.rotated.remove(0);
        ring.unlink(token(key, UNLINK), Rc::clone(&rotation.dir), name);
    }
}

fn write_waiting(log: &mut Log, data: &[u8]) {
    let mut rest = data;
    while !rest.is_empty() {
        match rustix::io::write(&log.file, rest) {
            Ok(written) => {
                log.size += written as u64;
                rest = &rest[written..];
            }
            Err(rustix::io::Errno::INTR) => {}
            Err(_) => {
                log.lost += rest.len() as u64;
                return;
            }
        }
    }
}

fn token(key: u32, kind: u64) -> u64 {
    u64::from(key) << 8 | kind
}

fn size_of(file: &OwnedFd) -> u64 {
    rustix::fs::fstat(file).map_or(0, |stat| stat.st_size as u64)
}

fn cstring(name: &str) -> CString {
    CString::new(name).unwrap_or_default()
}

/// kubernetes v1.37.2 pkg/kubelet/logs/container_log_manager.go names rotated
/// logs `<name>.<YYYYMMDD-HHMMSS>`; we add nanoseconds, since we may rotate faster.
fn rotated_name(name: &str, now: i64) -> CString {
    let mut stamp = Vec::new();
    super::line::timestamp(now, &mut stamp);
    let digits: String = stamp
        .iter()
        .map(|byte| char::from(*byte))
        .filter_map(|c| match c {
            'T' => Some('-'),
            '.' => Some('.'),
            digit if digit.is_ascii_digit() => Some(digit),
            _ => None,
        })
        .collect();
    cstring(&format!("{name}.{digits}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_takes_whole_lines_only_when_it_is_nearly_full() {
        assert_eq!(fitting(b"one\ntwo\n", 5, 100), 4);
        assert_eq!(fitting(b"one\ntwo\n", 8, 100), 8);
        assert_eq!(fitting(b"one\ntwo\n", u64::MAX, 100), 8);
    }

    #[test]
    fn file_is_full_when_the_next_line_does_not_fit() {
        assert_eq!(fitting(b"one\ntwo\n", 3, 100), 0);
    }

    #[test]
    fn empty_file_takes_a_line_however_long() {
        assert_eq!(fitting(b"one\ntwo\n", 2, 0), 4);
    }
}
