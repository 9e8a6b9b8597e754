//! Who the agent is towards the API server: a certificate that is asked for
//! once and renewed before it runs out.

use super::renewal::{self, Life};
use super::{AgentError, AgentOptions};
use crate::api::{Clients, Endpoint, EndpointError, Identity};
use crate::join::csr::{self, CsrError, Patience, Purpose, Request};
use crate::join::files::{current_identity, store_identity, write_atomically};
use crate::join::report::chain;
use crate::server::State;
use crate::trace::Tracer;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};
use tokio_util::sync::CancellationToken;

/// kubernetes v1.37 staging/src/k8s.io/client-go/util/certificate
/// `certificateWaitTimeout`.
const SIGNING: Duration = Duration::from_secs(15 * 60);
/// Ours: how often a certificate that somebody else replaced is noticed.
const LOOK: Duration = Duration::from_secs(60);
/// The longest wait after renewals that failed.
const RETRY_MAX: Duration = Duration::from_secs(60);

/// From the kubeconfig. Where that is of no use, from the bootstrap kubeconfig, without its
/// token: requests then wait for the certificate that [`Rotation`] asks for.
pub fn clients(options: &AgentOptions, tracer: &Tracer) -> Result<Clients, AgentError> {
    let endpoint = match known(options) {
        Ok(endpoint) => endpoint,
        Err(why) => awaited(options, why)?,
    };
    tracing::info!(server = %endpoint.server, "API server");
    Ok(Clients::traced(endpoint, tracer)?)
}

/// Why the kubeconfig can't be used.
enum Unusable {
    Missing,
    Broken(EndpointError),
    Expired(Box<Endpoint>),
}

/// With the newest certificate there is.
fn known(options: &AgentOptions) -> Result<Endpoint, Unusable> {
    if !options.kubeconfig.exists() {
        return Err(Unusable::Missing);
    }
    let endpoint = Endpoint::from_kubeconfig(&options.kubeconfig).map_err(Unusable::Broken)?;
    // A renewed certificate is newer than one that is written into the file.
    take_if_newer(&endpoint.identity, &options.pki());
    let leaf = endpoint.identity.leaf();
    let life = leaf.and_then(|leaf| Life::of(&leaf, None));
    match life.is_some_and(|l| l.is_over(now())) {
        true => Err(Unusable::Expired(Box::new(endpoint))),
        false => Ok(endpoint),
    }
}

/// The way on without a usable kubeconfig.
fn awaited(options: &AgentOptions, why: Unusable) -> Result<Endpoint, AgentError> {
    let Some(file) = bootstrap_file(options) else {
        return match why {
            Unusable::Missing => Err(AgentError::NotJoined {
                kubeconfig: options.kubeconfig.clone(),
            }),
            Unusable::Broken(error) => Err(error.into()),
            Unusable::Expired(endpoint) => {
                tracing::error!(
                    "the client certificate has expired, so the API server does not know this \
                     node; pods run on; to come back: lighter reset, then lighter join; or a \
                     bootstrap kubeconfig"
                );
                Ok(*endpoint)
            }
        };
    };
    let why = match why {
        Unusable::Missing => "there is none".to_owned(),
        Unusable::Broken(error) => chain(&error),
        Unusable::Expired(_) => "its certificate has expired".to_owned(),
    };
    let (kubeconfig, bootstrap) = (options.kubeconfig.display(), file.display());
    tracing::info!(%kubeconfig, why, %bootstrap, "bootstrap: asking for a client certificate");
    let mut endpoint = Endpoint::from_kubeconfig(file)?;
    endpoint.token = None;
    endpoint.identity = Arc::new(Identity::awaited());
    Ok(endpoint)
}

fn bootstrap_file(options: &AgentOptions) -> Option<&Path> {
    let file = options.bootstrap_kubeconfig.as_deref();
    file.filter(|f| f.exists())
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
async fn renew(options: &AgentOptions, clients: &Clients) -> Result<(), AgentError> {
    let pki = options.pki();
    let wait = Patience {
        limit: SIGNING,
        speak: &|text| tracing::warn!("{text}"),
    };
    obtain(&options.node_name, Purpose::Client, &pki, clients, wait).await?;
    Ok(())
}

/// Asks for a certificate and stores it with its key. The key is kept until it is signed, so that
/// a restart finds its own request; after a denial another key asks.
pub(super) async fn obtain(
    node_name: &str,
    purpose: Purpose,
    pki: &Path,
    clients: &Clients,
    patience: Patience<'_>,
) -> Result<PathBuf, AgentError> {
    let kind = match purpose {
        Purpose::Client => "client",
        Purpose::Serving(_) => "server",
    };
    let key_path = pki.join(format!("kubelet-{kind}.key.tmp"));
    let write = |path: &Path, source| AgentError::Write {
        path: path.to_owned(),
        source,
    };
    let kept = std::fs::read_to_string(&key_path).ok();
    let request = kept.and_then(|key| {
        let request = Request::new(node_name, purpose.clone(), &key).ok()?;
        Some((request, key))
    });
    let (request, key) = match request {
        Some(kept) => kept,
        None => {
            let key = csr::new_key()?;
            write_atomically(&key_path, key.as_bytes(), 0o600).map_err(|e| write(&key_path, e))?;
            (Request::new(node_name, purpose, &key)?, key)
        }
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
    let stored = store_identity(pki, kind, &chain, &key).map_err(|e| write(pki, e))?;
    let _ = std::fs::remove_file(&key_path);
    Ok(stored)
}

/// Renews the client certificate when 70 to 90 % of its life are over; asks for the first one
/// where there is none.
pub struct Rotation {
    options: AgentOptions,
    clients: Clients,
    server: Arc<State>,
    share: f64,
    failures: u32,
}

impl Rotation {
    /// Does nothing before [`Rotation::run`].
    pub fn new(options: &AgentOptions, clients: &Clients, server: Arc<State>) -> Rotation {
        Rotation {
            options: options.clone(),
            clients: clients.clone(),
            server,
            share: renewal::share(),
            failures: 0,
        }
    }

    /// Until `shutdown`; where nothing is to be renewed, until there is a certificate.
    pub async fn run(mut self, shutdown: CancellationToken) {
        let turns = async {
            while self.options.config.config.rotate_certificates
                || self.clients.endpoint().identity.is_missing()
            {
                let wait = self.turn().await;
                tokio::time::sleep(wait).await;
            }
        };
        tokio::select! {
            () = shutdown.cancelled() => {}
            () = turns => {}
        }
    }

    async fn turn(&mut self) -> Duration {
        self.take_if_newer();
        let identity = &self.clients.endpoint().identity;
        let life = self.life();
        match life {
            Some(life) => {
                let metrics = self.server.metrics.certificates();
                metrics.client_ttl.set((life.until - now()) as f64);
                if let Ok(left @ 1..) = u64::try_from(life.due(self.share) - now()) {
                    return Duration::from_secs(left).min(LOOK);
                }
            }
            // A token or nothing: there is no certificate to renew.
            None if !identity.is_missing() => return LOOK,
            None => {}
        }
        match self.renew(life).await {
            Ok(()) => self.renewed(),
            Err(e) => self.failed(&chain(&e)),
        }
    }

    /// Of what is presented.
    fn life(&self) -> Option<Life> {
        let leaf = self.clients.endpoint().identity.leaf()?;
        let current = current_identity(&self.options.pki(), "client");
        let is_current = leaf_of_file(&current).is_some_and(|c| c == leaf);
        Life::of(&leaf, is_current.then(|| modified(&current)).flatten())
    }

    /// A certificate that has run out can't ask for the next one; a bootstrap kubeconfig can.
    async fn renew(&self, life: Option<Life>) -> Result<(), AgentError> {
        let usable = life.is_some_and(|l| !l.is_over(now()));
        match bootstrap_file(&self.options).filter(|_| !usable) {
            Some(file) => {
                renew(&self.options, &Clients::from_kubeconfig(file)?).await?;
                write_kubeconfig(&self.options, file)
            }
            None => renew(&self.options, &self.clients).await,
        }
    }

    fn renewed(&mut self) -> Duration {
        self.take_if_newer();
        self.share = renewal::share();
        if self.life().is_none_or(|l| l.due(self.share) <= now()) {
            return self.failed("the new one is over already: is the clock of this host right?");
        }
        self.failures = 0;
        Duration::ZERO
    }

    fn failed(&mut self, why: &str) -> Duration {
        self.failures += 1;
        let metrics = self.server.metrics.certificates();
        metrics.client_errors.inc();
        let wait = renewal::back_off(self.failures, RETRY_MAX);
        let again = format!("{}s", wait.as_secs());
        tracing::warn!(why, again, "no new client certificate; trying on");
        wait
    }

    fn take_if_newer(&self) {
        let endpoint = self.clients.endpoint();
        if take_if_newer(&endpoint.identity, &self.options.pki()) {
            self.clients.renew_connections();
            let until = self.life().map(|l| l.until);
            tracing::info!(until, "new client certificate in use");
        }
    }
}

/// Of two that differ the one issued later counts: an end may come nearer, when a cluster is told
/// to sign for shorter.
fn take_if_newer(identity: &Identity, pki: &Path) -> bool {
    let current = current_identity(pki, "client");
    let (ours, theirs) = (identity.leaf(), leaf_of_file(&current));
    let from = |der: &Option<CertificateDer<'static>>| {
        let life = der.as_ref().and_then(|der| Life::of(der, None));
        life.map(|l| l.from)
    };
    if theirs.is_none() || ours == theirs || from(&theirs) < from(&ours) {
        return false;
    }
    let taken = identity.read(&current, &current);
    if let Err(e) = &taken {
        tracing::warn!(why = chain(e), "the client certificate on disk");
    }
    taken.is_ok()
}

pub(super) fn now() -> i64 {
    jiff::Timestamp::now().as_second()
}

/// The first certificate in a PEM file.
pub(super) fn leaf_of_file(path: &Path) -> Option<CertificateDer<'static>> {
    let pem = std::fs::read(path).ok()?;
    CertificateDer::from_pem_slice(&pem).ok()
}

/// When a file was written, in Unix seconds.
pub(super) fn modified(path: &Path) -> Option<i64> {
    let at = std::fs::metadata(path).ok()?.modified().ok()?;
    i64::try_from(at.duration_since(UNIX_EPOCH).ok()?.as_secs()).ok()
}
