//! `certs.d/<host>/hosts.toml`, as containerd reads it.
//!
//! Facts: containerd 2.4 docs/hosts.md and core/remotes/docker/config/hosts.go.

use super::endpoint::TlsSettings;
use serde::Deserialize;
use std::path::{Path, PathBuf};

/// One file.
#[derive(Debug, Default, PartialEq)]
pub struct HostsFile {
    /// What to ask when no host of `hosts` has it; `None` = the registry itself.
    pub server: Option<String>,
    /// Settings for `server`.
    pub server_settings: HostSettings,
    /// In the order of the file.
    pub hosts: Vec<(String, HostSettings)>,
}

/// One host of the file.
#[derive(Debug, Clone, PartialEq)]
pub struct HostSettings {
    pub pull: bool,
    pub resolve: bool,
    pub tls: TlsSettings,
    /// The URL's path is the API's root: no `/v2` is added.
    pub override_path: bool,
    pub headers: Vec<(String, String)>,
}

impl Default for HostSettings {
    fn default() -> Self {
        Self {
            pull: true,
            resolve: true,
            tls: TlsSettings::default(),
            override_path: false,
            headers: Vec::new(),
        }
    }
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    capabilities: Option<Vec<String>>,
    ca: Option<OneOrMany>,
    client: Option<Client>,
    skip_verify: Option<bool>,
    override_path: Option<bool>,
    header: Option<toml::Table>,
    /// Accepted; one connect timeout serves all.
    #[serde(rename = "dial_timeout")]
    _dial_timeout: Option<toml::Value>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

/// A file with certificate and key, several of them, or pairs.
#[derive(Deserialize)]
#[serde(untagged)]
enum Client {
    One(String),
    Many(Vec<OneOrMany>),
}

/// Parses a file that stands in `dir`; relative paths are below it.
pub fn parse(text: &str, dir: &Path) -> Result<HostsFile, String> {
    let mut table: toml::Table = toml::from_str(text).map_err(|e| one_line(&e))?;
    let server = match table.remove("server") {
        Some(toml::Value::String(server)) => Some(server),
        Some(_) => return Err("server is not a string".to_owned()),
        None => None,
    };
    let mut hosts = Vec::new();
    match table.remove("host") {
        Some(toml::Value::Table(written)) => {
            for (url, value) in written {
                let settings = settings(value, dir).map_err(|e| format!("host {url:?}: {e}"))?;
                hosts.push((url, settings));
            }
        }
        Some(_) => return Err("host is not a table".to_owned()),
        None => {}
    }
    Ok(HostsFile {
        server,
        server_settings: settings(toml::Value::Table(table), dir)?,
        hosts,
    })
}

fn settings(value: toml::Value, dir: &Path) -> Result<HostSettings, String> {
    let written: Written = value.try_into().map_err(|e| one_line(&e))?;
    let can = |verb: &str| match &written.capabilities {
        Some(list) => list.iter().any(|c| c == verb),
        None => true,
    };
    let mut headers = Vec::new();
    for (name, value) in written.header.iter().flatten() {
        match value {
            toml::Value::String(text) => headers.push((name.clone(), text.clone())),
            toml::Value::Array(list) => {
                for text in list.iter().filter_map(toml::Value::as_str) {
                    headers.push((name.clone(), text.to_owned()));
                }
            }
            _ => return Err(format!("header {name} is neither a string nor a list")),
        }
    }
    Ok(HostSettings {
        pull: can("pull"),
        resolve: can("resolve"),
        override_path: written.override_path.unwrap_or(false),
        tls: TlsSettings {
            ca: many(written.ca).iter().map(|p| dir.join(p)).collect(),
            client: client(written.client, dir)?,
            skip_verify: written.skip_verify.unwrap_or(false),
        },
        headers,
    })
}

fn many(value: Option<OneOrMany>) -> Vec<String> {
    match value {
        None => Vec::new(),
        Some(OneOrMany::One(one)) => vec![one],
        Some(OneOrMany::Many(many)) => many,
    }
}

fn client(value: Option<Client>, dir: &Path) -> Result<Vec<(PathBuf, PathBuf)>, String> {
    let items = match value {
        None => Vec::new(),
        Some(Client::One(one)) => vec![OneOrMany::One(one)],
        Some(Client::Many(many)) => many,
    };
    let pair = |item: OneOrMany| match &many(Some(item))[..] {
        [both] => Ok((dir.join(both), dir.join(both))),
        [cert, key] if key.is_empty() => Ok((dir.join(cert), dir.join(cert))),
        [cert, key] => Ok((dir.join(cert), dir.join(key))),
        _ => Err("client is neither a file nor a pair of certificate and key".to_owned()),
    };
    items.into_iter().map(pair).collect()
}

fn one_line(error: &toml::de::Error) -> String {
    error.message().replace('\n', " ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<HostsFile, String> {
        super::parse(text, Path::new("/certs.d/x"))
    }

    #[test]
    fn hosts_keep_the_order_of_the_file() {
        let file = parse(
            r#"
            server = "https://registry-1.docker.io"
            [host."https://z.example"]
            capabilities = ["pull"]
            [host."http://a.example:5000/v2/mirror"]
            override_path = true
            skip_verify = true
            ca = ["ca.pem", "/abs.pem"]
            client = [["c.pem", "k.pem"], "both.pem"]
            [host."http://a.example:5000/v2/mirror".header]
            x-one = "1"
            x-two = ["2", "3"]
            "#,
        )
        .unwrap();
        assert_eq!(file.server.as_deref(), Some("https://registry-1.docker.io"));
        let urls: Vec<&str> = file.hosts.iter().map(|(url, _)| url.as_str()).collect();
        assert_eq!(
            urls,
            ["https://z.example", "http://a.example:5000/v2/mirror"]
        );
        assert!(file.hosts[0].1.pull && !file.hosts[0].1.resolve);
        let second = &file.hosts[1].1;
        assert!(second.override_path && second.tls.skip_verify && second.resolve);
        assert_eq!(second.tls.ca[0], Path::new("/certs.d/x/ca.pem"));
        assert_eq!(second.tls.ca[1], Path::new("/abs.pem"));
        assert_eq!(second.tls.client[0].1, Path::new("/certs.d/x/k.pem"));
        assert_eq!(second.tls.client[1].0, second.tls.client[1].1);
        assert_eq!(second.headers.len(), 3);
    }

    #[test]
    fn settings_at_the_top_are_the_servers() {
        let file = parse("server = \"http://x\"\nskip_verify = true\nca = \"a.pem\"").unwrap();
        assert!(file.server_settings.tls.skip_verify);
        assert_eq!(file.server_settings.tls.ca.len(), 1);
    }

    #[test]
    fn file_is_refused_with_the_misspelled_key_when_it_has_one() {
        let error = parse("[host.\"http://x\"]\ncapabilties = [\"pull\"]").unwrap_err();
        assert!(
            error.contains("capabilties") && !error.contains('\n'),
            "{error}"
        );
        assert!(parse("server = 1").is_err());
        assert!(parse("[host").is_err());
    }
}
