//! What can go wrong with cgroups.

use std::io;
use std::path::PathBuf;

/// An operation on a cgroup that failed.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum CgroupError {
    #[error(
        "cgroup driver systemd is not supported yet; set cgroupDriver: cgroupfs here and in the kubelet"
    )]
    SystemdDriver,
    #[error("no cgroup hierarchy is mounted; mount cgroup2 on /sys/fs/cgroup")]
    NoHierarchy,
    #[error("cgroup name {name:?} leaves its parent or holds control characters")]
    Name { name: String },
    #[error(
        "cgroup name {name:?} is one of systemd's; set cgroupDriver: cgroupfs in the kubelet, which is what this runtime uses"
    )]
    SystemdName { name: String },
    #[error("read {path}")]
    Read { path: PathBuf, source: io::Error },
    #[error("make cgroup {path}")]
    Make { path: PathBuf, source: io::Error },
    #[error("remove cgroup {path}: processes are left in it: {pids:?}")]
    Busy { path: PathBuf, pids: Vec<i32> },
    #[error("remove cgroup {path}")]
    Remove { path: PathBuf, source: io::Error },
    #[error("write {value:?} to {path}")]
    Write {
        path: PathBuf,
        value: String,
        source: io::Error,
    },
    #[error("limit {file} needs the cgroup controller {controller}, which this host lacks")]
    NoController { controller: String, file: String },
    #[error("attach the device filter to {path}; does this kernel have CONFIG_CGROUP_BPF?")]
    DeviceFilter { path: PathBuf, source: io::Error },
}
