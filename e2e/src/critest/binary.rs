//! critest with our digest in it.
//!
//! One spec pulls an image by the digest upstream's manifest has, which nobody can build again.
//! The digest stands in the program as text, and every digest is as long: ours takes its place.

use anyhow::{Result, ensure};

/// cri-tools v1.36.0 `pkg/validate/consts.go`, `testLinuxImageWithDigest`.
const UPSTREAM: &str = "9700f9a2f5bf2c45f2f605a0bd3bce7cf37420ec9d3ed50ac2758413308766bf";

/// Puts `digest`, `sha256:` and 64 hex digits, where upstream's stands.
pub fn with_digest(mut program: Vec<u8>, digest: &str) -> Result<Vec<u8>> {
    let ours = digest.trim_start_matches("sha256:").as_bytes();
    ensure!(ours.len() == UPSTREAM.len(), "no SHA-256 digest: {digest}");
    let places = positions(&program, UPSTREAM.as_bytes());
    ensure!(
        !places.is_empty(),
        "this critest has no digest {UPSTREAM} in it"
    );
    for place in places {
        program[place..place + ours.len()].copy_from_slice(ours);
    }
    Ok(program)
}

fn positions(text: &[u8], wanted: &[u8]) -> Vec<usize> {
    let all = text.windows(wanted.len()).enumerate();
    all.filter(|(_, w)| *w == wanted)
        .map(|(at, _)| at)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn with_digest_changes_nothing_but_the_digest() {
        let ours = "a".repeat(64);
        let program = format!("x{UPSTREAM}y").into_bytes();
        let changed = with_digest(program, &format!("sha256:{ours}")).unwrap();
        assert_eq!(changed, format!("x{ours}y").into_bytes());
    }

    #[test]
    fn with_digest_refuses_another_version_of_the_program() {
        let error = with_digest(b"nothing".to_vec(), &"a".repeat(64)).unwrap_err();
        assert!(error.to_string().contains(UPSTREAM), "{error}");
    }
}
