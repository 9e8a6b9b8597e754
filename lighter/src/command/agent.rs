//! `lighter agent`: the runtime and the kubelet in one process.

use super::runtime::{default_socket, settings};
use crate::cli::AgentArgs;
use crate::control::{self, Control};
use crate::exit::{CONFIG, USAGE, coded};
use crate::logs::Logs;
use crate::signals;
use crate::systemd;
use crate::waterfall::Starts;
use anyhow::Context;
use cri_proto::Cri;
use kubelet::agent::AgentOptions;
use kubelet::pod::image::provider::Providers;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

/// Runs until SIGTERM; containers stay.
pub async fn run(args: AgentArgs, logs: Logs) -> anyhow::Result<u8> {
    super::need_root("agent")?;
    let file = args
        .node
        .config
        .exists()
        .then_some(args.node.config.as_path());
    let mut loaded = kubelet::config::load(file, None)
        .map_err(|e| coded(CONFIG, format!("{:#}", anyhow::Error::new(e))))?;
    if let Some(id) = &args.provider_id {
        loaded.config.provider_id = Some(id.clone());
    }
    start(args, loaded, logs).await
}

/// [`run`] with a configuration that is read already.
pub async fn start(
    mut args: AgentArgs,
    mut loaded: kubelet::config::Loaded,
    logs: Logs,
) -> anyhow::Result<u8> {
    let config = settings(&args.options)?;
    args.container_runtime_endpoint = foreign(&args, &loaded, &config);
    // Ours counts names from the root that it was told; others count from the host's.
    if args.container_runtime_endpoint.is_some() && !config.cgroup_root.is_empty() {
        loaded.config.cgroup_root = Some(config.cgroup_root.clone());
    }
    let down = signals::shutdown()?;
    let mut options = options(&args, loaded)?;
    options.verbosity = Some(logs.level);
    let starts = logs.starts;
    match &args.container_runtime_endpoint {
        Some(endpoint) => {
            drop(systemd::held()?);
            let cri = cri_proto::connect(endpoint).await?;
            let images = None;
            let control = control::serve(&control::socket(&config), Control { starts, images })?;
            kubelet::agent::run(options, cri, ready, down).await?;
            control.abort();
        }
        None => {
            options.runtime_cgroup.clone_from(&config.cgroup_root);
            built_in(&args, config, starts, options, down).await?;
        }
    }
    Ok(0)
}

/// Somebody else's runtime, by flag or file; our own socket means the one in this process.
fn foreign(
    args: &AgentArgs,
    loaded: &kubelet::config::Loaded,
    config: &::runtime::Config,
) -> Option<String> {
    let file = &loaded.config.container_runtime_endpoint;
    let endpoint = args.container_runtime_endpoint.as_ref().or(file.as_ref())?;
    let path = endpoint.strip_prefix("unix://").unwrap_or(endpoint);
    let own = args
        .listen
        .clone()
        .unwrap_or_else(|| default_socket(config));
    (!path.is_empty() && Path::new(path) != own).then(|| endpoint.clone())
}

/// The runtime in this process, served on its socket as well.
async fn built_in(
    args: &AgentArgs,
    mut config: ::runtime::Config,
    starts: Arc<Starts>,
    options: AgentOptions,
    down: CancellationToken,
) -> anyhow::Result<()> {
    let held = systemd::held()?;
    config.log_max_size = Some(options.config.config.container_log_max_size);
    config.log_max_files = options.config.config.container_log_max_files;
    config.seccomp_dir = args.node.root_dir.join("seccomp");
    let socket = args
        .listen
        .clone()
        .unwrap_or_else(|| default_socket(&config));
    let control_socket = control::socket(&config);
    let runtime = ::runtime::Runtime::open(config)
        .await
        .context("start the runtime")?;
    let listener = systemd::cri_socket(held, &socket).await?;
    let cri: Arc<dyn Cri> = runtime.clone();
    let images = Some(runtime.images().clone());
    let control = control::serve(&control_socket, Control { starts, images })?;
    let server = tokio::spawn(cri_proto::serve(
        cri.clone(),
        listener,
        down.clone().cancelled_owned(),
    ));
    let kubelet = kubelet::agent::run(options, cri, ready, down.clone()).await;
    down.cancel();
    control.abort();
    server.await.context("the CRI server")??;
    runtime.shutdown().await;
    kubelet.map_err(Into::into)
}

fn ready(running: &kubelet::agent::Running) {
    systemd::ready();
    systemd::keep_alive(running);
}

fn options(args: &AgentArgs, loaded: kubelet::config::Loaded) -> anyhow::Result<AgentOptions> {
    let node_name = match &args.node.hostname_override {
        Some(name) => name.clone(),
        None => kubelet::node::default_name()?,
    };
    Ok(AgentOptions {
        kubeconfig: args.node.kubeconfig.clone(),
        bootstrap_kubeconfig: existing(&args.node.bootstrap_kubeconfig),
        node_ips: args.node_ip.clone(),
        cert_dir: args.node.cert_dir.clone(),
        credential_providers: providers(args)?,
        node_labels: labels(&args.node_labels)?,
        root_dir: args.node.root_dir.clone(),
        rotate_logs: args.container_runtime_endpoint.is_some(),
        ..AgentOptions::new(&node_name, loaded)
    })
}

fn providers(args: &AgentArgs) -> anyhow::Result<Arc<Providers>> {
    let config = &args.image_credential_provider_config;
    let programs = &args.image_credential_provider_bin_dir;
    match (config, programs) {
        (Some(config), Some(programs)) => Providers::load(config, programs)
            .map(Arc::new)
            .map_err(|e| coded(CONFIG, format!("{:#}", anyhow::Error::new(e)))),
        (None, None) => Ok(Arc::default()),
        _ => Err(coded(
            USAGE,
            "--image-credential-provider-config and --image-credential-provider-bin-dir: one is \
             given without the other",
        )),
    }
}

fn existing(path: &Path) -> Option<std::path::PathBuf> {
    path.exists().then(|| path.to_owned())
}

fn labels(pairs: &[String]) -> anyhow::Result<BTreeMap<String, String>> {
    let split = |pair: &String| match pair.split_once('=') {
        Some((key, value)) => Ok((key.to_owned(), value.to_owned())),
        None => Err(coded(
            USAGE,
            format!("--node-labels: {pair:?} is not KEY=VALUE"),
        )),
    };
    pairs.iter().filter(|p| !p.is_empty()).map(split).collect()
}
