//! What can go wrong with cgroups.

use cgroupfs::FileError;
use std::io;
use std::path::PathBuf;

/// An operation on a cgroup that failed.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum CgroupError {
    #[error("start the thread that talks to systemd")]
    SystemdThread { source: io::Error },
    #[error("systemd, about {unit}")]
    Systemd {
        unit: String,
        source: Box<super::systemd::BusError>,
    },
    #[error("start the process that {unit} begins with")]
    Holder { unit: String, source: io::Error },
    #[error(
        "a cgroup root is given and the cgroup driver is systemd: its slices say where they are; give the kubelet's cgroupRoot alone"
    )]
    SystemdRoot,
    #[error(
        "cgroup name {name:?} is no slice; set cgroupDriver: systemd in the kubelet, which is what this runtime uses"
    )]
    NoSlice { name: String },
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

impl From<FileError> for CgroupError {
    fn from(error: FileError) -> Self {
        match error {
            FileError::Read { path, source } => Self::Read { path, source },
            FileError::Make { path, source } => Self::Make { path, source },
            FileError::Write {
                path,
                value,
                source,
            } => Self::Write {
                path,
                value,
                source,
            },
        }
    }
}
