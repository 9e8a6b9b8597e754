//! Ends pods when the node runs short of memory, disk, inodes or process ids: the least
//! deserving first, one at a time, and for disks only after what nobody uses has gone; and
//! pods that keep more on the node's disk than they may.
//!
//! What is short is measured with the node's conditions ([`crate::node::Shortage`]); who goes
//! is decided by `rank` and `local`, and [`Evictor`] does it. [`Images`] removes images that
//! nobody uses, when the disk fills up and when they are old: `garbage` decides which.
//! Rules: kubernetes v1.37 pkg/kubelet/eviction, pkg/kubelet/images/image_gc_manager.go.

mod evictor;
mod garbage;
mod images;
mod local;
mod rank;
mod usage;

pub use evictor::{Evictor, EvictorOptions};
pub use images::Images;
pub use rank::{EVICTED, critical};
pub(crate) use usage::{Used, tree};

use k8s_openapi::api::core::v1::ObjectReference;

/// The Node as events are about it: by name, as the kubelet has always done.
pub(crate) fn node(name: &str) -> ObjectReference {
    ObjectReference {
        kind: Some("Node".to_owned()),
        name: Some(name.to_owned()),
        uid: Some(name.to_owned()),
        ..ObjectReference::default()
    }
}
