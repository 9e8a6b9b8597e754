//! What verbs fail with, and the one place where that becomes a gRPC status.

use crate::cdi::CdiError;
use crate::cgroup::CgroupError;
use crate::container::{AccountsError, DeviceError, LookupError, State};
use crate::process::ProcessError;
use crate::sandbox::{Ambiguous, PodFilesError, RecordError};
use crate::seccomp::SeccompError;
use crate::spec::SpecError;
use cri_proto::{Code, Status};
use std::io;
use std::path::PathBuf;

/// A verb that failed.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum VerbError {
    #[error("pod sandbox {id:?} not found")]
    SandboxNotFound { id: String },
    #[error("container {id:?} not found")]
    ContainerNotFound { id: String },
    #[error(transparent)]
    Ambiguous(#[from] Ambiguous),
    #[error("the request has no {field}")]
    Missing { field: &'static str },
    #[error("no runtime handler {handler:?} is configured; this runtime has only the default one")]
    Handler { handler: String },
    #[error(
        "pod sandbox {id} is not ready: it was stopped or has died; run it anew with a higher attempt"
    )]
    SandboxNotReady { id: String },
    #[error("{what} exists already as {id}, in state {state}")]
    Exists {
        what: String,
        id: String,
        state: String,
    },
    #[error("image {image:?} not found; pull it first")]
    ImageNotFound { image: String },
    #[error("image volume on {path:?}: the image has no {sub_path:?}")]
    ImageSubPath { path: String, sub_path: String },
    #[error(
        "image volume on {path:?}: images are mounted read-only, and this mount does not say so"
    )]
    ImageWritable { path: String },
    #[error("container {id} is {state:?}; only a created one can be started")]
    NotCreated { id: String, state: State },
    #[error("container not running: {id}")]
    NotRunning { id: String },
    #[error(
        "container {id} did not end within {seconds} s of SIGKILL; process {pid} is in {wchan}"
    )]
    WontEnd {
        id: String,
        seconds: u64,
        pid: i32,
        wchan: String,
    },
    #[error("command {command:?} timed out: timeout {seconds}s exceeded")]
    ExecTimeout { command: Vec<String>, seconds: i64 },
    #[error("host path {path}")]
    HostPath { path: PathBuf, source: io::Error },
    #[error(
        "path {path} is mounted on {mount} but it is not a shared mount; mount --make-rshared {mount}"
    )]
    NotShared { path: PathBuf, mount: PathBuf },
    #[error("SELinux: label {path}")]
    Relabel { path: PathBuf, source: io::Error },
    #[error("SELinux: {path} is the host's own and not relabelled; mount what is below it")]
    RelabelHost { path: PathBuf },
    #[error("make {path}")]
    Make { path: PathBuf, source: io::Error },
    #[error("keep the image's layers for container {id} in {path}")]
    Hold {
        id: String,
        path: PathBuf,
        source: io::Error,
    },
    #[error("streams of the command")]
    Streams { source: io::Error },
    #[error("set up the pod's network")]
    Network(#[from] cni::network::AddError),
    #[error("give the pod's network back")]
    NetworkDel(#[from] cni::network::DelError),
    #[error("pod CIDR {cidr:?}")]
    Cidr {
        cidr: String,
        source: <cni::Cidr as std::str::FromStr>::Err,
    },
    #[error("set the pod CIDR")]
    SetCidrs(#[from] cni::network::SetCidrsError),
    #[error(transparent)]
    Spec(#[from] SpecError),
    #[error(transparent)]
    Cgroup(#[from] CgroupError),
    #[error(transparent)]
    Process(#[from] ProcessError),
    #[error(transparent)]
    Seccomp(#[from] SeccompError),
    #[error(transparent)]
    Record(#[from] RecordError),
    #[error(transparent)]
    PodFiles(#[from] PodFilesError),
    #[error(transparent)]
    Accounts(#[from] AccountsError),
    #[error(transparent)]
    Device(#[from] DeviceError),
    #[error(transparent)]
    Cdi(#[from] CdiError),
    #[error(transparent)]
    Lookup(#[from] LookupError),
    #[error("{0}")]
    Unsupported(&'static str),
    #[error("the runtime is shutting down")]
    ShuttingDown,
}

impl VerbError {
    fn code(&self) -> Code {
        match self {
            Self::SandboxNotFound { .. }
            | Self::ContainerNotFound { .. }
            | Self::ImageNotFound { .. } => Code::NotFound,
            Self::Ambiguous(_)
            | Self::Missing { .. }
            | Self::Handler { .. }
            | Self::ImageSubPath { .. }
            | Self::ImageWritable { .. }
            | Self::Cidr { .. }
            | Self::Spec(_)
            | Self::NotShared { .. }
            | Self::RelabelHost { .. }
            | Self::Device(_)
            | Self::Cdi(_)
            | Self::Seccomp(_) => Code::InvalidArgument,
            Self::SandboxNotReady { .. } | Self::NotCreated { .. } | Self::NotRunning { .. } => {
                Code::FailedPrecondition
            }
            Self::Exists { .. } => Code::AlreadyExists,
            Self::WontEnd { .. } | Self::ExecTimeout { .. } => Code::DeadlineExceeded,
            Self::Unsupported(_) => Code::Unimplemented,
            Self::ShuttingDown => Code::Unavailable,
            Self::Process(error) => process_code(error),
            Self::Cgroup(CgroupError::Name { .. } | CgroupError::SystemdName { .. }) => {
                Code::InvalidArgument
            }
            Self::Network(_) | Self::NetworkDel(_) => Code::Unknown,
            Self::HostPath { .. }
            | Self::Make { .. }
            | Self::Relabel { .. }
            | Self::Hold { .. }
            | Self::Streams { .. }
            | Self::SetCidrs(_)
            | Self::Cgroup(_)
            | Self::Record(_)
            | Self::PodFiles(_)
            | Self::Accounts(_)
            | Self::Lookup(_) => Code::Internal,
        }
    }
}

fn process_code(error: &ProcessError) -> Code {
    match error {
        ProcessError::NotFound { .. } => Code::NotFound,
        ProcessError::NotRunning { .. } => Code::FailedPrecondition,
        ProcessError::Spec { .. } => Code::InvalidArgument,
        ProcessError::MonitorGone { .. } => Code::Unavailable,
        _ => Code::Unknown,
    }
}

impl From<VerbError> for Status {
    fn from(error: VerbError) -> Self {
        Status::new(error.code(), chain(&error))
    }
}

/// An error with all that caused it, in one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        if !text.ends_with(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        next = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn status_tells_the_whole_chain_once() {
        let status = Status::from(VerbError::HostPath {
            path: "/a".into(),
            source: io::Error::other("disk on fire"),
        });
        assert_eq!(status.message(), "host path /a: disk on fire");
        assert_eq!(status.code(), Code::Internal);
    }

    #[test]
    fn exec_timeout_is_the_deadline_that_probes_look_for() {
        let status = Status::from(VerbError::ExecTimeout {
            command: vec!["sleep".to_owned()],
            seconds: 1,
        });
        assert_eq!(status.code(), Code::DeadlineExceeded);
        assert!(status.message().contains("timeout 1s exceeded"));
    }
}
