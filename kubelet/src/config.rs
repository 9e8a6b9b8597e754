//! KubeletConfiguration v1beta1 and the flags beside it.
//!
//! [`load`] reads the primary file and its drop-ins, [`KubeletConfiguration`] is
//! what was written there, [`Config`] what the node works with. Every mistake
//! of a configuration is reported at once.

pub mod duration;
mod enforcement;
mod eviction;
mod image_gc;
mod layers;
mod managers;
mod raw;
mod shutdown;
mod told;
mod traces;
mod used;

pub use enforcement::{Enforcement, ReservedCgroup};
pub use eviction::{Signal, Threshold, ThresholdValue};
pub use image_gc::ImageGc;
pub use layers::{ConfigError, Loaded, load, load_under, parse};
pub use managers::Managers;
pub use raw::*;
pub use shutdown::ShutdownGrace;
pub use traces::{Collector, Tracing};
pub use used::{AuthorizationMode, Config, NodeAllocatable};

#[cfg(test)]
mod tests;
