//! Device plugins: what they offer, and which container was given what.
//!
//! - [`inventory`]: resources, devices and allocations; pure.
//! - `hints`: near which NUMA nodes devices could be had; pure.
//! - `registration`: the service that plugins announce themselves to.
//! - `plugin`: one plugin, as it is called.
//! - `checkpoint`: what must outlive the agent.
//! - [`Devices`]: all of it together.

mod checkpoint;
mod devices;
mod given;
mod hints;
pub mod inventory;
mod plugin;
mod registration;

pub use devices::{Devices, Wanted};
pub use given::Given;
pub use inventory::AllocateError;
