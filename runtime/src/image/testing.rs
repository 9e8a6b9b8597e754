//! What several tests of this room share.

use std::path::{Path, PathBuf};

/// A directory that is gone with the value.
pub struct TempDir(PathBuf);

impl TempDir {
    pub fn new() -> Self {
        let dir = super::disk::temp_path(&std::env::temp_dir().join("lighter-image-tests"));
        std::fs::create_dir_all(&dir).unwrap();
        Self(dir)
    }

    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        let _ = super::disk::remove(&self.0);
    }
}
