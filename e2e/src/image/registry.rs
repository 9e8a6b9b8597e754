//! Pushing to a registry over plain HTTP (OCI distribution specification v1.1).

use super::layer::{self, Blob, Inputs};
use super::{Image, oci};
use crate::http::{self, Request};
use anyhow::{Context, Result, bail};
use std::fs;

/// Builds the image's layers; must run where the module proxy and Debian can be reached.
pub fn build(inputs: &Inputs, image: &Image) -> Result<Vec<Blob>> {
    image
        .layers
        .iter()
        .map(|l| layer::build(inputs, l))
        .collect()
}

/// The digest that a registry gives the image's manifest.
pub fn digest(inputs: &Inputs, image: &Image) -> Result<String> {
    let layers = build(inputs, image)?;
    let config = oci::config(image, &layers);
    Ok(oci::digest(&oci::manifest(&config, &layers)))
}

/// Builds the image and pushes it under all its names. What is there already is left alone.
pub fn push(inputs: &Inputs, registry: &str, image: &Image) -> Result<()> {
    let layers = build(inputs, image)?;
    let config = oci::config(image, &layers);
    let manifest = oci::manifest(&config, &layers);
    for name in image.names {
        let (_, repository, tag) =
            oci::parse_name(name).with_context(|| format!("image name {name}"))?;
        if has_manifest(registry, repository, tag, &oci::digest(&manifest))? {
            continue;
        }
        for layer in &layers {
            blob(registry, repository, &layer.digest, || {
                Ok(fs::read(&layer.path)?)
            })?;
        }
        blob(registry, repository, &oci::digest(&config), || {
            Ok(config.clone())
        })?;
        let path = format!("/v2/{repository}/manifests/{tag}");
        let put = Request {
            content_type: oci::MANIFEST,
            body: &manifest,
            ..Request::to("PUT", &path)
        };
        expect(&http::send(registry, &put)?, 201, &path)?;
    }
    Ok(())
}

fn has_manifest(registry: &str, repository: &str, tag: &str, digest: &str) -> Result<bool> {
    let path = format!("/v2/{repository}/manifests/{tag}");
    let head = Request {
        accept: oci::MANIFEST,
        ..Request::to("HEAD", &path)
    };
    let answer = http::send(registry, &head)?;
    Ok(answer.status == 200 && answer.header("docker-content-digest") == Some(digest))
}

fn blob(
    registry: &str,
    repository: &str,
    digest: &str,
    content: impl FnOnce() -> Result<Vec<u8>>,
) -> Result<()> {
    let path = format!("/v2/{repository}/blobs/{digest}");
    if http::send(registry, &Request::to("HEAD", &path))?.status == 200 {
        return Ok(());
    }
    let path = format!("/v2/{repository}/blobs/uploads/");
    let answer = http::send(registry, &Request::to("POST", &path))?;
    expect(&answer, 202, &path)?;
    let location = answer
        .header("location")
        .context("registry: upload without a location")?;
    let location = location.split_once("://").map_or(location, |(_, rest)| {
        rest.find('/').map_or("/", |i| &rest[i..])
    });
    let separator = if location.contains('?') { '&' } else { '?' };
    let path = format!("{location}{separator}digest={digest}");
    let body = content()?;
    let put = Request {
        content_type: "application/octet-stream",
        body: &body,
        ..Request::to("PUT", &path)
    };
    expect(&http::send(registry, &put)?, 201, &path)
}

fn expect(answer: &http::Response, status: u16, path: &str) -> Result<()> {
    if answer.status != status {
        let body = String::from_utf8_lossy(&answer.body);
        bail!("registry: {path}: {} {}", answer.status, body.trim());
    }
    Ok(())
}
