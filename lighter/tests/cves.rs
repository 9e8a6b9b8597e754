//! `docs/cve.md` is held against the tree: every test it names exists.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    let crate_dir = Path::new(env!("CARGO_MANIFEST_DIR"));
    crate_dir.parent().expect("the workspace").to_owned()
}

/// Names of all functions below a directory.
fn functions(dir: &Path, into: &mut BTreeSet<String>) {
    for entry in std::fs::read_dir(dir).expect("a room").flatten() {
        let path = entry.path();
        if path.is_dir() {
            functions(&path, into);
        } else if path.extension().is_some_and(|e| e == "rs") {
            let text = std::fs::read_to_string(&path).expect("a source file");
            let names = text.split("fn ").skip(1);
            into.extend(names.filter_map(|rest| Some(rest.split_once('(')?.0.to_owned())));
        }
    }
}

#[test]
fn every_test_of_the_list_exists() {
    let list = std::fs::read_to_string(root().join("docs/cve.md")).expect("docs/cve.md");
    let quoted: BTreeSet<&str> = list.split('`').skip(1).step_by(2).collect();
    let mut known = BTreeSet::new();
    for room in ["runtime/src", "runtime/tests", "e2e/tests"] {
        functions(&root().join(room), &mut known);
    }
    let tests: Vec<&&str> = quoted.iter().filter(|q| !q.contains([' ', '/'])).collect();
    assert!(tests.len() > 25, "the list names hardly anything");
    let missing: Vec<_> = tests.iter().filter(|t| !known.contains(***t)).collect();
    assert!(
        missing.is_empty(),
        "docs/cve.md names what is not there: {missing:?}"
    );
}

#[test]
fn every_row_has_a_test_or_a_sentence() {
    let list = std::fs::read_to_string(root().join("docs/cve.md")).expect("docs/cve.md");
    let rows = list
        .lines()
        .filter(|l| l.starts_with("| ") && l.contains("CVE-"));
    for row in rows {
        let cells: Vec<&str> = row.trim_matches('|').split(" | ").collect();
        assert_eq!(cells.len(), 3, "{row}");
        let answer = cells[2].trim();
        assert!(answer.contains('`') || answer.ends_with('.'), "{row}");
    }
}
