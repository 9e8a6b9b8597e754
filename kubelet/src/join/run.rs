//! The join itself, step by step.

use super::csr::{self, Patience, Purpose};
use super::discovery::{Cluster, Discovery};
use super::files::{self, JoinRoots, Journal};
use super::token::{BootstrapToken, CaPin};
use super::{JoinError, cluster, kubeconfig};
use crate::api::{Clients, TokenSource};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// kubernetes v1.37 cmd/kubeadm/app/apis/kubeadm/v1beta4 `TLSBootstrap`.
const TLS_BOOTSTRAP: Duration = Duration::from_secs(5 * 60);
/// Ours: upstream's five minutes are long for a person who mistyped a token;
/// the cluster signs for a new token within five seconds.
const DISCOVERY: Duration = Duration::from_secs(20);

/// What a person asks for.
#[derive(Clone)]
pub struct JoinOptions {
    /// `HOST:PORT` of the control plane.
    pub server: String,
    /// `id.secret`.
    pub token: String,
    /// `sha256:…`, any number.
    pub ca_pins: Vec<String>,
    /// Go without a pin.
    pub unsafe_skip_ca_verification: bool,
    /// The name of the Node; see [`crate::node::default_name`].
    pub node_name: String,
    /// Where files go.
    pub roots: JoinRoots,
    /// How long the control plane may take to answer and to know the token.
    pub discovery_limit: Duration,
    /// How long it may take to sign our certificate.
    pub signing_limit: Duration,
    /// Told of each step as it begins.
    pub progress: Arc<dyn Fn(&str) + Send + Sync>,
}

impl JoinOptions {
    /// With the usual roots and patience, and nobody told.
    pub fn new(server: &str, token: &str, node_name: &str) -> JoinOptions {
        JoinOptions {
            server: server.to_owned(),
            token: token.to_owned(),
            ca_pins: Vec::new(),
            unsafe_skip_ca_verification: false,
            node_name: node_name.to_owned(),
            roots: JoinRoots::default(),
            discovery_limit: DISCOVERY,
            signing_limit: TLS_BOOTSTRAP,
            progress: Arc::new(|_| {}),
        }
    }
}

/// A node that may start.
#[derive(Debug, Clone)]
pub struct Joined {
    /// Its name in the cluster.
    pub node_name: String,
    /// The API server.
    pub server: String,
    /// For the agent's `--kubeconfig`.
    pub kubeconfig: PathBuf,
    /// For the agent's `--config`.
    pub config: PathBuf,
}

/// Joins. What a failed join made is removed again.
///
/// # Errors
/// See [`JoinError`]: each is one line with what to do next.
pub async fn run(options: JoinOptions) -> Result<Joined, JoinError> {
    let fresh = check_fresh(&options.roots)?;
    let joined = steps(&options).await;
    if joined.is_err() && fresh {
        // The first error is the one to tell.
        let _ = files::reset(&options.roots);
    }
    joined
}

/// Whether no earlier join left anything.
fn check_fresh(roots: &JoinRoots) -> Result<bool, JoinError> {
    let path = roots.kubeconfig();
    match path.exists() {
        true => Err(JoinError::AlreadyJoined { path }),
        false => Ok(true),
    }
}

async fn steps(options: &JoinOptions) -> Result<Joined, JoinError> {
    let say = options.progress.as_ref();
    let (token, pins) = parse(options)?;

    say(&format!(
        "discovery: reading cluster-info from {}",
        options.server
    ));
    let discovery = Discovery {
        server: &options.server,
        token: &token,
        pins: &pins,
        limit: options.discovery_limit,
        progress: say,
    };
    let found = discovery.run().await?;
    say("discovery: signature and CA are right");

    let clients = with_token(&found, &token)?;
    let config = cluster::kubelet_config(&clients.writes(), &token, &options.server).await?;
    cluster::check_name(
        &clients.writes(),
        &options.node_name,
        &token,
        &options.server,
    )
    .await?;

    say(&format!(
        "files: writing under {} and {}",
        options.roots.kubernetes.display(),
        options.roots.kubelet.display()
    ));
    let mut journal = Journal::open(&options.roots)?;
    write_first(&mut journal, options, &found, &token, &config)?;

    say(&format!(
        "certificate: asking for system:node:{}",
        options.node_name
    ));
    certify(options, &clients, &mut journal).await?;
    let text = kubeconfig::with_certificate(
        &found,
        &files::current_identity(&options.roots.pki(), "client"),
    );
    journal.file(&options.roots.kubeconfig(), text.as_bytes(), 0o600)?;
    journal.forget(&options.roots.bootstrap_kubeconfig())?;
    say(&format!(
        "joined: {} may start as {}",
        found.server, options.node_name
    ));
    Ok(Joined {
        node_name: options.node_name.clone(),
        server: found.server,
        kubeconfig: options.roots.kubeconfig(),
        config: options.roots.config(),
    })
}

fn parse(options: &JoinOptions) -> Result<(BootstrapToken, Vec<CaPin>), JoinError> {
    let token = BootstrapToken::parse(&options.token)?;
    let pins = options.ca_pins.iter().map(|p| CaPin::parse(p));
    let pins = pins.collect::<Result<Vec<_>, _>>()?;
    if pins.is_empty() && !options.unsafe_skip_ca_verification {
        return Err(JoinError::NoPin);
    }
    let port = options
        .server
        .rsplit_once(':')
        .map(|(_, p)| p.parse::<u16>());
    if !matches!(port, Some(Ok(_))) || options.server.contains('/') {
        return Err(JoinError::Server {
            server: options.server.clone(),
        });
    }
    Ok((token, pins))
}

fn with_token(found: &Cluster, token: &BootstrapToken) -> Result<Clients, JoinError> {
    let mut endpoint = found.endpoint()?;
    endpoint.token = Some(TokenSource::Fixed(token.bearer()));
    Ok(Clients::new(endpoint)?)
}

fn write_first(
    journal: &mut Journal,
    options: &JoinOptions,
    found: &Cluster,
    token: &BootstrapToken,
    config: &str,
) -> Result<(), JoinError> {
    let roots = &options.roots;
    journal.file(&roots.ca(), found.ca_pem.as_bytes(), 0o644)?;
    journal.dir(&roots.manifests())?;
    journal.dir(&roots.pki())?;
    journal.file(&roots.config(), config.as_bytes(), 0o644)?;
    let bootstrap = kubeconfig::with_token(found, &token.bearer());
    journal.file(&roots.bootstrap_kubeconfig(), bootstrap.as_bytes(), 0o600)
}

/// The key is kept until it has its certificate: whoever asks again after a
/// crash finds the request it has already made.
async fn certify(
    options: &JoinOptions,
    clients: &Clients,
    journal: &mut Journal,
) -> Result<(), JoinError> {
    let pki = options.roots.pki();
    let key_path = pki.join("kubelet-client.key.tmp");
    let key = match std::fs::read_to_string(&key_path) {
        Ok(key) => key,
        Err(_) => {
            let key = csr::new_key()?;
            journal.file(&key_path, key.as_bytes(), 0o600)?;
            key
        }
    };
    let request = csr::Request::new(&options.node_name, Purpose::Client, &key)?;
    let patience = Patience {
        limit: options.signing_limit,
        speak: options.progress.as_ref(),
    };
    let chain = csr::obtain(&clients.writes(), &request, patience).await?;
    files::store_identity(&pki, "client", &chain, &key)
        .map_err(|source| JoinError::Write { path: pki, source })?;
    journal.forget(&key_path)
}
