//! The pod's own /etc/hostname, /etc/hosts and /etc/resolv.conf.

use super::Sandbox;
use crate::spec::PodFiles;
use cri_proto::v1::DnsConfig;
use std::io;
use std::path::{Path, PathBuf};

/// Why the pod's files could not be written.
#[derive(Debug, thiserror::Error)]
#[error("write {path}")]
pub struct PodFilesError {
    /// The file.
    pub path: PathBuf,
    /// Why not.
    pub source: io::Error,
}

impl Sandbox {
    /// Writes the pod's files; `hostname` is what its containers are called.
    ///
    /// # Errors
    /// The file that can't be written.
    pub fn write_files(&self, hostname: &str) -> Result<(), PodFilesError> {
        let dns = self.read(|record| record.config.dns_config.clone());
        let resolv_conf = match dns.as_ref().map(resolv_conf).unwrap_or_default() {
            empty if empty.is_empty() => read("/etc/resolv.conf"),
            text => text,
        };
        self.write("hostname", &format!("{hostname}\n"))?;
        self.write("resolv.conf", &resolv_conf)?;
        self.write("hosts", &read("/etc/hosts"))
    }

    fn write(&self, name: &str, text: &str) -> Result<(), PodFilesError> {
        let path = self.dir().join(name);
        std::fs::write(&path, text).map_err(|source| PodFilesError { path, source })
    }

    /// Where they are.
    #[must_use]
    pub fn files(&self) -> PodFiles {
        let file = |name: &str| Some(self.dir().join(name));
        PodFiles {
            hostname: file("hostname"),
            hosts: file("hosts"),
            resolv_conf: file("resolv.conf"),
        }
    }
}

fn read(path: impl AsRef<Path>) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

/// resolv.conf(5); empty when nothing is configured.
fn resolv_conf(dns: &DnsConfig) -> String {
    let plain = |word: &&String| !word.is_empty() && !word.contains(char::is_whitespace);
    let words = |words: &[String]| -> Vec<String> { words.iter().filter(plain).cloned().collect() };
    let mut text = String::new();
    let searches = words(&dns.searches);
    if !searches.is_empty() {
        text += &format!("search {}\n", searches.join(" "));
    }
    for server in words(&dns.servers) {
        text += &format!("nameserver {server}\n");
    }
    let options = words(&dns.options);
    if !options.is_empty() {
        text += &format!("options {}\n", options.join(" "));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resolv_conf_says_what_was_asked_and_no_line_more() {
        let dns = DnsConfig {
            servers: vec!["10.96.0.10".to_owned(), "1.1.1.1\nsearch evil".to_owned()],
            searches: vec!["default.svc".to_owned(), "svc".to_owned()],
            options: vec!["ndots:5".to_owned()],
        };
        let expected = "search default.svc svc\nnameserver 10.96.0.10\noptions ndots:5\n";
        assert_eq!(resolv_conf(&dns), expected);
        assert_eq!(resolv_conf(&DnsConfig::default()), "");
    }
}
