//! Who the agent is towards the API server: a certificate that is fetched once
//! and renewed before it runs out.

use super::{AgentError, AgentOptions};
use crate::api::{Clients, Endpoint};
use crate::join::csr::{self, CsrError, Patience, Purpose, Request};
use crate::join::files::{current_identity, store_identity, write_atomically};
use crate::join::report::chain;
use crate::server::State;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use x509_parser::prelude::{FromDer, X509Certificate};

/// kubernetes v1.37 staging/src/k8s.io/client-go/util/certificate
/// `certificateWaitTimeout`.
const SIGNING: Duration = Duration::from_secs(15 * 60);
/// Ours: how often a certificate that somebody else replaced is noticed.
const LOOK: Duration = Duration::from_secs(60);
/// After a renewal that failed.
const RETRY: Duration = Duration::from_secs(30);

/// From the kubeconfig; without one, after a bootstrap.
pub async fn clients(options: &AgentOptions) -> Result<Clients, AgentError> {
    if !options.kubeconfig.exists() || may_start_over(options) {
        bootstrap(options).await?;
    }
    let endpoint = Endpoint::from_kubeconfig(&options.kubeconfig)?;
    // A renewed certificate is newer than one that is written into the file.
    let current = current_identity(&options.pki(), "client");
    if expiry_of_file(&current)
        > endpoint
            .identity
            .leaf()
            .and_then(|l| validity(&l))
            .map(|v| v.1)
    {
        endpoint
            .identity
            .read(&current, &current)
            .map_err(crate::api::EndpointError::from)?;
    }
    tracing::info!(server = %endpoint.server, "API server");
    Ok(Clients::new(endpoint)?)
}

/// A certificate that has run out can't ask for the next one; a bootstrap
/// kubeconfig can.
fn may_start_over(options: &AgentOptions) -> bool {
    let until = expiry_of_file(&current_identity(&options.pki(), "client"));
    let is_over = until.is_some_and(|until| until <= jiff::Timestamp::now().as_second());
    let bootstrap = options.bootstrap_kubeconfig.as_ref();
    let can = bootstrap.is_some_and(|file| file.exists());
    if is_over && !can {
        tracing::error!(
            "the client certificate has expired, so the API server does not know this node; pods \
             run on; to come back: lighter reset, then lighter join"
        );
    }
    is_over && can
}

/// Trades the bootstrap token for a certificate; waits for an API server that
/// is away, for ever: there is nothing else to do.
async fn bootstrap(options: &AgentOptions) -> Result<(), AgentError> {
    let file = options.bootstrap_kubeconfig.as_ref().filter(|f| f.exists());
    let file = file.ok_or_else(|| AgentError::NotJoined {
        kubeconfig: options.kubeconfig.clone(),
    })?;
    tracing::info!(kubeconfig = %file.display(), "bootstrap: asking for a client certificate");
    let clients = Clients::from_kubeconfig(file)?;
    loop {
        match renew(options, &clients).await {
            Ok(_) => break,
            Err(AgentError::Bootstrap(CsrError::Api {
                refused: false,
                reason,
                ..
            })) => {
                tracing::warn!(reason, "bootstrap: trying on");
                tokio::time::sleep(RETRY / 6).await;
            }
            Err(e) => return Err(e),
        }
    }
    write_kubeconfig(options, file)
}

/// The bootstrap kubeconfig with a certificate in place of its token.
fn write_kubeconfig(options: &AgentOptions, bootstrap: &Path) -> Result<(), AgentError> {
    let path = &options.kubeconfig;
    let write = |source| AgentError::Write {
        path: path.clone(),
        source,
    };
    let text = std::fs::read_to_string(bootstrap).map_err(write)?;
    let mut config: Value = serde_saphyr::from_str(&text).unwrap_or_default();
    let pem = current_identity(&options.pki(), "client");
    let user = json!({"client-certificate": pem, "client-key": pem});
    if let Some(users) = config.get_mut("users").and_then(Value::as_array_mut) {
        users.iter_mut().for_each(|u| u["user"] = user.clone());
    }
    let text = serde_saphyr::to_string(&config).unwrap_or_else(|_| config.to_string());
    write_atomically(path, text.as_bytes(), 0o600).map_err(write)
}

/// A new key and its certificate, stored.
async fn renew(options: &AgentOptions, clients: &Clients) -> Result<PathBuf, AgentError> {
    let pki = options.pki();
    let key_path = pki.join("kubelet-client.key.tmp");
    let write = |path: &Path, source| AgentError::Write {
        path: path.to_owned(),
        source,
    };
    // Kept until it is signed, so that a restart finds its own request.
    let key = match std::fs::read_to_string(&key_path) {
        Ok(key) => key,
        Err(_) => {
            let key = csr::new_key()?;
            write_atomically(&key_path, key.as_bytes(), 0o600).map_err(|e| write(&key_path, e))?;
            key
        }
    };
    let request = Request::new(&options.node_name, Purpose::Client, &key)?;
    let patience = Patience {
        limit: SIGNING,
        speak: &|text| tracing::warn!("{text}"),
    };
    let signed = csr::obtain(&clients.writes(), &request, patience).await;
    if matches!(
        signed,
        Err(CsrError::Denied { .. } | CsrError::NotSigned { .. })
    ) {
        // The same key would find the same answer.
        let _ = std::fs::remove_file(&key_path);
    }
    let chain = signed?;
    let stored = store_identity(&pki, "client", &chain, &key).map_err(|e| write(&pki, e))?;
    let _ = std::fs::remove_file(&key_path);
    Ok(stored)
}

/// Renews the client certificate when 70 to 90 % of its life are over.
pub struct Rotation {
    options: AgentOptions,
    clients: Clients,
    server: Arc<State>,
    /// 0.7 to 0.9: not every node of a cluster asks in the same minute.
    fraction: f64,
}

impl Rotation {
    /// Does nothing before [`Rotation::run`].
    pub fn new(options: &AgentOptions, clients: &Clients, server: Arc<State>) -> Rotation {
        Rotation {
            options: options.clone(),
            clients: clients.clone(),
            server,
            fraction: 0.7 + 0.2 * random_fraction(),
        }
    }

    /// Until `shutdown`.
    pub async fn run(self, shutdown: CancellationToken) {
        let turns = async {
            loop {
                let wait = self.turn().await;
                tokio::time::sleep(wait).await;
            }
        };
        tokio::select! {
            () = shutdown.cancelled() => {}
            () = turns => {}
        }
    }

    async fn turn(&self) -> Duration {
        self.take_if_newer();
        let identity = &self.clients.endpoint().identity;
        let Some((from, until)) = identity.leaf().and_then(|leaf| validity(&leaf)) else {
            // A token or nothing: there is no certificate to renew.
            return LOOK;
        };
        let now = jiff::Timestamp::now().as_second();
        self.server
            .metrics
            .client_certificate_ttl((until - now) as f64);
        let due = due(from, until, self.fraction);
        if now < due {
            let left = u64::try_from(due - now).unwrap_or_default();
            return Duration::from_secs(left.max(1)).min(LOOK);
        }
        match renew(&self.options, &self.clients).await {
            Ok(_) => {
                self.take_if_newer();
                Duration::ZERO
            }
            Err(e) => {
                tracing::warn!(why = chain(&e), "client certificate not renewed; trying on");
                RETRY
            }
        }
    }

    fn take_if_newer(&self) {
        let current = current_identity(&self.options.pki(), "client");
        let identity = &self.clients.endpoint().identity;
        let ours = identity
            .leaf()
            .and_then(|leaf| validity(&leaf))
            .map(|v| v.1);
        let theirs = expiry_of_file(&current);
        if theirs <= ours {
            return;
        }
        match identity.read(&current, &current) {
            Ok(()) => {
                self.clients.renew_connections();
                tracing::info!(until = theirs, "client certificate renewed");
            }
            Err(e) => tracing::warn!(why = chain(&e), "the renewed client certificate"),
        }
    }
}

/// When to renew, in Unix seconds.
pub(super) fn due(from: i64, until: i64, fraction: f64) -> i64 {
    from + ((until - from) as f64 * fraction) as i64
}

pub(super) fn random_fraction() -> f64 {
    let mut bytes = [0_u8; 4];
    let filled = ring::rand::SecureRandom::fill(&ring::rand::SystemRandom::new(), &mut bytes);
    match filled {
        Ok(()) => f64::from(u32::from_ne_bytes(bytes)) / f64::from(u32::MAX),
        Err(_) => 0.5,
    }
}

/// Not before and not after, in Unix seconds.
pub(super) fn validity(der: &[u8]) -> Option<(i64, i64)> {
    let (_, certificate) = X509Certificate::from_der(der).ok()?;
    let validity = certificate.validity();
    Some((
        validity.not_before.timestamp(),
        validity.not_after.timestamp(),
    ))
}

fn expiry_of_file(path: &Path) -> Option<i64> {
    Some(validity_of_file(path)?.1)
}

/// [`validity`] of the first certificate in a PEM file.
pub(super) fn validity_of_file(path: &Path) -> Option<(i64, i64)> {
    use rustls_pki_types::pem::PemObject;
    let pem = std::fs::read(path).ok()?;
    let der = rustls_pki_types::CertificateDer::from_pem_slice(&pem).ok()?;
    validity(&der)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn renewal_is_due_within_the_last_third_of_life() {
        assert_eq!(due(1000, 2000, 0.7), 1700);
        assert_eq!(due(1000, 2000, 0.9), 1900);
        let fraction = random_fraction();
        assert!((0.0..=1.0).contains(&fraction));
    }
}
