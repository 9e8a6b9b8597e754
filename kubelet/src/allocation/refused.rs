//! Why a pod can't be taken.

use crate::cpu::policy::CpuError;

/// `status.reason` and `status.message`.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Refused {
    pub reason: &'static str,
    pub message: String,
}

impl Refused {
    /// kubernetes v1.37 pkg/kubelet/cm/admission/errors.go `GetPodAdmitResult`.
    pub(super) fn unexpected(error: &dyn std::error::Error) -> Refused {
        Refused {
            reason: "UnexpectedAdmissionError",
            message: format!("Allocate failed due to {error}, which is unexpected"),
        }
    }

    pub(super) fn cpu(error: CpuError) -> Refused {
        match error {
            CpuError::TooFew { .. } => Refused::unexpected(&error),
            CpuError::Unaligned { .. } | CpuError::TooFewCores { .. } => Refused {
                reason: "SMTAlignmentError",
                message: error.to_string(),
            },
        }
    }

    /// kubernetes v1.37 pkg/kubelet/cm/topologymanager `TopologyAffinityError`.
    pub(super) fn topology() -> Refused {
        Refused {
            reason: "TopologyAffinityError",
            message: "Resources cannot be allocated with Topology locality".to_owned(),
        }
    }
}
