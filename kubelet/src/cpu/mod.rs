//! CPUs that containers have for themselves (the kubelet's CPU manager).
//!
//! - [`policy`]: who gets which; pure, over [`crate::topology`].
//! - `take`, `distribute`: which ones are picked.
//! - [`options`]: what `cpuManagerPolicyOptions` says.
//! - `state`: `cpu_manager_state`, the stock kubelet's file.
//! - [`Cpus`]: all of it together; [`Follower`] moves containers that run.

mod cpus;
mod distribute;
mod follow;
pub mod options;
pub mod policy;
mod state;
mod take;

pub use cpus::{CpuPolicy, CpuStartError, Cpus};
pub use follow::Follower;
