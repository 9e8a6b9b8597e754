//! Users and groups of images. Layers never change, so an image is read once.

use super::layers::{LookupError, open_in_layers};
use crate::image::Image;
use crate::spec::Accounts;
use std::collections::HashMap;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

/// Greatest /etc/passwd and /etc/group that are read: CVE-2026-47262.
const MAX_FILE: u64 = 10 << 20;

/// Images remembered.
const MAX_IMAGES: usize = 256;

/// Why an image's users could not be read.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum AccountsError {
    #[error(transparent)]
    Lookup(#[from] LookupError),
    #[error("read {file} of the image")]
    Read {
        file: &'static str,
        source: io::Error,
    },
    #[error("{file} of the image is larger than {MAX_FILE} bytes")]
    TooLarge { file: &'static str },
}

/// Users and groups by image.
#[derive(Debug, Default)]
pub struct AccountsCache {
    by_image: Mutex<HashMap<String, Arc<Accounts>>>,
}

impl AccountsCache {
    /// The users and groups of an image; none where it has no such files.
    ///
    /// # Errors
    /// When they can't be read or are too large.
    pub fn get(&self, image: &Image) -> Result<Arc<Accounts>, AccountsError> {
        let lock = || self.by_image.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = lock().get(&image.id) {
            return Ok(known.clone());
        }
        let passwd = read(&image.layers, "/etc/passwd")?;
        let group = read(&image.layers, "/etc/group")?;
        let accounts = Arc::new(Accounts::parse(&passwd, &group));
        let mut by_image = lock();
        if by_image.len() >= MAX_IMAGES {
            by_image.clear();
        }
        by_image.insert(image.id.clone(), accounts.clone());
        Ok(accounts)
    }
}

fn read(layers: &[PathBuf], file: &'static str) -> Result<String, AccountsError> {
    let Some(opened) = open_in_layers(layers, Path::new(file))? else {
        return Ok(String::new());
    };
    let mut bytes = Vec::new();
    opened
        .take(MAX_FILE + 1)
        .read_to_end(&mut bytes)
        .map_err(|source| AccountsError::Read { file, source })?;
    if bytes.len() as u64 > MAX_FILE {
        return Err(AccountsError::TooLarge { file });
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cve_2026_47262_and_2025_4437_large_file_is_refused() {
        let name = format!("accounts-{}", std::process::id());
        let layer = std::env::temp_dir().join(name);
        std::fs::create_dir_all(layer.join("etc")).expect("layer");
        let file = std::fs::File::create(layer.join("etc/passwd")).expect("file");
        file.set_len(10 << 30).expect("sparse");
        let read = read(std::slice::from_ref(&layer), "/etc/passwd");
        std::fs::remove_dir_all(&layer).expect("removed");
        let error = read.expect_err("too large");
        assert!(matches!(error, AccountsError::TooLarge { .. }), "{error}");
    }
}
