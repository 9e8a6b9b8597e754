//! Who the cluster is: cluster-info, read twice.

use super::report::reason;
use super::token::{BootstrapToken, CaPin};
use super::{JoinError, jws};
use crate::api::{Connections, Endpoint, Trust};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::Api;
use kube::config::Kubeconfig;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Between two reads while the cluster is not ready for us.
/// kubernetes v1.37 cmd/kubeadm/app/constants `DiscoveryRetryInterval`.
const RETRY_INTERVAL: Duration = Duration::from_secs(5);

/// A cluster whose CA is known and trusted.
#[derive(Debug, Clone)]
pub struct Cluster {
    /// `https://host:port`, as the cluster wants to be called.
    pub server: String,
    /// Its CA certificates in PEM form.
    pub ca_pem: String,
}

impl Cluster {
    /// Its API server, with nobody's credentials.
    pub fn endpoint(&self) -> Result<Endpoint, JoinError> {
        let roots = CertificateDer::pem_slice_iter(self.ca_pem.as_bytes());
        let roots = roots.filter_map(Result::ok).collect();
        Ok(Endpoint::anonymous(&self.server, Trust::Roots(roots))?)
    }
}

/// What is asked of whom.
pub struct Discovery<'a> {
    /// `HOST:PORT`.
    pub server: &'a str,
    pub token: &'a BootstrapToken,
    /// Empty only when the person gave up on it.
    pub pins: &'a [CaPin],
    /// For the server to answer and to have signed with this token.
    pub limit: Duration,
    pub progress: &'a (dyn Fn(&str) + Send + Sync),
}

impl Discovery<'_> {
    /// Reads cluster-info without trust, checks signature and CA, reads it
    /// again with trust.
    pub async fn run(&self) -> Result<Cluster, JoinError> {
        let first = self.signed_info().await?;
        let cluster = self.parse(&first)?;
        self.check_pins(&cluster)?;
        let again = read(cluster.endpoint()?).await;
        let again = again.map_err(|e| self.unusable(&e))?;
        if kubeconfig(&again) != Some(&first) {
            return Err(JoinError::Changed {
                server: self.server.to_owned(),
            });
        }
        Ok(cluster)
    }

    /// The kubeconfig text, once it is signed with our token.
    async fn signed_info(&self) -> Result<String, JoinError> {
        let deadline = Instant::now() + self.limit;
        let mut said = String::new();
        loop {
            let endpoint = Endpoint::anonymous(&format!("https://{}", self.server), Trust::Nobody)?;
            let problem = match read(endpoint).await {
                Ok(info) => match self.check_signature(&info) {
                    Ok(text) => return Ok(text),
                    Err(e) => e,
                },
                Err(e) => self.unusable(&e),
            };
            let may_pass = matches!(
                problem,
                JoinError::Unreachable { .. }
                    | JoinError::TokenUnknown { .. }
                    | JoinError::NoClusterInfo { .. }
            );
            if !may_pass || Instant::now() + RETRY_INTERVAL > deadline {
                return Err(problem);
            }
            self.say_once(&mut said, &problem);
            tokio::time::sleep(RETRY_INTERVAL).await;
        }
    }

    fn say_once(&self, said: &mut String, problem: &JoinError) {
        let text = match problem {
            JoinError::TokenUnknown { id, .. } => {
                format!("waiting for the cluster to sign for the token {id}.…")
            }
            JoinError::Unreachable { reason, .. } => {
                format!("waiting for {} ({reason})", self.server)
            }
            other => format!("waiting: {other}"),
        };
        if *said != text {
            (self.progress)(&text);
            *said = text;
        }
    }

    fn check_signature(&self, info: &ConfigMap) -> Result<String, JoinError> {
        let server = self.server.to_owned();
        let id = self.token.id.clone();
        let data = |key: &str| info.data.as_ref().and_then(|d| d.get(key));
        let text = data("kubeconfig").ok_or_else(|| JoinError::ClusterInfo {
            server: server.clone(),
            reason: "it has no kubeconfig".to_owned(),
        })?;
        let Some(signature) = data(&format!("jws-kubeconfig-{id}")) else {
            return Err(JoinError::TokenUnknown { id, server });
        };
        match jws::is_signed_with(self.token, text, signature) {
            true => Ok(text.clone()),
            false => Err(JoinError::Signature { server }),
        }
    }

    fn parse(&self, text: &str) -> Result<Cluster, JoinError> {
        let bad = |reason: &str| JoinError::ClusterInfo {
            server: self.server.to_owned(),
            reason: reason.to_owned(),
        };
        let config = Kubeconfig::from_yaml(text).map_err(|e| bad(&super::report::chain(&e)))?;
        let [cluster] = config.clusters.as_slice() else {
            return Err(bad("it does not name exactly one cluster"));
        };
        let cluster = cluster
            .cluster
            .as_ref()
            .ok_or_else(|| bad("its cluster is empty"))?;
        let ca = cluster.certificate_authority_data.as_deref();
        let ca = ca.and_then(|d| STANDARD.decode(d).ok());
        let ca = ca.and_then(|pem| String::from_utf8(pem).ok());
        Ok(Cluster {
            server: cluster
                .server
                .clone()
                .ok_or_else(|| bad("it names no server"))?,
            ca_pem: ca.ok_or_else(|| bad("it has no CA"))?,
        })
    }

    fn check_pins(&self, cluster: &Cluster) -> Result<(), JoinError> {
        let certificates = CertificateDer::pem_slice_iter(cluster.ca_pem.as_bytes());
        let found: Vec<CaPin> = certificates
            .filter_map(Result::ok)
            .filter_map(|der| CaPin::of(&der))
            .collect();
        let Some(first) = found.first() else {
            return Err(JoinError::ClusterInfo {
                server: self.server.to_owned(),
                reason: "its CA is no certificate".to_owned(),
            });
        };
        if self.pins.is_empty() || found.iter().any(|pin| self.pins.contains(pin)) {
            return Ok(());
        }
        Err(JoinError::Pin {
            server: self.server.to_owned(),
            found: first.to_string(),
        })
    }

    fn unusable(&self, e: &kube::Error) -> JoinError {
        let server = self.server.to_owned();
        match e {
            kube::Error::Api(_) => JoinError::NoClusterInfo {
                server,
                reason: reason(e),
            },
            _ => JoinError::Unreachable {
                server,
                reason: reason(e),
            },
        }
    }
}

async fn read(endpoint: Endpoint) -> Result<ConfigMap, kube::Error> {
    let connections = Connections::new(Arc::new(endpoint), Default::default(), Default::default())
        .map_err(|e| kube::Error::Service(Box::new(e)))?;
    let api: Api<ConfigMap> = Api::namespaced(connections.client(), "kube-public");
    api.get("cluster-info").await
}

fn kubeconfig(info: &ConfigMap) -> Option<&String> {
    info.data.as_ref()?.get("kubeconfig")
}
