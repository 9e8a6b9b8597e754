//! Containers: record, state, removal.
