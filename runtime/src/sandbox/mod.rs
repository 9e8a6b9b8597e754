//! Sandboxes: record, state, network, removal.
