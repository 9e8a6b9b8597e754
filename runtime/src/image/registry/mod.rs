//! Talking to registries.
//!
//! - `hosts_toml`, `registries_yaml`: what operators write.
//! - `endpoint`: a name and those files to a list of places to ask; pure.
//! - `tls`: HTTP clients with the right certificates.
//! - `challenge`, `token`: 401 to an Authorization header.
//! - `exchange`: one GET with redirects and retries.
//! - `session`: manifests and blobs from the first place that has them.
//! - `manifest`: what a manifest says; pure.

mod challenge;
mod endpoint;
mod exchange;
mod explain;
#[cfg(test)]
pub mod fake;
mod hosts_toml;
pub mod manifest;
mod registries_yaml;
mod session;
mod tls;
mod token;

pub use endpoint::{ConfigError, endpoints};
pub use exchange::ExchangeError;
pub use explain::ExplainError;
pub use session::{Attempt, AttemptError, Blob, BlobError, FetchError, Session};
pub use tls::Clients;
pub use token::TokenError;

/// Parsers that only this room sees, for the tests with damaged input.
#[cfg(test)]
pub mod fuzzed {
    use std::path::Path;

    pub fn challenge(input: &str) {
        let _ = super::challenge::choose(std::iter::once(input));
    }

    pub fn location(input: &str) {
        for base in ["https://a.io/v2/x/blobs/y?z=1", "http://a.io"] {
            super::exchange::fuzzed_location(base, input);
        }
    }

    pub fn retry_after(input: &[u8]) {
        if let Ok(value) = http::HeaderValue::from_bytes(input) {
            super::exchange::fuzzed_retry_after(&value);
        }
    }

    pub fn hosts_toml(input: &str) {
        if let Err(reason) = super::hosts_toml::parse(input, Path::new("/")) {
            assert!(!reason.contains('\n'), "{reason:?}");
        }
    }

    pub fn registries_yaml(input: &str) {
        if let Err(reason) = super::registries_yaml::parse(input) {
            assert!(!reason.contains('\n'), "{reason:?}");
        }
    }
}
