//! Our executable as a CNI plugin, by the name it is called by.

/// Names that [`dispatch`] answers to.
pub const NAMES: [&str; 5] = ["bridge", "ptp", "host-local", "portmap", "loopback"];
