//! Where an image would be looked for, told to a person.

use super::endpoint::{ConfigError, Endpoint, endpoints};
use crate::image::{Reference, ReferenceError, Store};
use std::fmt::Write;

/// Why there is nothing to explain.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum ExplainError {
    #[error(transparent)]
    Reference(#[from] ReferenceError),
    #[error("registry configuration")]
    Config(#[from] ConfigError),
}

impl Store {
    /// The endpoints that a pull would ask now, one a line in their order,
    /// with the file that names each. Nothing is asked.
    ///
    /// # Errors
    /// When the name or a configuration file is wrong.
    pub fn explain(&self, text: &str) -> Result<String, ExplainError> {
        let reference = Reference::parse(text)?;
        let (hosts, registries) = (
            &self.config.registry_config_dir,
            &self.config.registries_file,
        );
        let list = endpoints(hosts, registries, &reference)?;
        Ok(explain(&reference, &list))
    }
}

fn explain(reference: &Reference, list: &[Endpoint]) -> String {
    let mut text = format!("{reference}\n");
    for (i, endpoint) in list.iter().enumerate() {
        let version = reference.version().as_str();
        let Endpoint {
            base, repository, ..
        } = endpoint;
        let _ = write!(text, "{}. {base}/{repository}/manifests/{version}", i + 1);
        let _ = match &endpoint.named_by {
            Some(file) => write!(text, "  (from {})", file.display()),
            None => write!(text, "  (the registry of the name)"),
        };
        for note in notes(endpoint) {
            let _ = write!(text, ", {note}");
        }
        text.push('\n');
    }
    text
}

fn notes(endpoint: &Endpoint) -> Vec<&'static str> {
    let mut notes = Vec::new();
    match (endpoint.resolve, endpoint.pull) {
        (true, true) => {}
        (true, false) => notes.push("for tags only"),
        (false, true) => notes.push("for digests only"),
        (false, false) => notes.push("never asked: it has no capability"),
    }
    if endpoint.base.starts_with("http:") {
        notes.push("not encrypted");
    } else if endpoint.tls.skip_verify {
        notes.push("certificate not verified");
    } else if !endpoint.tls.ca.is_empty() {
        notes.push("with its own CA");
    }
    if endpoint.auth.is_some() {
        notes.push("with configured credentials");
    }
    if !endpoint.headers.is_empty() {
        notes.push("with configured headers");
    }
    notes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::testing::TempDir;

    #[test]
    fn explanation_names_order_files_and_limits() {
        let dir = TempDir::new();
        let hosts = dir.path().join("certs.d/reg.io");
        std::fs::create_dir_all(&hosts).unwrap();
        let toml = "[host.\"http://m:5000\"]\ncapabilities = [\"pull\"]\n";
        std::fs::write(hosts.join("hosts.toml"), toml).unwrap();
        let reference = Reference::parse("reg.io/app:1").unwrap();
        let none = dir.path().join("none");
        let list = endpoints(&dir.path().join("certs.d"), &none, &reference).unwrap();
        let file = hosts.join("hosts.toml");
        assert_eq!(
            explain(&reference, &list),
            format!(
                "reg.io/app:1\n\
                 1. http://m:5000/v2/app/manifests/1  (from {}), for digests only, not encrypted\n\
                 2. https://reg.io/v2/app/manifests/1  (the registry of the name)\n",
                file.display()
            )
        );
    }
}
