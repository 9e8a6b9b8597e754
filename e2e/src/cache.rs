//! Where the bed keeps what it built, by content, outside the source tree.

use anyhow::{Context, Result};
use ring::digest::{Context as Digest, SHA256};
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

/// `$LIGHTER_CACHE`, or `~/.cache/lighter-bed`. Safe to delete at any time when no cluster is up.
#[derive(Debug, Clone)]
pub struct Cache {
    pub root: PathBuf,
}

impl Cache {
    pub fn from_env() -> Cache {
        let home = || PathBuf::from(std::env::var_os("HOME").unwrap_or_else(|| "/root".into()));
        let root = std::env::var_os("LIGHTER_CACHE")
            .map_or_else(|| home().join(".cache/lighter-bed"), PathBuf::from);
        Cache { root }
    }

    pub fn dir(&self, name: &str) -> Result<PathBuf> {
        let dir = self.root.join(name);
        fs::create_dir_all(&dir).with_context(|| format!("create {}", dir.display()))?;
        Ok(dir)
    }

    /// The directory `kind/name-key`, made by `build` in a temporary place if it isn't there.
    /// Two beds that want the same entry build it once: the second waits on the lock.
    pub fn entry(
        &self,
        kind: &str,
        name: &str,
        key: &str,
        build: impl FnOnce(&Path) -> Result<()>,
    ) -> Result<PathBuf> {
        let dir = self.dir(kind)?;
        let entry = dir.join(format!("{name}-{}", &key[..16.min(key.len())]));
        if entry.exists() {
            return Ok(entry);
        }
        let _lock = lock(&dir.join(format!(".{name}.lock")))?;
        if entry.exists() {
            return Ok(entry);
        }
        let partial = dir.join(format!(".{name}.partial"));
        let _ = fs::remove_dir_all(&partial);
        fs::create_dir_all(&partial)?;
        build(&partial)?;
        fs::rename(&partial, &entry)
            .with_context(|| format!("rename {} to {}", partial.display(), entry.display()))?;
        Ok(entry)
    }
}

/// An exclusive lock, held until the returned file is dropped.
pub fn lock(path: &Path) -> Result<File> {
    let file = File::create(path).with_context(|| format!("create {}", path.display()))?;
    file.lock()
        .with_context(|| format!("lock {}", path.display()))?;
    Ok(file)
}

/// SHA-256 in hex over parts; each part is preceded by its length, so parts can't run together.
pub fn key(parts: &[&[u8]]) -> String {
    let mut digest = Digest::new(&SHA256);
    for part in parts {
        digest.update(&(part.len() as u64).to_le_bytes());
        digest.update(part);
    }
    hex(digest.finish().as_ref())
}

/// SHA-256 in hex of a byte string, as registries write it.
pub fn sha256(bytes: &[u8]) -> String {
    hex(ring::digest::digest(&SHA256, bytes).as_ref())
}

/// SHA-256 in hex of a file's content.
pub fn sha256_file(path: &Path) -> Result<String> {
    let mut file = File::open(path).with_context(|| format!("open {}", path.display()))?;
    let mut digest = Digest::new(&SHA256);
    let mut buffer = vec![0; 1 << 16];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(hex(digest.finish().as_ref())),
            n => digest.update(&buffer[..n]),
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn key_differs_when_a_boundary_moves() {
        assert_ne!(key(&[b"ab", b"c"]), key(&[b"a", b"bc"]));
    }

    #[test]
    fn sha256_is_that_of_the_standard() {
        // FIPS 180-2, appendix B.1.
        let want = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(sha256(b"abc"), want);
    }
}
