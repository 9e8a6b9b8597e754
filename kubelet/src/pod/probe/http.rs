//! One HTTP GET, as probes and hooks make it.

use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::Request;
use hyper_util::rt::TokioIo;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

/// kubernetes v1.36 pkg/probe/http/http.go `maxRespBodyLength`.
const MAX_BODY: usize = 10 * 1024;
/// net/http's limit for a client.
const MAX_REDIRECTS: usize = 10;

/// Where to, and with which headers.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Get {
    pub tls: bool,
    pub host: String,
    pub port: u16,
    /// With its query.
    pub path: String,
    pub headers: Vec<(String, String)>,
}

/// The answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// At most 10 KiB of the body.
    pub body: String,
}

/// Why there was no answer.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum HttpError {
    #[error("dial tcp {address}: {source}")]
    Connect {
        address: String,
        source: std::io::Error,
    },
    #[error("TLS handshake with {address}: {source}")]
    Tls {
        address: String,
        source: std::io::Error,
    },
    #[error("request {url}: {reason}")]
    Request { url: String, reason: String },
    #[error("stopped after {MAX_REDIRECTS} redirects")]
    Redirects,
}

impl HttpError {
    /// Nothing listens there (yet).
    #[must_use]
    pub fn refused(&self) -> bool {
        matches!(self, HttpError::Connect { source, .. }
            if source.kind() == std::io::ErrorKind::ConnectionRefused)
    }
}

/// Asks, and follows redirects to the same host.
///
/// # Errors
/// When no answer comes. The caller sets the time limit.
pub async fn get(mut wish: Get) -> Result<Answer, HttpError> {
    for _ in 0..=MAX_REDIRECTS {
        let (answer, location) = once(&wish).await?;
        let Some(location) = location.filter(|_| (300..400).contains(&answer.status)) else {
            return Ok(answer);
        };
        match redirected(&wish, &location) {
            Some(next) => wish = next,
            // To another host: as good as an answer.
            None => return Ok(answer),
        }
    }
    Err(HttpError::Redirects)
}

async fn once(wish: &Get) -> Result<(Answer, Option<String>), HttpError> {
    let address = authority(&wish.host, wish.port);
    let stream = TcpStream::connect(&address).await;
    let stream = stream.map_err(|source| HttpError::Connect {
        address: address.clone(),
        source,
    })?;
    if !wish.tls {
        return exchange(stream, wish).await;
    }
    let name = ServerName::try_from(wish.host.clone());
    let name =
        name.unwrap_or_else(|_| ServerName::IpAddress(std::net::Ipv4Addr::UNSPECIFIED.into()));
    let tls = connector().connect(name, stream).await;
    let tls = tls.map_err(|source| HttpError::Tls { address, source })?;
    exchange(tls, wish).await
}

async fn exchange<S>(stream: S, wish: &Get) -> Result<(Answer, Option<String>), HttpError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let failed = |reason: String| HttpError::Request {
        url: url(wish),
        reason,
    };
    let io = TokioIo::new(stream);
    let (mut sender, connection) = hyper::client::conn::http1::handshake(io)
        .await
        .map_err(|e| failed(e.to_string()))?;
    let driver = tokio::spawn(connection);
    let request = request(wish).map_err(|e| failed(e.to_string()))?;
    let answer = sender.send_request(request).await;
    let answer = answer.map_err(|e| failed(e.to_string()))?;
    let status = answer.status().as_u16();
    let location = answer.headers().get(http::header::LOCATION);
    let location = location.and_then(|l| l.to_str().ok()).map(str::to_owned);
    let body = Limited::new(answer.into_body(), MAX_BODY).collect().await;
    let body = body.map(|b| b.to_bytes()).unwrap_or_default();
    driver.abort();
    let body = String::from_utf8_lossy(&body).into_owned();
    Ok((Answer { status, body }, location))
}

fn request(wish: &Get) -> Result<Request<Empty<Bytes>>, http::Error> {
    let named = |name: &str| {
        wish.headers
            .iter()
            .any(|(n, _)| n.eq_ignore_ascii_case(name))
    };
    let mut request = Request::get(&wish.path);
    for (name, value) in &wish.headers {
        // An empty value means: not this header at all.
        if !value.is_empty() {
            request = request.header(name, value);
        }
    }
    for (name, value) in [
        ("Host", authority(&wish.host, wish.port)),
        ("User-Agent", crate::defaults::PROBE_USER_AGENT.to_owned()),
        ("Accept", "*/*".to_owned()),
        ("Connection", "close".to_owned()),
    ] {
        if !named(name) {
            request = request.header(name, value);
        }
    }
    request.body(Empty::new())
}

fn redirected(from: &Get, location: &str) -> Option<Get> {
    if location.starts_with('/') && !location.starts_with("//") {
        let path = location.to_owned();
        return Some(Get {
            path,
            ..from.clone()
        });
    }
    let uri: http::Uri = location.parse().ok()?;
    let host = uri.host()?.trim_start_matches('[').trim_end_matches(']');
    if host != from.host {
        return None;
    }
    let tls = uri.scheme_str() == Some("https");
    let path = uri.path_and_query().map_or("/", |p| p.as_str()).to_owned();
    let port = uri.port_u16().unwrap_or(if tls { 443 } else { 80 });
    Some(Get {
        tls,
        port,
        path,
        ..from.clone()
    })
}

/// `host:port`, with brackets around IPv6.
pub(crate) fn authority(host: &str, port: u16) -> String {
    if host.contains(':') {
        format!("[{host}]:{port}")
    } else {
        format!("{host}:{port}")
    }
}

/// As messages name it.
#[must_use]
pub fn url(wish: &Get) -> String {
    let scheme = if wish.tls { "https" } else { "http" };
    format!(
        "{scheme}://{}{}",
        authority(&wish.host, wish.port),
        wish.path
    )
}

fn connector() -> tokio_rustls::TlsConnector {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let schemes = provider
        .signature_verification_algorithms
        .supported_schemes();
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map(|builder| {
            builder
                .dangerous()
                .with_custom_certificate_verifier(Arc::new(AnyCertificate(schemes)))
                .with_no_client_auth()
        });
    match config {
        Ok(config) => tokio_rustls::TlsConnector::from(Arc::new(config)),
        // The provider has the default versions: it is the one they come from.
        Err(error) => unreachable!("ring has no default TLS versions: {error}"),
    }
}

/// Probes and hooks accept any certificate: the API says so.
#[derive(Debug)]
struct AnyCertificate(Vec<rustls::SignatureScheme>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &rustls::DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &rustls::DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        self.0.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from() -> Get {
        Get {
            tls: false,
            host: "10.0.0.2".into(),
            port: 80,
            path: "/a".into(),
            headers: Vec::new(),
        }
    }

    #[test]
    fn redirect_is_followed_only_to_the_same_host() {
        let path = |location: &str| redirected(&from(), location).map(|g| url(&g));
        assert_eq!(path("/b").as_deref(), Some("http://10.0.0.2:80/b"));
        assert_eq!(
            path("https://10.0.0.2:8443/c?d").as_deref(),
            Some("https://10.0.0.2:8443/c?d")
        );
        assert_eq!(path("http://example.com/"), None);
    }

    #[test]
    fn headers_of_the_probe_replace_ours() {
        let wish = Get {
            headers: vec![
                ("user-agent".into(), "me".into()),
                ("X-A".into(), "1".into()),
            ],
            ..from()
        };
        let made = request(&wish)
            .map(|r| r.headers().clone())
            .unwrap_or_default();
        assert_eq!(
            made.get("user-agent").map(|v| v.as_bytes()),
            Some(b"me".as_slice())
        );
        assert_eq!(made.get("x-a").map(|v| v.as_bytes()), Some(b"1".as_slice()));
        assert_eq!(
            made.get("accept").map(|v| v.as_bytes()),
            Some(b"*/*".as_slice())
        );
    }
}
