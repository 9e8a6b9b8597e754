//! `lighter runtime`, and opening the runtime for the other commands.

use crate::cli::{RuntimeArgs, RuntimeOptions};
use crate::control::{self, Control};
use crate::waterfall::Starts;
use crate::{config, signals, systemd};
use anyhow::Context;
use cri_proto::Cri;
use std::path::PathBuf;
use std::sync::Arc;

/// File over defaults, options over the file.
pub fn settings(options: &RuntimeOptions) -> anyhow::Result<::runtime::Config> {
    let mut config = config::runtime(options.runtime_config.as_deref())?;
    if let Some(root) = &options.root {
        config.root.clone_from(root);
    }
    if let Some(state) = &options.state {
        config.state.clone_from(state);
    }
    if let Some(cgroup) = &options.cgroup_root {
        config.cgroup_root.clone_from(cgroup);
    }
    Ok(config)
}

/// The socket in the state directory.
pub fn default_socket(config: &::runtime::Config) -> PathBuf {
    config.state.join("cri.sock")
}

/// Serves the CRI socket until SIGTERM.
pub async fn run(args: RuntimeArgs, starts: Arc<Starts>) -> anyhow::Result<u8> {
    super::need_root("runtime")?;
    let held = systemd::held()?;
    let mut config = settings(&args.options)?;
    config.pod_cidr = args.pod_cidr.or(config.pod_cidr);
    let socket = args.listen.unwrap_or_else(|| default_socket(&config));
    let control_socket = control::socket(&config);
    let runtime = ::runtime::Runtime::open(config)
        .await
        .context("start the runtime")?;
    let listener = systemd::cri_socket(held, &socket).await?;
    let images = Some(runtime.images().clone());
    let control = control::serve(&control_socket, Control { starts, images })?;
    tracing::info!(socket = %socket.display(), "serving CRI v1");
    systemd::ready();
    let down = signals::shutdown()?;
    let cri: Arc<dyn Cri> = runtime.clone();
    cri_proto::serve(cri, listener, down.cancelled_owned()).await?;
    control.abort();
    runtime.shutdown().await;
    Ok(0)
}
