//! Content addresses.

use ring::digest::{Context, SHA256, SHA512};
use std::fmt;

/// `algorithm:hex`, checked: sha256 or sha512, lower-case, of the right length.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Digest(String);

/// Why a text is no digest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a digest (sha256: and 64, or sha512: and 128, lower-case hex digits)")]
pub struct DigestError {
    text: String,
}

impl Digest {
    /// Parses `sha256:…` or `sha512:…`.
    ///
    /// # Errors
    /// Any other algorithm, length or digit.
    pub fn parse(text: &str) -> Result<Self, DigestError> {
        let valid = match text.split_once(':') {
            Some(("sha256", hex)) => hex.len() == 64 && is_hex(hex),
            Some(("sha512", hex)) => hex.len() == 128 && is_hex(hex),
            _ => false,
        };
        if valid {
            return Ok(Self(text.to_owned()));
        }
        Err(DigestError {
            text: text.chars().take(160).collect(),
        })
    }

    /// The sha256 of some bytes.
    #[must_use]
    pub fn sha256(bytes: &[u8]) -> Self {
        let mut hasher = Hasher::sha256();
        hasher.update(bytes);
        hasher.finish()
    }

    /// `sha256:…`.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The digits alone.
    #[must_use]
    pub fn hex(&self) -> &str {
        self.0.split_once(':').map_or("", |(_, hex)| hex)
    }

    /// A hasher of this digest's algorithm.
    #[must_use]
    pub fn hasher(&self) -> Hasher {
        if self.0.starts_with("sha512:") {
            Hasher {
                name: "sha512",
                context: Context::new(&SHA512),
            }
        } else {
            Hasher::sha256()
        }
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Whether all are lower-case hex digits.
pub fn is_hex(text: &str) -> bool {
    text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

/// image-spec config.md "Layer ChainID": what the layers give when stacked.
#[must_use]
pub fn chain_id(diff_ids: &[String]) -> String {
    let mut chain = String::new();
    for diff_id in diff_ids {
        chain = if chain.is_empty() {
            diff_id.clone()
        } else {
            Digest::sha256(format!("{chain} {diff_id}").as_bytes()).0
        };
    }
    chain
}

/// A digest in the making.
#[derive(Clone)]
pub struct Hasher {
    name: &'static str,
    context: Context,
}

impl Hasher {
    /// For bytes that nobody gave a digest for.
    #[must_use]
    pub fn sha256() -> Self {
        Self {
            name: "sha256",
            context: Context::new(&SHA256),
        }
    }

    /// Takes more bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.context.update(bytes);
    }

    /// The digest of all bytes taken.
    #[must_use]
    pub fn finish(self) -> Digest {
        let sum = self.context.finish();
        let mut text = String::with_capacity(self.name.len() + 1 + sum.as_ref().len() * 2);
        text.push_str(self.name);
        text.push(':');
        for byte in sum.as_ref() {
            text.push(char::from(b"0123456789abcdef"[usize::from(byte >> 4)]));
            text.push(char::from(b"0123456789abcdef"[usize::from(byte & 15)]));
        }
        Digest(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digest_of_nothing_is_the_published_one() {
        assert_eq!(
            Digest::sha256(b"").as_str(),
            "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
        );
    }

    #[test]
    fn digest_is_refused_when_short_upper_case_or_of_another_algorithm() {
        let hex = "a".repeat(64);
        assert!(Digest::parse(&format!("sha256:{hex}")).is_ok());
        assert!(Digest::parse(&format!("sha256:{}", &hex[1..])).is_err());
        assert!(Digest::parse(&format!("sha256:{}", hex.to_uppercase())).is_err());
        assert!(Digest::parse(&format!("sha1:{hex}")).is_err());
        assert!(Digest::parse(&format!("sha256:../{}", &hex[3..])).is_err());
        assert!(Digest::parse(&hex).is_err());
    }

    #[test]
    fn digest_hashes_with_its_own_algorithm() {
        let want = Digest::parse(&format!("sha512:{}", "0".repeat(128))).unwrap();
        let mut hasher = want.hasher();
        hasher.update(b"x");
        assert!(
            hasher
                .finish()
                .as_str()
                .starts_with("sha512:a4abd4448c49562d")
        );
    }
}
