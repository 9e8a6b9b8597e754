//! A registry of one image: the host's static busybox.

use axum::Router;
use axum::extract::{Path, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

/// Commands that tests call, as hard links: a mask over one must not hide all.
const APPLETS: [&str; 24] = [
    "cat", "chmod", "dd", "echo", "env", "false", "grep", "head", "hostname", "id", "ls", "mkdir",
    "mount", "ps", "rm", "sh", "sleep", "tail", "test", "touch", "true", "unshare", "wc", "wget",
];

struct Registry {
    blobs: HashMap<String, Vec<u8>>,
    manifest: Vec<u8>,
}

/// Serves on a port of the loopback's.
pub async fn serve() -> SocketAddr {
    let registry = Arc::new(Registry::of_busybox());
    let app = Router::new()
        .route("/v2/", get(|| async { "{}" }))
        .route("/v2/busybox/manifests/{reference}", get(manifest))
        .route("/v2/busybox/blobs/{digest}", get(blob))
        .with_state(registry);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
        .await
        .expect("listen");
    let address = listener.local_addr().expect("address");
    tokio::spawn(async move { axum::serve(listener, app).await });
    address
}

async fn manifest(State(registry): State<Arc<Registry>>, Path(_): Path<String>) -> Response {
    let digest = digest(&registry.manifest);
    let headers = [
        (header::CONTENT_TYPE.as_str(), MANIFEST.to_owned()),
        ("docker-content-digest", digest),
    ];
    (headers, registry.manifest.clone()).into_response()
}

async fn blob(State(registry): State<Arc<Registry>>, Path(digest): Path<String>) -> Response {
    match registry.blobs.get(&digest) {
        Some(blob) => blob.clone().into_response(),
        None => StatusCode::NOT_FOUND.into_response(),
    }
}

fn digest(bytes: &[u8]) -> String {
    let hash = ring::digest::digest(&ring::digest::SHA256, bytes);
    let hex: String = hash.as_ref().iter().map(|b| format!("{b:02x}")).collect();
    format!("sha256:{hex}")
}

impl Registry {
    /// Two layers, so that overlay has something to put together.
    fn of_busybox() -> Self {
        let layers = [layer(), second_layer()];
        let diff_ids: Vec<String> = layers.iter().map(|layer| digest(layer)).collect();
        let config = serde_json::json!({
            "architecture": "amd64",
            "os": "linux",
            "config": {"Cmd": ["sh"], "Env": ["PATH=/bin"]},
            "rootfs": {"type": "layers", "diff_ids": diff_ids},
        });
        let config = config.to_string().into_bytes();
        let described = layers.iter().map(|layer| {
            serde_json::json!({
                "mediaType": "application/vnd.oci.image.layer.v1.tar",
                "digest": digest(layer),
                "size": layer.len(),
            })
        });
        let manifest = serde_json::json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": {
                "mediaType": "application/vnd.oci.image.config.v1+json",
                "digest": digest(&config),
                "size": config.len(),
            },
            "layers": described.collect::<Vec<_>>(),
        });
        let blobs = layers.into_iter().chain([config]);
        Self {
            manifest: manifest.to_string().into_bytes(),
            blobs: blobs.map(|blob| (digest(&blob), blob)).collect(),
        }
    }
}

fn second_layer() -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    entry(&mut tar, tar::EntryType::Directory, "etc/", 0o755, &[]);
    entry(
        &mut tar,
        tar::EntryType::Regular,
        "etc/second",
        0o644,
        b"layer\n",
    );
    tar.into_inner().expect("layer")
}

fn layer() -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    let busybox = std::fs::read("/bin/busybox").expect("busybox-static is installed");
    for dir in ["bin/", "etc/", "tmp/"] {
        entry(&mut tar, tar::EntryType::Directory, dir, 0o755, &[]);
    }
    entry(
        &mut tar,
        tar::EntryType::Regular,
        "bin/busybox",
        0o755,
        &busybox,
    );
    for applet in APPLETS {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::Link);
        header.set_mode(0o755);
        header.set_size(0);
        header.set_uid(0);
        header.set_gid(0);
        let path = format!("bin/{applet}");
        tar.append_link(&mut header, path, "bin/busybox")
            .expect("link");
    }
    let passwd = "root:x:0:0:root:/root:/bin/sh\nuser:x:1000:1000:user:/tmp:/bin/sh\n";
    let group = "root:x:0:\nuser:x:1000:\nin-image:x:50000:user\n";
    entry(
        &mut tar,
        tar::EntryType::Regular,
        "etc/passwd",
        0o644,
        passwd.as_bytes(),
    );
    entry(
        &mut tar,
        tar::EntryType::Regular,
        "etc/group",
        0o644,
        group.as_bytes(),
    );
    tar.into_inner().expect("layer")
}

fn entry(
    tar: &mut tar::Builder<Vec<u8>>,
    kind: tar::EntryType,
    path: &str,
    mode: u32,
    content: &[u8],
) {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_size(content.len() as u64);
    header.set_uid(0);
    header.set_gid(0);
    tar.append_data(&mut header, path, content).expect("entry");
}
