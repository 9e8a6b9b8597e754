//! Files of a cgroup.

use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

/// A file that can't be read or written, or a cgroup that can't be made.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum FileError {
    #[error("read {path}")]
    Read { path: PathBuf, source: io::Error },
    #[error("make cgroup {path}")]
    Make { path: PathBuf, source: io::Error },
    #[error("write {value:?} to {path}")]
    Write {
        path: PathBuf,
        value: String,
        source: io::Error,
    },
}

/// Writes a file that is there. Never makes one: a controller that is missing is an error, not a
/// file in its place.
///
/// # Errors
/// What the kernel says; `NotFound` where it has no such file.
pub fn put(path: &Path, value: &str) -> io::Result<()> {
    let mut file = fs::File::options().write(true).open(path)?;
    file.write_all(value.as_bytes())
}

/// All of a file; empty when it is not there.
#[must_use]
pub fn text(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

/// A file that is one number; `max` is none.
#[must_use]
pub fn number(path: &Path) -> Option<u64> {
    text(path).trim().parse().ok()
}

/// The number of a name, in the text of a file of lines `name number`.
#[must_use]
pub fn field(text: &str, name: &str) -> Option<u64> {
    let of = |line: &str| Some(line.strip_prefix(name)?.strip_prefix(' ')?.to_owned());
    text.lines().find_map(of)?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_that_is_missing_is_an_error_and_is_not_made() {
        let path = std::env::temp_dir().join(format!("cgroupfs-{}", std::process::id()));
        let error = put(&path, "7").expect_err("nothing is there");
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
        assert!(!path.exists());
        fs::write(&path, "9\n").expect("temporary file");
        assert_eq!(number(&path), Some(9));
        put(&path, "8").expect("it is there");
        assert_eq!(number(&path), Some(8));
        fs::remove_file(&path).expect("temporary file");
        assert_eq!((text(&path), number(&path)), (String::new(), None));
    }

    #[test]
    fn field_is_found_by_its_whole_name() {
        let text = "anon 40\nanon_thp 1\nfile max\n";
        assert_eq!(field(text, "anon"), Some(40));
        assert_eq!(field(text, "anon_thp"), Some(1));
        assert_eq!((field(text, "file"), field(text, "ano")), (None, None));
    }
}
