//! `docs/ARCHITECTURE.md` is held against the tree: paths exist, arrows point
//! the way it says.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("the workspace")
        .to_owned()
}

fn map() -> String {
    std::fs::read_to_string(root().join("docs/ARCHITECTURE.md")).expect("docs/ARCHITECTURE.md")
}

/// Everything in backquotes or in the diagram that looks like a path of ours.
fn paths(text: &str) -> BTreeSet<&str> {
    let rooms = [
        "lighter/",
        "kubelet/",
        "runtime/",
        "cni/",
        "cri-proto/",
        "deploy/",
        "e2e/",
        "docs/",
    ];
    text.split(|c: char| c.is_whitespace() || "`,()|<>:".contains(c))
        .map(|word| word.trim_end_matches('.'))
        .filter(|word| rooms.iter().any(|room| word.starts_with(room)))
        .collect()
}

#[test]
fn every_path_on_the_map_exists() {
    let text = map();
    let named = paths(&text);
    assert!(named.len() > 15, "the map names hardly anything: {named:?}");
    let missing: Vec<_> = named.iter().filter(|p| !root().join(p).exists()).collect();
    assert!(
        missing.is_empty(),
        "docs/ARCHITECTURE.md names what does not exist: {missing:?}"
    );
}

#[test]
fn crates_use_only_the_rooms_below_them() {
    let allowed = BTreeMap::from([
        ("cgroupfs", BTreeSet::new()),
        ("cni", BTreeSet::from(["fuzz"])),
        ("cri-proto", BTreeSet::new()),
        ("e2e", BTreeSet::from(["cri-proto"])),
        ("fuzz", BTreeSet::new()),
        ("kubelet", BTreeSet::from(["cgroupfs", "cri-proto"])),
        (
            "lighter",
            BTreeSet::from(["cni", "cri-proto", "kubelet", "runtime"]),
        ),
        (
            "runtime",
            BTreeSet::from(["cgroupfs", "cni", "cri-proto", "fuzz"]),
        ),
    ]);
    let metadata = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version=1", "--no-deps", "--offline"])
        .current_dir(root())
        .output()
        .expect("cargo metadata");
    let metadata: serde_json::Value = serde_json::from_slice(&metadata.stdout).expect("JSON");
    let packages = metadata["packages"].as_array().expect("packages");
    assert_eq!(
        packages.len(),
        allowed.len(),
        "a crate was added: put it on the map and here"
    );
    for package in packages {
        let name = package["name"].as_str().expect("name");
        let uses: BTreeSet<&str> = package["dependencies"]
            .as_array()
            .expect("dependencies")
            .iter()
            .filter_map(|d| d["name"].as_str())
            .filter(|d| allowed.contains_key(d))
            .collect();
        let extra: Vec<_> = uses.difference(&allowed[name]).collect();
        assert!(extra.is_empty(), "{name} must not use {extra:?}");
        let all = package["dependencies"].as_array().expect("dependencies");
        let shipped = all
            .iter()
            .any(|d| d["name"] == "fuzz" && d["kind"] != "dev");
        assert!(!shipped, "{name} may use fuzz in its tests alone");
    }
}

#[test]
fn unsafe_code_stays_in_its_rooms() {
    let mut elsewhere = Vec::new();
    for room in [
        "lighter/src",
        "kubelet/src",
        "runtime/src",
        "cni/src",
        "cri-proto/src",
        "runtime/cgroupfs/src",
    ] {
        visit(&root().join(room), &mut |file, text| {
            let file = file.strip_prefix(root()).expect("below the root");
            let own = [
                "runtime/src/sys",
                "runtime/src/process",
                "cni/src/netlink/socket.rs",
            ];
            let opted_in = text.contains("allow(unsafe_code)");
            if opted_in && !own.iter().any(|room| file.starts_with(room)) {
                elsewhere.push(file.to_owned());
            }
        });
    }
    assert!(
        elsewhere.is_empty(),
        "unsafe code outside its rooms: {elsewhere:?}"
    );
}

fn visit(dir: &Path, see: &mut dyn FnMut(&Path, &str)) {
    for entry in std::fs::read_dir(dir).expect("a room").flatten() {
        let path = entry.path();
        if path.is_dir() {
            visit(&path, see);
        } else if path.extension().is_some_and(|e| e == "rs") {
            see(
                &path,
                &std::fs::read_to_string(&path).expect("a source file"),
            );
        }
    }
}
