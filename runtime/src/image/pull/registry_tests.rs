//! The whole way with a real registry: Debian's docker-registry.

use super::Auth;
use crate::image::digest::Digest;
use crate::image::registry::fake::{Content, OCI_INDEX};
use crate::image::testing::TempDir;
use crate::image::{Config, Store};
use axum::body::Bytes;
use http::{Method, Request, StatusCode};
use http_body_util::Full;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use std::process::{Child, Command};
use std::sync::Arc;

/// `me` and `secret`, as htpasswd -B writes it.
const HTPASSWD: &str = "me:$2b$05$abcdefghijklmnopqrstuuOQiyCxlgf/oeuTqixKmWdcYUh4Hjl0a\n";

struct Registry {
    process: Child,
    address: String,
    _dir: TempDir,
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Registry {
    async fn start(auth: bool) -> Self {
        let dir = TempDir::new();
        let port = {
            let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            free.local_addr().unwrap().port()
        };
        let address = format!("127.0.0.1:{port}");
        let data = dir.path().join("data");
        std::fs::write(dir.path().join("htpasswd"), HTPASSWD).unwrap();
        let auth = match auth {
            true => format!(
                "auth: {{htpasswd: {{realm: r, path: {}}}}}\n",
                dir.path().join("htpasswd").display()
            ),
            false => String::new(),
        };
        let config = format!(
            "version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {}}}}}\nhttp: {{addr: '{address}'}}\n{auth}",
            data.display()
        );
        let path = dir.path().join("config.yml");
        std::fs::write(&path, config).unwrap();
        let process = Command::new("docker-registry")
            .arg("serve")
            .arg(&path)
            .spawn();
        let registry = Self {
            process: process.expect("docker-registry is installed"),
            address,
            _dir: dir,
        };
        while tokio::net::TcpStream::connect(&registry.address)
            .await
            .is_err()
        {
            tokio::task::yield_now().await;
        }
        registry
    }

    async fn send(&self, method: Method, url: &str, kind: &str, body: &[u8]) -> String {
        let client = Client::builder(TokioExecutor::new()).build_http();
        let request = Request::builder()
            .method(method)
            .uri(url)
            .header("authorization", "Basic bWU6c2VjcmV0")
            .header("content-type", kind)
            .body(Full::new(Bytes::copy_from_slice(body)))
            .unwrap();
        let response = client.request(request).await.unwrap();
        let status = response.status();
        assert!(
            matches!(status, StatusCode::ACCEPTED | StatusCode::CREATED),
            "{url}: {status}"
        );
        response.headers()["location"].to_str().unwrap().to_owned()
    }

    async fn push(&self, name: &str, content: &Content) {
        let base = format!("http://{}/v2/{name}", self.address);
        for (digest, blob) in &content.blobs {
            let upload = self
                .send(Method::POST, &format!("{base}/blobs/uploads/"), "", b"")
                .await;
            let url = format!("{upload}&digest={digest}");
            self.send(Method::PUT, &url, "application/octet-stream", blob)
                .await;
        }
        // Indexes come after the manifests they name.
        let mut manifests: Vec<_> = content.manifests.iter().collect();
        manifests.sort_by_key(|(name, (kind, _))| (kind == OCI_INDEX, !name.contains(':')));
        for (name, (kind, text)) in manifests {
            self.send(Method::PUT, &format!("{base}/manifests/{name}"), kind, text)
                .await;
        }
    }
}

fn store(dir: &TempDir) -> Arc<Store> {
    let mut config = Config::new(dir.path().join("store"));
    config.registry_config_dir = dir.path().join("none");
    config.registries_file = dir.path().join("none");
    Store::open(config).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs docker-registry"]
async fn index_is_pulled_by_tag_and_by_digest_from_a_real_registry() {
    let mut content = Content::default();
    let (digest, _) = content.image("one", &[("a", b"x"), ("b", b"y"), ("a", b"z")]);
    let host = crate::image::registry::manifest::Platform::host();
    let size = content.manifests[&digest].1.len();
    let index = serde_json::json!({
        "schemaVersion": 2, "mediaType": OCI_INDEX,
        "manifests": [{
            "mediaType": content.manifests[&digest].0, "digest": digest, "size": size,
            "platform": {"os": "linux", "architecture": host.architecture},
        }],
    });
    let top = content.manifest("many", OCI_INDEX, &index.to_string());
    let registry = Registry::start(false).await;
    registry.push("team/app", &content).await;
    let dir = TempDir::new();
    let store = store(&dir);
    let name = format!("{}/team/app", registry.address);
    let by_tag = store.pull(&format!("{name}:many"), None).await.unwrap();
    assert_eq!(by_tag.repo_digests, [format!("{name}@{top}")]);
    assert_eq!(
        by_tag.id,
        Digest::sha256(by_tag.raw_config.as_bytes()).as_str()
    );
    assert_eq!(by_tag.layers.len(), 3);
    let by_digest = store.pull(&format!("{name}@{digest}"), None).await.unwrap();
    assert_eq!(by_digest.id, by_tag.id);
    assert_eq!(by_digest.repo_digests.len(), 2);
    let missing = store.pull(&format!("{name}:none"), None).await.unwrap_err();
    assert_eq!(missing.code(), tonic::Code::NotFound);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs docker-registry"]
async fn private_registry_serves_those_with_the_password() {
    let mut content = Content::default();
    content.image("1", &[("a", b"x")]);
    let registry = Registry::start(true).await;
    registry.push("app", &content).await;
    let dir = TempDir::new();
    let store = store(&dir);
    let name = format!("{}/app:1", registry.address);
    let auth = |password: &str| {
        Some(Auth {
            username: "me".to_owned(),
            password: password.to_owned(),
            ..Auth::default()
        })
    };
    for wrong in [None, auth("guess")] {
        let error = store.pull(&name, wrong).await.unwrap_err();
        assert_eq!(error.code(), tonic::Code::PermissionDenied);
    }
    store.pull(&name, auth("secret")).await.unwrap();
}
