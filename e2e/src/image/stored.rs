//! Images as a registry keeps them on disk, without a registry that could be pushed to: the layout of
//! distribution v2's filesystem driver (`registry/storage/paths.go`).

use super::layer::Inputs;
use super::{Image, oci, registry};
use anyhow::{Context, Result};
use std::fs;
use std::path::Path;

/// Writes the image below `root`, a registry's `rootdirectory`, under all its names.
pub fn write(inputs: &Inputs, root: &Path, image: &Image) -> Result<()> {
    let layers = registry::build(inputs, image)?;
    let config = oci::config(image, &layers);
    let manifest = oci::manifest(&config, &layers);
    let (config_digest, digest) = (oci::digest(&config), oci::digest(&manifest));
    let root = root.join("docker/registry/v2");
    for (digest, bytes) in [(&config_digest, &config), (&digest, &manifest)] {
        put(&blob(&root, digest), bytes)?;
    }
    for layer in &layers {
        put(&blob(&root, &layer.digest), &fs::read(&layer.path)?)?;
    }
    for name in image.names {
        let (_, repository, tag) =
            oci::parse_name(name).with_context(|| format!("image name {name}"))?;
        let repository = root.join("repositories").join(repository);
        let manifests = repository.join("_manifests");
        let layers = layers.iter().map(|l| &l.digest);
        for layer in layers.chain([&config_digest]) {
            link(&repository.join("_layers"), layer)?;
        }
        link(&manifests.join("revisions"), &digest)?;
        let tag = manifests.join("tags").join(tag);
        link(&tag.join("index"), &digest)?;
        put(&tag.join("current/link"), digest.as_bytes())?;
    }
    Ok(())
}

fn blob(root: &Path, digest: &str) -> std::path::PathBuf {
    let hex = digest.trim_start_matches("sha256:");
    root.join("blobs/sha256")
        .join(&hex[..2])
        .join(hex)
        .join("data")
}

fn link(dir: &Path, digest: &str) -> Result<()> {
    let hex = digest.trim_start_matches("sha256:");
    put(
        &dir.join("sha256").join(hex).join("link"),
        digest.as_bytes(),
    )
}

/// What is there already is left alone, and nobody sees half of a file: a registry may be serving it.
fn put(path: &Path, bytes: &[u8]) -> Result<()> {
    if fs::read(path).is_ok_and(|there| there == bytes) {
        return Ok(());
    }
    if let Some(dir) = path.parent() {
        fs::create_dir_all(dir)?;
    }
    let partial = path.with_extension("partial");
    fs::write(&partial, bytes)
        .and_then(|()| fs::rename(&partial, path))
        .with_context(|| format!("write {}", path.display()))
}
