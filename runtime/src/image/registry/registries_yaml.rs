//! `registries.yaml`, as k3s reads it.
//!
//! Facts: k3s docs "Private Registry Configuration"; rancher/wharfie
//! pkg/registries/types.go.

use super::endpoint::TlsSettings;
use crate::image::Auth;
use regex::Regex;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::PathBuf;

/// The file.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RegistriesFile {
    mirrors: BTreeMap<String, Option<Mirror>>,
    configs: BTreeMap<String, Option<HostConfig>>,
}

/// Where a registry's images are looked for first.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Mirror {
    #[serde(alias = "endpoints")]
    pub endpoint: Vec<String>,
    /// Regular expressions on the repository, and what takes their place.
    #[serde(alias = "rewrites")]
    pub rewrite: BTreeMap<String, String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct HostConfig {
    auth: Option<Credentials>,
    tls: Option<Tls>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Credentials {
    username: String,
    password: String,
    auth: String,
    identity_token: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Tls {
    ca_file: Option<PathBuf>,
    cert_file: Option<PathBuf>,
    key_file: Option<PathBuf>,
    insecure_skip_verify: bool,
}

/// Parses the file; an empty one is fine.
pub fn parse(text: &str) -> Result<RegistriesFile, String> {
    if text.trim().is_empty() {
        return Ok(RegistriesFile::default());
    }
    let file: RegistriesFile =
        serde_saphyr::from_str(text).map_err(|e| first_line(&e.to_string()))?;
    for mirror in file.mirrors.values().flatten() {
        for pattern in mirror.rewrite.keys() {
            Regex::new(pattern)
                .map_err(|_| format!("rewrite {pattern:?} is no regular expression"))?;
        }
    }
    Ok(file)
}

impl RegistriesFile {
    /// The mirror of exactly this host.
    pub fn mirror(&self, host: &str) -> Option<&Mirror> {
        self.mirrors.get(host)?.as_ref()
    }

    /// The mirror of all hosts without their own.
    pub fn wildcard(&self) -> Option<&Mirror> {
        self.mirror("*")
    }

    /// Credentials for an endpoint, by host and port or by host.
    pub fn auth(&self, authority: &str) -> Option<Auth> {
        let written = self.config(authority)?.auth.as_ref()?;
        let mut auth = Auth {
            username: written.username.clone(),
            password: written.password.clone(),
            identity_token: written.identity_token.clone(),
            registry_token: String::new(),
        };
        if auth.username.is_empty()
            && let Some((username, password)) = Auth::decode(&written.auth)
        {
            auth.username = username;
            auth.password = password;
        }
        Some(auth)
    }

    /// TLS settings for an endpoint.
    pub fn tls(&self, authority: &str) -> Option<TlsSettings> {
        let tls = self.config(authority)?.tls.as_ref()?;
        let client = match (&tls.cert_file, &tls.key_file) {
            (Some(cert), Some(key)) => vec![(cert.clone(), key.clone())],
            _ => Vec::new(),
        };
        Some(TlsSettings {
            ca: tls.ca_file.iter().cloned().collect(),
            client,
            skip_verify: tls.insecure_skip_verify,
        })
    }

    fn config(&self, authority: &str) -> Option<&HostConfig> {
        let host = authority
            .rsplit_once(':')
            .map_or(authority, |(host, _)| host);
        let named = self
            .configs
            .get(authority)
            .or_else(|| self.configs.get(host));
        named.or_else(|| self.configs.get("*"))?.as_ref()
    }
}

impl Mirror {
    /// The repository's name at this mirror: the first pattern that matches is applied.
    pub fn repository(&self, repository: &str) -> String {
        for (pattern, replacement) in &self.rewrite {
            if let Ok(pattern) = Regex::new(pattern)
                && pattern.is_match(repository)
            {
                return pattern
                    .replace_all(repository, replacement.as_str())
                    .into_owned();
            }
        }
        repository.to_owned()
    }
}

fn first_line(text: &str) -> String {
    text.lines().next().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = r#"
mirrors:
  docker.io:
    endpoint:
      - "https://mirror.example:5000"
    rewrite:
      "^library/(.*)": "mirror/$1"
  "*":
    endpoint: [http://any.example]
  empty.example:
configs:
  "mirror.example:5000":
    auth:
      username: me
      password: secret
    tls:
      ca_file: /ca.pem
      insecure_skip_verify: true
  any.example:
    auth:
      auth: dXNlcjpwYXNz
"#;

    #[test]
    fn mirrors_credentials_and_tls_are_found_by_host() {
        let file = parse(FILE).unwrap();
        let mirror = file.mirror("docker.io").unwrap();
        assert_eq!(mirror.endpoint, ["https://mirror.example:5000"]);
        assert_eq!(mirror.repository("library/busybox"), "mirror/busybox");
        assert_eq!(mirror.repository("me/app"), "me/app");
        assert!(file.mirror("gcr.io").is_none());
        assert!(file.mirror("empty.example").is_none());
        assert_eq!(file.wildcard().unwrap().endpoint, ["http://any.example"]);
        assert_eq!(file.auth("mirror.example:5000").unwrap().username, "me");
        assert_eq!(file.auth("any.example:80").unwrap().password, "pass");
        assert!(file.auth("other.example").is_none());
        let tls = file.tls("mirror.example:5000").unwrap();
        assert!(tls.skip_verify && tls.ca.len() == 1);
    }

    #[test]
    fn file_is_refused_in_one_line_when_wrong() {
        for text in [
            "mirror: {}",
            "mirrors: []",
            "mirrors: {a: {rewrite: {'(': x}}}",
            "configs: {a: {auth: {user: x}}}",
        ] {
            let error = parse(text).unwrap_err();
            assert!(
                !error.contains('\n') && !error.is_empty(),
                "{text}: {error}"
            );
        }
        assert!(parse("  \n").is_ok());
    }
}
