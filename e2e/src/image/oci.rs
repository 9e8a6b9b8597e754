//! Image config and manifest, as the OCI image specification v1.1 names their fields.

use super::Image;
use super::layer::Blob;
use crate::cache;
use serde_json::{Value, json};

pub const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

pub fn config(image: &Image, layers: &[Blob]) -> Vec<u8> {
    let mut run = json!({ "Env": [PATH], "WorkingDir": image.working_dir });
    let mut set = |key: &str, value: Value, wanted: bool| {
        if wanted {
            run[key] = value;
        }
    };
    set("User", json!(image.user), !image.user.is_empty());
    set(
        "Entrypoint",
        json!(image.entrypoint),
        !image.entrypoint.is_empty(),
    );
    set("Cmd", json!(image.cmd), !image.cmd.is_empty());
    let stop_signal = json!(image.stop_signal);
    set("StopSignal", stop_signal, !image.stop_signal.is_empty());
    let diff_ids: Vec<&str> = layers.iter().map(|l| l.diff_id.as_str()).collect();
    let config = json!({
        "architecture": "amd64",
        "os": "linux",
        "config": run,
        "rootfs": { "type": "layers", "diff_ids": diff_ids },
    });
    config.to_string().into_bytes()
}

pub fn manifest(config: &[u8], layers: &[Blob]) -> Vec<u8> {
    let layers: Vec<Value> = layers
        .iter()
        .map(|l| json!({ "mediaType": LAYER, "digest": l.digest, "size": l.size }))
        .collect();
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": { "mediaType": CONFIG, "digest": digest(config), "size": config.len() },
        "layers": layers,
    });
    manifest.to_string().into_bytes()
}

pub fn digest(bytes: &[u8]) -> String {
    format!("sha256:{}", cache::sha256(bytes))
}

/// `host/repository:tag` in its three parts.
pub fn parse_name(name: &str) -> Option<(&str, &str, &str)> {
    let (host, rest) = name.split_once('/')?;
    let (repository, tag) = rest.rsplit_once(':')?;
    Some((host, repository, tag))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::{IMAGE, catalog, conformance, critest};

    #[test]
    fn config_says_nothing_of_what_an_image_leaves_open() {
        let config: Value = serde_json::from_slice(&config(&IMAGE, &[])).unwrap();
        assert!(config["config"].get("User").is_none());
        assert!(config["config"].get("StopSignal").is_none());
        assert_eq!(config["rootfs"]["type"], "layers");
    }

    #[test]
    fn every_name_of_the_catalog_has_host_repository_and_tag() {
        let all = catalog::CLUSTER.iter().chain(&catalog::TESTS);
        let all = all.chain(&conformance::NODE).chain(&conformance::CLUSTER);
        for image in all.chain(&critest::ALL) {
            for name in image.names {
                assert!(parse_name(name).is_some(), "{name}");
            }
        }
    }
}
