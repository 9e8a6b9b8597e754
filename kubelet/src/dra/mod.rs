//! Dynamic resource allocation: what the scheduler has allocated to a pod's ResourceClaims
//! is made ready by drivers on the node.
//!
//! - [`claim`]: the claims of a pod; pure.
//! - [`prepared`]: claims that were made ready, and the stock kubelet's file of them.
//! - `drivers`: who makes them ready; `instance`: one of them, at its socket; `health`: how their
//!   devices are; `slices`: what is left of drivers that went.
//! - `views`: what containers have of it.
//! - [`Dra`]: all of it together.

pub mod claim;
#[allow(clippy::module_inception)]
mod dra;
mod drivers;
mod health;
mod instance;
pub mod prepared;
mod slices;
mod views;

pub use dra::Dra;
pub use drivers::{Drivers, Registrar};
pub use slices::Slices;
