//! An image to a file that docker, podman, containerd and this store import.

use super::pack::{Packed, pack};
use super::source::unnamed;
use crate::image::digest::Digest;
use crate::image::{Image, Reference, Store};
use serde_json::{Value, json};
use std::fs::File;
use std::io::{self, BufWriter, Read, Seek, Write};
use std::sync::Arc;
use tar::{Builder, Header};

/// Why an image could not be exported.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum ExportError {
    #[error("export {reference}: there is no such image; see the list of images")]
    Unknown { reference: String },
    #[error("export {reference}")]
    Write {
        reference: String,
        source: io::Error,
    },
}

impl Store {
    /// Writes an image as a tar file that is OCI layout and docker-archive at
    /// once. The store keeps layers extracted and not as they came, so they
    /// are packed anew: the image has the same files and settings, and other
    /// digests, and thus another id, than the one that was pulled.
    ///
    /// # Errors
    /// When there is no such image, or when it can't be read or written.
    pub async fn export(
        self: &Arc<Self>,
        reference: &str,
        out: impl Write + Send + 'static,
    ) -> Result<(), ExportError> {
        let unknown = || ExportError::Unknown {
            reference: reference.to_owned(),
        };
        let image = self.resolve(reference).ok_or_else(unknown)?;
        let hold = self.hold(&image);
        let tmp = self.layout().tmp.clone();
        let tags = tags(&image, reference);
        let written = tokio::task::spawn_blocking(move || {
            let _hold = hold;
            write(&image, &tags, out, || unnamed(&tmp))
        });
        let written = match written.await {
            Ok(written) => written,
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        };
        written.map_err(|source| ExportError::Write {
            reference: reference.to_owned(),
            source,
        })
    }
}

/// The tag that was asked for, or all of them.
fn tags(image: &Image, reference: &str) -> Vec<String> {
    let asked = Reference::parse(reference).map(|r| r.to_string());
    match asked.ok().filter(|name| image.repo_tags.contains(name)) {
        Some(name) => vec![name],
        None => image.repo_tags.clone(),
    }
}

fn write(
    image: &Image,
    tags: &[String],
    out: impl Write,
    spool: impl Fn() -> io::Result<File>,
) -> io::Result<()> {
    let mut archive = Archive(Builder::new(BufWriter::new(out)));
    let mut layers: Vec<Packed> = Vec::new();
    for layer in &image.layers {
        // The size stands before the data, so a layer is packed to a file first.
        let mut file = spool()?;
        let packed = pack(layer, BufWriter::new(&file))?;
        file.rewind()?;
        archive.add(&blob(&packed.diff_id), packed.size, file)?;
        layers.push(packed);
    }
    let config = archive.blob(&config(image, &layers)?)?;
    let described: Vec<Value> = layers
        .iter()
        .map(|l| descriptor("application/vnd.oci.image.layer.v1.tar", &l.diff_id, l.size))
        .collect();
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": descriptor("application/vnd.oci.image.config.v1+json", &config.0, config.1),
        "layers": described,
    });
    let manifest = archive.blob(manifest.to_string().as_bytes())?;
    archive.text("index.json", &index(tags, &manifest))?;
    archive.text("oci-layout", &json!({"imageLayoutVersion": "1.0.0"}))?;
    let names: Vec<String> = layers.iter().map(|l| blob(&l.diff_id)).collect();
    let docker = json!([{"Config": blob(&config.0), "RepoTags": tags, "Layers": names}]);
    archive.text("manifest.json", &docker)?;
    archive.0.into_inner()?.flush()
}

/// The configuration with the digests of the layers as they are now, and
/// without a history, which counts layers that may have been dropped.
fn config(image: &Image, layers: &[Packed]) -> io::Result<Vec<u8>> {
    let mut config: Value = serde_json::from_str(&image.raw_config)?;
    let diff_ids: Vec<&str> = layers.iter().map(|l| l.diff_id.as_str()).collect();
    config["rootfs"] = json!({"type": "layers", "diff_ids": diff_ids});
    if let Some(config) = config.as_object_mut() {
        config.remove("history");
    }
    Ok(serde_json::to_vec(&config)?)
}

fn index(tags: &[String], (digest, size): &(Digest, u64)) -> Value {
    let entry = |tag: Option<&String>| {
        let mut entry = descriptor("application/vnd.oci.image.manifest.v1+json", digest, *size);
        if let Some(tag) = tag {
            let short = tag.rsplit_once(':').map_or("latest", |(_, short)| short);
            entry["annotations"] = json!({
                "io.containerd.image.name": tag,
                "org.opencontainers.image.ref.name": short,
            });
        }
        entry
    };
    let manifests: Vec<Value> = match tags {
        [] => vec![entry(None)],
        tags => tags.iter().map(|tag| entry(Some(tag))).collect(),
    };
    json!({"schemaVersion": 2, "manifests": manifests})
}

fn descriptor(media_type: &str, digest: &Digest, size: u64) -> Value {
    json!({"mediaType": media_type, "digest": digest.as_str(), "size": size})
}

fn blob(digest: &Digest) -> String {
    format!("blobs/{}", digest.as_str().replacen(':', "/", 1))
}

struct Archive<W: Write>(Builder<W>);

impl<W: Write> Archive<W> {
    fn add(&mut self, name: &str, size: u64, data: impl Read) -> io::Result<()> {
        let mut header = Header::new_gnu();
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.set_size(size);
        self.0.append_data(&mut header, name, data)
    }

    fn text(&mut self, name: &str, value: &Value) -> io::Result<()> {
        let text = value.to_string();
        self.add(name, text.len() as u64, text.as_bytes())
    }

    fn blob(&mut self, bytes: &[u8]) -> io::Result<(Digest, u64)> {
        let digest = Digest::sha256(bytes);
        self.add(&blob(&digest), bytes.len() as u64, bytes)?;
        Ok((digest, bytes.len() as u64))
    }
}
