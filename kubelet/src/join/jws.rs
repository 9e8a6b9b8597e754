//! The signature under cluster-info: a detached JWS with HS256, whose key is
//! the token's secret.

use super::token::BootstrapToken;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

#[derive(serde::Deserialize)]
struct Header {
    alg: String,
    kid: String,
}

/// Whether `signature` (`header..mac`) was made over `payload` by someone who
/// knows the token. Header and key id must be the expected ones, so that
/// neither another algorithm nor another token's signature is taken.
pub fn is_signed_with(token: &BootstrapToken, payload: &str, signature: &str) -> bool {
    verify(token, payload, signature).is_some()
}

fn verify(token: &BootstrapToken, payload: &str, signature: &str) -> Option<()> {
    let (header, mac) = signature.split_once("..")?;
    let parsed: Header = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(header).ok()?).ok()?;
    if parsed.alg != "HS256" || parsed.kid != token.id {
        return None;
    }
    let mac = URL_SAFE_NO_PAD.decode(mac).ok()?;
    let signed = format!("{header}.{}", URL_SAFE_NO_PAD.encode(payload));
    let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, token.secret.as_bytes());
    ring::hmac::verify(&key, signed.as_bytes(), &mac).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token() -> BootstrapToken {
        BootstrapToken::parse("abcdef.0123456789abcdef").unwrap()
    }

    fn sign(header: &str, payload: &str, secret: &str) -> String {
        let header = URL_SAFE_NO_PAD.encode(header);
        let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, secret.as_bytes());
        let signed = format!("{header}.{}", URL_SAFE_NO_PAD.encode(payload));
        let mac = ring::hmac::sign(&key, signed.as_bytes());
        format!("{header}..{}", URL_SAFE_NO_PAD.encode(mac.as_ref()))
    }

    const HEADER: &str = r#"{"alg":"HS256","kid":"abcdef"}"#;

    #[test]
    fn signature_is_taken_when_made_with_the_tokens_secret() {
        let signature = sign(HEADER, "apiVersion: v1", "0123456789abcdef");
        assert!(is_signed_with(&token(), "apiVersion: v1", &signature));
    }

    #[test]
    fn signature_is_refused_when_anything_differs() {
        let good = sign(HEADER, "apiVersion: v1", "0123456789abcdef");
        assert!(!is_signed_with(&token(), "apiVersion: v2", &good));
        let other = sign(HEADER, "apiVersion: v1", "fedcba9876543210");
        assert!(!is_signed_with(&token(), "apiVersion: v1", &other));
        let kid = sign(
            r#"{"alg":"HS256","kid":"zzzzzz"}"#,
            "apiVersion: v1",
            "0123456789abcdef",
        );
        assert!(!is_signed_with(&token(), "apiVersion: v1", &kid));
        let alg = sign(
            r#"{"alg":"none","kid":"abcdef"}"#,
            "apiVersion: v1",
            "0123456789abcdef",
        );
        assert!(!is_signed_with(&token(), "apiVersion: v1", &alg));
        assert!(!is_signed_with(
            &token(),
            "apiVersion: v1",
            &good.replace("..", ".")
        ));
        assert!(!is_signed_with(&token(), "apiVersion: v1", ""));
    }
}
