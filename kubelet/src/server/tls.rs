//! TLS of :10250: what is presented, and whose certificates are looked at.

use crate::api::{IdentityError, certified_key};
use crate::join::csr::Names;
use crate::join::files::write_atomically;
use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair, SanType};
use rustls::DistinguishedName as Subject;
use rustls::crypto::CryptoProvider;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls_pki_types::{CertificateDer, UnixTime};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

/// Why there is no serving certificate.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum ServingError {
    #[error("make a self-signed serving certificate")]
    Make(#[source] rcgen::Error),
    #[error("write {path}")]
    Write {
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("read {path}")]
    Read {
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("the serving certificate")]
    Identity(#[from] IdentityError),
    #[error("set up TLS for the kubelet API")]
    Tls(#[source] rustls::Error),
}

/// The serving certificate, replaceable while connections come in.
#[derive(Debug)]
pub struct Serving {
    current: RwLock<Arc<CertifiedKey>>,
}

impl Serving {
    /// From PEM files named by the configuration.
    ///
    /// # Errors
    /// When they can't be read or used.
    pub fn from_files(cert: &Path, key: &Path) -> Result<Serving, ServingError> {
        Ok(Serving {
            current: RwLock::new(Arc::new(load(cert, key)?)),
        })
    }

    /// `kubelet.crt` and `kubelet.key` of a directory, made when they are not
    /// there, do not name this node, or have run out.
    ///
    /// # Errors
    /// When they can be neither used nor made.
    pub fn self_signed(dir: &Path, name: &str, ips: &[IpAddr]) -> Result<Serving, ServingError> {
        let (cert, key) = (dir.join("kubelet.crt"), dir.join("kubelet.key"));
        let names = Names {
            dns: vec![name.to_owned()],
            ips: ips.to_vec(),
        };
        if let Ok(existing) = load(&cert, &key)
            && existing.cert.first().is_some_and(|der| covers(der, &names))
        {
            return Ok(Serving {
                current: RwLock::new(Arc::new(existing)),
            });
        }
        let (cert_pem, key_pem) = make(name, ips).map_err(ServingError::Make)?;
        let write = |path: &Path, text: &str, mode| {
            write_atomically(path, text.as_bytes(), mode).map_err(|source| ServingError::Write {
                path: path.to_owned(),
                source,
            })
        };
        std::fs::create_dir_all(dir).map_err(|source| ServingError::Write {
            path: dir.to_owned(),
            source,
        })?;
        write(&key, &key_pem, 0o600)?;
        write(&cert, &cert_pem, 0o644)?;
        Serving::from_files(&cert, &key)
    }

    /// Presents another chain from the next handshake on.
    ///
    /// # Errors
    /// When it can't be used; the one before stays.
    pub fn replace(&self, cert: &Path, key: &Path) -> Result<(), ServingError> {
        let new = Arc::new(load(cert, key)?);
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = new;
        Ok(())
    }
}

impl ResolvesServerCert for Serving {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let current = self.current.read().unwrap_or_else(PoisonError::into_inner);
        Some(current.clone())
    }
}

fn load(cert: &Path, key: &Path) -> Result<CertifiedKey, ServingError> {
    let read = |path: &Path| {
        std::fs::read(path).map_err(|source| ServingError::Read {
            path: path.to_owned(),
            source,
        })
    };
    let origin = cert.display().to_string();
    Ok(certified_key(&read(cert)?, &read(key)?, &origin)?)
}

fn make(name: &str, ips: &[IpAddr]) -> Result<(String, String), rcgen::Error> {
    let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)?;
    let mut params = CertificateParams::new(vec![name.to_owned()])?;
    let ips = ips.iter().copied().map(SanType::IpAddress);
    params.subject_alt_names.extend(ips);
    let mut subject = DistinguishedName::new();
    let now = jiff::Timestamp::now().as_second();
    subject.push(DnType::CommonName, format!("{name}@{now}"));
    params.distinguished_name = subject;
    let year = jiff::Zoned::now().year();
    params.not_before = rcgen::date_time_ymd(i32::from(year) - 1, 1, 1);
    params.not_after = rcgen::date_time_ymd(i32::from(year) + 10, 1, 1);
    Ok((params.self_signed(&key)?.pem(), key.serialize_pem()))
}

/// Whether a certificate is valid now for all names and addresses.
pub(crate) fn covers(der: &[u8], wanted: &Names) -> bool {
    let Ok((_, certificate)) = X509Certificate::from_der(der) else {
        return false;
    };
    let Ok(Some(names)) = certificate.subject_alternative_name() else {
        return false;
    };
    let names = &names.value.general_names;
    let has_name = |name: &String| {
        names
            .iter()
            .any(|n| matches!(n, GeneralName::DNSName(d) if *d == name))
    };
    let octets = |ip: &IpAddr| match ip {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    };
    let has = |ip: &IpAddr| {
        names
            .iter()
            .any(|n| matches!(n, GeneralName::IPAddress(b) if *b == octets(ip)))
    };
    certificate.validity().is_valid()
        && wanted.dns.iter().all(has_name)
        && wanted.ips.iter().all(has)
}

/// TLS for the server: HTTP/1.1 (streams need it) and HTTP/2.
///
/// # Errors
/// When the cryptography has no common protocol version.
pub fn config(serving: Arc<Serving>) -> Result<rustls::ServerConfig, ServingError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = rustls::ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(ServingError::Tls)?
        .with_client_cert_verifier(Arc::new(AskForAny(provider)))
        .with_cert_resolver(serving);
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}

/// Asks for a client certificate and checks only that the client holds its key.
/// Whether it is worth anything is for [`super::authn`] to say: a stranger's
/// certificate is a 401 with a sentence, not a broken handshake, and a new CA
/// file counts for the next request.
#[derive(Debug)]
struct AskForAny(Arc<CryptoProvider>);

impl ClientCertVerifier for AskForAny {
    fn root_hint_subjects(&self) -> &[Subject] {
        &[]
    }

    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn verify_client_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, cert, dss, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustls_pki_types::pem::PemObject;

    #[test]
    fn self_signed_certificate_covers_name_and_addresses() {
        let ip: IpAddr = "10.0.0.1".parse().unwrap();
        let (pem, _) = make("n1", &[ip]).unwrap();
        let der = CertificateDer::from_pem_slice(pem.as_bytes()).unwrap();
        let names = |name: &str, ips: &[IpAddr]| Names {
            dns: vec![name.to_owned()],
            ips: ips.to_vec(),
        };
        assert!(covers(&der, &names("n1", &[ip])));
        assert!(!covers(&der, &names("n2", &[ip])));
        let other = "10.0.0.2".parse().unwrap();
        assert!(!covers(&der, &names("n1", &[ip, other])));
    }
}
