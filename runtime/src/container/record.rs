//! What is written down of a container.

use crate::cgroup::CgroupPath;
use crate::process::ContainerPid;
use crate::sandbox::proto;
use crate::seccomp::Selection;
use crate::spec::ResolvedUser;
use cri_proto::v1::{ContainerConfig, ContainerState, LinuxContainerResources};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::path::PathBuf;

/// A container on disk.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[allow(missing_docs)]
pub struct Record {
    pub version: u32,
    pub id: String,
    pub sandbox_id: String,
    pub state: State,
    pub created_at: i64,
    /// 0 = never.
    pub started_at: i64,
    pub finished_at: Option<i64>,
    pub exit_code: i32,
    pub reason: String,
    pub message: String,
    #[serde(with = "proto")]
    pub config: ContainerConfig,
    /// Limits as they are now.
    #[serde(with = "proto")]
    pub resources: LinuxContainerResources,
    pub image_id: String,
    /// Name with digest, where the image has one.
    pub image_ref: String,
    /// Id of the image of each image mount, by container path.
    #[serde(default)]
    pub image_mounts: Vec<(String, String)>,
    pub user: ResolvedUser,
    pub stop_signal: i32,
    pub log_path: Option<PathBuf>,
    pub cgroup: CgroupPath,
    pub pid: ContainerPid,
    pub seccomp: Selection,
    pub capabilities: BTreeSet<String>,
}

/// Where in its life a container is. Only ever moves forward.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum State {
    /// CreateContainer has not ended: after a crash it is removed.
    Creating,
    /// Set up, its command not executed.
    Created,
    /// Its command runs.
    Running,
    /// Its first process has ended.
    Exited,
}

impl State {
    /// CRI's name for it.
    #[must_use]
    pub fn to_cri(self) -> ContainerState {
        match self {
            Self::Creating | Self::Created => ContainerState::ContainerCreated,
            Self::Running => ContainerState::ContainerRunning,
            Self::Exited => ContainerState::ContainerExited,
        }
    }
}
