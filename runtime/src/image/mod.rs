//! Images: named by reference, kept by content, shared as layers.
