//! The serving certificate: named by the configuration, issued by the cluster,
//! or made here.

use super::assemble::Parts;
use super::identity::{due, random_fraction, validity_of_file};
use super::{AgentError, AgentOptions};
use crate::api::Clients;
use crate::event::{EventType, Recorder};
use crate::join::csr::{self, CsrError, Patience, Purpose, Request};
use crate::join::files::{current_identity, store_identity};
use crate::join::report::chain;
use crate::server::tls::Serving;
use k8s_openapi::api::core::v1::ObjectReference;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// Serving certificates are approved by people: nobody knows when.
const PATIENCE: Duration = Duration::from_secs(3600);
/// After a request that failed.
const RETRY: Duration = Duration::from_secs(60);

/// What to present from the start.
pub fn of(options: &AgentOptions, addresses: &[IpAddr]) -> Result<Arc<Serving>, AgentError> {
    let config = &options.config.config;
    if let Some((cert, key)) = &config.tls_files {
        return Ok(Arc::new(Serving::from_files(cert, key)?));
    }
    let issued = current_identity(&options.pki(), "server");
    if config.server_tls_bootstrap && issued.exists() {
        return Ok(Arc::new(Serving::from_files(&issued, &issued)?));
    }
    let name = &options.node_name;
    Ok(Arc::new(Serving::self_signed(
        &options.pki(),
        name,
        addresses,
    )?))
}

/// A certificate of the cluster for :10250. Until it is issued the self-signed
/// one is presented, so that logs work where nobody verifies.
pub struct Wanted {
    node_name: String,
    pki: PathBuf,
    addresses: Vec<IpAddr>,
    clients: Clients,
    serving: Arc<Serving>,
    events: Arc<dyn Recorder>,
}

impl Wanted {
    /// Does nothing before [`Wanted::run`].
    pub fn new(
        options: &AgentOptions,
        clients: &Clients,
        parts: &Parts,
        serving: Arc<Serving>,
    ) -> Wanted {
        Wanted {
            node_name: options.node_name.clone(),
            pki: options.pki(),
            addresses: parts.addresses.clone(),
            clients: clients.clone(),
            serving,
            events: parts.events.clone(),
        }
    }

    /// Asks until one is issued, and again when that has lived long enough.
    pub async fn run(self, shutdown: CancellationToken) {
        tokio::select! {
            () = shutdown.cancelled() => {}
            () = self.keep() => {}
        }
    }

    async fn keep(&self) {
        let fraction = 0.7 + 0.2 * random_fraction();
        loop {
            let issued = validity_of_file(&current_identity(&self.pki, "server"));
            let now = jiff::Timestamp::now().as_second();
            let left = issued.map_or(0, |(from, until)| due(from, until, fraction) - now);
            if let Some(left) = u64::try_from(left).ok().filter(|l| *l > 0) {
                tokio::time::sleep(Duration::from_secs(left)).await;
                continue;
            }
            if let Err(failed) = self.obtain().await {
                tracing::warn!(
                    why = chain(&failed),
                    "no serving certificate yet; trying on"
                );
                tokio::time::sleep(RETRY).await;
            }
        }
    }

    async fn obtain(&self) -> Result<(), AgentError> {
        let key = csr::new_key()?;
        let purpose = Purpose::Serving {
            dns: vec![self.node_name.clone()],
            ips: self.addresses.clone(),
        };
        let request = Request::new(&self.node_name, purpose, &key)?;
        let patience = Patience {
            limit: PATIENCE,
            speak: &|text| self.speak(text),
        };
        let chain = csr::obtain(&self.clients.writes(), &request, patience).await;
        let chain = chain.map_err(|e: CsrError| AgentError::Bootstrap(e))?;
        let stored = store_identity(&self.pki, "server", &chain, &key);
        let stored = stored.map_err(|source| AgentError::Write {
            path: self.pki.clone(),
            source,
        })?;
        self.serving.replace(&stored, &stored)?;
        tracing::info!("serving certificate issued by the cluster");
        Ok(())
    }

    /// People look at the Node when logs and exec fail.
    fn speak(&self, text: &str) {
        tracing::warn!("{text}");
        let about = ObjectReference {
            kind: Some("Node".to_owned()),
            name: Some(self.node_name.clone()),
            uid: Some(self.node_name.clone()),
            ..ObjectReference::default()
        };
        self.events.record(
            &about,
            EventType::Warning,
            "ServingCertificatePending",
            text,
        );
    }
}
