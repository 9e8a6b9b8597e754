//! Where the time of a pod's start goes, span by span.
//!
//! `kubelet`, `runtime` and `cni` open tracing spans; [`Recorder`] keeps those of
//! starts in [`Starts`], `control` hands them to `lighter waterfall`, and [`draw`]
//! makes text of them.

mod draw;
mod recorder;
mod starts;

pub use draw::draw;
pub use recorder::Recorder;
pub use starts::{Start, Starts};
