//! Wires the node: sources, pods, status, node, server.
//!
//! Nothing here waits for the API server but what needs it: static pods start
//! and pods run on while it is away.

mod assemble;
mod error;
mod giving;
mod host;
mod identity;
mod renewal;
mod serving;

use assemble::Parts;
pub use error::AgentError;

use crate::api::Clients;
use crate::config::{Config, Loaded};
use crate::defaults;
use crate::log_rotation::{self, LogRotation};
use crate::node::NodeHandle;
use crate::pod::Engine;
use crate::pod::image::provider::Providers;
use crate::server::tls::Serving;
use crate::server::{self, Server, Verbosity};
use crate::trace::Tracer;
use cri_proto::Cri;
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// Updates on their way from sources to pods.
const UPDATES_AHEAD: usize = 256;

/// What an agent is told beside its configuration.
#[derive(Debug, Clone)]
pub struct AgentOptions {
    /// The node's name; [`crate::node::default_name`] when nobody chose one.
    pub node_name: String,
    /// Settings, from [`crate::config::load`].
    pub config: Loaded,
    /// The kubeconfig to use, and to write after a bootstrap.
    pub kubeconfig: PathBuf,
    /// With a bootstrap token, for when there is no kubeconfig yet.
    pub bootstrap_kubeconfig: Option<PathBuf>,
    /// Addresses to report; empty: that of the default route.
    pub node_ips: Vec<IpAddr>,
    /// Labels to register with.
    pub node_labels: BTreeMap<String, String>,
    /// `/var/lib/kubelet`.
    pub root_dir: PathBuf,
    /// Client and serving certificates; `None`: `pki` under the root.
    pub cert_dir: Option<PathBuf>,
    /// Programs that know credentials of registries.
    pub credential_providers: Arc<Providers>,
    /// `/var/log/containers`; empty: no links.
    pub container_links: PathBuf,
    /// `/var/log`, shown under `/logs/`.
    pub system_logs: PathBuf,
    /// The runtime does not rotate logs by itself.
    pub rotate_logs: bool,
    /// The cgroup that the runtime counts names from; empty: the host's root.
    pub runtime_cgroup: String,
    /// How much this process says, for `/debug/flags/v`.
    pub verbosity: Option<Arc<dyn Verbosity>>,
}

impl AgentOptions {
    /// With the usual folders.
    pub fn new(node_name: &str, config: Loaded) -> AgentOptions {
        AgentOptions {
            node_name: node_name.to_owned(),
            config,
            kubeconfig: "/etc/kubernetes/kubelet.conf".into(),
            bootstrap_kubeconfig: Some("/etc/kubernetes/bootstrap-kubelet.conf".into()),
            node_ips: Vec::new(),
            node_labels: BTreeMap::new(),
            root_dir: "/var/lib/kubelet".into(),
            cert_dir: None,
            credential_providers: Arc::default(),
            container_links: "/var/log/containers".into(),
            system_logs: "/var/log".into(),
            rotate_logs: false,
            runtime_cgroup: String::new(),
            verbosity: None,
        }
    }

    fn pki(&self) -> PathBuf {
        let default = || self.root_dir.join("pki");
        self.cert_dir.clone().unwrap_or_else(default)
    }
}

/// What others may ask a running agent.
#[derive(Clone)]
pub struct Running {
    /// The pods.
    pub engine: Arc<Engine>,
    /// The Node.
    pub node: NodeHandle,
}

/// Runs the node until `shutdown`; pods go on running when it returns.
/// `started` is called once, when everything runs (the Node may not be Ready
/// yet, and the API server may be away).
///
/// # Errors
/// What keeps a node from starting at all: see [`AgentError`].
pub async fn run(
    options: AgentOptions,
    cri: Arc<dyn Cri>,
    started: impl FnOnce(&Running),
    shutdown: CancellationToken,
) -> Result<(), AgentError> {
    speak(&options.config);
    host::check(&options.config.config)?;
    host::make_dirs(&options.root_dir)?;
    let (tracer, exporter) =
        Tracer::new(options.config.config.tracing.as_ref(), &options.node_name);
    let clients = identity::clients(&options, &tracer)?;
    let node = assemble::facts(&options, &clients, &cri).await;
    let mut parts = assemble::parts(&options, &clients, (&cri, tracer), node)?;
    host::tell_of_swap(&options.node_name, parts.events.as_ref());
    parts.cgroups.start().await?;
    let serving = serving::of(&options, &parts.addresses.now())?;
    let (updates, wanted) = mpsc::channel(UPDATES_AHEAD);

    let config = &options.config.config;
    let mut tasks = JoinSet::new();
    serve(&mut tasks, config, (&parts, serving.clone()), &shutdown).await?;
    keep_certificates(&mut tasks, &options, &clients, (&parts, serving), &shutdown);
    if options.rotate_logs {
        let limits = log_rotation::Limits {
            max_size: config.container_log_max_size,
            max_files: config.container_log_max_files,
        };
        let rotation = LogRotation::new(cri.clone(), limits);
        tasks.spawn(rotation.run(shutdown.clone()));
    }
    tasks.spawn(parts.allocations.devices.clone().serve(shutdown.clone()));
    let told = parts.pod_resources;
    tasks.spawn(told.serve(options.root_dir.clone(), shutdown.clone()));
    tasks.spawn(parts.pinned.run(shutdown.clone()));
    tasks.spawn(parts.plugins.run(shutdown.clone()));
    let drivers = parts.drivers;
    let token = shutdown.clone();
    tasks.spawn(async move {
        tokio::select! {
            () = token.cancelled() => {}
            () = drivers.wipe() => {}
        }
    });
    tasks.spawn(parts.keeper.run(shutdown.clone()));
    tasks.spawn(parts.evictor.run(parts.node.shortages(), shutdown.clone()));
    tasks.spawn(parts.images.run(shutdown.clone()));
    tasks.spawn(parts.cgroups.run(shutdown.clone()));
    tasks.spawn(parts.oom.run(shutdown.clone()));
    tasks.spawn(parts.graceful.run(shutdown.clone()));
    if let Some(exporter) = exporter {
        tasks.spawn(exporter.run(shutdown.clone()));
    }
    tasks.spawn(parts.mirrors.clone().run(shutdown.clone()));
    if let Some(sources) = parts.static_pods {
        tasks.spawn(sources.run(updates.clone(), shutdown.clone()));
    }
    let mut node = parts.node.clone();
    let api_pods = parts.api_pods;
    let token = shutdown.clone();
    tasks.spawn(async move {
        // Admission looks at the Node's labels: it must be known before its pods.
        tokio::select! {
            () = token.cancelled() => {}
            _ = node.known() => api_pods.run(updates, token.clone()).await,
        }
    });
    tasks.spawn(parts.engine.clone().run(wanted, shutdown.clone()));
    started(&Running {
        engine: parts.engine,
        node: parts.node,
    });
    shutdown.cancelled().await;
    let ended = async { while tasks.join_next().await.is_some() {} };
    if tokio::time::timeout(defaults::SHUTDOWN_GRACE, ended)
        .await
        .is_err()
    {
        tracing::warn!("some tasks did not end in time; they are dropped");
    }
    Ok(())
}

/// The kubelet API and healthz, as far as they are wanted.
async fn serve(
    tasks: &mut JoinSet<()>,
    config: &Config,
    (parts, serving): (&Parts, Arc<Serving>),
    shutdown: &CancellationToken,
) -> Result<(), AgentError> {
    if config.enable_server {
        let address = SocketAddr::new(config.address, config.port);
        let server = Server::bind(address, serving, parts.server.clone()).await?;
        tracing::info!(%address, "kubelet API is served");
        tasks.spawn(server.run(shutdown.clone()));
    }
    if let Some(address) = config.healthz {
        let healthz = server::serve_healthz(address, shutdown.clone());
        tasks.spawn(async move {
            if let Err(e) = healthz.await {
                tracing::warn!(
                    why = crate::join::report::chain(&e),
                    "healthz is not served"
                );
            }
        });
    }
    Ok(())
}

/// Has certificates of the cluster replaced before they expire.
fn keep_certificates(
    tasks: &mut JoinSet<()>,
    options: &AgentOptions,
    clients: &Clients,
    (parts, serving): (&Parts, Arc<Serving>),
    shutdown: &CancellationToken,
) {
    let config = &options.config.config;
    if config.rotate_certificates || clients.endpoint().identity.is_missing() {
        let rotation = identity::Rotation::new(options, clients, parts.server.clone());
        tasks.spawn(rotation.run(shutdown.clone()));
    }
    if config.server_tls_bootstrap {
        let wanted = serving::Wanted::new(options, clients, parts, serving);
        tasks.spawn(wanted.run(shutdown.clone()));
    }
}

fn speak(loaded: &Loaded) {
    for warning in &loaded.warnings {
        tracing::warn!("{warning}");
    }
    if !loaded.not_acted_on.is_empty() {
        let fields = loaded.not_acted_on.join(", ");
        tracing::warn!(fields, "configuration fields without effect on this node");
    }
}
