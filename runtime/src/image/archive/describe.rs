//! Which images an archive holds.
//!
//! Facts: OCI image-spec image-layout.md and annotations.md; moby
//! image/tarexport `manifestItem`; containerd 2.4 core/images/annotations.go.

use super::source::Source;
use crate::image::Reference;
use crate::image::defaults::{MAX_IMAGE_CONFIG, MAX_INDEX_DEPTH, MAX_MANIFEST};
use crate::image::digest::Digest;
use crate::image::registry::manifest::{self, Document, ManifestError, Platform};
use serde::Deserialize;
use std::collections::HashMap;
use std::io;

/// An image of an archive.
#[derive(Debug, PartialEq)]
pub struct Described {
    pub repo_tags: Vec<String>,
    pub repo_digests: Vec<String>,
    pub config: String,
    pub manifest: Option<String>,
    /// Names of members, the lowest layer first.
    pub layers: Vec<String>,
}

/// Why an archive is none of images.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum DescribeError {
    #[error("it holds neither an index.json nor a manifest.json: it is no image archive")]
    NoImages,
    #[error("it has no {name}")]
    Missing { name: String },
    #[error("read {name}")]
    Read { name: String, source: io::Error },
    #[error("{name} is wrong: {reason}")]
    Wrong { name: String, reason: String },
    #[error("{name}")]
    Manifest { name: String, source: ManifestError },
    #[error("blob {name} has the digest {got}")]
    Digest { name: String, got: String },
    #[error("it holds no image for {wanted}")]
    NoPlatform { wanted: String },
}

#[derive(Deserialize)]
struct LayoutIndex {
    manifests: Vec<LayoutEntry>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct LayoutEntry {
    #[serde(default)]
    media_type: String,
    digest: String,
    #[serde(default)]
    annotations: HashMap<String, String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct DockerItem {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    layers: Vec<String>,
}

/// All images for this host. `name` names those that have no whole name.
pub fn describe(
    source: &Source,
    name: Option<&Reference>,
) -> Result<Vec<Described>, DescribeError> {
    if let Some(text) = read(source, "index.json", MAX_MANIFEST)? {
        return layout(source, &text, name);
    }
    match read(source, "manifest.json", MAX_MANIFEST)? {
        Some(text) => docker(source, &text, name),
        None => Err(DescribeError::NoImages),
    }
}

fn docker(
    source: &Source,
    text: &[u8],
    name: Option<&Reference>,
) -> Result<Vec<Described>, DescribeError> {
    let items: Vec<DockerItem> =
        serde_json::from_slice(text).map_err(|e| wrong("manifest.json", e.to_string()))?;
    let mut images = Vec::new();
    for item in items {
        let config = needed(source, &item.config, MAX_IMAGE_CONFIG)?;
        let mut repo_tags = Vec::new();
        for tag in item.repo_tags.unwrap_or_default() {
            let reference =
                Reference::parse(&tag).map_err(|e| wrong("manifest.json", e.to_string()))?;
            repo_tags.push(reference.to_string());
        }
        if repo_tags.is_empty() {
            repo_tags.extend(name.map(ToString::to_string));
        }
        images.push(Described {
            repo_tags,
            repo_digests: Vec::new(),
            config: utf8(&item.config, config)?,
            manifest: None,
            layers: item.layers,
        });
    }
    Ok(images)
}

fn layout(
    source: &Source,
    text: &[u8],
    name: Option<&Reference>,
) -> Result<Vec<Described>, DescribeError> {
    let index: LayoutIndex =
        serde_json::from_slice(text).map_err(|e| wrong("index.json", e.to_string()))?;
    let mut images = Vec::new();
    for entry in index.manifests {
        let digest = Digest::parse(&entry.digest);
        let digest = digest.map_err(|e| wrong("index.json", e.to_string()))?;
        let reference = named(&entry.annotations, name);
        let found = of_manifest(source, &digest, &entry.media_type, reference.as_ref())?;
        images.extend(found);
    }
    if images.is_empty() {
        return Err(DescribeError::NoPlatform {
            wanted: Platform::host().to_string(),
        });
    }
    Ok(images)
}

/// A whole name, or a tag of the name that the caller gave.
fn named(annotations: &HashMap<String, String>, name: Option<&Reference>) -> Option<Reference> {
    let whole = annotations.get("io.containerd.image.name");
    let short = annotations.get("org.opencontainers.image.ref.name");
    if let Some(text) = whole {
        return Reference::parse(text).ok();
    }
    match (short, name) {
        (Some(text), _) if text.contains(['/', ':']) => Reference::parse(text).ok(),
        (_, Some(name)) => Some(name.clone()),
        _ => None,
    }
}

/// The image behind a digest; `None` when it is for other hosts.
fn of_manifest(
    source: &Source,
    top: &Digest,
    media_type: &str,
    reference: Option<&Reference>,
) -> Result<Option<Described>, DescribeError> {
    let mut digest = top.clone();
    let mut media_type = media_type.to_owned();
    for _ in 0..MAX_INDEX_DEPTH {
        let bytes = blob(source, &digest, MAX_MANIFEST)?;
        let failed = |source| DescribeError::Manifest {
            name: digest.to_string(),
            source,
        };
        match manifest::parse(&bytes, &media_type) {
            Ok(Document::Image(manifest)) => {
                let config = blob(source, &manifest.config.digest, MAX_IMAGE_CONFIG)?;
                let config = utf8(manifest.config.digest.as_str(), config)?;
                if !runs_here(&config) {
                    return Ok(None);
                }
                let layers = manifest
                    .layers
                    .iter()
                    .map(|l| blob_name(&l.digest))
                    .collect();
                let tags = reference
                    .map(ToString::to_string)
                    .filter(|t| !t.contains('@'));
                return Ok(Some(Described {
                    repo_tags: tags.into_iter().collect(),
                    repo_digests: reference.iter().map(|r| r.at(top)).collect(),
                    config,
                    manifest: Some(utf8(digest.as_str(), bytes)?),
                    layers,
                }));
            }
            Ok(Document::Index(entries)) => {
                let chosen = match manifest::choose(&entries, &Platform::host()) {
                    Err(ManifestError::NoPlatform { .. }) => return Ok(None),
                    chosen => chosen.map_err(failed)?,
                };
                media_type = chosen.media_type;
                digest = chosen.digest;
            }
            // A signature or an SBOM beside the image.
            Err(ManifestError::MediaType { .. }) => return Ok(None),
            Err(error) => return Err(failed(error)),
        }
    }
    Err(DescribeError::Manifest {
        name: top.to_string(),
        source: ManifestError::TooDeep,
    })
}

fn runs_here(config: &str) -> bool {
    #[derive(Deserialize)]
    struct Written {
        #[serde(default)]
        architecture: String,
    }
    let host = Platform::host().architecture;
    serde_json::from_str::<Written>(config)
        .is_ok_and(|c| c.architecture.is_empty() || c.architecture == host)
}

fn blob_name(digest: &Digest) -> String {
    format!("blobs/{}", digest.as_str().replacen(':', "/", 1))
}

fn blob(source: &Source, digest: &Digest, limit: u64) -> Result<Vec<u8>, DescribeError> {
    let name = blob_name(digest);
    let bytes = needed(source, &name, limit)?;
    let mut hasher = digest.hasher();
    hasher.update(&bytes);
    let got = hasher.finish();
    if got == *digest {
        return Ok(bytes);
    }
    Err(DescribeError::Digest {
        name,
        got: got.to_string(),
    })
}

fn needed(source: &Source, name: &str, limit: u64) -> Result<Vec<u8>, DescribeError> {
    read(source, name, limit)?.ok_or_else(|| DescribeError::Missing {
        name: name.to_owned(),
    })
}

fn read(source: &Source, name: &str, limit: u64) -> Result<Option<Vec<u8>>, DescribeError> {
    source.read(name, limit).map_err(|e| DescribeError::Read {
        name: name.to_owned(),
        source: e,
    })
}

fn utf8(name: &str, bytes: Vec<u8>) -> Result<String, DescribeError> {
    String::from_utf8(bytes).map_err(|_| wrong(name, "it is not text".to_owned()))
}

fn wrong(name: &str, reason: String) -> DescribeError {
    DescribeError::Wrong {
        name: name.to_owned(),
        reason,
    }
}
