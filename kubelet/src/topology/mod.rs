//! Where CPUs, memory and devices are, and which of them a container may have.

mod mask;

pub use mask::NodeMask;
