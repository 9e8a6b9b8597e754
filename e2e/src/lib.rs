//! The test bed: real clusters on one machine, everything in them real.

pub mod bench;
pub mod cache;
pub mod cgroup;
pub mod cluster;
pub mod command;
pub mod conformance;
pub mod cri;
pub mod critest;
pub mod debian;
pub mod demo;
pub mod http;
pub mod image;
pub mod machine;
pub mod node;
pub mod peer;
pub mod progress;
pub mod requirement;
pub mod soak;
