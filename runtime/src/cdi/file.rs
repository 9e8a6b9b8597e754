//! A vendor's file: what its devices are made of.

use serde::Deserialize;
use std::io;
use std::path::{Path, PathBuf};

/// A file that can't be used.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum FileError {
    #[error("read {path}")]
    Read { path: PathBuf, source: io::Error },
    #[error("{path}: {reason}")]
    Parse { path: PathBuf, reason: String },
}

/// The file. What it has beyond this could not be given to a container, so it is refused.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Specification {
    pub cdi_version: String,
    /// vendor/class.
    pub kind: String,
    #[serde(default, rename = "annotations")]
    _annotations: serde::de::IgnoredAny,
    pub devices: Vec<Device>,
    /// For whoever gets one of the devices.
    #[serde(default)]
    pub container_edits: Edits,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Device {
    pub name: String,
    #[serde(default, rename = "annotations")]
    _annotations: serde::de::IgnoredAny,
    pub container_edits: Edits,
}

/// What a container gets.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "camelCase")]
pub struct Edits {
    pub env: Vec<String>,
    pub device_nodes: Vec<Node>,
    pub mounts: Vec<Mount>,
    pub additional_gids: Vec<u32>,
    hooks: Vec<serde::de::IgnoredAny>,
    intel_rdt: Option<serde::de::IgnoredAny>,
    net_devices: Vec<serde::de::IgnoredAny>,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "camelCase")]
pub struct Node {
    /// In the container; on the host too, unless that is another.
    pub path: PathBuf,
    pub host_path: PathBuf,
    /// b, c, u or p.
    #[serde(rename = "type")]
    pub kind: String,
    pub major: i64,
    pub minor: i64,
    pub file_mode: Option<u32>,
    pub permissions: String,
    pub uid: Option<u32>,
    pub gid: Option<u32>,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "camelCase")]
pub struct Mount {
    pub host_path: String,
    pub container_path: PathBuf,
    pub options: Vec<String>,
    #[serde(rename = "type")]
    pub kind: String,
}

impl Edits {
    /// What is asked for and can't be done.
    pub fn unsupported(&self) -> Option<&'static str> {
        if !self.hooks.is_empty() {
            return Some("OCI hooks");
        }
        if self.intel_rdt.is_some() {
            return Some("Intel RDT");
        }
        (!self.net_devices.is_empty()).then_some("network devices")
    }
}

/// Reads a file, JSON or YAML (which JSON is, too).
///
/// # Errors
/// When it can't be read, or is not what the specification says.
pub fn read(path: &Path) -> Result<Specification, FileError> {
    let text = std::fs::read_to_string(path).map_err(|source| FileError::Read {
        path: path.to_owned(),
        source,
    })?;
    parse(&text).map_err(|reason| FileError::Parse {
        path: path.to_owned(),
        reason,
    })
}

fn parse(text: &str) -> Result<Specification, String> {
    let parsed: Specification = serde_saphyr::from_str(text)
        .map_err(|e| e.to_string().lines().next().unwrap_or_default().to_owned())?;
    if !parsed.cdi_version.starts_with("0.") && !parsed.cdi_version.starts_with("1.") {
        return Err(format!("cdiVersion {:?} is not known", parsed.cdi_version));
    }
    if parsed
        .kind
        .split('/')
        .filter(|part| !part.is_empty())
        .count()
        != 2
    {
        return Err(format!("kind {:?} is not vendor/class", parsed.kind));
    }
    let edits = parsed.devices.iter().map(|d| &d.container_edits);
    for edits in edits.chain([&parsed.container_edits]) {
        edits.check()?;
    }
    Ok(parsed)
}

impl Edits {
    fn check(&self) -> Result<(), String> {
        if let Some(env) = self.env.iter().find(|e| !e.contains('=')) {
            return Err(format!("env {env:?} is not NAME=value"));
        }
        if self.device_nodes.iter().any(|n| !n.path.is_absolute()) {
            return Err("a device node without a path".to_owned());
        }
        let whole = |m: &Mount| m.container_path.is_absolute() && !m.host_path.is_empty();
        if !self.mounts.iter().all(whole) {
            return Err("a mount without both its paths".to_owned());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = r#"
cdiVersion: "0.6.0"
kind: vendor.com/gpu
devices:
  - name: "0"
    annotations: {x: y}
    containerEdits:
      deviceNodes: [{path: /dev/gpu0, hostPath: /dev/null, permissions: rw}]
containerEdits:
  env: [GPU=yes]
"#;

    #[test]
    fn parse_reads_yaml_and_json() {
        let parsed = parse(FILE).unwrap();
        assert_eq!(parsed.kind, "vendor.com/gpu");
        assert_eq!(
            parsed.devices[0].container_edits.device_nodes[0].permissions,
            "rw"
        );
        let json = r#"{"cdiVersion": "0.3.0", "kind": "v/c", "devices": []}"#;
        assert_eq!(parse(json).unwrap().kind, "v/c");
    }

    #[test]
    fn parse_refuses_what_it_does_not_know() {
        for (text, said) in [
            (FILE.replace("env", "envs"), "envs"),
            (FILE.replace("0.6.0", "7.0.0"), "7.0.0"),
            (FILE.replace("vendor.com/gpu", "vendor.com"), "vendor/class"),
            (FILE.replace("GPU=yes", "GPU"), "NAME=value"),
        ] {
            let reason = parse(&text).unwrap_err();
            assert!(reason.contains(said), "{reason}");
        }
    }

    #[test]
    fn hooks_are_named_as_unsupported() {
        let hook = "hooks: [{hookName: createContainer, path: /x}]\n  env";
        let parsed = parse(&FILE.replace("env", hook)).unwrap();
        assert_eq!(parsed.container_edits.unsupported(), Some("OCI hooks"));
    }
}
