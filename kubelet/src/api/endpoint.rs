//! Where an API server is and who we are there: a kubeconfig, read.

use super::identity::{Identity, IdentityError};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use kube::config::{AuthInfo, Cluster, Kubeconfig};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Why a kubeconfig is of no use.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum EndpointError {
    #[error("read the kubeconfig {path}")]
    Read {
        path: PathBuf,
        source: Box<kube::config::KubeconfigError>,
    },
    #[error("the kubeconfig {path} has no {what}; make it anew with `lighter join`")]
    Missing { path: PathBuf, what: &'static str },
    #[error("the server {server:?} in the kubeconfig is not a URL such as https://HOST:6443")]
    Server { server: String },
    #[error("{what} in the kubeconfig is not base64")]
    Base64 {
        what: &'static str,
        source: base64::DecodeError,
    },
    #[error("read the CA bundle {path}")]
    ReadCa {
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("no usable CA certificate for {server}")]
    NoCa { server: String },
    #[error("the client certificate of the kubeconfig")]
    Identity(#[from] IdentityError),
    #[error("set up TLS for {server}")]
    Tls {
        server: String,
        source: rustls::Error,
    },
}

/// Who vouches for the server.
#[derive(Clone)]
pub enum Trust {
    /// Its chain must lead to one of these.
    Roots(Vec<CertificateDer<'static>>),
    /// Nobody: only for reading public, signed data during discovery.
    Nobody,
}

/// How a token is had.
#[derive(Clone)]
pub enum TokenSource {
    /// As it is.
    Fixed(String),
    /// Read from a file for each new request, since it may be replaced.
    File(PathBuf),
}

/// An API server and our credentials there.
pub struct Endpoint {
    /// `https://host:port`.
    pub server: http::Uri,
    /// Who vouches for it.
    pub trust: Trust,
    /// The name to ask for in TLS, when it isn't the URL's.
    pub tls_server_name: Option<String>,
    /// The client certificate, if any.
    pub identity: Arc<Identity>,
    /// A bearer token, if any.
    pub token: Option<TokenSource>,
}

impl Endpoint {
    /// A server at a URL, anonymous.
    ///
    /// # Errors
    /// When it is not a URL with a host.
    pub fn anonymous(server: &str, trust: Trust) -> Result<Endpoint, EndpointError> {
        Ok(Endpoint {
            server: parse_server(server)?,
            trust,
            tls_server_name: None,
            identity: Arc::default(),
            token: None,
        })
    }

    /// The current context of a kubeconfig; relative paths are taken from the
    /// file's own directory.
    ///
    /// # Errors
    /// When anything of it can't be read.
    pub fn from_kubeconfig(path: &Path) -> Result<Endpoint, EndpointError> {
        let config = Kubeconfig::read_from(path).map_err(|source| EndpointError::Read {
            path: path.to_owned(),
            source: Box::new(source),
        })?;
        let missing = |what| EndpointError::Missing {
            path: path.to_owned(),
            what,
        };
        let (cluster, user) = current(&config).ok_or_else(|| missing("usable context"))?;
        let server = cluster.server.as_deref().ok_or_else(|| missing("server"))?;
        let mut endpoint = Endpoint::anonymous(server, trust(&cluster, server)?)?;
        endpoint.tls_server_name = cluster.tls_server_name.clone();
        endpoint.authenticate(&user)?;
        Ok(endpoint)
    }

    fn authenticate(&mut self, user: &AuthInfo) -> Result<(), EndpointError> {
        let data = |what, text: &str| {
            STANDARD
                .decode(text)
                .map_err(|source| EndpointError::Base64 { what, source })
        };
        let key_data = secret(user, "client-key-data");
        match (&user.client_certificate_data, &key_data) {
            (Some(cert), Some(key)) => self.identity.set(
                &data("client-certificate-data", cert)?,
                &data("client-key-data", key)?,
                "the kubeconfig",
            )?,
            _ => {
                if let (Some(cert), Some(key)) = (&user.client_certificate, &user.client_key) {
                    self.identity.read(Path::new(cert), Path::new(key))?;
                }
            }
        }
        let file = user
            .token_file
            .as_ref()
            .map(|f| TokenSource::File(f.into()));
        let fixed = secret(user, "token").map(TokenSource::Fixed);
        self.token = file.or(fixed);
        Ok(())
    }

    /// The token to send now, if there is one.
    pub(super) fn bearer(&self) -> Option<String> {
        match self.token.as_ref()? {
            TokenSource::Fixed(token) => Some(token.clone()),
            TokenSource::File(path) => std::fs::read_to_string(path)
                .ok()
                .map(|t| t.trim().to_owned()),
        }
    }

    /// TLS towards it; ALPN is left to the connector.
    ///
    /// # Errors
    /// When no root is usable.
    pub fn tls(&self) -> Result<rustls::ClientConfig, EndpointError> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let tls = |source| EndpointError::Tls {
            server: self.server.to_string(),
            source,
        };
        let builder = rustls::ClientConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .map_err(tls)?;
        let builder = match &self.trust {
            Trust::Roots(roots) => {
                let mut store = rustls::RootCertStore::empty();
                store.add_parsable_certificates(roots.iter().cloned());
                if store.is_empty() {
                    return Err(EndpointError::NoCa {
                        server: self.server.to_string(),
                    });
                }
                builder.with_root_certificates(store)
            }
            Trust::Nobody => builder
                .dangerous()
                .with_custom_certificate_verifier(Arc::new(TrustNobody(provider))),
        };
        let mut config = builder.with_client_cert_resolver(self.identity.clone());
        // A session taken up again is that of the certificate it began with: after a rotation the
        // server would go on seeing the old one, and refuse it once it has ended.
        config.resumption = rustls::client::Resumption::disabled();
        Ok(config)
    }
}

/// kube guards these fields against being printed; as JSON they are plain.
fn secret(user: &AuthInfo, field: &str) -> Option<String> {
    let user = serde_json::to_value(user).ok()?;
    user.get(field)?.as_str().map(str::to_owned)
}

fn parse_server(server: &str) -> Result<http::Uri, EndpointError> {
    let bad = || EndpointError::Server {
        server: server.to_owned(),
    };
    let uri: http::Uri = server.parse().map_err(|_| bad())?;
    match (uri.scheme_str(), uri.authority()) {
        (Some("https" | "http"), Some(_)) => Ok(uri),
        _ => Err(bad()),
    }
}

fn current(config: &Kubeconfig) -> Option<(Cluster, AuthInfo)> {
    let name = config.current_context.as_deref()?;
    let context = config.contexts.iter().find(|c| c.name == name)?;
    let context = context.context.as_ref()?;
    let cluster = config.clusters.iter().find(|c| c.name == context.cluster)?;
    let user = context.user.as_deref().unwrap_or_default();
    let user = config.auth_infos.iter().find(|u| u.name == user);
    let user = user.and_then(|u| u.auth_info.clone()).unwrap_or_default();
    Some((cluster.cluster.clone()?, user))
}

fn trust(cluster: &Cluster, server: &str) -> Result<Trust, EndpointError> {
    if cluster.insecure_skip_tls_verify == Some(true) {
        return Ok(Trust::Nobody);
    }
    let pem = match (
        &cluster.certificate_authority_data,
        &cluster.certificate_authority,
    ) {
        (Some(data), _) => STANDARD
            .decode(data)
            .map_err(|source| EndpointError::Base64 {
                what: "certificate-authority-data",
                source,
            })?,
        (None, Some(path)) => std::fs::read(path).map_err(|source| EndpointError::ReadCa {
            path: path.into(),
            source,
        })?,
        (None, None) => Vec::new(),
    };
    let roots: Vec<_> = CertificateDer::pem_slice_iter(&pem)
        .filter_map(Result::ok)
        .collect();
    if roots.is_empty() && server.starts_with("https") {
        return Err(EndpointError::NoCa {
            server: server.to_owned(),
        });
    }
    Ok(Trust::Roots(roots))
}

/// Checks that the server holds the key of its certificate, and nothing else.
#[derive(Debug)]
struct TrustNobody(Arc<CryptoProvider>);

impl ServerCertVerifier for TrustNobody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &rustls::DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, cert, dss, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &rustls::DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
