//! A name to an image.
//!
//! `join`: calls for the same image become one. `run`: manifest, configuration,
//! layers, record. `layer`: one streaming pass. `progress`: how far it is.

mod error;
mod join;
pub(super) mod layer;
mod progress;
#[cfg(test)]
mod registry_tests;
mod run;
pub(super) mod settle;
#[cfg(test)]
mod tests;

pub use error::PullError;
pub use join::Pulls;
pub use progress::{LayerProgress, Progress};
pub(super) use run::check_config;

use super::{Image, Reference, Store};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use std::fmt;
use std::sync::Arc;

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

impl Auth {
    /// User and password of docker's `auth` field: base64 of `user:password`,
    /// with or without padding.
    #[must_use]
    pub fn decode(text: &str) -> Option<(String, String)> {
        let decoded = STANDARD
            .decode(text)
            .or_else(|_| STANDARD_NO_PAD.decode(text));
        let text = String::from_utf8(decoded.ok()?).ok()?;
        let (user, password) = text.split_once(':')?;
        // docker pads old entries with zeros.
        Some((user.to_owned(), password.trim_end_matches('\0').to_owned()))
    }
}

impl fmt::Debug for Auth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Secrets never reach a log.
        f.debug_struct("Auth")
            .field("username", &self.username)
            .finish_non_exhaustive()
    }
}

impl Store {
    /// Brings an image in from its registry or a mirror. Calls for the same
    /// name with the same credentials join; when all callers have gone away
    /// the pull ends and removes what it has made.
    ///
    /// # Errors
    /// See [`PullError`]; all who joined get the same.
    pub async fn pull(
        self: &Arc<Self>,
        reference: &str,
        auth: Option<Auth>,
    ) -> Result<Arc<Image>, Arc<PullError>> {
        let reference = Reference::parse(reference).map_err(PullError::Reference)?;
        self.join_pull(reference, auth).await
    }

    /// How far the pulls are that are under way.
    #[must_use]
    pub fn pulling(&self) -> Vec<Progress> {
        self.pulls.progress()
    }
}

#[cfg(test)]
mod auth_tests {
    use super::*;

    #[test]
    fn auth_is_decoded_with_and_without_padding() {
        for text in ["dXNlcjpwYTpzcw==", "dXNlcjpwYTpzcw"] {
            let pair = Auth::decode(text).unwrap();
            assert_eq!(pair, ("user".to_owned(), "pa:ss".to_owned()));
        }
        assert!(Auth::decode("bm9jb2xvbg==").is_none());
        assert!(Auth::decode("%%%").is_none());
    }

    #[test]
    fn auth_shows_no_secret_when_printed() {
        let auth = Auth {
            username: "me".to_owned(),
            password: "hidden1".to_owned(),
            identity_token: "hidden2".to_owned(),
            registry_token: "hidden3".to_owned(),
        };
        assert!(!format!("{auth:?}").contains("hidden"));
    }
}
