//! The kubelet API on :10250.
