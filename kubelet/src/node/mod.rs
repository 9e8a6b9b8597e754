//! The Node object, its Lease and its conditions.
