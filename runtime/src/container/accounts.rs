//! Users and groups of images. Layers never change, so an image is read once.

use super::layers::{LookupError, open_in_layers};
use crate::image::Image;
use crate::spec::Accounts;
use std::collections::HashMap;
use std::io::{self, Read};
use std::path::Path;
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
        let passwd = read(image, "/etc/passwd")?;
        let group = read(image, "/etc/group")?;
        let accounts = Arc::new(Accounts::parse(&passwd, &group));
        let mut by_image = lock();
        if by_image.len() >= MAX_IMAGES {
            by_image.clear();
        }
        by_image.insert(image.id.clone(), accounts.clone());
        Ok(accounts)
    }
}

fn read(image: &Image, file: &'static str) -> Result<String, AccountsError> {
    let Some(opened) = open_in_layers(&image.layers, Path::new(file))? else {
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
