//! What a person types: `abcdef.0123456789abcdef` and `sha256:…`.

use super::JoinError;
use x509_parser::prelude::FromDer;

/// A bootstrap token, `id.secret`.
#[derive(Clone, PartialEq, Eq)]
pub struct BootstrapToken {
    /// Public.
    pub id: String,
    /// Not to be printed.
    pub secret: String,
}

impl BootstrapToken {
    /// Six and sixteen characters of `[a-z0-9]`, joined by a dot.
    ///
    /// # Errors
    /// When the text is anything else; it is not repeated in the error.
    pub fn parse(text: &str) -> Result<BootstrapToken, JoinError> {
        let is = |s: &str, len: usize| {
            s.len() == len
                && s.bytes()
                    .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
        };
        match text.split_once('.') {
            Some((id, secret)) if is(id, 6) && is(secret, 16) => Ok(BootstrapToken {
                id: id.to_owned(),
                secret: secret.to_owned(),
            }),
            _ => Err(JoinError::TokenFormat),
        }
    }

    /// As it goes into an Authorization header.
    pub fn bearer(&self) -> String {
        format!("{}.{}", self.id, self.secret)
    }
}

impl std::fmt::Debug for BootstrapToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "BootstrapToken({}.…)", self.id)
    }
}

/// SHA-256 of a CA's public key (its DER SubjectPublicKeyInfo; RFC 7469).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CaPin([u8; 32]);

impl CaPin {
    /// `sha256:` and 64 hexadecimal digits.
    ///
    /// # Errors
    /// When the text is anything else.
    pub fn parse(text: &str) -> Result<CaPin, JoinError> {
        let bad = || JoinError::PinFormat {
            pin: text.to_owned(),
        };
        let hex = text.strip_prefix("sha256:").ok_or_else(bad)?;
        if hex.len() != 64 || !hex.is_ascii() {
            return Err(bad());
        }
        let mut pin = [0; 32];
        for (byte, i) in pin.iter_mut().zip((0..64).step_by(2)) {
            *byte = u8::from_str_radix(&hex[i..i + 2], 16).map_err(|_| bad())?;
        }
        Ok(CaPin(pin))
    }

    /// The pin of a certificate; `None` when it is no X.509.
    pub fn of(der: &[u8]) -> Option<CaPin> {
        let (_, certificate) = x509_parser::certificate::X509Certificate::from_der(der).ok()?;
        let digest = ring::digest::digest(&ring::digest::SHA256, certificate.public_key().raw);
        digest.as_ref().try_into().ok().map(CaPin)
    }
}

impl std::fmt::Display for CaPin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "sha256:")?;
        self.0.iter().try_for_each(|b| write!(f, "{b:02x}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn token_is_two_words_of_fixed_length() {
        let token = BootstrapToken::parse("abcdef.0123456789abcdef").unwrap();
        assert_eq!(token.bearer(), "abcdef.0123456789abcdef");
        for bad in [
            "",
            "abcdef",
            "ABCDEF.0123456789abcdef",
            "abcde.0123456789abcdef",
            "abcdef.0123456789abcde",
            "abcdef.0123456789abcdef.x",
            "abcdef 0123456789abcdef",
        ] {
            assert!(BootstrapToken::parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn token_hides_its_secret_when_printed() {
        let token = BootstrapToken::parse("abcdef.0123456789abcdef").unwrap();
        assert!(!format!("{token:?}").contains("0123456789abcdef"));
    }

    #[test]
    fn pin_is_the_digest_of_the_public_key_not_of_the_certificate() {
        let key = rcgen::KeyPair::generate().unwrap();
        let one = rcgen::CertificateParams::new(vec!["a".to_owned()]).unwrap();
        let two = rcgen::CertificateParams::new(vec!["b".to_owned()]).unwrap();
        let (one, two) = (
            one.self_signed(&key).unwrap(),
            two.self_signed(&key).unwrap(),
        );
        assert_ne!(one.der(), two.der());
        assert_eq!(CaPin::of(one.der()), CaPin::of(two.der()));
        let pin = CaPin::of(one.der()).unwrap();
        assert_eq!(CaPin::parse(&pin.to_string()).unwrap(), pin);
    }

    #[test]
    fn pin_refuses_other_digests_and_lengths() {
        for bad in [
            "",
            "sha256:",
            "sha1:00",
            "sha256:zz",
            &format!("sha256:{}", "g".repeat(64)),
        ] {
            assert!(CaPin::parse(bad).is_err(), "{bad:?}");
        }
    }
}
