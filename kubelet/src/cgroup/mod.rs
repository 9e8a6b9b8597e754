//! The cgroups above those of pods: `kubepods`, held to what the node has for pods, and below it
//! one for each class but Guaranteed, with CPU shares by what the pods in it ask for.
//!
//! A pod's own cgroup and its containers' are the runtime's (CRI); these no runtime knows of, but
//! that it makes them when they are missing. Whatever removes one, it is made again.
//!
//! - `limits`: what a cgroup is held to, as files and as properties of a systemd unit. Pure.
//! - `tree`: makes and writes them.
//! - `slices`: the same by systemd, where it is the cgroup driver.
//! - [`NodeCgroups`]: keeps them.
//!
//! Rules: kubernetes v1.37 pkg/kubelet/cm/node_container_manager_linux.go and
//! qos_container_manager_linux.go.

mod limits;
mod node;
mod shares;
mod slices;
mod tree;

pub use node::{NodeCgroups, NodeCgroupsOptions, ReservedError};
pub use tree::CgroupError;
