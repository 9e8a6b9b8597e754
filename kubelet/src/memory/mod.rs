//! Memory of NUMA nodes that containers have for themselves (the kubelet's memory manager).
//!
//! - [`table`]: what there is and whose it is; pure.
//! - [`policy`]: where a container's memory comes from; pure.
//! - `state`: `memory_manager_state`, the stock kubelet's file.
//! - `host`: what the kernel says.
//! - [`Memory`]: all of it together.

mod host;
#[allow(clippy::module_inception)]
mod memory;
pub mod policy;
mod state;
pub mod table;

pub use memory::{Memory, MemoryPolicy, MemoryStartError};
