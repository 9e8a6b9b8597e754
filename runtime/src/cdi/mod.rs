//! Devices by the Container Device Interface: a name such as `vendor.com/gpu=0` stands for
//! device nodes, mounts and variables that a file of the vendor lists.
//!
//! Facts: cncf-tags/container-device-interface SPEC.md, v1.1.0.

mod apply;
mod file;
mod resolve;

pub use apply::apply;
pub use file::FileError;
pub use resolve::resolve;

use cri_proto::v1::ContainerConfig;
use std::io;
use std::path::PathBuf;

/// A CDI device that a container can't have.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum CdiError {
    #[error("{name:?} is no CDI device: it would be called vendor/class=device")]
    Name { name: String },
    #[error("no CDI device {name} in {looked}")]
    Unknown { name: String, looked: String },
    #[error("CDI device {name} is perhaps in a file that can't be used")]
    Broken { name: String, source: FileError },
    #[error("CDI device {name} is in both {first} and {second}")]
    Conflict {
        name: String,
        first: PathBuf,
        second: PathBuf,
    },
    #[error("CDI device {name} asks for {what}, which this runtime does not do")]
    Unsupported { name: String, what: &'static str },
    #[error("CDI device node {path}")]
    Node { path: PathBuf, source: io::Error },
    #[error("CDI device node {path} is to be of type {wanted:?} and the host's is not")]
    Type { path: PathBuf, wanted: String },
}

/// Annotations with this prefix name devices too: how device plugins did it before the field.
const ANNOTATION: &str = "cdi.k8s.io/";

/// Names of the devices that a container asks for, each once.
#[must_use]
pub fn requested(config: &ContainerConfig) -> Vec<String> {
    let fields = config.cdi_devices.iter().map(|d| d.name.as_str());
    let mut annotations: Vec<_> = config
        .annotations
        .iter()
        .filter(|(key, _)| key.starts_with(ANNOTATION))
        .collect();
    annotations.sort();
    let annotated = annotations.iter().flat_map(|(_, names)| names.split(','));
    let mut names: Vec<String> = Vec::new();
    for name in fields.chain(annotated) {
        if !names.iter().any(|known| known == name) {
            names.push(name.to_owned());
        }
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;
    use cri_proto::v1::CdiDevice;

    #[test]
    fn requested_takes_field_and_annotations_each_once() {
        let config = ContainerConfig {
            cdi_devices: vec![CdiDevice {
                name: "v/c=1".to_owned(),
            }],
            annotations: [("cdi.k8s.io/plugin", "v/c=2,v/c=1"), ("another", "v/c=3")]
                .map(|(k, v)| (k.to_owned(), v.to_owned()))
                .into(),
            ..Default::default()
        };
        assert_eq!(requested(&config), ["v/c=1", "v/c=2"]);
    }
}
