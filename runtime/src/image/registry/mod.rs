//! Talking to registries.

use std::path::PathBuf;

/// HTTP clients, one for each set of TLS settings in use.
pub struct Clients {
    _ca_bundles: Vec<PathBuf>,
}

impl Clients {
    pub fn new(ca_bundles: Vec<PathBuf>) -> Self {
        Self {
            _ca_bundles: ca_bundles,
        }
    }
}
