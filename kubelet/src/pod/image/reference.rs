//! Image names as Docker's grammar has them.
//! Grammar: github.com/distribution/reference v0.6 regexp.go.

/// An image name in parts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reference {
    /// `docker.io` when none is named.
    pub registry: String,
    /// With `library/` in front for one word on docker.io.
    pub repository: String,
    /// `latest` when there is neither tag nor digest.
    pub tag: Option<String>,
    /// `sha256:…`.
    pub digest: Option<String>,
}

/// The name is not one: `InvalidImageName`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("couldn't parse image name {image:?}: invalid reference format{hint}")]
pub struct InvalidImageName {
    /// As it was written.
    pub image: String,
    /// More, if more can be said.
    pub hint: &'static str,
}

/// Takes a name apart.
///
/// # Errors
/// When it does not follow the grammar.
pub fn parse(image: &str) -> Result<Reference, InvalidImageName> {
    let bad = |hint| InvalidImageName {
        image: image.to_owned(),
        hint,
    };
    let (rest, digest) = match image.split_once('@') {
        Some((rest, digest)) if valid_digest(digest) => (rest, Some(digest.to_owned())),
        Some(_) => return Err(bad(": the digest is not one")),
        None => (image, None),
    };
    let (path, tag) = match rest.rsplit_once(':') {
        Some((path, tag)) if !tag.contains('/') => (path, Some(tag)),
        Some(_) | None => (rest, None),
    };
    if tag.is_some_and(|t| !valid_tag(t)) {
        return Err(bad(": the tag is not one"));
    }
    let (registry, repository) = split_registry(path);
    if path.chars().any(char::is_uppercase) && repository.chars().any(char::is_uppercase) {
        return Err(bad(": repository name must be lowercase"));
    }
    if repository.is_empty() || !repository.split('/').all(valid_component) {
        return Err(bad(""));
    }
    let tag = match (tag, &digest) {
        (Some(tag), _) => Some(tag.to_owned()),
        (None, Some(_)) => None,
        (None, None) => Some("latest".to_owned()),
    };
    Ok(Reference {
        registry,
        repository,
        tag,
        digest,
    })
}

fn split_registry(path: &str) -> (String, String) {
    const DOCKER: &str = "docker.io";
    match path.split_once('/') {
        Some((host, rest)) if host.contains(['.', ':']) || host == "localhost" => {
            let library = host == DOCKER && !rest.contains('/');
            let rest = if library {
                format!("library/{rest}")
            } else {
                rest.to_owned()
            };
            (host.to_owned(), rest)
        }
        Some(_) => (DOCKER.into(), path.to_owned()),
        None if path.is_empty() => (DOCKER.into(), String::new()),
        None => (DOCKER.into(), format!("library/{path}")),
    }
}

fn valid_component(part: &str) -> bool {
    let edge = |c: Option<char>| c.is_some_and(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
    let inner =
        |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '.' | '_' | '-');
    edge(part.chars().next()) && edge(part.chars().last()) && part.chars().all(inner)
}

fn valid_tag(tag: &str) -> bool {
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    (1..=128).contains(&tag.len())
        && tag.starts_with(word)
        && tag.chars().all(|c| word(c) || matches!(c, '.' | '-'))
}

fn valid_digest(digest: &str) -> bool {
    digest.split_once(':').is_some_and(|(algorithm, hex)| {
        let length = match algorithm {
            "sha256" => 64,
            "sha384" => 96,
            "sha512" => 128,
            _ => return false,
        };
        hex.len() == length && hex.bytes().all(|b| b.is_ascii_hexdigit())
    })
}

impl Reference {
    /// `registry/repository`, as credentials are matched.
    #[must_use]
    pub fn path(&self) -> String {
        format!("{}/{}", self.registry, self.repository)
    }

    /// kubernetes v1.36 pkg/kubelet/images: without a policy, `latest` is always
    /// pulled and everything else only if it is missing.
    #[must_use]
    pub fn default_policy(&self) -> &'static str {
        let latest = self.digest.is_none() && self.tag.as_deref() == Some("latest");
        if latest { "Always" } else { "IfNotPresent" }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(image: &str) -> Option<(String, Option<String>)> {
        parse(image).ok().map(|r| (r.path(), r.tag))
    }

    #[test]
    fn name_is_completed_as_docker_does() {
        let tag = |t: &str| Some(t.to_owned());
        assert_eq!(
            parts("busybox"),
            Some(("docker.io/library/busybox".into(), tag("latest")))
        );
        assert_eq!(parts("a/b:1"), Some(("docker.io/a/b".into(), tag("1"))));
        assert_eq!(
            parts("localhost:5000/x"),
            Some(("localhost:5000/x".into(), tag("latest")))
        );
        let digest = format!("r.io/x@sha256:{}", "a".repeat(64));
        assert_eq!(parts(&digest), Some(("r.io/x".into(), None)));
    }

    #[test]
    fn name_is_refused_when_it_follows_no_grammar() {
        for image in ["", "Foo", "a//b", "a:b:c", "x@sha256:12", "a b", "a:", "-a"] {
            assert!(parse(image).is_err(), "{image:?}");
        }
    }
}
