//! The client certificate that is presented, replaceable while in use.

use rustls::client::ResolvesClientCert;
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::sync::watch;

/// Why a certificate and key are of no use.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum IdentityError {
    #[error("read {path}")]
    Read {
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("no certificate in PEM form in {origin}")]
    NoCertificate { origin: String },
    #[error("no private key in PEM form in {origin}")]
    NoKey { origin: String },
    #[error("the private key in {origin} is of no kind that TLS can use")]
    Key {
        origin: String,
        source: rustls::Error,
    },
}

/// A client certificate with its key; empty for anonymous and token clients.
#[derive(Debug, Default)]
pub struct Identity {
    current: watch::Sender<Option<Arc<CertifiedKey>>>,
    /// There is none yet, and requests are of no use before there is.
    awaited: bool,
}

impl Identity {
    /// One that is still asked for.
    #[must_use]
    pub fn awaited() -> Identity {
        Identity {
            awaited: true,
            ..Identity::default()
        }
    }

    /// Whether it is asked for and not there.
    pub fn is_missing(&self) -> bool {
        self.awaited && self.current.borrow().is_none()
    }

    /// Returns when requests can be made with it.
    pub async fn there(&self) {
        if self.is_missing() {
            // The sender is ours: it can't be gone.
            let _ = self.current.subscribe().wait_for(Option::is_some).await;
        }
    }

    /// Presents this chain from the next handshake on.
    ///
    /// # Errors
    /// When one of the two is not PEM or the key can't sign.
    pub fn set(&self, chain: &[u8], key: &[u8], origin: &str) -> Result<(), IdentityError> {
        let key = certified_key(chain, key, origin)?;
        self.current.send_replace(Some(Arc::new(key)));
        Ok(())
    }

    /// [`Identity::set`] from files, which may be one and the same.
    ///
    /// # Errors
    /// As there, and when a file can't be read.
    pub fn read(&self, chain: &Path, key: &Path) -> Result<(), IdentityError> {
        let origin = chain.display().to_string();
        self.set(&read(chain)?, &read(key)?, &origin)
    }

    /// The leaf in DER form.
    pub fn leaf(&self) -> Option<CertificateDer<'static>> {
        let current = self.current.borrow();
        current.as_ref()?.cert.first().cloned()
    }
}

fn read(path: &Path) -> Result<Vec<u8>, IdentityError> {
    std::fs::read(path).map_err(|source| IdentityError::Read {
        path: path.to_owned(),
        source,
    })
}

/// A chain and its key, ready for TLS.
///
/// # Errors
/// As [`Identity::set`].
pub fn certified_key(
    chain: &[u8],
    key: &[u8],
    origin: &str,
) -> Result<CertifiedKey, IdentityError> {
    let certs: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(chain)
        .filter_map(Result::ok)
        .collect();
    if certs.is_empty() {
        return Err(IdentityError::NoCertificate {
            origin: origin.to_owned(),
        });
    }
    let key = PrivateKeyDer::from_pem_slice(key).map_err(|_| IdentityError::NoKey {
        origin: origin.to_owned(),
    })?;
    let key = rustls::crypto::ring::sign::any_supported_type(&key).map_err(|source| {
        IdentityError::Key {
            origin: origin.to_owned(),
            source,
        }
    })?;
    Ok(CertifiedKey::new(certs, key))
}

impl ResolvesClientCert for Identity {
    fn resolve(&self, _: &[&[u8]], _: &[rustls::SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.current.borrow().clone()
    }

    fn has_certs(&self) -> bool {
        self.current.borrow().is_some()
    }
}
