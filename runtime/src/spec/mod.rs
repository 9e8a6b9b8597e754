//! From a CRI request and an image to an OCI runtime spec; no I/O.
