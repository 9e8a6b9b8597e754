//! The CRI verbs, a file each.
