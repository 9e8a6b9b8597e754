//! Ends pods when the node runs short of memory, disk, inodes or process ids: the least
//! deserving first, one at a time, and for disks only after unused images have gone.
//!
//! What is short is measured with the node's conditions ([`crate::node::Shortage`]); who goes
//! is decided by `rank`, and [`Evictor`] does it.
//! Rules: kubernetes v1.37 pkg/kubelet/eviction.

mod evictor;
mod rank;
mod usage;

pub use evictor::{Evictor, Places};
pub use rank::{EVICTED, exempt};
