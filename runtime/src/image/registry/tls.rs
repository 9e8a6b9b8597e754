//! HTTP clients with the right certificates.

use super::endpoint::TlsSettings;
use crate::image::defaults::CONNECT_TIMEOUT;
use bytes::Bytes;
use http_body_util::Full;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

pub type Client = hyper_util::client::legacy::Client<HttpsConnector<HttpConnector>, Full<Bytes>>;

/// Idle connections outlive one pull, so that the next needs no handshake.
const IDLE: Duration = Duration::from_secs(60);
/// One stream's window in HTTP/2: a layer at 1 Gbit/s over 100 ms.
const WINDOW: u32 = 8 << 20;

/// Clients by their TLS settings and the age of the files these name.
pub struct Clients {
    ca_bundles: Vec<PathBuf>,
    known: Mutex<HashMap<Key, Client>>,
}

type Key = (TlsSettings, Vec<Option<SystemTime>>);

/// Certificates that can't be used.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum TlsError {
    #[error("read certificates or a key from {path}: {reason}")]
    File { path: PathBuf, reason: String },
    #[error("TLS settings")]
    Settings(#[source] rustls::Error),
}

impl Clients {
    pub fn new(ca_bundles: Vec<PathBuf>) -> Self {
        Self {
            ca_bundles,
            known: Mutex::default(),
        }
    }

    /// The client for some settings; a new one when a file has changed.
    pub fn get(&self, settings: &TlsSettings) -> Result<Client, TlsError> {
        let key = (settings.clone(), self.ages(settings));
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(client) = known.get(&key) {
            return Ok(client.clone());
        }
        let client = client(config(settings, &self.ca_bundles)?);
        known.retain(|(other, _), _| other != settings);
        known.insert(key, client.clone());
        Ok(client)
    }

    fn ages(&self, settings: &TlsSettings) -> Vec<Option<SystemTime>> {
        let pairs = settings.client.iter().flat_map(|(cert, key)| [cert, key]);
        let files = settings.ca.iter().chain(pairs).chain(&self.ca_bundles);
        let age = |path: &PathBuf| std::fs::metadata(path).and_then(|m| m.modified()).ok();
        files.map(age).collect()
    }
}

fn client(config: ClientConfig) -> Client {
    let mut http = HttpConnector::new();
    http.enforce_http(false);
    http.set_nodelay(true);
    http.set_connect_timeout(Some(CONNECT_TIMEOUT));
    http.set_keepalive(Some(IDLE));
    let https = HttpsConnectorBuilder::new()
        .with_tls_config(config)
        .https_or_http()
        .enable_all_versions()
        .wrap_connector(http);
    hyper_util::client::legacy::Client::builder(TokioExecutor::new())
        .pool_timer(TokioTimer::new())
        .pool_idle_timeout(IDLE)
        .http2_initial_stream_window_size(WINDOW)
        .http2_initial_connection_window_size(WINDOW * 2)
        .build(https)
}

fn config(settings: &TlsSettings, bundles: &[PathBuf]) -> Result<ClientConfig, TlsError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(TlsError::Settings)?;
    let builder = if settings.skip_verify {
        let verifier = Arc::new(AcceptAny(provider));
        builder
            .dangerous()
            .with_custom_certificate_verifier(verifier)
    } else {
        builder.with_root_certificates(roots(settings, bundles)?)
    };
    match settings.client.first() {
        Some((cert, key)) => {
            let chain = certificates(cert)?;
            let private = PrivateKeyDer::from_pem_file(key).map_err(|e| unusable(key, &e))?;
            builder
                .with_client_auth_cert(chain, private)
                .map_err(TlsError::Settings)
        }
        None => Ok(builder.with_no_client_auth()),
    }
}

/// Mozilla's roots, so that a host without any can pull; the host's, which
/// hold a company's own; the operator's for this registry.
fn roots(settings: &TlsSettings, bundles: &[PathBuf]) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    for bundle in bundles {
        // Old hosts have certificates that nobody can parse: those are skipped.
        roots.add_parsable_certificates(certificates(bundle).unwrap_or_default());
    }
    for ca in &settings.ca {
        let (added, _) = roots.add_parsable_certificates(certificates(ca)?);
        if added == 0 {
            return Err(unusable(ca, &"no usable certificate in it"));
        }
    }
    Ok(roots)
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect)
        .map_err(|e| unusable(path, &e))
}

fn unusable(path: &Path, reason: &dyn std::fmt::Display) -> TlsError {
    TlsError::File {
        path: path.to_owned(),
        reason: reason.to_string(),
    }
}

/// `skip_verify`: signatures are still checked, so that the key is the peer's.
#[derive(Debug)]
struct AcceptAny(Arc<CryptoProvider>);

impl ServerCertVerifier for AcceptAny {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, cert, dss, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
