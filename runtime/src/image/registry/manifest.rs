//! What a manifest says; pure.
//!
//! Facts: OCI image-spec v1.1 manifest.md, image-index.md, descriptor.md;
//! distribution docs/spec/manifest-v2-2.md.

use crate::image::defaults::{MAX_LAYERS, MAX_MANIFEST};
use crate::image::digest::Digest;
use serde::Deserialize;
use std::fmt;

const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";

/// Everything that can be pulled.
pub const ACCEPT: &str = "application/vnd.oci.image.index.v1+json, \
     application/vnd.docker.distribution.manifest.list.v2+json, \
     application/vnd.oci.image.manifest.v1+json, \
     application/vnd.docker.distribution.manifest.v2+json";

/// One of the two kinds.
#[derive(Debug, PartialEq)]
pub enum Document {
    Image(Manifest),
    Index(Vec<IndexEntry>),
}

/// An image: its configuration and its layers, the lowest first.
#[derive(Debug, PartialEq)]
pub struct Manifest {
    pub config: Descriptor,
    pub layers: Vec<Descriptor>,
}

/// Content by digest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Descriptor {
    pub media_type: String,
    pub digest: Digest,
    pub size: u64,
}

/// One manifest of an index.
#[derive(Debug, Clone, PartialEq)]
pub struct IndexEntry {
    pub descriptor: Descriptor,
    pub platform: Option<Platform>,
}

/// What a manifest's image runs on.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Platform {
    #[serde(default)]
    pub os: String,
    #[serde(default)]
    pub architecture: String,
    #[serde(default)]
    pub variant: String,
}

/// Why a manifest is of no use.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs)]
pub enum ManifestError {
    #[error("it is not JSON of a manifest: {reason}")]
    Json { reason: String },
    #[error("it is of media type {media_type:?}, which is no image")]
    MediaType { media_type: String },
    #[error("it is sent as {sent:?} and says it is {said:?} (CVE-2021-41190)")]
    Confused { sent: String, said: String },
    #[error("it is manifest and index at once (CVE-2021-41190)")]
    Both,
    #[error("it is neither a manifest nor an index")]
    Neither,
    #[error("it has Docker schema 1, which no current registry serves; push the image anew")]
    Schema1,
    #[error("it has {count} layers; overlay takes {MAX_LAYERS}")]
    TooManyLayers { count: usize },
    #[error("it leads to index after index")]
    TooDeep,
    #[error("it names {what}")]
    Descriptor { what: String },
    #[error("it has no image for {wanted}, only for {offered}")]
    NoPlatform { wanted: String, offered: String },
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Written {
    #[serde(default)]
    schema_version: u32,
    #[serde(default)]
    media_type: String,
    #[serde(default)]
    config: Option<WrittenDescriptor>,
    #[serde(default)]
    layers: Option<Vec<WrittenDescriptor>>,
    #[serde(default)]
    manifests: Option<Vec<WrittenDescriptor>>,
    #[serde(default)]
    fs_layers: Option<serde::de::IgnoredAny>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WrittenDescriptor {
    #[serde(default)]
    media_type: String,
    digest: String,
    size: i64,
    #[serde(default)]
    platform: Option<Platform>,
}

/// Parses a manifest or index. `sent` is the media type it came with, from a
/// header or a descriptor; empty when nobody said.
pub fn parse(bytes: &[u8], sent: &str) -> Result<Document, ManifestError> {
    let written: Written = serde_json::from_slice(bytes).map_err(|e| ManifestError::Json {
        reason: e.to_string(),
    })?;
    if written.schema_version == 1 || written.fs_layers.is_some() {
        return Err(ManifestError::Schema1);
    }
    let sent = sent.split(';').next().unwrap_or_default().trim();
    // Files and simple servers know no better type.
    let sent = match sent {
        "application/json" | "text/plain" | "application/octet-stream" => "",
        sent => sent,
    };
    let said = written.media_type.as_str();
    if !sent.is_empty() && !said.is_empty() && sent != said {
        return Err(ManifestError::Confused {
            sent: sent.to_owned(),
            said: said.to_owned(),
        });
    }
    let media_type = if said.is_empty() { sent } else { said };
    let has_index = written.manifests.is_some();
    let has_image = written.layers.is_some() || written.config.is_some();
    match (has_image, has_index) {
        (true, true) => return Err(ManifestError::Both),
        (false, false) => return Err(ManifestError::Neither),
        _ => {}
    }
    match media_type {
        OCI_MANIFEST | DOCKER_MANIFEST if has_image => image(written),
        OCI_INDEX | DOCKER_LIST if has_index => index(written),
        "" if has_image => image(written),
        "" => index(written),
        OCI_MANIFEST | DOCKER_MANIFEST | OCI_INDEX | DOCKER_LIST => Err(ManifestError::Confused {
            sent: media_type.to_owned(),
            said: if has_image { "a manifest" } else { "an index" }.to_owned(),
        }),
        other => Err(ManifestError::MediaType {
            media_type: other.to_owned(),
        }),
    }
}

fn image(written: Written) -> Result<Document, ManifestError> {
    let config = written.config.ok_or(ManifestError::Neither)?;
    let layers = written.layers.unwrap_or_default();
    if layers.len() > MAX_LAYERS {
        return Err(ManifestError::TooManyLayers {
            count: layers.len(),
        });
    }
    let layers = layers
        .into_iter()
        .map(|layer| Ok(descriptor(layer)?.descriptor));
    Ok(Document::Image(Manifest {
        config: descriptor(config)?.descriptor,
        layers: layers.collect::<Result<_, ManifestError>>()?,
    }))
}

fn index(written: Written) -> Result<Document, ManifestError> {
    let entries = written.manifests.unwrap_or_default().into_iter();
    let entries: Result<_, _> = entries.map(descriptor).collect();
    Ok(Document::Index(entries?))
}

fn descriptor(written: WrittenDescriptor) -> Result<IndexEntry, ManifestError> {
    let wrong = |what: String| ManifestError::Descriptor { what };
    let digest = Digest::parse(&written.digest).map_err(|e| wrong(e.to_string()))?;
    let size = u64::try_from(written.size)
        .map_err(|_| wrong(format!("{digest} with the size {}", written.size)))?;
    Ok(IndexEntry {
        descriptor: Descriptor {
            media_type: written.media_type,
            digest,
            size,
        },
        platform: written.platform,
    })
}

impl Platform {
    /// This host's.
    #[must_use]
    pub fn host() -> Self {
        let (architecture, variant) = match std::env::consts::ARCH {
            "x86_64" => ("amd64", ""),
            "x86" => ("386", ""),
            "aarch64" => ("arm64", "v8"),
            "arm" => ("arm", "v7"),
            "powerpc64" => ("ppc64le", ""),
            "loongarch64" => ("loong64", ""),
            other => (other, ""),
        };
        Self {
            os: "linux".to_owned(),
            architecture: architecture.to_owned(),
            variant: variant.to_owned(),
        }
    }

    /// How well an image of platform `other` runs on this one; `None` = not.
    fn rank(&self, other: &Self) -> Option<u32> {
        if self.os != other.os || self.architecture != other.architecture {
            return None;
        }
        match (self.architecture.as_str(), other.variant.as_str()) {
            (_, "") => Some(1),
            // What every machine of the architecture can run.
            ("amd64", "v1") | ("arm64", "v8") => Some(2),
            ("arm", variant) => {
                let level = |v: &str| v.strip_prefix('v').and_then(|n| n.parse::<u32>().ok());
                level(variant).filter(|v| Some(*v) <= level(&self.variant))
            }
            _ => (self.variant == other.variant).then_some(2),
        }
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        if !self.variant.is_empty() {
            write!(f, "/{}", self.variant)?;
        }
        Ok(())
    }
}

/// The entry that fits a platform best; the first of equals.
pub fn choose(entries: &[IndexEntry], platform: &Platform) -> Result<Descriptor, ManifestError> {
    let mut best: Option<(u32, &IndexEntry)> = None;
    for entry in entries {
        let rank = match &entry.platform {
            Some(of) => platform.rank(of),
            // Nobody said: taken when nothing better is there.
            None => Some(0),
        };
        if let Some(rank) = rank
            && best.is_none_or(|(so_far, _)| rank > so_far)
        {
            best = Some((rank, entry));
        }
    }
    if let Some((_, entry)) = best
        && entry.descriptor.size <= MAX_MANIFEST
    {
        return Ok(entry.descriptor.clone());
    }
    let offered: Vec<String> = entries
        .iter()
        .filter_map(|entry| entry.platform.as_ref())
        .filter(|of| of.os != "unknown")
        .map(ToString::to_string)
        .collect();
    Err(ManifestError::NoPlatform {
        wanted: platform.to_string(),
        offered: if offered.is_empty() {
            "nothing".to_owned()
        } else {
            offered.join(", ")
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(c: char) -> String {
        format!("sha256:{}", String::from(c).repeat(64))
    }

    fn of(c: char) -> String {
        format!(r#"{{"mediaType":"x","digest":"{}","size":7}}"#, digest(c))
    }

    fn image(extra: &str) -> String {
        let (config, layer) = (of('a'), of('b'));
        format!(r#"{{"schemaVersion":2,{extra}"config":{config},"layers":[{layer}]}}"#)
    }

    fn index(platforms: &[(&str, &str)]) -> String {
        let entries: Vec<String> = platforms
            .iter()
            .enumerate()
            .map(|(i, (architecture, variant))| {
                let digest = digest(char::from(b"abcdef"[i]));
                format!(
                    r#"{{"mediaType":"{OCI_MANIFEST}","digest":"{digest}","size":7,"platform":{{"os":"linux","architecture":"{architecture}","variant":"{variant}"}}}}"#
                )
            })
            .collect();
        format!(
            r#"{{"schemaVersion":2,"manifests":[{}]}}"#,
            entries.join(",")
        )
    }

    fn chosen(platforms: &[(&str, &str)], host: (&str, &str)) -> Result<char, ManifestError> {
        let Document::Index(entries) = parse(index(platforms).as_bytes(), OCI_INDEX)? else {
            return Err(ManifestError::Neither);
        };
        let host = Platform {
            os: "linux".to_owned(),
            architecture: host.0.to_owned(),
            variant: host.1.to_owned(),
        };
        let descriptor = choose(&entries, &host)?;
        Ok(descriptor.digest.hex().chars().next().unwrap())
    }

    #[test]
    fn manifest_is_read_with_and_without_a_media_type() {
        for sent in [
            OCI_MANIFEST,
            DOCKER_MANIFEST,
            "",
            "application/json; charset=utf-8",
        ] {
            let parsed = parse(image("").as_bytes(), sent).unwrap();
            let Document::Image(manifest) = parsed else {
                panic!("an index");
            };
            assert_eq!(manifest.layers[0].size, 7);
        }
    }

    #[test]
    fn manifest_is_refused_when_it_could_be_read_as_two_things() {
        let said = format!(r#""mediaType":"{OCI_INDEX}","#);
        let both = r#""manifests":[],"#;
        assert!(matches!(
            parse(image(&said).as_bytes(), OCI_MANIFEST),
            Err(ManifestError::Confused { .. })
        ));
        assert!(matches!(
            parse(image(&said).as_bytes(), ""),
            Err(ManifestError::Confused { .. })
        ));
        assert_eq!(parse(image(both).as_bytes(), ""), Err(ManifestError::Both));
        assert!(parse(image("").as_bytes(), OCI_INDEX).is_err());
    }

    #[test]
    fn manifest_is_refused_with_its_reason() {
        let helm = r#""mediaType":"application/vnd.oci.artifact","#;
        assert!(matches!(
            parse(image(helm).as_bytes(), ""),
            Err(ManifestError::MediaType { .. })
        ));
        let schema1 = br#"{"schemaVersion":1,"fsLayers":[]}"#;
        assert_eq!(parse(schema1, ""), Err(ManifestError::Schema1));
        assert_eq!(parse(b"{}", ""), Err(ManifestError::Neither));
        assert!(matches!(
            parse(b"<html>", ""),
            Err(ManifestError::Json { .. })
        ));
        let negative = image("").replace("\"size\":7", "\"size\":-7");
        assert!(matches!(
            parse(negative.as_bytes(), ""),
            Err(ManifestError::Descriptor { .. })
        ));
    }

    #[test]
    fn platform_is_chosen_by_what_the_host_can_run() {
        let many = [("arm64", "v8"), ("amd64", ""), ("arm", "v6"), ("arm", "v7")];
        assert_eq!(chosen(&many, ("amd64", "")), Ok('b'));
        assert_eq!(chosen(&many, ("arm64", "v8")), Ok('a'));
        assert_eq!(chosen(&many, ("arm", "v7")), Ok('d'));
        assert_eq!(chosen(&many, ("arm", "v6")), Ok('c'));
        assert_eq!(
            chosen(&[("amd64", "v3"), ("amd64", "v1")], ("amd64", "")),
            Ok('b')
        );
    }

    #[test]
    fn error_says_what_is_offered_when_no_platform_fits() {
        let error = chosen(&[("arm64", "v8"), ("s390x", "")], ("amd64", "")).unwrap_err();
        let text = error.to_string();
        assert!(text.contains("linux/amd64") && text.contains("linux/arm64/v8, linux/s390x"));
    }
}
