//! The Node object, its Lease and its conditions.
//!
//! - [`machine`], [`address`]: what this host is.
//! - [`selector`]: whether it is meant.
//! - [`resources`], [`pressure`], [`conditions`], [`status`]: what is said of it (pure).
//! - [`register`], [`lease`], [`csinode`], [`Keeper`]: saying it.

pub mod address;
mod conditions;
mod csinode;
pub mod disk;
mod keeper;
mod lease;
pub mod machine;
mod name;
mod patch;
mod pressure;
mod register;
pub mod resources;
pub mod selector;
mod status;

pub use keeper::{Beside, Keeper, KeeperOptions, NodeHandle};
pub use name::{NameError, default_name};
pub use pressure::Shortage;
pub use register::Registration;
pub use status::Fixed;
