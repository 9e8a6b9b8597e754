//! Where CPUs, memory and devices are, and which of them a container may have.

mod cpu_set;
pub mod cpus;
mod hint;
mod mask;

pub use cpu_set::CpuSet;
pub use cpus::{CpuTopology, Level, TopologyError};
pub use hint::Hint;
pub use mask::NodeMask;
