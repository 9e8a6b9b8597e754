//! Probes: from the node to the container, at the pace the spec sets.

mod check;
pub mod grpc;
pub mod http;
mod threshold;
mod watch;

pub use check::{Outcome, Target, check, port, request};
pub use threshold::Thresholds;
pub use watch::{Watch, watch};

/// Which of a container's probes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(missing_docs)]
pub enum Kind {
    Startup,
    Liveness,
    Readiness,
}

impl Kind {
    /// As events name it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Kind::Startup => "Startup",
            Kind::Liveness => "Liveness",
            Kind::Readiness => "Readiness",
        }
    }
}
