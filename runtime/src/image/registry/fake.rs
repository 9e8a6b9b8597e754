//! A registry for tests of faults: one that works, until a hook answers
//! instead. What a good registry does is tested with a real one.

use crate::image::digest::Digest;
use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;
use bytes::Bytes;
use http::StatusCode;
use http::request::Parts;
use std::collections::HashMap;
use std::io::Write;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

type Hook = Box<dyn Fn(&Parts, &Content) -> Option<Response> + Send + Sync>;

/// What it has, by the last part of a URL.
#[derive(Default, Clone)]
pub struct Content {
    pub blobs: HashMap<String, Vec<u8>>,
    /// With their media types.
    pub manifests: HashMap<String, (String, Vec<u8>)>,
}

pub struct FakeRegistry {
    pub address: SocketAddr,
    seen: Arc<Mutex<Vec<Parts>>>,
}

pub const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";

impl FakeRegistry {
    pub async fn start(content: Content) -> Self {
        Self::start_with(content, Box::new(|_, _| None)).await
    }

    pub async fn start_with(content: Content, hook: Hook) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let state = Arc::new((content, hook, seen.clone()));
        let service = axum::Router::new().fallback(move |request: Request| {
            let state = state.clone();
            async move {
                let (parts, _) = request.into_parts();
                state.2.lock().unwrap().push(parts.clone());
                state.1(&parts, &state.0).unwrap_or_else(|| state.0.answer(&parts))
            }
        });
        tokio::spawn(async move { axum::serve(listener, service).await });
        Self { address, seen }
    }

    /// Name of an image here.
    pub fn name(&self, rest: &str) -> String {
        format!("{}/{rest}", self.address)
    }

    /// Requests so far.
    pub fn seen(&self) -> Vec<Parts> {
        self.seen.lock().unwrap().clone()
    }

    /// Those whose path holds a text.
    pub fn count(&self, text: &str) -> usize {
        let seen = self.seen();
        seen.iter().filter(|p| p.uri.path().contains(text)).count()
    }
}

impl Content {
    /// A blob; yields its digest.
    pub fn blob(&mut self, bytes: &[u8]) -> String {
        let digest = Digest::sha256(bytes).to_string();
        self.blobs.insert(digest.clone(), bytes.to_vec());
        digest
    }

    /// A manifest by tag and by digest; yields the digest.
    pub fn manifest(&mut self, tag: &str, media_type: &str, text: &str) -> String {
        let digest = Digest::sha256(text.as_bytes()).to_string();
        let manifest = (media_type.to_owned(), text.as_bytes().to_vec());
        self.manifests.insert(tag.to_owned(), manifest.clone());
        self.manifests.insert(digest.clone(), manifest);
        digest
    }

    /// An image of gzipped layers, each with one file; yields the manifest's
    /// digest and the layers'.
    pub fn image(&mut self, tag: &str, files: &[(&str, &[u8])]) -> (String, Vec<String>) {
        let tars: Vec<Vec<u8>> = files.iter().map(|(name, data)| tar(name, data)).collect();
        let diff_ids: Vec<String> = tars.iter().map(|t| Digest::sha256(t).to_string()).collect();
        let config = serde_json::json!({
            "architecture": super::manifest::Platform::host().architecture,
            "os": "linux",
            "config": {"User": "1000:5", "Env": null, "ExposedPorts": {"80/tcp": {}}},
            "rootfs": {"type": "layers", "diff_ids": diff_ids},
            "history": null,
        });
        let layers: Vec<(String, usize)> = tars
            .iter()
            .map(|tar| {
                let packed = gzip(tar);
                (self.blob(&packed), packed.len())
            })
            .collect();
        let manifest = self.manifest_of(&config.to_string(), &layers);
        let digest = self.manifest(tag, OCI_MANIFEST, &manifest);
        (
            digest,
            layers.into_iter().map(|(digest, _)| digest).collect(),
        )
    }

    /// Text of a manifest.
    pub fn manifest_of(&mut self, config: &str, layers: &[(String, usize)]) -> String {
        let layers: Vec<_> = layers
            .iter()
            .map(|(digest, size)| {
                serde_json::json!({
                    "mediaType": "application/vnd.oci.image.layer.v1.tar+gzip",
                    "digest": digest, "size": size,
                })
            })
            .collect();
        let digest = self.blob(config.as_bytes());
        serde_json::json!({
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": {
                "mediaType": "application/vnd.oci.image.config.v1+json",
                "digest": digest, "size": config.len(),
            },
            "layers": layers,
        })
        .to_string()
    }

    fn answer(&self, parts: &Parts) -> Response {
        let path = parts.uri.path();
        let last = path.rsplit('/').next().unwrap_or_default();
        if path.contains("/manifests/") {
            if let Some((media_type, text)) = self.manifests.get(last) {
                let body = Body::from(text.clone());
                return respond(200, &[("content-type", media_type)], body);
            }
        } else if let Some(blob) = self.blobs.get(last) {
            return ranged(parts, blob);
        }
        let text = r#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown"}]}"#;
        respond(404, &[], Body::from(text))
    }
}

fn ranged(parts: &Parts, blob: &[u8]) -> Response {
    let range = parts.headers.get("range").and_then(|r| r.to_str().ok());
    let from = range.and_then(|r| r.strip_prefix("bytes=")?.split('-').next()?.parse().ok());
    match from {
        Some(from) => respond(206, &[], Body::from(blob[from..].to_vec())),
        None => respond(200, &[], Body::from(blob.to_vec())),
    }
}

pub fn respond(status: u16, headers: &[(&str, &str)], body: Body) -> Response {
    let mut response = Response::new(body);
    *response.status_mut() = StatusCode::from_u16(status).unwrap();
    for (name, value) in headers {
        let name: http::HeaderName = name.parse().unwrap();
        response.headers_mut().insert(name, value.parse().unwrap());
    }
    response
}

/// A body that announces its whole length and breaks off.
pub fn cut(bytes: &[u8], after: usize) -> Response {
    let pieces = bytes[..after].chunks(1 << 16);
    let mut parts: Vec<_> = pieces.map(|p| Ok(Bytes::copy_from_slice(p))).collect();
    parts.push(Err(std::io::Error::other("cut")));
    let body = Body::from_stream(futures::stream::iter(parts));
    let length = bytes.len().to_string();
    respond(200, &[("content-length", &length)], body)
}

/// A body without end or length.
pub fn endless() -> Response {
    let chunk = || Ok::<_, std::io::Error>(Bytes::from_static(&[b'x'; 65536]));
    respond(
        200,
        &[],
        Body::from_stream(futures::stream::repeat_with(chunk)),
    )
}

/// An archive with one file that belongs to whoever runs the tests.
pub fn tar(name: &str, data: &[u8]) -> Vec<u8> {
    let mut header = tar::Header::new_gnu();
    header.set_mode(0o644);
    header.set_uid(u64::from(rustix::process::geteuid().as_raw()));
    header.set_gid(u64::from(rustix::process::getegid().as_raw()));
    header.set_size(data.len() as u64);
    let mut builder = tar::Builder::new(Vec::new());
    builder.append_data(&mut header, name, data).unwrap();
    builder.into_inner().unwrap()
}

pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}
