//! Where an image is looked for: its name and the operator's files to a list
//! of endpoints, in order.

use super::hosts_toml::{self, HostSettings, HostsFile};
use super::registries_yaml::{self, Mirror, RegistriesFile};
use crate::image::{Auth, Reference};
use std::io;
use std::path::{Path, PathBuf};

/// One place to ask.
#[derive(Debug, Clone, PartialEq)]
pub struct Endpoint {
    /// `scheme://host[:port]/v2`, without a trailing slash.
    pub base: String,
    /// The repository's name there.
    pub repository: String,
    /// The registry of the image's name itself, and not a mirror.
    pub origin: bool,
    /// May give content by digest.
    pub pull: bool,
    /// May say what a tag means.
    pub resolve: bool,
    pub tls: TlsSettings,
    /// Sent with every request to this endpoint, and to no other.
    pub headers: Vec<(String, String)>,
    /// The operator's credentials; they go before those of a pull.
    pub auth: Option<Auth>,
    /// The file that names it; `None` when nobody had to.
    pub named_by: Option<PathBuf>,
}

/// Certificates.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct TlsSettings {
    /// Trusted beside the host's.
    pub ca: Vec<PathBuf>,
    /// Certificate and key, possibly of one file.
    pub client: Vec<(PathBuf, PathBuf)>,
    pub skip_verify: bool,
}

/// A configuration file that can't be used.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum ConfigError {
    #[error("read {path}")]
    Read { path: PathBuf, source: io::Error },
    #[error("{path} is wrong: {reason}")]
    Wrong { path: PathBuf, reason: String },
}

/// The places that may have an image. Files are read anew each time, so that
/// changes need no restart.
///
/// In this order: `certs.d/<host>/`, the host's mirrors in `registries.yaml`,
/// `certs.d/_default/`, the mirrors of `*`; the first that is there decides.
/// The registry itself comes last, unless `hosts.toml` names another server.
pub fn endpoints(
    certs_d: &Path,
    registries_file: &Path,
    reference: &Reference,
) -> Result<Vec<Endpoint>, ConfigError> {
    let registries = match read(registries_file)? {
        Some(text) => registries_yaml::parse(&text).map_err(|reason| ConfigError::Wrong {
            path: registries_file.to_owned(),
            reason,
        })?,
        None => RegistriesFile::default(),
    };
    let mut dirs = host_dirs(certs_d, reference.host());
    if registries.mirror(reference.host()).is_none() {
        dirs.push(certs_d.join("_default"));
    }
    for dir in dirs {
        if let Some(hosts) = read_dir(&dir)? {
            let mut list = order(reference, Some(hosts), &registries);
            name(&mut list, &dir.join("hosts.toml"));
            return Ok(list);
        }
    }
    let mut list = order(reference, None, &registries);
    name(&mut list, registries_file);
    Ok(list)
}

fn name(list: &mut [Endpoint], file: &Path) {
    for endpoint in list.iter_mut().filter(|endpoint| !endpoint.origin) {
        endpoint.named_by = Some(file.to_owned());
    }
}

/// As containerd: a colon can't stand in a file name everywhere.
fn host_dirs(certs_d: &Path, host: &str) -> Vec<PathBuf> {
    let plain = host
        .rsplit_once(':')
        .map(|(name, port)| format!("{name}_{port}_"));
    plain
        .into_iter()
        .chain([host.to_owned()])
        .map(|name| certs_d.join(name))
        .collect()
}

/// `hosts.toml`, or docker's `*.crt`, `*.cert` and `*.key` where it is not there.
fn read_dir(dir: &Path) -> Result<Option<HostsFile>, ConfigError> {
    let path = dir.join("hosts.toml");
    if let Some(text) = read(&path)? {
        let parsed = hosts_toml::parse(&text, dir);
        return match parsed {
            Ok(file) => Ok(Some(file)),
            Err(reason) => Err(ConfigError::Wrong { path, reason }),
        };
    }
    let Ok(entries) = std::fs::read_dir(dir) else {
        return Ok(None);
    };
    let mut files: Vec<PathBuf> = entries.flatten().map(|e| e.path()).collect();
    files.sort();
    let ending = |path: &&PathBuf, end: &str| path.extension().is_some_and(|e| e == end);
    let mut hosts = HostsFile::default();
    hosts.server_settings.tls = TlsSettings {
        ca: files.iter().filter(|p| ending(p, "crt")).cloned().collect(),
        client: files
            .iter()
            .filter(|p| ending(p, "cert"))
            .map(|cert| (cert.clone(), cert.with_extension("key")))
            .collect(),
        skip_verify: false,
    };
    Ok(Some(hosts))
}

fn read(path: &Path) -> Result<Option<String>, ConfigError> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(e)
            if matches!(
                e.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
            ) =>
        {
            Ok(None)
        }
        Err(source) => Err(ConfigError::Read {
            path: path.to_owned(),
            source,
        }),
    }
}

/// Pure.
fn order(
    reference: &Reference,
    hosts: Option<HostsFile>,
    registries: &RegistriesFile,
) -> Vec<Endpoint> {
    let host = reference.host();
    let mut list = Vec::new();
    let mut server = (origin_url(host), HostSettings::default());
    if let Some(hosts) = hosts {
        for (url, settings) in hosts.hosts {
            list.push(of_hosts(reference, &url, settings, false));
        }
        let same = hosts.server.is_none();
        server = (hosts.server.unwrap_or(server.0), hosts.server_settings);
        list.push(of_hosts(reference, &server.0, server.1, same));
    } else {
        let mirror = registries.mirror(host).or_else(|| registries.wildcard());
        let mirror = mirror.cloned().unwrap_or_default();
        for url in &mirror.endpoint {
            list.push(of_mirror(reference, url, &mirror));
        }
        list.push(of_hosts(reference, &server.0, server.1, true));
    }
    for endpoint in &mut list {
        let authority = authority(&endpoint.base).to_owned();
        // `configs` may be keyed by the name in images as well.
        let key = if endpoint.origin { host } else { &authority };
        endpoint.auth = registries.auth(&authority).or_else(|| registries.auth(key));
        if endpoint.tls == TlsSettings::default() {
            let tls = registries.tls(&authority).or_else(|| registries.tls(key));
            endpoint.tls = tls.unwrap_or_default();
        }
    }
    let mut seen = Vec::new();
    list.retain(|e| {
        let key = (e.base.clone(), e.repository.clone());
        let new = !seen.contains(&key);
        seen.push(key);
        new
    });
    list
}

fn of_hosts(reference: &Reference, url: &str, settings: HostSettings, origin: bool) -> Endpoint {
    let url = with_scheme(url);
    let base = if settings.override_path || url.ends_with("/v2") {
        url
    } else {
        format!("{url}/v2")
    };
    Endpoint {
        base,
        repository: reference.repository().to_owned(),
        origin,
        pull: settings.pull,
        resolve: settings.resolve,
        tls: settings.tls,
        headers: settings.headers,
        auth: None,
        named_by: None,
    }
}

/// containerd 1.x CRI `mirrors`: a path in the endpoint is the API's root.
fn of_mirror(reference: &Reference, url: &str, mirror: &Mirror) -> Endpoint {
    let url = with_scheme(url);
    let bare = !url.split("://").nth(1).unwrap_or_default().contains('/');
    Endpoint {
        base: if bare { format!("{url}/v2") } else { url },
        repository: mirror.repository(reference.repository()),
        origin: false,
        pull: true,
        resolve: true,
        tls: TlsSettings::default(),
        headers: Vec::new(),
        auth: None,
        named_by: None,
    }
}

fn with_scheme(url: &str) -> String {
    let url = url.trim_end_matches('/');
    if url.contains("://") {
        return url.to_owned();
    }
    let authority = url.split('/').next().unwrap_or_default();
    let scheme = if is_local(authority) { "http" } else { "https" };
    format!("{scheme}://{url}")
}

/// The registry behind a name.
fn origin_url(host: &str) -> String {
    match host {
        // docker.io serves no images; its registry has a name of its own.
        "docker.io" => "https://registry-1.docker.io".to_owned(),
        host => with_scheme(host),
    }
}

/// docker and containerd speak plain HTTP to a registry on the machine itself.
fn is_local(authority: &str) -> bool {
    let host = match authority.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => authority.split(':').next().unwrap_or_default(),
    };
    let secure_port = authority.ends_with(":443");
    let local = host == "localhost"
        || host
            .parse::<std::net::IpAddr>()
            .is_ok_and(|address| address.is_loopback());
    local && !secure_port
}

/// Host and port of a URL.
pub fn authority(url: &str) -> &str {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    rest.split(['/', '?', '#']).next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::testing::TempDir;

    fn bases(dir: &TempDir, name: &str) -> Vec<String> {
        let reference = Reference::parse(name).unwrap();
        let yaml = dir.path().join("registries.yaml");
        let list = endpoints(&dir.path().join("certs.d"), &yaml, &reference).unwrap();
        list.into_iter().map(|e| e.base).collect()
    }

    fn write(dir: &TempDir, path: &str, text: &str) {
        let path = dir.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    #[test]
    fn registry_itself_is_asked_when_nothing_is_configured() {
        let dir = TempDir::new();
        assert_eq!(bases(&dir, "busybox"), ["https://registry-1.docker.io/v2"]);
        assert_eq!(bases(&dir, "gcr.io/a/b"), ["https://gcr.io/v2"]);
        assert_eq!(
            bases(&dir, "localhost:5000/a"),
            ["http://localhost:5000/v2"]
        );
        assert_eq!(bases(&dir, "127.0.0.1/a"), ["http://127.0.0.1/v2"]);
        assert_eq!(bases(&dir, "localhost:443/a"), ["https://localhost:443/v2"]);
    }

    #[test]
    fn hosts_toml_decides_when_its_directory_is_the_hosts() {
        let dir = TempDir::new();
        write(
            &dir,
            "certs.d/reg.io_5000_/hosts.toml",
            "[host.\"http://m:1/p\"]",
        );
        write(
            &dir,
            "certs.d/_default/hosts.toml",
            "server = \"http://default\"",
        );
        assert_eq!(
            bases(&dir, "reg.io:5000/a"),
            ["http://m:1/p/v2", "https://reg.io:5000/v2"]
        );
        assert_eq!(bases(&dir, "other.io/a"), ["http://default/v2"]);
    }

    #[test]
    fn registries_yaml_goes_before_the_default_directory() {
        let dir = TempDir::new();
        write(
            &dir,
            "certs.d/_default/hosts.toml",
            "server = \"http://default\"",
        );
        write(
            &dir,
            "registries.yaml",
            "mirrors: {reg.io: {endpoint: ['http://m', 'https://n/root/v2']}}",
        );
        assert_eq!(
            bases(&dir, "reg.io/a"),
            ["http://m/v2", "https://n/root/v2", "https://reg.io/v2"]
        );
    }

    #[test]
    fn files_are_read_anew_each_time() {
        let dir = TempDir::new();
        assert_eq!(bases(&dir, "a.io/b"), ["https://a.io/v2"]);
        write(&dir, "certs.d/a.io/hosts.toml", "server = \"http://b.io\"");
        assert_eq!(bases(&dir, "a.io/b"), ["http://b.io/v2"]);
    }

    #[test]
    fn rewrite_does_not_reach_the_registry_itself() {
        let dir = TempDir::new();
        let yaml = "mirrors: {a.io: {endpoint: [http://m], rewrite: {'^': 'proxy/'}}}";
        write(&dir, "registries.yaml", yaml);
        let reference = Reference::parse("a.io/b").unwrap();
        let yaml = dir.path().join("registries.yaml");
        let list = endpoints(&dir.path().join("certs.d"), &yaml, &reference).unwrap();
        assert_eq!(list[0].repository, "proxy/b");
        assert_eq!(list[1].repository, "b");
    }

    #[test]
    fn docker_style_certificates_are_taken_when_there_is_no_hosts_toml() {
        let dir = TempDir::new();
        write(&dir, "certs.d/a.io/ca.crt", "");
        write(&dir, "certs.d/a.io/me.cert", "");
        let reference = Reference::parse("a.io/b").unwrap();
        let none = dir.path().join("none");
        let list = endpoints(&dir.path().join("certs.d"), &none, &reference).unwrap();
        assert_eq!(list[0].tls.ca.len(), 1);
        assert!(list[0].tls.client[0].1.ends_with("me.key"));
    }

    #[test]
    fn wrong_file_is_named() {
        let dir = TempDir::new();
        write(&dir, "certs.d/a.io/hosts.toml", "[host");
        let reference = Reference::parse("a.io/b").unwrap();
        let error = endpoints(&dir.path().join("certs.d"), Path::new("/none"), &reference);
        assert!(error.unwrap_err().to_string().contains("a.io/hosts.toml"));
    }
}
