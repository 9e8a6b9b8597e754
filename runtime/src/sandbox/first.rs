//! The container that every pod gets, before it is asked for.

use crate::cgroup::CgroupError;
use crate::process::ContainerCgroups;
use tokio::sync::oneshot;

/// A sandbox's first container, as far as it can be made without its config.
#[derive(Debug)]
pub(crate) struct FirstContainer {
    /// The id that it will have. Its writable layer may be there.
    pub id: String,
    /// Its cgroups, if somebody is making them.
    pub cgroups: Option<CgroupsBegun>,
}

impl FirstContainer {
    /// One that nobody makes cgroups for yet.
    pub fn new(id: String) -> Self {
        Self { id, cgroups: None }
    }
}

/// Cgroups that are being made, without limits.
pub(crate) type CgroupsBegun = oneshot::Receiver<Result<ContainerCgroups, CgroupError>>;
