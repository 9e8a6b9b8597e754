//! The steps of which a sandbox and a container are made, by name.

use std::fmt;

/// A step that can fail. Numbers are part of the wire protocol: append only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
#[allow(missing_docs)]
pub enum Step {
    Unknown = 0,
    ReadPlan = 1,
    JoinCgroup = 2,
    Fork = 3,
    JoinUserNamespace = 4,
    UnshareNamespaces = 5,
    JoinNamespaces = 6,
    AttachRootfs = 7,
    OpenMountpoint = 8,
    CreateMountpoint = 9,
    MakeMount = 10,
    AttachMount = 11,
    MakeDevice = 12,
    LinkDevice = 13,
    OpenTerminal = 14,
    MaskPath = 15,
    ReadonlyPath = 16,
    ReadonlyRootfs = 17,
    PivotRoot = 18,
    Propagation = 19,
    OomScoreAdj = 20,
    Keyring = 21,
    Rlimit = 22,
    Label = 23,
    SetUser = 24,
    Capabilities = 25,
    NoNewPrivileges = 26,
    Seccomp = 27,
    WorkingDirectory = 28,
    Streams = 29,
    CloseDescriptors = 30,
    JoinPidNamespace = 31,
    Execute = 32,
    Hostname = 33,
    Sysctl = 34,
    Loopback = 35,
    SharedMemory = 36,
    PodInit = 37,
    UserNamespace = 38,
    StateDirectory = 39,
    EmptyMountNamespace = 40,
    StageDied = 41,
    Epoll = 42,
    OpenSocket = 43,
    Session = 44,
    Renew = 45,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unknown => "a step unknown to this agent",
            Self::ReadPlan => "read the plan",
            Self::JoinCgroup => "join the cgroup",
            Self::Fork => "fork",
            Self::JoinUserNamespace => "join the user namespace",
            Self::UnshareNamespaces => "make namespaces",
            Self::JoinNamespaces => "join the container's namespaces",
            Self::AttachRootfs => "attach the rootfs",
            Self::OpenMountpoint => "open the mountpoint",
            Self::CreateMountpoint => "create the mountpoint",
            Self::MakeMount => "make the mount for",
            Self::AttachMount => "mount on",
            Self::MakeDevice => "make the device",
            Self::LinkDevice => "make the link",
            Self::OpenTerminal => "open a terminal",
            Self::MaskPath => "mask",
            Self::ReadonlyPath => "make read-only",
            Self::ReadonlyRootfs => "make the rootfs read-only",
            Self::PivotRoot => "pivot_root",
            Self::Propagation => "set the rootfs' propagation",
            Self::OomScoreAdj => "set oom_score_adj",
            Self::Keyring => "take a session keyring",
            Self::Rlimit => "set rlimit",
            Self::Label => "set the security label",
            Self::SetUser => "set user and groups",
            Self::Capabilities => "set capabilities",
            Self::NoNewPrivileges => "set no_new_privs",
            Self::Seccomp => "load the seccomp filter",
            Self::WorkingDirectory => "change to the working directory",
            Self::Streams => "set up stdin, stdout and stderr",
            Self::CloseDescriptors => "close descriptors",
            Self::JoinPidNamespace => "join the PID namespace",
            Self::Execute => "execute",
            Self::Hostname => "set the hostname",
            Self::Sysctl => "set sysctl",
            Self::Loopback => "set up the loopback interface",
            Self::SharedMemory => "mount /dev/shm",
            Self::PodInit => "start the pod's init",
            Self::UserNamespace => "make the user namespace",
            Self::StateDirectory => "write in the state directory",
            Self::EmptyMountNamespace => "empty the mount namespace",
            Self::StageDied => "the stage died before it was done",
            Self::Epoll => "watch a descriptor",
            Self::OpenSocket => "open a socket",
            Self::Session => "start a session",
            Self::Renew => "go on as another program",
        })
    }
}

/// A step that failed, on what, and the kernel's answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    pub step: Step,
    pub errno: rustix::io::Errno,
    /// Path or name that the step was about; may be empty.
    pub context: String,
}

/// Gives an errno its step and context.
pub trait At<T> {
    /// When the step is about nothing in particular.
    fn at(self, step: Step) -> Result<T, Failure>;
    /// When it is about a path or name.
    fn on(self, step: Step, context: impl fmt::Display) -> Result<T, Failure>;
}

impl<T> At<T> for rustix::io::Result<T> {
    fn at(self, step: Step) -> Result<T, Failure> {
        self.on(step, "")
    }

    fn on(self, step: Step, context: impl fmt::Display) -> Result<T, Failure> {
        self.map_err(|errno| Failure {
            step,
            errno,
            context: context.to_string(),
        })
    }
}

impl<T> At<T> for std::io::Result<T> {
    fn at(self, step: Step) -> Result<T, Failure> {
        self.on(step, "")
    }

    fn on(self, step: Step, context: impl fmt::Display) -> Result<T, Failure> {
        self.map_err(|error| Failure {
            step,
            errno: rustix::io::Errno::from_io_error(&error).unwrap_or(rustix::io::Errno::IO),
            context: context.to_string(),
        })
    }
}
