//! Why an image could not be pulled, and what a kubelet is told.

use super::layer::LayerError;
use crate::image::ReferenceError;
use crate::image::registry::manifest::ManifestError;
use crate::image::registry::{AttemptError, ConfigError, ExchangeError, FetchError, TokenError};
use std::io;
use std::path::PathBuf;
use tonic::Code;

/// Why an image could not be pulled.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum PullError {
    #[error(transparent)]
    Reference(ReferenceError),
    #[error("pull {reference}: registry configuration")]
    Config {
        reference: String,
        source: ConfigError,
    },
    #[error("pull {reference}")]
    Fetch {
        reference: String,
        source: FetchError,
    },
    #[error("pull {reference}: manifest {digest}")]
    Unusable {
        reference: String,
        digest: String,
        source: ManifestError,
    },
    #[error("pull {reference}: image configuration {digest} {reason}")]
    ImageConfig {
        reference: String,
        digest: String,
        reason: String,
    },
    #[error("pull {reference}: layer {digest}")]
    Layer {
        reference: String,
        digest: String,
        source: LayerError,
    },
    #[error("pull {reference}: write to the image store {path}")]
    Store {
        reference: String,
        path: PathBuf,
        source: io::Error,
    },
    #[error("pull {reference}: given up, nobody waits for it any more")]
    Cancelled { reference: String },
}

impl PullError {
    /// The gRPC code that a kubelet should see.
    #[must_use]
    pub fn code(&self) -> Code {
        match self {
            Self::Reference(_) => Code::InvalidArgument,
            Self::Config { .. } | Self::Unusable { .. } | Self::ImageConfig { .. } => {
                Code::FailedPrecondition
            }
            Self::Fetch { source, .. } => fetch_code(source),
            Self::Layer { source, .. } => match source {
                LayerError::Fetch(fetch) => fetch_code(fetch),
                LayerError::DiskFull { .. } => Code::ResourceExhausted,
                LayerError::Cancelled => Code::Cancelled,
                _ => Code::DataLoss,
            },
            Self::Store { source, .. } if is_full(source) => Code::ResourceExhausted,
            Self::Store { .. } => Code::Internal,
            Self::Cancelled { .. } => Code::Cancelled,
        }
    }
}

/// What the endpoints' answers come to: one that could not be reached hides
/// less than one that says no.
fn fetch_code(error: &FetchError) -> Code {
    let codes: Vec<Code> = error
        .attempts
        .iter()
        .map(|a| attempt_code(&a.answer))
        .collect();
    for code in [
        Code::PermissionDenied,
        Code::DataLoss,
        Code::Unavailable,
        Code::NotFound,
    ] {
        if codes.contains(&code) {
            return code;
        }
    }
    Code::Unknown
}

fn attempt_code(answer: &AttemptError) -> Code {
    match answer {
        AttemptError::Tls(_) => Code::FailedPrecondition,
        AttemptError::Exchange(ExchangeError::TooLong { .. }) => Code::DataLoss,
        AttemptError::Exchange(_) => Code::Unavailable,
        AttemptError::Token(TokenError::NoCredentials | TokenError::Refused) => {
            Code::PermissionDenied
        }
        AttemptError::Token(_) => Code::Unavailable,
        AttemptError::Status { status, .. } => match status.as_u16() {
            401 | 403 => Code::PermissionDenied,
            404 => Code::NotFound,
            _ => Code::Unavailable,
        },
        AttemptError::Digest { .. } | AttemptError::Size { .. } => Code::DataLoss,
    }
}

/// No space, or the owner's quota used up.
pub fn is_full(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
    )
}
