//! Somebody's network plugins, executed as the CNI specification says
//! (containernetworking/cni SPEC.md, 0.3.1 to 1.1.0).

mod chain;
mod conf;
mod error;
mod exec;
#[cfg(test)]
mod fuzz;
mod pin;
mod reply;
mod shim;

pub use chain::{Call, Chain};
pub use conf::{ConfError, ConfList, Plugin, find};
pub use error::ForeignError;
pub use exec::{PluginError, execute};
pub use pin::{pin, unpin};
pub use reply::addresses;
pub use shim::lay_shims;
