//! Mounts that are made before a pod comes, for its first container.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use prost::Message;
use rustix::io::Errno;

use super::super::plan::{Mount, Plan};
use super::super::step::{At, Failure, Step};
use super::{device, path, rootfs};

/// File systems that belong to the pod's namespaces or to the container alone, detached. A
/// container takes each that its own plan asks for in the very same words.
#[derive(Default)]
pub struct MadeAhead(Vec<(Mount, OwnedFd)>);

/// Where devices are.
pub const DEV: &str = "/dev";

impl MadeAhead {
    /// Makes the mounts of an encoded [`Plan`], for this process' namespaces.
    ///
    /// # Errors
    /// The first mount that can't be had.
    pub fn make(plan: &[u8]) -> Result<Self, Failure> {
        let plan = Plan::decode(plan).map_err(|_| Errno::BADMSG);
        let plan = plan.at(Step::ReadPlan)?;
        let mut made = Vec::with_capacity(plan.mounts.len());
        for mount in &plan.mounts {
            let fd = rootfs::fresh(mount).on(Step::MakeMount, &mount.destination)?;
            if mount.destination == DEV {
                furnish(fd.as_fd(), &plan)?;
            }
            made.push((mount.clone(), fd));
        }
        Ok(Self(made))
    }

    /// The one that is this mount.
    pub fn find(&self, mount: &Mount) -> Option<BorrowedFd<'_>> {
        let found = self.0.iter().find(|(made, _)| made == mount);
        found.map(|(_, fd)| fd.as_fd())
    }
}

/// What every /dev has, and the mountpoints of the others.
fn furnish(dev: BorrowedFd<'_>, plan: &Plan) -> Result<(), Failure> {
    device::defaults(dev, false)?;
    let below = |mount: &Mount| mount.destination.strip_prefix("/dev/").map(str::to_owned);
    for name in plan.mounts.iter().filter_map(below) {
        path::mountpoint(dev, &name, true)?;
    }
    Ok(())
}
