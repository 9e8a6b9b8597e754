//! The Node object, its Lease and its conditions.

mod name;

pub use name::{NameError, default_name};
