//! What a stage does, in full: no decision is left to it.
//!
//! The agent makes it of an OCI spec, the monitor passes it on unread. Numbers
//! called `fd` are positions in the list of descriptors that came with it.

use prost::{Enumeration, Message};

use super::wire::KeyValue;

#[derive(Clone, PartialEq, Message)]
pub struct Plan {
    #[prost(message, optional, tag = "1")]
    pub process: Option<Process>,
    /// The rootfs, a detached mount. Absent in an exec.
    #[prost(uint32, optional, tag = "2")]
    pub rootfs: Option<u32>,
    #[prost(bool, tag = "3")]
    pub read_only: bool,
    /// `MS_*` of the container's root, recursively.
    #[prost(uint64, tag = "4")]
    pub propagation: u64,
    /// In the order in which they are attached.
    #[prost(message, repeated, tag = "5")]
    pub mounts: Vec<Mount>,
    #[prost(string, repeated, tag = "6")]
    pub masked: Vec<String>,
    #[prost(string, repeated, tag = "7")]
    pub readonly: Vec<String>,
    #[prost(message, repeated, tag = "8")]
    pub devices: Vec<Device>,
    /// A cgroup namespace of its own.
    #[prost(bool, tag = "9")]
    pub private_cgroup: bool,
    /// cgroup v1 hierarchies: mount point below /sys/fs/cgroup and options.
    #[prost(message, repeated, tag = "10")]
    pub hierarchies: Vec<KeyValue>,
    /// Those that are made: detached mounts, one for each of `hierarchies`; or none.
    #[prost(uint32, repeated, tag = "12")]
    pub views: Vec<u32>,
    /// SELinux context of file systems that the pod has for itself; empty = none.
    #[prost(string, tag = "11")]
    pub mount_label: String,
}

#[derive(Clone, PartialEq, Message)]
pub struct Process {
    #[prost(string, repeated, tag = "1")]
    pub args: Vec<String>,
    #[prost(string, repeated, tag = "2")]
    pub env: Vec<String>,
    #[prost(string, tag = "3")]
    pub cwd: String,
    #[prost(uint32, tag = "4")]
    pub uid: u32,
    #[prost(uint32, tag = "5")]
    pub gid: u32,
    #[prost(uint32, repeated, tag = "6")]
    pub groups: Vec<u32>,
    #[prost(uint32, tag = "7")]
    pub umask: u32,
    #[prost(message, optional, tag = "8")]
    pub capabilities: Option<Capabilities>,
    #[prost(bool, tag = "9")]
    pub no_new_privileges: bool,
    #[prost(message, repeated, tag = "10")]
    pub rlimits: Vec<Rlimit>,
    #[prost(sint32, optional, tag = "11")]
    pub oom_score_adj: Option<i32>,
    #[prost(string, tag = "12")]
    pub apparmor: String,
    #[prost(string, tag = "13")]
    pub selinux: String,
    #[prost(bool, tag = "14")]
    pub terminal: bool,
    #[prost(uint32, tag = "15")]
    pub width: u32,
    #[prost(uint32, tag = "16")]
    pub height: u32,
    /// `struct sock_filter[]`; empty = none.
    #[prost(bytes = "vec", tag = "17")]
    pub seccomp: Vec<u8>,
    /// `tasks` or `cgroup.procs` files, as fds.
    #[prost(uint32, repeated, tag = "18")]
    pub cgroups: Vec<u32>,
    /// The directory of the v2 cgroup, as an fd.
    #[prost(uint32, optional, tag = "19")]
    pub cgroup_v2: Option<u32>,
}

/// Sets as the kernel's bit masks.
#[derive(Clone, Copy, PartialEq, Message)]
pub struct Capabilities {
    #[prost(uint64, tag = "1")]
    pub bounding: u64,
    #[prost(uint64, tag = "2")]
    pub effective: u64,
    #[prost(uint64, tag = "3")]
    pub permitted: u64,
    #[prost(uint64, tag = "4")]
    pub inheritable: u64,
    #[prost(uint64, tag = "5")]
    pub ambient: u64,
}

#[derive(Clone, Copy, PartialEq, Message)]
pub struct Rlimit {
    /// `RLIMIT_*`.
    #[prost(uint32, tag = "1")]
    pub resource: u32,
    #[prost(uint64, tag = "2")]
    pub soft: u64,
    #[prost(uint64, tag = "3")]
    pub hard: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Enumeration)]
#[repr(i32)]
pub enum Source {
    /// A detached mount that came as a descriptor.
    Prepared = 0,
    Proc = 1,
    Sysfs = 2,
    /// The pod's /dev/shm.
    PodShm = 3,
    Cgroup = 4,
    /// A file system made with `options`, of type `fstype`.
    Fresh = 5,
}

#[derive(Clone, PartialEq, Message)]
pub struct Mount {
    #[prost(enumeration = "Source", tag = "1")]
    pub source: i32,
    #[prost(string, tag = "2")]
    pub destination: String,
    /// Of `Source::Prepared`.
    #[prost(uint32, tag = "3")]
    pub fd: u32,
    /// The mountpoint is a directory.
    #[prost(bool, tag = "4")]
    pub directory: bool,
    /// `MOUNT_ATTR_*`; those of prepared mounts are set already.
    #[prost(uint64, tag = "5")]
    pub attributes: u64,
    #[prost(string, tag = "6")]
    pub fstype: String,
    #[prost(message, repeated, tag = "7")]
    pub options: Vec<KeyValue>,
}

#[derive(Clone, PartialEq, Message)]
pub struct Device {
    #[prost(string, tag = "1")]
    pub path: String,
    /// `S_IFCHR`, `S_IFBLK` or `S_IFIFO`, and the permissions.
    #[prost(uint32, tag = "2")]
    pub mode: u32,
    #[prost(uint32, tag = "3")]
    pub major: u32,
    #[prost(uint32, tag = "4")]
    pub minor: u32,
    #[prost(uint32, tag = "5")]
    pub uid: u32,
    #[prost(uint32, tag = "6")]
    pub gid: u32,
}
