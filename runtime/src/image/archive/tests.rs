//! Archives as docker, skopeo and containerd write them.

use crate::image::registry::fake::{Content, gzip, tar};
use crate::image::testing::TempDir;
use crate::image::{Config, Store};
use std::path::{Path, PathBuf};
use std::sync::Arc;

fn store(dir: &TempDir) -> Arc<Store> {
    Store::open(Config::new(dir.path().join("store"))).unwrap()
}

fn pack(dir: &TempDir, members: &[(&str, Vec<u8>)]) -> PathBuf {
    let mut builder = ::tar::Builder::new(Vec::new());
    for (name, data) in members {
        let mut header = ::tar::Header::new_gnu();
        header.set_mode(0o644);
        header.set_size(data.len() as u64);
        builder.append_data(&mut header, name, &data[..]).unwrap();
    }
    let path = dir.path().join("archive.tar");
    std::fs::write(&path, builder.into_inner().unwrap()).unwrap();
    path
}

/// What a registry would serve, as members of an OCI layout.
fn layout(annotations: &str) -> Vec<(String, Vec<u8>)> {
    let mut content = Content::default();
    let (digest, _) = content.image("1", &[("a", b"x"), ("b", b"y")]);
    let (media_type, manifest) = content.manifests[&digest].clone();
    let index = format!(
        r#"{{"schemaVersion":2,"manifests":[{{"mediaType":"{media_type}","digest":"{digest}","size":{},"annotations":{annotations}}}]}}"#,
        manifest.len()
    );
    let blob = |digest: &String| format!("blobs/{}", digest.replacen(':', "/", 1));
    let mut members: Vec<_> = content
        .blobs
        .iter()
        .map(|(d, b)| (blob(d), b.clone()))
        .collect();
    members.push((blob(&digest), manifest));
    members.push(("index.json".to_owned(), index.into_bytes()));
    members
}

fn refs(members: &[(String, Vec<u8>)]) -> Vec<(&str, Vec<u8>)> {
    members
        .iter()
        .map(|(n, d)| (n.as_str(), d.clone()))
        .collect()
}

fn docker(layer: &[u8]) -> Vec<(&'static str, Vec<u8>)> {
    let diff_id = crate::image::Digest::sha256(&tar("a", b"x"));
    let config = format!(
        r#"{{"architecture":"","os":"linux","rootfs":{{"type":"layers","diff_ids":["{diff_id}"]}}}}"#
    );
    let manifest =
        r#"[{"Config":"c.json","RepoTags":["app:1","reg.io/app:2"],"Layers":["l/layer.tar"]}]"#;
    vec![
        ("c.json", config.into_bytes()),
        ("l/layer.tar", layer.to_vec()),
        ("manifest.json", manifest.as_bytes().to_vec()),
    ]
}

async fn import(path: &Path, dir: &TempDir, name: Option<&str>) -> Result<Vec<String>, String> {
    let images = store(dir).import(path, name).await;
    let images = images.map_err(|e| crate::image::verbs::chain(&e))?;
    for image in &images {
        assert_eq!(std::fs::read(image.layers[0].join("a")).unwrap(), b"x");
    }
    Ok(images
        .iter()
        .flat_map(|image| image.repo_tags.clone())
        .collect())
}

#[tokio::test]
async fn docker_archive_is_imported_with_all_its_tags() {
    for layer in [tar("a", b"x"), gzip(&tar("a", b"x"))] {
        let dir = TempDir::new();
        let path = pack(&dir, &docker(&layer));
        let tags = import(&path, &dir, None).await.unwrap();
        assert_eq!(tags, ["docker.io/library/app:1", "reg.io/app:2"]);
    }
}

#[tokio::test]
async fn compressed_archive_and_stream_are_imported() {
    let dir = TempDir::new();
    let path = pack(&dir, &docker(&tar("a", b"x")));
    let packed = gzip(&std::fs::read(&path).unwrap());
    std::fs::write(&path, &packed).unwrap();
    assert_eq!(import(&path, &dir, None).await.unwrap().len(), 2);
    let dir = TempDir::new();
    let store = store(&dir);
    let stream = std::io::Cursor::new(packed);
    assert_eq!(store.import_stream(stream, None).await.unwrap().len(), 1);
    let left = std::fs::read_dir(dir.path().join("store/tmp")).unwrap();
    assert_eq!(left.count(), 0);
}

#[tokio::test]
async fn oci_layout_is_imported_packed_or_as_a_directory() {
    let members = layout(r#"{"io.containerd.image.name":"reg.io/app:1"}"#);
    let dir = TempDir::new();
    let path = pack(&dir, &refs(&members));
    assert_eq!(import(&path, &dir, None).await.unwrap(), ["reg.io/app:1"]);
    let dir = TempDir::new();
    for (name, data) in &members {
        let path = dir.path().join("layout").join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, data).unwrap();
    }
    let path = dir.path().join("layout");
    assert_eq!(import(&path, &dir, None).await.unwrap(), ["reg.io/app:1"]);
}

#[tokio::test]
async fn image_without_a_name_gets_the_callers() {
    let dir = TempDir::new();
    let path = pack(
        &dir,
        &refs(&layout(r#"{"org.opencontainers.image.ref.name":"v1"}"#)),
    );
    let tags = import(&path, &dir, Some("reg.io/app:v1")).await.unwrap();
    assert_eq!(tags, ["reg.io/app:v1"]);
}

#[tokio::test]
async fn archive_with_a_changed_layer_is_refused_and_leaves_nothing() {
    let dir = TempDir::new();
    let path = pack(&dir, &docker(&tar("a", b"evil")));
    let error = import(&path, &dir, None).await.unwrap_err();
    assert!(error.contains("unpacks to"), "{error}");
    for part in ["images", "layers", "tmp"] {
        let left = std::fs::read_dir(dir.path().join("store").join(part)).unwrap();
        assert_eq!(left.count(), 0, "{part}");
    }
}

#[tokio::test]
async fn cve_2023_25153_member_longer_than_any_index_is_refused() {
    let dir = TempDir::new();
    let path = pack(&dir, &[("manifest.json", vec![b' '; 8 << 20])]);
    let error = import(&path, &dir, None).await.unwrap_err();
    assert!(error.contains("longer than"), "{error}");
}

#[tokio::test]
async fn archive_is_refused_with_its_reason() {
    let dir = TempDir::new();
    for (members, want) in [
        (vec![("x", vec![])], "no image archive"),
        (
            vec![("manifest.json", b"{".to_vec())],
            "manifest.json is wrong",
        ),
        (docker(&tar("a", b"x"))[1..].to_vec(), "it has no c.json"),
    ] {
        let path = pack(&dir, &members);
        let error = import(&path, &dir, None).await.unwrap_err();
        assert!(error.contains(want), "{error}");
    }
}

#[tokio::test]
async fn exported_image_has_the_same_files_when_imported_elsewhere() {
    let dir = TempDir::new();
    let members = layout(r#"{"io.containerd.image.name":"reg.io/app:1"}"#);
    let path = pack(&dir, &refs(&members));
    let first = store(&dir);
    let images = first.import(&path, None).await.unwrap();
    // What overlay would keep of a removed file.
    rustix::fs::mknodat(
        rustix::fs::CWD,
        images[0].layers[1].join("a"),
        rustix::fs::FileType::CharacterDevice,
        rustix::fs::Mode::empty(),
        0,
    )
    .unwrap();
    std::fs::hard_link(images[0].layers[1].join("b"), images[0].layers[1].join("c")).unwrap();
    let file = dir.path().join("out.tar");
    let out = std::fs::File::create(&file).unwrap();
    first.export("reg.io/app:1", out).await.unwrap();
    let other = TempDir::new();
    let second = store(&other);
    let imported = second.import(&file, None).await.unwrap();
    assert_eq!(imported[0].repo_tags, ["reg.io/app:1"]);
    assert_eq!(imported[0].config.config(), images[0].config.config());
    let upper = &imported[0].layers[1];
    let meta = |name: &str| std::fs::symlink_metadata(upper.join(name)).unwrap();
    use std::os::unix::fs::MetadataExt;
    assert_eq!(
        (meta("a").rdev(), meta("a").mode() & 0o170_000),
        (0, 0o020_000)
    );
    assert_eq!(meta("b").ino(), meta("c").ino());
    assert!(first.export("none", std::io::sink()).await.is_err());
}

#[tokio::test]
async fn archive_that_is_dropped_in_is_imported_and_pinned() {
    let dir = TempDir::new();
    let path = pack(&dir, &docker(&tar("a", b"x")));
    let early = dir.path().join("store/import/early.tar");
    std::fs::create_dir_all(early.parent().unwrap()).unwrap();
    std::fs::write(early.with_file_name("broken.tar"), b"no archive").unwrap();
    std::fs::copy(&path, &early).unwrap();
    let store = store(&dir);
    let image = appears(&store, "app:1").await;
    assert!(image.pinned);
    let layout = layout(r#"{"io.containerd.image.name":"reg.io/late:1"}"#);
    let late = pack(&dir, &refs(&layout));
    std::fs::rename(late, dir.path().join("store/import/late.tar")).unwrap();
    appears(&store, "reg.io/late:1").await;
}

async fn appears(store: &Arc<Store>, name: &str) -> Arc<crate::image::Image> {
    loop {
        match store.resolve(name).filter(|image| image.pinned) {
            Some(image) => return image,
            None => tokio::task::yield_now().await,
        }
    }
}
