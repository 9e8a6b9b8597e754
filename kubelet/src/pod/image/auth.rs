//! imagePullSecrets: which credentials a registry gets.
//! Formats: `kubernetes.io/dockerconfigjson` and `kubernetes.io/dockercfg`;
//! matching: kubernetes v1.36 pkg/credentialprovider/keyring.go.

use super::reference::Reference;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use cri_proto::v1::AuthConfig;
use k8s_openapi::api::core::v1::Secret;
use serde::Deserialize;
use std::collections::BTreeMap;

#[derive(Deserialize, Default)]
struct DockerConfig {
    #[serde(default)]
    auths: BTreeMap<String, Entry>,
}

#[derive(Deserialize, Default, Clone)]
struct Entry {
    #[serde(default)]
    username: String,
    #[serde(default)]
    password: String,
    #[serde(default)]
    auth: String,
    #[serde(default, rename = "identitytoken", alias = "identityToken")]
    identity_token: String,
    #[serde(default, rename = "registrytoken", alias = "registryToken")]
    registry_token: String,
}

/// Credentials of `secrets` for an image, the closest match first. A secret
/// that can't be read is passed over.
#[must_use]
pub fn credentials(image: &Reference, secrets: &[Secret]) -> Vec<AuthConfig> {
    let target = image.path();
    let all = secrets.iter().flat_map(entries);
    let mut found: Vec<(usize, AuthConfig)> = all
        .filter(|(server, _)| matches(server, &target))
        .map(|(server, entry)| (strip(&server).len(), config(entry)))
        .collect();
    found.sort_by_key(|(length, _)| std::cmp::Reverse(*length));
    found.into_iter().map(|(_, config)| config).collect()
}

fn entries(secret: &Secret) -> Vec<(String, Entry)> {
    let data = secret.data.as_ref();
    let of = |key: &str| data.and_then(|d| d.get(key)).map(|b| b.0.as_slice());
    let read = match (of(".dockerconfigjson"), of(".dockercfg")) {
        (Some(json), _) => serde_json::from_slice::<DockerConfig>(json)
            .map(|c| c.auths)
            .ok(),
        (None, Some(json)) => serde_json::from_slice(json).ok(),
        (None, None) => None,
    };
    read.unwrap_or_default().into_iter().collect()
}

/// Without `server_address`, as upstream: containerd would not send them to a mirror.
fn config(entry: Entry) -> AuthConfig {
    let decoded = STANDARD.decode(entry.auth.trim()).ok();
    let decoded = decoded
        .and_then(|b| String::from_utf8(b).ok())
        .unwrap_or_default();
    let (user, password) = decoded.split_once(':').unwrap_or_default();
    let either = |own: String, other: &str| {
        if own.is_empty() {
            other.to_owned()
        } else {
            own
        }
    };
    AuthConfig {
        username: either(entry.username, user),
        password: either(entry.password, password.trim_end_matches('\0')),
        identity_token: entry.identity_token,
        registry_token: entry.registry_token,
        ..AuthConfig::default()
    }
}

/// A server's key without scheme and the API paths that people leave on it.
pub(super) fn strip(server: &str) -> &str {
    let bare = server
        .trim_start_matches("https://")
        .trim_start_matches("http://");
    let bare = bare.trim_end_matches('/');
    let bare = bare
        .strip_suffix("/v1")
        .or_else(|| bare.strip_suffix("/v2"))
        .unwrap_or(bare);
    match bare {
        "index.docker.io" | "registry-1.docker.io" => "docker.io",
        other => other,
    }
}

/// Host labels may be globs (`*.example.com`); a path must be a prefix.
pub(super) fn matches(server: &str, target: &str) -> bool {
    let (host, path) = strip(server).split_once('/').unwrap_or((strip(server), ""));
    let (target_host, target_path) = target.split_once('/').unwrap_or((target, ""));
    let (name, port) = host.split_once(':').unwrap_or((host, ""));
    let (target_name, target_port) = target_host.split_once(':').unwrap_or((target_host, ""));
    let labels: Vec<&str> = name.split('.').collect();
    let target_labels: Vec<&str> = target_name.split('.').collect();
    port == target_port
        && labels.len() == target_labels.len()
        && labels.iter().zip(target_labels).all(|(l, t)| glob(l, t))
        && target_path.starts_with(path)
}

/// `*` within one label.
fn glob(pattern: &str, text: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == text,
        Some((head, tail)) => text.strip_prefix(head).is_some_and(|rest| {
            (0..=rest.len())
                .filter(|at| rest.is_char_boundary(*at))
                .any(|at| glob(tail, &rest[at..]))
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::super::reference::parse;
    use super::*;
    use serde_json::json;

    fn secret(servers: &[&str]) -> Secret {
        let auth = |server: &str| STANDARD.encode(format!("me:pa:ss@{server}"));
        let auths: BTreeMap<_, _> = servers
            .iter()
            .map(|s| (*s, json!({"auth": auth(s)})))
            .collect();
        let config = STANDARD.encode(json!({"auths": auths}).to_string());
        serde_json::from_value(json!({"data": {".dockerconfigjson": config}})).unwrap_or_default()
    }

    fn servers(image: &str, secret: Secret) -> Vec<String> {
        let reference = parse(image).ok();
        let found = reference
            .map(|r| credentials(&r, &[secret]))
            .unwrap_or_default();
        let server = |a: AuthConfig| a.password.trim_start_matches("pa:ss@").to_owned();
        found.into_iter().map(server).collect()
    }

    #[test]
    fn closest_server_comes_first_and_others_not_at_all() {
        let all = secret(&["r.io", "https://r.io/team", "other.io", "r.io:5000"]);
        assert_eq!(
            servers("r.io/team/x", all),
            vec!["https://r.io/team", "r.io"]
        );
    }

    #[test]
    fn docker_hub_is_known_by_its_old_name_and_globs_match_labels() {
        let hub = secret(&["https://index.docker.io/v1/"]);
        assert_eq!(servers("busybox", hub).len(), 1);
        assert_eq!(servers("eu.r.io/x", secret(&["*.r.io"])).len(), 1);
        assert_eq!(servers("a.eu.r.io/x", secret(&["*.r.io"])).len(), 0);
    }

    #[test]
    fn password_may_hold_colons() {
        let found = parse("r.io/x").map(|r| credentials(&r, &[secret(&["r.io"])]));
        let first = found.unwrap_or_default().remove(0);
        assert_eq!(
            (first.username.as_str(), first.password.as_str()),
            ("me", "pa:ss@r.io")
        );
    }
}
