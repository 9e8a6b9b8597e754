//! What a monitor hands to itself over execve(2): its bookkeeping, and descriptors by number.
//!
//! Append-only, as the wire is: the program that reads it may be newer than the one that
//! wrote it, or older.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use prost::Message;

use super::super::wire::{Exited, PidOf};
use super::container::{Container, Output};
use super::exits::Execution;
use super::line::{Lines, Stream};
use super::log::Log;
use super::setup::Namespaces;
use super::stages::Pending;
use super::streams::Client;
use crate::sys::{self, Child};

#[derive(Clone, PartialEq, Message)]
pub struct Kept {
    /// The request that is answered when all is taken over.
    #[prost(uint64, tag = "1")]
    pub seq: u64,
    #[prost(string, tag = "2")]
    pub name: String,
    #[prost(int32, tag = "3")]
    pub listener: i32,
    #[prost(int32, optional, tag = "4")]
    pub agent: Option<i32>,
    #[prost(int32, tag = "5")]
    pub exits: i32,
    #[prost(int32, tag = "6")]
    pub netns: i32,
    #[prost(int32, optional, tag = "7")]
    pub userns: Option<i32>,
    #[prost(message, optional, tag = "8")]
    pub init: Option<KeptChild>,
    #[prost(bool, tag = "9")]
    pub ipc: bool,
    #[prost(uint32, tag = "10")]
    pub next_key: u32,
    #[prost(message, repeated, tag = "11")]
    pub containers: Vec<KeptContainer>,
    #[prost(message, repeated, tag = "12")]
    pub executions: Vec<KeptExecution>,
    #[prost(message, repeated, tag = "13")]
    pub clients: Vec<KeptClient>,
    #[prost(message, repeated, tag = "14")]
    pub logs: Vec<KeptLog>,
    /// Stages that wait for the word to start.
    #[prost(message, repeated, tag = "15")]
    pub stages: Vec<KeptStage>,
    #[prost(message, repeated, tag = "16")]
    pub early: Vec<KeptEnd>,
}

#[derive(Clone, PartialEq, Message)]
pub struct KeptChild {
    #[prost(int32, tag = "1")]
    pub pid: i32,
    #[prost(int32, tag = "2")]
    pub pidfd: i32,
}

#[derive(Clone, PartialEq, Message)]
pub struct KeptContainer {
    #[prost(uint32, tag = "1")]
    pub key: u32,
    #[prost(string, tag = "2")]
    pub id: String,
    #[prost(int32, tag = "3")]
    pub pid: i32,
    #[prost(int32, optional, tag = "4")]
    pub pidfd: Option<i32>,
    #[prost(bool, tag = "5")]
    pub started: bool,
    #[prost(message, optional, tag = "6")]
    pub exit: Option<Exited>,
    #[prost(enumeration = "PidOf", tag = "7")]
    pub pid_of: i32,
    #[prost(bool, tag = "8")]
    pub tty: bool,
    #[prost(bool, tag = "9")]
    pub stdin_once: bool,
    #[prost(string, tag = "10")]
    pub log_path: String,
    #[prost(int32, optional, tag = "11")]
    pub stdin: Option<i32>,
    #[prost(message, optional, tag = "12")]
    pub stdout: Option<KeptOutput>,
    #[prost(message, optional, tag = "13")]
    pub stderr: Option<KeptOutput>,
    #[prost(uint64, optional, tag = "14")]
    pub telling_until: Option<u64>,
    #[prost(uint64, repeated, tag = "15")]
    pub removing: Vec<u64>,
    #[prost(bool, tag = "16")]
    pub silent: bool,
}

#[derive(Clone, PartialEq, Message)]
pub struct KeptOutput {
    #[prost(int32, tag = "1")]
    pub fd: i32,
    #[prost(bytes = "vec", tag = "2")]
    pub partial: Vec<u8>,
    #[prost(bool, tag = "3")]
    pub paused: bool,
}

#[derive(Clone, PartialEq, Message)]
pub struct KeptExecution {
    #[prost(string, tag = "1")]
    pub container: String,
    #[prost(string, tag = "2")]
    pub exec: String,
    #[prost(int32, tag = "3")]
    pub pid: i32,
}

#[derive(Clone, PartialEq, Message)]
pub struct KeptClient {
    #[prost(uint32, tag = "1")]
    pub key: u32,
    #[prost(uint32, tag = "2")]
    pub container: u32,
    #[prost(bool, tag = "3")]
    pub stderr: bool,
    #[prost(int32, tag = "4")]
    pub fd: i32,
}

#[derive(Clone, PartialEq, Message)]
pub struct KeptLog {
    #[prost(uint32, tag = "1")]
    pub key: u32,
    #[prost(int32, tag = "2")]
    pub file: i32,
    #[prost(bytes = "vec", tag = "3")]
    pub pending: Vec<u8>,
    #[prost(uint64, tag = "4")]
    pub size: u64,
    #[prost(uint64, tag = "5")]
    pub lost: u64,
    #[prost(bool, tag = "6")]
    pub closing: bool,
    #[prost(message, optional, tag = "7")]
    pub rotation: Option<KeptRotation>,
}

#[derive(Clone, PartialEq, Message)]
pub struct KeptRotation {
    #[prost(int32, tag = "1")]
    pub dir: i32,
    #[prost(string, tag = "2")]
    pub name: String,
    #[prost(uint64, tag = "3")]
    pub max_size: u64,
    #[prost(uint32, tag = "4")]
    pub max_files: u32,
    #[prost(bytes = "vec", repeated, tag = "5")]
    pub rotated: Vec<Vec<u8>>,
}

#[derive(Clone, PartialEq, Message)]
pub struct KeptStage {
    #[prost(uint32, tag = "1")]
    pub key: u32,
    #[prost(int32, tag = "2")]
    pub channel: i32,
    #[prost(uint32, tag = "3")]
    pub container: u32,
}

#[derive(Clone, PartialEq, Message)]
pub struct KeptEnd {
    #[prost(int32, tag = "1")]
    pub pid: i32,
    #[prost(int32, tag = "2")]
    pub code: i32,
}

/// Descriptors that are to stay open.
#[derive(Default)]
pub struct Open<'a>(pub Vec<BorrowedFd<'a>>);

impl<'a> Open<'a> {
    pub fn keep(&mut self, fd: &'a OwnedFd) -> i32 {
        self.0.push(fd.as_fd());
        fd.as_raw_fd()
    }

    pub fn keep_if(&mut self, fd: Option<&'a OwnedFd>) -> Option<i32> {
        fd.map(|fd| self.keep(fd))
    }
}

fn taken(fd: Option<i32>) -> rustix::io::Result<Option<OwnedFd>> {
    fd.map(sys::inherited).transpose()
}

impl KeptChild {
    pub fn of<'a>(child: &'a Child, open: &mut Open<'a>) -> Self {
        Self {
            pid: child.pid,
            pidfd: open.keep(&child.pidfd),
        }
    }
}

impl Kept {
    pub fn namespaces(&self) -> rustix::io::Result<Namespaces> {
        let init = self.init.as_ref().map(|init| {
            sys::inherited(init.pidfd).map(|pidfd| Child {
                pid: init.pid,
                pidfd,
            })
        });
        Ok(Namespaces {
            netns: sys::inherited(self.netns)?,
            userns: taken(self.userns)?,
            init: init.transpose()?,
        })
    }

    pub fn containers(&self) -> rustix::io::Result<BTreeMap<u32, Container>> {
        let kept = self.containers.iter();
        kept.map(|c| Ok((c.key, c.container()?))).collect()
    }

    pub fn clients(&self) -> rustix::io::Result<BTreeMap<u32, Client>> {
        let client = |c: &KeptClient| {
            let stream = if c.stderr {
                Stream::Stderr
            } else {
                Stream::Stdout
            };
            let fd = sys::inherited(c.fd)?;
            let container = c.container;
            let client = Client {
                container,
                stream,
                fd,
            };
            Ok((c.key, client))
        };
        self.clients.iter().map(client).collect()
    }

    pub fn stages(&self) -> rustix::io::Result<BTreeMap<u32, Pending>> {
        let stages = self.stages.iter();
        let stage = |s: &KeptStage| {
            let channel = sys::inherited(s.channel)?;
            Ok((s.key, Pending::waiting(channel, s.container)))
        };
        stages.map(stage).collect()
    }

    pub fn executions(&self) -> Vec<Execution> {
        let kept = self.executions.iter();
        kept.map(|e| Execution {
            container: e.container.clone(),
            exec: e.exec.clone(),
            pid: e.pid,
        })
        .collect()
    }

    pub fn logs(&self) -> rustix::io::Result<BTreeMap<u32, Log>> {
        let logs = self.logs.iter();
        logs.map(|l| Ok((l.key, Log::taken_over(l)?))).collect()
    }
}

impl From<&Execution> for KeptExecution {
    fn from(execution: &Execution) -> Self {
        Self {
            container: execution.container.clone(),
            exec: execution.exec.clone(),
            pid: execution.pid,
        }
    }
}

impl KeptContainer {
    pub fn of<'a>(key: u32, container: &'a Container, open: &mut Open<'a>) -> Self {
        Self {
            key,
            id: container.id.clone(),
            pid: container.pid,
            pidfd: open.keep_if(container.pidfd.as_ref()),
            started: container.started,
            exit: container.exit.clone(),
            pid_of: container.pid_of.into(),
            tty: container.tty,
            stdin_once: container.stdin_once,
            log_path: container.log_path.clone(),
            stdin: open.keep_if(container.stdin.as_ref()),
            stdout: container.stdout.as_ref().map(|o| KeptOutput::of(o, open)),
            stderr: container.stderr.as_ref().map(|o| KeptOutput::of(o, open)),
            telling_until: container.telling_until,
            removing: container.removing.clone(),
            silent: container.silent,
        }
    }

    fn container(&self) -> rustix::io::Result<Container> {
        let output = |kept: &Option<KeptOutput>| kept.as_ref().map(KeptOutput::output).transpose();
        Ok(Container {
            id: self.id.clone(),
            pid: self.pid,
            pidfd: taken(self.pidfd)?,
            started: self.started,
            exit: self.exit.clone(),
            pid_of: self.pid_of(),
            tty: self.tty,
            stdin_once: self.stdin_once,
            log_path: self.log_path.clone(),
            stdin: taken(self.stdin)?,
            stdout: output(&self.stdout)?,
            stderr: output(&self.stderr)?,
            telling_until: self.telling_until,
            removing: self.removing.clone(),
            silent: self.silent,
        })
    }
}

impl KeptOutput {
    fn of<'a>(output: &'a Output, open: &mut Open<'a>) -> Self {
        Self {
            fd: open.keep(&output.fd),
            partial: output.lines.partial().to_vec(),
            paused: output.paused,
        }
    }

    fn output(&self) -> rustix::io::Result<Output> {
        Ok(Output {
            fd: sys::inherited(self.fd)?,
            lines: Lines::begun(self.partial.clone()),
            paused: self.paused,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As the first release wrote it that had it. Never to be changed.
    const GOLDEN: &[u8] = &[
        8, 9, 18, 1, b'n', 24, 4, 32, 5, 40, 6, 48, 7, 66, 4, 8, 12, 16, 8, 72, 1, 80, 3, 90, 18,
        8, 2, 18, 1, b'c', 24, 13, 32, 9, 40, 1, 98, 5, 8, 10, 18, 1, b'x', 114, 4, 8, 2, 16, 11,
    ];

    #[test]
    fn bytes_of_the_first_release_are_understood() {
        let output = KeptOutput {
            fd: 10,
            partial: b"x".to_vec(),
            paused: false,
        };
        let container = KeptContainer {
            key: 2,
            id: "c".into(),
            pid: 13,
            pidfd: Some(9),
            started: true,
            stdout: Some(output),
            ..KeptContainer::default()
        };
        let log = KeptLog {
            key: 2,
            file: 11,
            ..KeptLog::default()
        };
        let kept = Kept {
            seq: 9,
            name: "n".into(),
            listener: 4,
            agent: Some(5),
            exits: 6,
            netns: 7,
            init: Some(KeptChild { pid: 12, pidfd: 8 }),
            ipc: true,
            next_key: 3,
            containers: vec![container],
            logs: vec![log],
            ..Kept::default()
        };
        assert_eq!(kept.encode_to_vec(), GOLDEN);
        assert_eq!(Kept::decode(GOLDEN), Ok(kept));
    }
}
