//! Registries that fail or lie.

use super::Auth;
use crate::image::digest::Digest;
use crate::image::registry::fake::{
    Content, FakeRegistry, OCI_INDEX, OCI_MANIFEST, cut, endless, gzip, respond, tar,
};
use crate::image::testing::TempDir;
use crate::image::{Config, Image, Store};
use axum::body::Body;
use http::header::AUTHORIZATION;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

struct Bed {
    dir: TempDir,
    store: Arc<Store>,
}

impl Bed {
    fn new() -> Self {
        let dir = TempDir::new();
        let store = open(&dir);
        Self { dir, store }
    }

    async fn pull(&self, name: &str) -> Result<Arc<Image>, String> {
        self.pull_as(name, None).await
    }

    async fn pull_as(&self, name: &str, auth: Option<Auth>) -> Result<Arc<Image>, String> {
        let pulled = self.store.pull(name, auth).await;
        pulled.map_err(|error| crate::image::verbs::chain(&*error))
    }

    /// Nothing stays behind of what failed.
    fn assert_empty(&self) {
        for part in ["images", "layers", "tmp"] {
            let dir = self.dir.path().join("store").join(part);
            assert_eq!(std::fs::read_dir(&dir).unwrap().count(), 0, "{part}");
        }
    }
}

fn open(dir: &TempDir) -> Arc<Store> {
    let mut config = Config::new(dir.path().join("store"));
    config.registry_config_dir = dir.path().join("certs.d");
    config.registries_file = dir.path().join("registries.yaml");
    config.ca_bundles.clear();
    Store::open(config).unwrap()
}

fn write(dir: &Path, path: &str, text: &str) {
    let path = dir.join(path);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, text).unwrap();
}

fn auth() -> Option<Auth> {
    Some(Auth {
        username: "me".to_owned(),
        password: "secret".to_owned(),
        ..Auth::default()
    })
}

#[tokio::test]
async fn image_has_its_names_layers_and_files_when_pulled() {
    let mut content = Content::default();
    let (digest, _) = content.image("1", &[("a", b"lower"), ("b", b"upper")]);
    let registry = FakeRegistry::start(content).await;
    let bed = Bed::new();
    let image = bed.pull(&registry.name("app:1")).await.unwrap();
    assert_eq!(image.repo_tags, [registry.name("app:1")]);
    assert_eq!(
        image.repo_digests,
        [registry.name(&format!("app@{digest}"))]
    );
    assert_eq!(std::fs::read(image.layers[0].join("a")).unwrap(), b"lower");
    assert_eq!(std::fs::read(image.layers[1].join("b")).unwrap(), b"upper");
    let usage = bed.store.usage();
    assert!(usage.bytes >= image.size && usage.inodes > 4);
    // Once more, by digest: no blob is asked for again.
    let before = registry.count("/blobs/");
    let again = bed.pull(&image.repo_digests[0]).await.unwrap();
    assert_eq!(again.repo_tags, image.repo_tags);
    assert_eq!(registry.count("/blobs/"), before);
}

#[tokio::test]
async fn image_pulled_by_digest_has_no_tag() {
    let mut content = Content::default();
    let (digest, _) = content.image("1", &[("a", b"x")]);
    let registry = FakeRegistry::start(content).await;
    let name = registry.name(&format!("app@{digest}"));
    let image = Bed::new().pull(&name).await.unwrap();
    assert!(image.repo_tags.is_empty());
    assert_eq!(image.repo_digests, [name]);
}

#[tokio::test]
async fn store_knows_its_images_when_opened_again() {
    let mut content = Content::default();
    content.image("1", &[("a", b"x")]);
    let registry = FakeRegistry::start(content).await;
    let Bed { dir, store } = Bed::new();
    let name = registry.name("app:1");
    let image = store.pull(&name, None).await.unwrap();
    assert!(Store::open(Config::new(dir.path().join("store"))).is_err());
    drop(store);
    write(dir.path(), "store/images/broken.json", "{");
    let store = reopened(&dir).await;
    assert_eq!(store.resolve(&name), Some(image));
    assert!(store.remove(&name).await.unwrap());
    assert!(!store.remove(&name).await.unwrap());
    assert_eq!(store.usage().bytes, 0);
}

/// Writing layers back may hold the store for a moment after the last user.
async fn reopened(dir: &TempDir) -> Arc<Store> {
    loop {
        let mut config = Config::new(dir.path().join("store"));
        config.ca_bundles.clear();
        match Store::open(config) {
            Ok(store) => return store,
            Err(_) => tokio::task::yield_now().await,
        }
    }
}

#[tokio::test]
async fn layers_survive_removal_when_held_and_go_when_released() {
    let mut content = Content::default();
    content.image("1", &[("a", b"x")]);
    let registry = FakeRegistry::start(content).await;
    let bed = Bed::new();
    let image = bed.pull(&registry.name("app:1")).await.unwrap();
    bed.store.hold(&image).keep("c1").unwrap();
    bed.store.remove(&image.id).await.unwrap();
    assert!(bed.store.resolve(&image.id).is_none());
    let Bed { dir, store } = bed;
    drop(store);
    let store = reopened(&dir).await;
    assert!(image.layers[0].join("a").exists());
    assert_eq!(store.owners(), ["c1"]);
    store.release("c1").unwrap();
    assert!(store.collect_garbage().await.unwrap() > 0);
    assert!(!image.layers[0].exists());
}

#[tokio::test]
async fn pulls_of_one_image_join() {
    let mut content = Content::default();
    content.image("1", &[("a", b"x")]);
    let registry = FakeRegistry::start(content).await;
    let bed = Bed::new();
    let name = registry.name("app:1");
    let (a, b, c) = tokio::join!(bed.pull(&name), bed.pull(&name), bed.pull(&name));
    assert!(a.unwrap() == b.unwrap() && c.is_ok());
    assert_eq!(registry.count("/manifests/"), 1);
}

#[tokio::test]
async fn pull_ends_when_nobody_waits_any_more() {
    let mut content = Content::default();
    let (_, layers) = content.image("1", &[("a", b"x")]);
    let layer = layers[0].clone();
    let (asked, mut waiting) = tokio::sync::mpsc::unbounded_channel();
    let registry = FakeRegistry::start_with(
        content,
        Box::new(move |parts, _| {
            let of_layer = parts.uri.path().ends_with(&layer);
            of_layer.then(|| {
                    let _ = asked.send(());
                    respond(
                        200,
                        &[],
                        Body::from_stream(futures::stream::pending::<
                            Result<Vec<u8>, std::io::Error>,
                        >()),
                    )
                })
        }),
    )
    .await;
    let bed = Bed::new();
    let name = registry.name("app:1");
    {
        let pull = bed.pull(&name);
        tokio::pin!(pull);
        tokio::select! {
            _ = &mut pull => panic!("it can't end"),
            _ = waiting.recv() => {}
        }
        assert_eq!(bed.store.pulling().len(), 1);
    }
    while !bed.store.pulling().is_empty() {
        tokio::task::yield_now().await;
    }
    bed.assert_empty();
}

#[tokio::test]
async fn layer_with_another_digest_is_refused() {
    let mut content = Content::default();
    let (_, layers) = content.image("1", &[("a", b"good")]);
    let size = content.blobs[&layers[0]].len();
    content.blobs.insert(layers[0].clone(), vec![7; size]);
    let registry = FakeRegistry::start(content).await;
    let bed = Bed::new();
    let error = bed.pull(&registry.name("app:1")).await.unwrap_err();
    assert!(
        error.contains(&layers[0]) && error.contains("it sent sha256:"),
        "{error}"
    );
    bed.assert_empty();
}

#[tokio::test]
async fn layer_of_another_length_is_refused() {
    let mut content = Content::default();
    let (_, layers) = content.image("1", &[("a", b"good")]);
    content.blobs.get_mut(&layers[0]).unwrap().push(0);
    let registry = FakeRegistry::start(content).await;
    let bed = Bed::new();
    let error = bed.pull(&registry.name("app:1")).await.unwrap_err();
    assert!(error.contains("were announced"), "{error}");
    bed.assert_empty();
}

#[tokio::test]
async fn layer_that_unpacks_to_something_else_is_refused() {
    let mut content = Content::default();
    content.image("1", &[("a", b"good")]);
    let other = gzip(&tar("a", b"evil"));
    let digest = content.blob(&other);
    let manifest: serde_json::Value = serde_json::from_slice(&content.manifests["1"].1).unwrap();
    let mut manifest = manifest;
    manifest["layers"][0]["digest"] = digest.into();
    manifest["layers"][0]["size"] = other.len().into();
    content.manifest("1", OCI_MANIFEST, &manifest.to_string());
    let registry = FakeRegistry::start(content).await;
    let bed = Bed::new();
    let error = bed.pull(&registry.name("app:1")).await.unwrap_err();
    assert!(error.contains("unpacks to"), "{error}");
    bed.assert_empty();
}

#[tokio::test]
async fn endless_bodies_are_cut_off() {
    for part in ["/manifests/", "/blobs/"] {
        let mut content = Content::default();
        content.image("1", &[("a", b"good")]);
        let registry = FakeRegistry::start_with(
            content,
            Box::new(move |parts, _| parts.uri.path().contains(part).then(endless)),
        )
        .await;
        let bed = Bed::new();
        assert!(bed.pull(&registry.name("app:1")).await.is_err());
        bed.assert_empty();
    }
}

#[tokio::test]
async fn manifest_with_another_digest_is_refused() {
    let mut content = Content::default();
    let (digest, _) = content.image("1", &[("a", b"good")]);
    content.image("2", &[("a", b"evil")]);
    let evil = content.manifests["2"].clone();
    content.manifests.insert(digest.clone(), evil);
    let registry = FakeRegistry::start(content).await;
    let bed = Bed::new();
    let name = registry.name(&format!("app@{digest}"));
    let error = bed.pull(&name).await.unwrap_err();
    assert!(
        error.contains(&format!("where {digest} was asked for")),
        "{error}"
    );
    bed.assert_empty();
}

#[tokio::test]
async fn cve_2021_41190_index_that_is_a_manifest_too_is_refused() {
    let mut content = Content::default();
    content.image("1", &[("a", b"good")]);
    let text = String::from_utf8(content.manifests["1"].1.clone()).unwrap();
    let text = text.replacen('{', r#"{"manifests":[],"#, 1);
    content.manifest("both", OCI_MANIFEST, &text);
    let plain = String::from_utf8(content.manifests["1"].1.clone()).unwrap();
    content.manifest("sent-as-index", OCI_INDEX, &plain);
    let registry = FakeRegistry::start(content).await;
    let bed = Bed::new();
    for tag in ["both", "sent-as-index"] {
        let error = bed
            .pull(&registry.name(&format!("app:{tag}")))
            .await
            .unwrap_err();
        assert!(error.contains("CVE-2021-41190"), "{error}");
    }
}

#[tokio::test]
async fn download_resumes_where_the_connection_broke() {
    let mut content = Content::default();
    // Longer than what servers and sockets hold back.
    let noise: Vec<u8> = (0..1u64 << 17)
        .flat_map(|i| Digest::sha256(&i.to_le_bytes()).hex().as_bytes()[..32].to_vec())
        .collect();
    let (_, layers) = content.image("1", &[("a", &noise)]);
    let layer = layers[0].clone();
    let cuts = AtomicUsize::new(0);
    let registry = FakeRegistry::start_with(
        content,
        Box::new(move |parts, content| {
            let first =
                parts.uri.path().ends_with(&layer) && cuts.fetch_add(1, Ordering::Relaxed) == 0;
            first.then(|| cut(&content.blobs[&layer], 1_500_000))
        }),
    )
    .await;
    let image = Bed::new().pull(&registry.name("app:1")).await;
    image.unwrap();
    let ranges: Vec<_> = registry
        .seen()
        .iter()
        .filter_map(|parts| parts.headers.get("range").cloned())
        .collect();
    assert_eq!(ranges.len(), 1);
    assert!(!ranges[0].to_str().unwrap().starts_with("bytes=0-"));
}

#[tokio::test]
async fn download_goes_on_when_the_server_ignores_the_range() {
    let mut content = Content::default();
    let (_, layers) = content.image("1", &[("a", &[5; 5000])]);
    let layer = layers[0].clone();
    let cuts = AtomicUsize::new(0);
    let registry = FakeRegistry::start_with(
        content,
        Box::new(move |parts, content| {
            if !parts.uri.path().ends_with(&layer) {
                return None;
            }
            let blob = &content.blobs[&layer];
            Some(match cuts.fetch_add(1, Ordering::Relaxed) {
                0 => cut(blob, 20),
                _ => respond(200, &[], Body::from(blob.clone())),
            })
        }),
    )
    .await;
    Bed::new().pull(&registry.name("app:1")).await.unwrap();
}

#[tokio::test]
async fn busy_registry_is_asked_again_when_it_says_so() {
    let mut content = Content::default();
    content.image("1", &[("a", b"x")]);
    let busy = AtomicUsize::new(0);
    let registry = FakeRegistry::start_with(
        content,
        Box::new(move |_, _| {
            let first = busy.fetch_add(1, Ordering::Relaxed) == 0;
            first.then(|| respond(429, &[("retry-after", "0")], Body::empty()))
        }),
    )
    .await;
    Bed::new().pull(&registry.name("app:1")).await.unwrap();
    assert_eq!(registry.count("/manifests/"), 2);
}

#[tokio::test]
async fn busy_registry_is_left_alone_when_it_asks_for_long() {
    let registry = FakeRegistry::start_with(
        Content::default(),
        Box::new(|_, _| Some(respond(429, &[("retry-after", "3600")], Body::empty()))),
    )
    .await;
    let error = Bed::new().pull(&registry.name("app:1")).await.unwrap_err();
    assert!(error.contains("3600 s"), "{error}");
    assert_eq!(registry.count("/manifests/"), 1);
}

#[tokio::test]
async fn cve_2020_15157_credentials_do_not_follow_a_redirect_to_another_host() {
    let mut content = Content::default();
    content.image("1", &[("a", b"x")]);
    let elsewhere = FakeRegistry::start_with(
        content.clone(),
        Box::new(|parts, content| {
            // It would like the credentials very much.
            let last = parts.uri.path().rsplit('/').next()?;
            let known = content.blobs.contains_key(last);
            (!known).then(|| respond(401, &[("www-authenticate", "Basic realm=x")], Body::empty()))
        }),
    )
    .await;
    let target = elsewhere.address;
    let registry = FakeRegistry::start_with(
        content,
        Box::new(move |parts, _| {
            if !parts.headers.contains_key(AUTHORIZATION) {
                let header = ("www-authenticate", "Basic realm=\"here\"");
                return Some(respond(401, &[header], Body::empty()));
            }
            let path = parts.uri.path();
            let location = format!("http://{target}{path}");
            let blob = path.contains("/blobs/");
            blob.then(|| respond(307, &[("location", &location)], Body::empty()))
        }),
    )
    .await;
    let bed = Bed::new();
    bed.pull_as(&registry.name("app:1"), auth()).await.unwrap();
    assert!(elsewhere.count("/blobs/") >= 2);
    for parts in elsewhere.seen() {
        assert!(!parts.headers.contains_key(AUTHORIZATION), "{}", parts.uri);
    }
    assert!(bed.pull(&registry.name("app:1")).await.is_err());
}

#[tokio::test]
async fn token_is_fetched_once_and_used_for_all_requests() {
    let mut content = Content::default();
    content.image("1", &[("a", b"x"), ("b", b"y")]);
    let registry = FakeRegistry::start_with(
        content,
        Box::new(|parts, _| {
            let header = parts.headers.get(AUTHORIZATION);
            if parts.uri.path() == "/token" {
                let good = header.is_some_and(|h| h == "Basic bWU6c2VjcmV0");
                let answer = if good { 200 } else { 401 };
                return Some(respond(answer, &[], Body::from(r#"{"token":"t1"}"#)));
            }
            let host = parts.headers["host"].to_str().unwrap();
            let ask = format!("Bearer realm=\"http://{host}/token\",service=\"s\"");
            let granted = header.is_some_and(|h| h == "Bearer t1");
            (!granted).then(|| respond(401, &[("www-authenticate", &ask)], Body::empty()))
        }),
    )
    .await;
    let bed = Bed::new();
    bed.pull_as(&registry.name("app:1"), auth()).await.unwrap();
    assert_eq!(registry.count("/token"), 1);
    let query = registry
        .seen()
        .iter()
        .find_map(|p| p.uri.query().map(str::to_owned));
    assert_eq!(query.unwrap(), "service=s&scope=repository%3Aapp%3Apull");
    let error = bed.pull(&registry.name("other:1")).await.unwrap_err();
    assert!(error.contains("credentials"), "{error}");
}

#[tokio::test]
async fn error_names_every_endpoint_with_its_answer_in_one_line() {
    let registry = FakeRegistry::start(Content::default()).await;
    let bed = Bed::new();
    let hosts = format!(
        "server = \"http://{}\"\n[host.\"http://127.0.0.1:1\"]\n",
        registry.address
    );
    write(bed.dir.path(), "certs.d/reg.example/hosts.toml", &hosts);
    let error = bed.pull("reg.example/app:1").await.unwrap_err();
    assert!(
        error.starts_with("pull reg.example/app:1: http://127.0.0.1:1/v2: "),
        "{error}"
    );
    assert!(error.contains("refused"), "{error}");
    let origin = format!(
        "http://{}/v2: 404 Not Found (manifest unknown)",
        registry.address
    );
    assert!(error.ends_with(&origin) && !error.contains('\n'), "{error}");
}

#[tokio::test]
async fn mirror_serves_under_the_original_name() {
    let mut content = Content::default();
    content.image("3.9", &[("pause", b"x")]);
    let registry = FakeRegistry::start(content).await;
    let bed = Bed::new();
    let yaml = format!(
        "mirrors: {{registry.k8s.io: {{endpoint: ['http://{}']}}}}",
        registry.address
    );
    write(bed.dir.path(), "registries.yaml", &yaml);
    let image = bed.pull("registry.k8s.io/pause:3.9").await.unwrap();
    assert_eq!(image.repo_tags, ["registry.k8s.io/pause:3.9"]);
    let seen = registry.seen();
    assert!(
        seen.iter()
            .all(|p| p.uri.query() == Some("ns=registry.k8s.io"))
    );
}

#[tokio::test]
async fn lying_mirror_is_passed_over() {
    let mut content = Content::default();
    let (_, layers) = content.image("1", &[("a", b"good")]);
    let honest = FakeRegistry::start(content.clone()).await;
    let size = content.blobs[&layers[0]].len();
    content.blobs.insert(layers[0].clone(), vec![7; size]);
    let liar = FakeRegistry::start(content).await;
    let bed = Bed::new();
    let hosts = format!(
        "server = \"http://{}\"\n[host.\"http://{}\"]\n",
        honest.address, liar.address
    );
    write(bed.dir.path(), "certs.d/reg.example/hosts.toml", &hosts);
    let image = bed.pull("reg.example/app:1").await.unwrap();
    assert_eq!(std::fs::read(image.layers[0].join("a")).unwrap(), b"good");
}

#[tokio::test]
async fn tag_moves_to_the_new_image_when_pulled_again() {
    let mut content = Content::default();
    content.image("1", &[("a", b"old")]);
    let old = FakeRegistry::start(content).await;
    let mut content = Content::default();
    content.image("1", &[("a", b"new")]);
    let new = FakeRegistry::start(content).await;
    let bed = Bed::new();
    let mirror = |registry: &FakeRegistry| {
        let yaml = format!(
            "mirrors: {{reg.example: {{endpoint: ['http://{}']}}}}",
            registry.address
        );
        write(bed.dir.path(), "registries.yaml", &yaml);
    };
    mirror(&old);
    let first = bed.pull("reg.example/app:1").await.unwrap();
    mirror(&new);
    let second = bed.pull("reg.example/app:1").await.unwrap();
    assert_ne!(first.id, second.id);
    assert!(bed.store.resolve(&first.id).unwrap().repo_tags.is_empty());
    assert_eq!(
        bed.store.resolve("reg.example/app:1").unwrap().id,
        second.id
    );
}

#[tokio::test]
#[ignore = "needs root: mounts a small file system"]
async fn full_disk_is_said_and_leaves_room_for_what_fits() {
    let mut content = Content::default();
    let noise: Vec<u8> = (0..1u64 << 16)
        .flat_map(|i| Digest::sha256(&i.to_le_bytes()).hex().as_bytes().to_vec())
        .collect();
    content.image("big", &[("small", b"x"), ("big", &noise)]);
    content.image("small", &[("a", b"x")]);
    let registry = FakeRegistry::start(content).await;
    let dir = TempDir::new();
    std::fs::create_dir(dir.path().join("store")).unwrap();
    let mount = SmallDisk::mount(dir.path().join("store"));
    let store = open(&dir);
    let error = store
        .pull(&registry.name("app:big"), None)
        .await
        .unwrap_err();
    assert_eq!(error.code(), tonic::Code::ResourceExhausted);
    let text = crate::image::verbs::chain(&*error);
    assert!(text.contains("no space left"), "{text}");
    assert_eq!(store.usage().bytes, 0);
    for part in ["layers", "tmp"] {
        let left = std::fs::read_dir(dir.path().join("store").join(part)).unwrap();
        assert_eq!(left.count(), 0, "{part}");
    }
    store.pull(&registry.name("app:small"), None).await.unwrap();
    drop(store);
    drop(mount);
}

/// A tmpfs of 2 MiB.
struct SmallDisk(std::path::PathBuf);

impl SmallDisk {
    fn mount(path: std::path::PathBuf) -> Self {
        let flags = rustix::mount::MountFlags::empty();
        let size = std::ffi::CString::new("size=2m").unwrap();
        rustix::mount::mount("lighter-test", &path, "tmpfs", flags, size.as_c_str()).unwrap();
        Self(path)
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = rustix::mount::unmount(&self.0, rustix::mount::UnmountFlags::DETACH);
    }
}
