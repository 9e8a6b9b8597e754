//! What agent, spawner, monitor and stage say to each other.
//!
//! Append-only: a number once given keeps its meaning, because a monitor may be
//! older or newer than the agent that talks to it. Golden bytes in the tests
//! hold every release to that.

use prost::{Enumeration, Message, Oneof};

use super::step::{Failure, Step};

/// Raised when a verb is added that older monitors do not know.
pub const VERSION: u32 = 2;

/// From which on a monitor knows [`Body::Renew`].
pub const RENEWS: u32 = 2;

/// One packet on a monitor's socket, either way.
#[derive(Clone, PartialEq, Message)]
pub struct Frame {
    /// Pairs an answer with its request; 0 = unasked.
    #[prost(uint64, tag = "1")]
    pub seq: u64,
    #[prost(
        oneof = "Body",
        tags = "2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 15, 16, 32, 33, 34, 35"
    )]
    pub body: Option<Body>,
}

#[derive(Clone, PartialEq, Oneof)]
pub enum Body {
    /// First of a connection; answered by `State` with pidfd, network namespace
    /// and, where the pod has one, user namespace.
    #[prost(message, tag = "2")]
    Hello(Hello),
    #[prost(message, tag = "3")]
    Create(Create),
    #[prost(message, tag = "4")]
    Start(Named),
    #[prost(message, tag = "5")]
    Signal(Signal),
    #[prost(message, tag = "6")]
    Exec(Exec),
    /// Answered with the streams' descriptors.
    #[prost(message, tag = "7")]
    Attach(Attach),
    #[prost(message, tag = "8")]
    Resize(Resize),
    /// Comes with the log's descriptor.
    #[prost(message, tag = "9")]
    ReopenLog(Named),
    #[prost(message, tag = "10")]
    Remove(Named),
    /// Answered with a socket of the pod's network namespace.
    #[prost(message, tag = "11")]
    Socket(Socket),
    #[prost(message, tag = "12")]
    Shutdown(Empty),
    /// To the spawner, with connection, listener and state directory; or, without them, to a
    /// monitor that waits for its pod. Answered by `State` as `Hello` is.
    #[prost(message, tag = "13")]
    Spawn(Spawn),
    /// To go on as the program that comes with it.
    #[prost(message, tag = "15")]
    Renew(Empty),
    /// To the spawner only, with what comes with `Spawn`: a monitor that waits for its pod.
    /// It answers with the network namespace and a NETLINK_ROUTE socket opened inside.
    #[prost(message, tag = "16")]
    Ahead(Ahead),

    #[prost(message, tag = "32")]
    Failed(Failed),
    #[prost(message, tag = "33")]
    State(State),
    #[prost(message, tag = "34")]
    Done(Done),
    /// Unasked.
    #[prost(message, tag = "35")]
    Exited(Exited),
}

#[derive(Clone, PartialEq, Message)]
pub struct Empty {}

#[derive(Clone, PartialEq, Message)]
pub struct Ahead {
    /// An encoded [`Plan`](super::plan::Plan) of mounts alone, to be made for the pod's first
    /// container.
    #[prost(bytes = "vec", tag = "1")]
    pub plan: Vec<u8>,
}

#[derive(Clone, PartialEq, Message)]
pub struct Hello {
    #[prost(uint32, tag = "1")]
    pub version: u32,
}

#[derive(Clone, PartialEq, Message)]
pub struct Named {
    #[prost(string, tag = "1")]
    pub container: String,
}

#[derive(Clone, PartialEq, Message)]
pub struct Signal {
    #[prost(string, tag = "1")]
    pub container: String,
    #[prost(int32, tag = "2")]
    pub signal: i32,
}

#[derive(Clone, PartialEq, Message)]
pub struct Attach {
    #[prost(string, tag = "1")]
    pub container: String,
    #[prost(bool, tag = "2")]
    pub stdin: bool,
}

#[derive(Clone, PartialEq, Message)]
pub struct Resize {
    #[prost(string, tag = "1")]
    pub container: String,
    #[prost(uint32, tag = "2")]
    pub width: u32,
    #[prost(uint32, tag = "3")]
    pub height: u32,
}

#[derive(Clone, PartialEq, Message)]
pub struct Socket {
    #[prost(int32, tag = "1")]
    pub domain: i32,
    #[prost(int32, tag = "2")]
    pub kind: i32,
    #[prost(int32, tag = "3")]
    pub protocol: i32,
}

#[derive(Clone, PartialEq, Message)]
pub struct Spawn {
    #[prost(string, tag = "1")]
    pub id: String,
    #[prost(string, optional, tag = "2")]
    pub hostname: Option<String>,
    #[prost(bool, tag = "3")]
    pub network: bool,
    #[prost(bool, tag = "4")]
    pub ipc: bool,
    #[prost(bool, tag = "5")]
    pub uts: bool,
    /// A PID namespace for the pod.
    #[prost(bool, tag = "6")]
    pub pid: bool,
    #[prost(message, repeated, tag = "7")]
    pub uids: Vec<IdMap>,
    #[prost(message, repeated, tag = "8")]
    pub gids: Vec<IdMap>,
    #[prost(message, repeated, tag = "9")]
    pub sysctls: Vec<KeyValue>,
    #[prost(uint64, tag = "10")]
    pub shm_size: u64,
    /// SELinux context of the pod's own file systems.
    #[prost(string, tag = "11")]
    pub mount_label: String,
    /// SELinux context of the pod's first process.
    #[prost(string, tag = "12")]
    pub process_label: String,
}

#[derive(Clone, PartialEq, Message)]
pub struct IdMap {
    #[prost(uint32, tag = "1")]
    pub container: u32,
    #[prost(uint32, tag = "2")]
    pub host: u32,
    #[prost(uint32, tag = "3")]
    pub length: u32,
}

#[derive(Clone, PartialEq, Message)]
pub struct KeyValue {
    #[prost(string, tag = "1")]
    pub key: String,
    /// Empty = the key is a flag.
    #[prost(string, tag = "2")]
    pub value: String,
}

/// Which PID namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Enumeration)]
#[repr(i32)]
pub enum PidOf {
    Own = 0,
    Pod = 1,
    Node = 2,
    Target = 3,
}

/// With it come the plan's descriptors; the log file and its directory, where
/// there are any, are the last of them.
#[derive(Clone, PartialEq, Message)]
pub struct Create {
    #[prost(string, tag = "1")]
    pub container: String,
    /// An encoded [`Plan`](super::plan::Plan): the monitor hands it to the stage
    /// unread. Empty: it is in a sealed memfd, the last descriptor of all.
    #[prost(bytes = "vec", tag = "2")]
    pub plan: Vec<u8>,
    #[prost(enumeration = "PidOf", tag = "3")]
    pub pid: i32,
    /// Of `PidOf::Target`.
    #[prost(string, tag = "4")]
    pub target: String,
    #[prost(bool, tag = "5")]
    pub tty: bool,
    #[prost(bool, tag = "6")]
    pub stdin: bool,
    #[prost(bool, tag = "7")]
    pub stdin_once: bool,
    /// Empty = none.
    #[prost(string, tag = "8")]
    pub log: String,
    /// 0 = never rotated here.
    #[prost(uint64, tag = "9")]
    pub log_max_size: u64,
    #[prost(uint32, tag = "10")]
    pub log_max_files: u32,
    /// Position among the plan's descriptors of the cgroup that the stage is born in.
    #[prost(uint32, optional, tag = "11")]
    pub cgroup: Option<u32>,
}

/// With it come stdin, stdout, stderr of the process (none of them with a
/// terminal), then the plan's descriptors. Answered by `Done`, with a terminal
/// by its master.
#[derive(Clone, PartialEq, Message)]
pub struct Exec {
    #[prost(string, tag = "1")]
    pub container: String,
    #[prost(string, tag = "2")]
    pub exec: String,
    /// As in [`Create`].
    #[prost(bytes = "vec", tag = "3")]
    pub plan: Vec<u8>,
    #[prost(bool, tag = "4")]
    pub tty: bool,
    /// As in [`Create`].
    #[prost(uint32, optional, tag = "5")]
    pub cgroup: Option<u32>,
}

#[derive(Clone, PartialEq, Message)]
pub struct Failed {
    #[prost(enumeration = "Why", tag = "1")]
    pub why: i32,
    #[prost(enumeration = "Step", tag = "2")]
    pub step: i32,
    #[prost(int32, tag = "3")]
    pub errno: i32,
    /// Path or name that the step was about.
    #[prost(string, tag = "4")]
    pub context: String,
}

impl From<Failure> for Failed {
    fn from(failure: Failure) -> Self {
        Self {
            why: Why::Step.into(),
            step: failure.step.into(),
            errno: failure.errno.raw_os_error(),
            context: failure.context,
        }
    }
}

impl From<Why> for Failed {
    fn from(why: Why) -> Self {
        Self {
            why: why.into(),
            ..Self::default()
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Enumeration)]
#[repr(i32)]
pub enum Why {
    Step = 0,
    NotFound = 1,
    NotRunning = 2,
    Exists = 3,
    Unknown = 4,
    /// Not now.
    Busy = 5,
}

#[derive(Clone, PartialEq, Message)]
pub struct State {
    #[prost(uint32, tag = "1")]
    pub version: u32,
    #[prost(message, repeated, tag = "2")]
    pub containers: Vec<Known>,
    #[prost(bool, tag = "3")]
    pub userns: bool,
    #[prost(bool, tag = "4")]
    pub ipc: bool,
    #[prost(message, repeated, tag = "5")]
    pub marks: Vec<Mark>,
}

#[derive(Clone, PartialEq, Message)]
pub struct Known {
    #[prost(string, tag = "1")]
    pub container: String,
    /// 0 = ended.
    #[prost(int32, tag = "2")]
    pub pid: i32,
    #[prost(bool, tag = "3")]
    pub started: bool,
    #[prost(message, optional, tag = "4")]
    pub exit: Option<Exited>,
    #[prost(string, tag = "5")]
    pub log: String,
    #[prost(bool, tag = "6")]
    pub tty: bool,
}

/// The moment (CLOCK_MONOTONIC, nanoseconds) at which something was done: what
/// the waterfall of a pod's start is drawn from.
#[derive(Clone, PartialEq, Message)]
pub struct Mark {
    #[prost(string, tag = "1")]
    pub what: String,
    #[prost(uint64, tag = "2")]
    pub at: u64,
}

#[derive(Clone, PartialEq, Message)]
pub struct Done {
    #[prost(int32, tag = "1")]
    pub pid: i32,
    #[prost(message, repeated, tag = "2")]
    pub marks: Vec<Mark>,
    /// Of an attach: a stdin comes with it.
    #[prost(bool, tag = "3")]
    pub stdin: bool,
}

#[derive(Clone, PartialEq, Message)]
pub struct Exited {
    #[prost(string, tag = "1")]
    pub container: String,
    /// Empty = the container's first process.
    #[prost(string, tag = "2")]
    pub exec: String,
    #[prost(int32, tag = "3")]
    pub code: i32,
    #[prost(int64, tag = "4")]
    pub finished_at: i64,
    /// Bytes of log that could not be written.
    #[prost(uint64, tag = "5")]
    pub log_lost: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bytes of release 0.1. Never to be changed; a new release adds its own.
    const GOLDEN_0_1: &[(&str, &[u8])] = &[
        ("hello", &[8, 1, 18, 2, 8, 1]),
        ("start", &[8, 2, 34, 3, 10, 1, b'c']),
        ("signal", &[8, 3, 42, 5, 10, 1, b'c', 16, 15]),
        ("exited", &[154, 2, 8, 10, 1, b'c', 24, 137, 1, 32, 7]),
        ("failed", &[8, 4, 130, 2, 7, 24, 2, 34, 3, b'/', b'b', b'x']),
    ];

    fn sample(name: &str) -> Frame {
        let container = "c".to_owned();
        let (seq, body) = match name {
            "hello" => (1, Body::Hello(Hello { version: 1 })),
            "start" => (2, Body::Start(Named { container })),
            "signal" => (
                3,
                Body::Signal(Signal {
                    container,
                    signal: 15,
                }),
            ),
            "exited" => (
                0,
                Body::Exited(Exited {
                    container,
                    code: 137,
                    finished_at: 7,
                    ..Exited::default()
                }),
            ),
            _ => (
                4,
                Body::Failed(Failed {
                    errno: 2,
                    context: "/bx".into(),
                    ..Failed::default()
                }),
            ),
        };
        Frame {
            seq,
            body: Some(body),
        }
    }

    #[test]
    fn frames_keep_the_bytes_of_release_0_1() {
        for (name, bytes) in GOLDEN_0_1 {
            assert_eq!(sample(name).encode_to_vec(), *bytes, "{name}");
            assert_eq!(Frame::decode(*bytes).expect(name), sample(name), "{name}");
        }
    }

    #[test]
    fn frame_of_a_newer_peer_is_read_without_the_verb_when_it_is_unknown() {
        // Field 99, a verb of the future.
        let frame = Frame::decode(&[8, 9, 154, 6, 0][..]).expect("decodes");
        assert_eq!((frame.seq, frame.body), (9, None));
    }
}
