//! One look at the API server, for people who ask what is wrong.

use super::{Clients, Endpoint, EndpointError};
use crate::join::files::current_identity;
use crate::join::report::reason;
use http_body_util::BodyExt as _;
use k8s_openapi::api::core::v1::Node;
use kube::api::Api;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use std::path::Path;
use x509_parser::prelude::{FromDer, X509Certificate};

/// What was found.
#[derive(Debug, Clone)]
pub struct Probe {
    /// Its URL.
    pub server: String,
    /// What it runs, or why it does not answer.
    pub version: Result<String, String>,
    /// How far this machine's clock is ahead of its, in seconds.
    pub skew: Option<i64>,
    /// What it says of this node.
    pub node: Standing,
}

/// A node in the eyes of its cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    Ready,
    /// As its condition says.
    NotReady {
        reason: String,
        message: String,
    },
    /// There is no such Node.
    Missing,
    /// We may not ask, and why.
    Refused(String),
}

/// Asks for the version as anybody may, and for the Node as the node itself does, with its newest
/// certificate.
///
/// # Errors
/// When the kubeconfig is of no use.
pub async fn probe(kubeconfig: &Path, pki: &Path, node: &str) -> Result<Probe, EndpointError> {
    let endpoint = Endpoint::from_kubeconfig(kubeconfig)?;
    let current = current_identity(pki, "client");
    if current.exists() {
        endpoint.identity.read(&current, &current)?;
    }
    let server = endpoint.server.to_string();
    let mut anybody = Endpoint::anonymous(&server, endpoint.trust.clone())?;
    anybody.tls_server_name = endpoint.tls_server_name.clone();
    let (version, skew) = match greet(&Clients::new(anybody)?.writes()).await {
        Ok((version, skew)) => (Ok(version), skew),
        Err(e) => (Err(reason(&e)), None),
    };
    let node = match version.is_ok() {
        true => standing(
            Api::all(Clients::new(endpoint)?.writes())
                .get_opt(node)
                .await,
        ),
        false => Standing::Missing,
    };
    Ok(Probe {
        server,
        version,
        skew,
        node,
    })
}

/// The version, where strangers are told, and how far our clock is ahead.
async fn greet(client: &kube::Client) -> Result<(String, Option<i64>), kube::Error> {
    let request = http::Request::get("/version").body(kube::client::Body::empty());
    let request = request.map_err(kube::Error::HttpError)?;
    let response = client.send(request).await?;
    let date = response.headers().get(http::header::DATE);
    let date = date.and_then(|d| jiff::fmt::rfc2822::parse(d.to_str().ok()?).ok());
    let skew = date.map(|theirs| now() - theirs.timestamp().as_second());
    let status = response.status();
    let body = response.into_body().collect().await;
    let body = body.map(|b| b.to_bytes()).unwrap_or_default();
    let said: serde_json::Value = serde_json::from_slice(&body).unwrap_or_default();
    let version = said["gitVersion"].as_str().map(str::to_owned);
    Ok((version.unwrap_or_else(|| status.to_string()), skew))
}

fn standing(node: Result<Option<Node>, kube::Error>) -> Standing {
    let node = match node {
        Ok(Some(node)) => node,
        Ok(None) => return Standing::Missing,
        Err(e) => return Standing::Refused(reason(&e)),
    };
    let conditions = node.status.and_then(|s| s.conditions).unwrap_or_default();
    match conditions.into_iter().find(|c| c.type_ == "Ready") {
        Some(c) if c.status == "True" => Standing::Ready,
        found => {
            let found = found.unwrap_or_default();
            Standing::NotReady {
                reason: found.reason.unwrap_or_default(),
                message: found.message.unwrap_or_default(),
            }
        }
    }
}

/// Not before and not after of the first certificate in a PEM file, in Unix seconds.
pub fn validity_of_file(path: &Path) -> Option<(i64, i64)> {
    let pem = std::fs::read(path).ok()?;
    let der = CertificateDer::from_pem_slice(&pem).ok()?;
    let (_, certificate) = X509Certificate::from_der(&der).ok()?;
    let validity = certificate.validity();
    Some((
        validity.not_before.timestamp(),
        validity.not_after.timestamp(),
    ))
}

/// In Unix seconds.
pub fn now() -> i64 {
    jiff::Timestamp::now().as_second()
}
