//! The serving certificate: named by the configuration, issued by the cluster,
//! or made here.

use super::assemble::Parts;
use super::identity::{leaf_of_file, modified, now, obtain};
use super::renewal::{self, Life};
use super::{AgentError, AgentOptions};
use crate::api::Clients;
use crate::event::{EventType, Recorder};
use crate::join::csr::{Names, Patience, Purpose};
use crate::join::files::current_identity;
use crate::join::report::chain;
use crate::server::State;
use crate::server::tls::{self, Serving};
use k8s_openapi::api::core::v1::{Node, ObjectReference};
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// Serving certificates are approved by people: nobody knows when.
const PATIENCE: Duration = Duration::from_secs(3600);
/// The longest wait after requests that failed: each makes another object.
const RETRY_MAX: Duration = Duration::from_secs(300);
/// How often the metrics and the clock are looked at.
const LOOK: Duration = Duration::from_secs(60);

/// What to present from the start.
pub fn of(options: &AgentOptions, addresses: &[IpAddr]) -> Result<Arc<Serving>, AgentError> {
    let config = &options.config.config;
    if let Some((cert, key)) = &config.tls_files {
        return Ok(Arc::new(Serving::from_files(cert, key)?));
    }
    let issued = current_identity(&options.pki(), "server");
    if config.server_tls_bootstrap && issued.exists() {
        match Serving::from_files(&issued, &issued) {
            Ok(serving) => return Ok(Arc::new(serving)),
            Err(e) => tracing::warn!(why = chain(&e), "the issued certificate is of no use"),
        }
    }
    let name = &options.node_name;
    Ok(Arc::new(Serving::self_signed(
        &options.pki(),
        name,
        addresses,
    )?))
}

/// What the Node says it is reached at. Sorted, so that the order of addresses is no change.
fn names(node: &Node) -> Names {
    let mut names = Names::default();
    let status = node.status.as_ref();
    for address in status.iter().flat_map(|s| s.addresses.iter().flatten()) {
        match address.address.parse() {
            Ok(ip) => names.ips.push(ip),
            Err(_) => names.dns.push(address.address.clone()),
        }
    }
    names.dns.sort();
    names.dns.dedup();
    names.ips.sort();
    names.ips.dedup();
    names
}

/// A certificate of the cluster for :10250. Until it is issued the self-signed
/// one is presented, so that logs work where nobody verifies.
pub struct Wanted {
    node_name: String,
    pki: PathBuf,
    node: watch::Receiver<Option<Arc<Node>>>,
    clients: Clients,
    serving: Arc<Serving>,
    server: Arc<State>,
    events: Arc<dyn Recorder>,
    share: f64,
    failures: u32,
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
            node: parts.node.nodes(),
            clients: clients.clone(),
            serving,
            server: parts.server.clone(),
            events: parts.events.clone(),
            share: renewal::share(),
            failures: 0,
        }
    }

    /// Asks until one is issued, and again when that has lived long enough or
    /// when the node is reached at something else.
    pub async fn run(self, shutdown: CancellationToken) {
        tokio::select! {
            () = shutdown.cancelled() => {}
            () = self.keep() => {}
        }
    }

    async fn keep(mut self) {
        let mut node = self.node.clone();
        loop {
            let known = node.borrow_and_update().clone();
            let names = known.map(|n| names(&n)).unwrap_or_default();
            let wait = match names == Names::default() {
                // Whoever approves looks for addresses in the request.
                true => LOOK,
                false => self.left(&names),
            };
            if wait > Duration::ZERO {
                tokio::select! {
                    () = tokio::time::sleep(wait.min(LOOK)) => {}
                    Ok(()) = node.changed() => {}
                }
                continue;
            }
            let result = tokio::select! {
                result = self.obtain(names.clone()) => result,
                () = changed_from(&mut node, &names) => continue,
            };
            if let Some(wait) = self.take(result) {
                tokio::select! {
                    () = tokio::time::sleep(wait) => {}
                    () = changed_from(&mut node, &names) => {}
                }
            }
        }
    }

    /// Until the next is due; nothing when what is there is good for other names.
    fn left(&self, names: &Names) -> Duration {
        let current = current_identity(&self.pki, "server");
        let Some(leaf) = leaf_of_file(&current).filter(|leaf| tls::covers(leaf, names)) else {
            return Duration::ZERO;
        };
        let Some(life) = Life::of(&leaf, modified(&current)) else {
            return Duration::ZERO;
        };
        let metrics = self.server.metrics.certificates();
        metrics.server_ttl.set((life.until - now()) as f64);
        let left = life.due(self.share) - now();
        Duration::from_secs(u64::try_from(left).unwrap_or_default())
    }

    async fn obtain(&self, names: Names) -> Result<(), AgentError> {
        let patience = Patience {
            limit: PATIENCE,
            speak: &|text| self.speak("ServingCertificatePending", text),
        };
        let purpose = Purpose::Serving(names);
        let (name, clients) = (&self.node_name, &self.clients);
        let stored = obtain(name, purpose, &self.pki, clients, patience).await?;
        Ok(self.serving.replace(&stored, &stored)?)
    }

    /// How long to wait before the next attempt, if this was none.
    fn take(&mut self, result: Result<(), AgentError>) -> Option<Duration> {
        self.share = renewal::share();
        let Err(failed) = result else {
            tracing::info!("serving certificate issued by the cluster");
            self.failures = 0;
            return None;
        };
        self.failures += 1;
        self.server.metrics.certificates().server_errors.inc();
        let wait = renewal::back_off(self.failures, RETRY_MAX);
        let text = format!(
            "no serving certificate, asking again in {}s: {}",
            wait.as_secs(),
            chain(&failed)
        );
        self.speak("ServingCertificateFailed", &text);
        Some(wait)
    }

    /// People look at the Node when logs and exec fail.
    fn speak(&self, reason: &str, text: &str) {
        tracing::warn!("{text}");
        let about = ObjectReference {
            kind: Some("Node".to_owned()),
            name: Some(self.node_name.clone()),
            uid: Some(self.node_name.clone()),
            ..ObjectReference::default()
        };
        self.events.record(&about, EventType::Warning, reason, text);
    }
}

/// Returns when the node is reached at something else than `known`.
async fn changed_from(node: &mut watch::Receiver<Option<Arc<Node>>>, known: &Names) {
    let differs = |node: &Option<Arc<Node>>| node.as_ref().is_some_and(|n| names(n) != *known);
    if node.wait_for(differs).await.is_err() {
        std::future::pending::<()>().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::{NodeAddress, NodeStatus};

    #[test]
    fn names_are_the_nodes_addresses_in_any_order() {
        let node = |addresses: &[(&str, &str)]| {
            let address = |(kind, address): &(&str, &str)| NodeAddress {
                type_: (*kind).to_owned(),
                address: (*address).to_owned(),
            };
            let status = NodeStatus {
                addresses: Some(addresses.iter().map(address).collect()),
                ..NodeStatus::default()
            };
            Node {
                status: Some(status),
                ..Node::default()
            }
        };
        let one = node(&[
            ("InternalIP", "10.0.0.2"),
            ("InternalIP", "10.0.0.1"),
            ("Hostname", "n1"),
            ("InternalDNS", "n1"),
        ]);
        let two = node(&[
            ("Hostname", "n1"),
            ("ExternalIP", "10.0.0.1"),
            ("InternalIP", "10.0.0.2"),
        ]);
        assert_eq!(names(&one), names(&two));
        assert_eq!(names(&one).dns, ["n1"]);
        assert_eq!(names(&one).ips.len(), 2);
        assert_eq!(names(&Node::default()), Names::default());
    }
}
