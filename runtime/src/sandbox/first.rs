//! The container that every pod gets, before it is asked for.

use crate::cgroup::CgroupError;
use crate::process::ContainerCgroups;
use tokio::sync::oneshot;

/// A sandbox's first container, as far as it can be made without its config.
#[derive(Debug)]
pub(crate) struct FirstContainer {
    /// The id that it will have. Its writable layer may be there.
    pub id: String,
    /// Its cgroups, which somebody is making, without limits.
    pub cgroups: oneshot::Receiver<Result<ContainerCgroups, CgroupError>>,
}
