//! Cgroups as the kernel shows them: which hierarchies there are, what a new cgroup needs before
//! it is of use, how files are read and written. Pods, limits and drivers are not known here.
//!
//! - `hierarchy`: where they are mounted. - `file`: what is in them. - `make`: a new one.
//! - `weight`: the scale of cgroup v2.

mod file;
mod hierarchy;
mod make;
mod weight;

pub use file::{FileError, field, number, put, text};
pub use hierarchy::{Hierarchy, MOUNT, Mode, counts_swap, is_unified, mode, read};
pub use make::{DELEGATED, make, pass_on};
pub use weight::weight;
