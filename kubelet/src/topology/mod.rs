//! Where CPUs, memory and devices are, and which of them a container may have.

mod cpu_set;
pub mod cpus;
mod hint;
mod mask;
pub mod numa;
pub mod policy;

pub use cpu_set::{CpuSet, ParseError};
pub use cpus::{CpuTopology, Level, TopologyError};
pub use hint::Hint;
pub use mask::NodeMask;
pub use numa::Numa;
pub use policy::Hints;
