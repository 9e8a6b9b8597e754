//! Image names: parsed and normalised as docker and containerd do.
//!
//! Facts from distribution/reference v0.6 `normalize.go` and `regexp.go`.

use super::defaults::MAX_REPOSITORY;
use super::digest::{Digest, is_hex};
use std::fmt;

/// A normalised name: always with a host, always with a tag or a digest.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Reference {
    host: String,
    repository: String,
    version: Version,
}

/// What a name points at.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Version {
    /// A name that the registry may move.
    Tag(String),
    /// One manifest for ever.
    Digest(Digest),
}

/// Why a text is no image name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not an image name: {reason}")]
pub struct ReferenceError {
    text: String,
    reason: &'static str,
}

impl Reference {
    /// Parses `[host[:port]/]path[:tag][@digest]`. `docker.io/library/` and
    /// `:latest` are supplied; a tag beside a digest is dropped.
    ///
    /// # Errors
    /// Upper case, empty components, names of more than 255 bytes, bad digests,
    /// and 64 hex digits, which would be an image id.
    pub fn parse(text: &str) -> Result<Self, ReferenceError> {
        parse(text).map_err(|reason| ReferenceError {
            text: text.chars().take(300).collect(),
            reason,
        })
    }

    /// Host and port, as in the name: `docker.io`, never `registry-1.docker.io`.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The path without host and tag.
    #[must_use]
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// Tag or digest.
    #[must_use]
    pub fn version(&self) -> &Version {
        &self.version
    }

    /// Host and path.
    #[must_use]
    pub fn name(&self) -> String {
        format!("{}/{}", self.host, self.repository)
    }

    /// The same repository at a digest.
    #[must_use]
    pub fn at(&self, digest: &Digest) -> String {
        format!("{}@{digest}", self.name())
    }
}

impl Version {
    /// As it stands in a manifest's URL.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match self {
            Self::Tag(tag) => tag,
            Self::Digest(digest) => digest.as_str(),
        }
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mark = match self.version {
            Version::Tag(_) => ':',
            Version::Digest(_) => '@',
        };
        write!(
            f,
            "{}/{}{mark}{}",
            self.host,
            self.repository,
            self.version.as_str()
        )
    }
}

fn parse(text: &str) -> Result<Reference, &'static str> {
    if text.is_empty() {
        return Err("it is empty");
    }
    if text.len() == 64 && is_hex(text) {
        return Err("it is an image id");
    }
    let (rest, digest) = match text.split_once('@') {
        Some((rest, digest)) => {
            let digest = Digest::parse(digest).map_err(|_| "what follows @ is not a digest")?;
            (rest, Some(digest))
        }
        None => (text, None),
    };
    // A colon before the last slash belongs to a port.
    let (name, tag) = match rest.rsplit_once(':') {
        Some((name, tag)) if !tag.contains('/') => (name, Some(tag)),
        _ => (rest, None),
    };
    if tag.is_some_and(|tag| !is_tag(tag)) {
        return Err("the tag is not of [A-Za-z0-9_.-], at most 128, or begins with . or -");
    }
    let (host, repository) = split_host(name)?;
    if host.len() + 1 + repository.len() > MAX_REPOSITORY {
        return Err("the name is longer than 255 bytes");
    }
    if !repository.split('/').all(is_path_component) {
        return Err("a path component is not lower-case letters and digits joined by . _ or -");
    }
    let version = match digest {
        Some(digest) => Version::Digest(digest),
        None => Version::Tag(tag.unwrap_or("latest").to_owned()),
    };
    Ok(Reference {
        host,
        repository,
        version,
    })
}

fn split_host(name: &str) -> Result<(String, String), &'static str> {
    let first_is_host = |first: &str| {
        first.contains(['.', ':'])
            || first == "localhost"
            || first.bytes().any(|b| b.is_ascii_uppercase())
    };
    let (host, path) = match name.split_once('/') {
        Some((first, path)) if first_is_host(first) => (first, path),
        _ => ("docker.io", name),
    };
    if !is_host(host) {
        return Err("the host is not a DNS name or address, with or without a port");
    }
    let host = if host == "index.docker.io" {
        "docker.io"
    } else {
        host
    };
    if host == "docker.io" && !path.contains('/') {
        return Ok((host.to_owned(), format!("library/{path}")));
    }
    Ok((host.to_owned(), path.to_owned()))
}

fn is_host(host: &str) -> bool {
    let (name, port) = match host.strip_prefix('[') {
        Some(rest) => match rest.split_once(']') {
            Some((address, port)) if address.parse::<std::net::Ipv6Addr>().is_ok() => {
                return port.is_empty() || port.strip_prefix(':').is_some_and(is_port);
            }
            _ => return false,
        },
        None => match host.split_once(':') {
            Some((name, port)) => (name, Some(port)),
            None => (host, None),
        },
    };
    port.is_none_or(is_port)
        && name.split('.').all(|label| {
            !label.is_empty()
                && label
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b == b'-')
                && !label.starts_with('-')
                && !label.ends_with('-')
        })
}

fn is_port(port: &str) -> bool {
    port.parse::<u16>().is_ok() && port.bytes().all(|b| b.is_ascii_digit())
}

fn is_tag(tag: &str) -> bool {
    tag.len() <= 128
        && !tag.is_empty()
        && !tag.starts_with(['.', '-'])
        && tag
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'))
}

/// Letters and digits, joined by one `.`, one or two `_`, or any run of `-`.
fn is_path_component(component: &str) -> bool {
    let word = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = component.as_bytes();
    if !bytes.first().copied().is_some_and(word) || !bytes.last().copied().is_some_and(word) {
        return false;
    }
    component
        .split(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit())
        .filter(|joint| !joint.is_empty())
        .all(|joint| matches!(joint, "." | "_" | "__") || joint.bytes().all(|b| b == b'-'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn normal(text: &str) -> String {
        Reference::parse(text).unwrap().to_string()
    }

    #[test]
    fn reference_gets_host_library_and_latest_when_left_out() {
        assert_eq!(normal("busybox"), "docker.io/library/busybox:latest");
        assert_eq!(normal("me/app:1"), "docker.io/me/app:1");
        assert_eq!(
            normal("index.docker.io/app"),
            "docker.io/library/app:latest"
        );
        assert_eq!(normal("localhost/app"), "localhost/app:latest");
        assert_eq!(normal("reg:5000/app"), "reg:5000/app:latest");
        assert_eq!(normal("reg:5000/a/b:v1"), "reg:5000/a/b:v1");
        assert_eq!(normal("[::1]:5000/app"), "[::1]:5000/app:latest");
        assert_eq!(
            normal("registry.k8s.io/pause"),
            "registry.k8s.io/pause:latest"
        );
    }

    #[test]
    fn reference_drops_the_tag_when_a_digest_is_given() {
        let digest = format!("sha256:{}", "0".repeat(64));
        assert_eq!(
            normal(&format!("gcr.io/a/b:1@{digest}")),
            format!("gcr.io/a/b@{digest}")
        );
    }

    #[test]
    fn reference_is_refused_when_malformed() {
        for text in [
            "",
            ":",
            "/",
            "a/",
            "a//b",
            "App",
            "a:b c",
            "a@sha256:12",
            "a/../b",
            "a..b",
            "-a",
            "a_",
            "a___b",
            "host-.io/a",
            "reg:99999/a",
            "reg:/a",
            "a:-x",
            "http://a/b",
            "a:",
            "é",
            "[::1/a",
        ] {
            assert!(Reference::parse(text).is_err(), "{text:?}");
        }
        assert!(Reference::parse(&"f".repeat(64)).is_err());
        assert!(Reference::parse(&format!("a.io/{}", "b".repeat(255))).is_err());
    }

    #[test]
    fn reference_accepts_every_joint_of_the_grammar() {
        for text in ["a.b", "a_b", "a__b", "a---b", "x/a.b_c-d/e9"] {
            assert!(Reference::parse(text).is_ok(), "{text:?}");
        }
    }
}
