//! `docs/features.md` is held against the tree: every test that it names exists.

use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().expect("the workspace").to_owned()
}

/// Files and tests, out of backquotes.
fn named(text: &str) -> Vec<(&str, &str)> {
    let quoted = text.split('`').skip(1).step_by(2);
    let named = quoted.filter_map(|word| word.split_once(".rs::"));
    named.collect()
}

/// A bare name is a file of the cluster tests.
fn path(file: &str) -> PathBuf {
    let file = format!("{file}.rs");
    match file.contains('/') {
        true => root().join(file),
        false => root().join("e2e/tests/cluster").join(file),
    }
}

#[test]
fn every_test_of_the_list_of_features_exists() {
    let list = std::fs::read_to_string(root().join("docs/features.md")).expect("docs/features.md");
    let named = named(&list);
    assert!(
        named.len() > 60,
        "the list names hardly any test: {named:?}"
    );
    let exists = |(file, test): &&(&str, &str)| {
        let text = std::fs::read_to_string(path(file)).unwrap_or_default();
        text.contains(&format!("fn {test}("))
    };
    let missing: Vec<_> = named.iter().filter(|n| !exists(n)).collect();
    assert!(
        missing.is_empty(),
        "docs/features.md names no tests: {missing:?}"
    );
}
