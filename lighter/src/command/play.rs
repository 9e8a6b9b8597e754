//! `lighter play`: pods of a file, no cluster.

use super::runtime::{default_socket, settings};
use crate::cli::PlayArgs;
use crate::signals;
use crate::waterfall::{Starts, draw};
use anyhow::Context;
use cri_proto::Cri;
use kubelet::play::{Outcome, PlayOptions};
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

/// Exit code of a play in which a pod failed.
const POD_FAILED: u8 = 1;

/// Plays on the runtime that serves the socket, or, when there is none, on one
/// of its own for as long as it runs; the containers stay either way.
pub async fn run(args: PlayArgs, starts: &Starts) -> anyhow::Result<u8> {
    super::need_root("play")?;
    let mut config = settings(&args.options)?;
    config.pod_cidr = config.pod_cidr.or_else(|| Some(args.pod_cidr.clone()));
    let socket = default_socket(&config);
    let down = signals::shutdown()?;
    let options = options(&args, &config);
    let outcome = match cri_proto::connect(&socket.to_string_lossy()).await {
        Ok(cri) => kubelet::play::run(options, cri, down).await?,
        Err(_) => on_own_runtime(config, options, down).await?,
    };
    if args.waterfall {
        for start in starts.list() {
            eprint!("{}", draw(&start));
        }
    }
    Ok(if outcome == Outcome::Failed {
        POD_FAILED
    } else {
        0
    })
}

async fn on_own_runtime(
    config: ::runtime::Config,
    options: PlayOptions,
    down: CancellationToken,
) -> anyhow::Result<Outcome> {
    let socket = default_socket(&config);
    let runtime = ::runtime::Runtime::open(config)
        .await
        .context("start the runtime")?;
    let cri: Arc<dyn Cri> = runtime.clone();
    let listener = cri_proto::bind(&socket).await?;
    let served = CancellationToken::new();
    let server = tokio::spawn(cri_proto::serve(
        cri.clone(),
        listener,
        served.clone().cancelled_owned(),
    ));
    let outcome = kubelet::play::run(options, cri, down).await;
    served.cancel();
    server.await.context("the CRI server")??;
    // Nobody answers there any more; a socket left behind would say otherwise.
    let _ = std::fs::remove_file(&socket);
    runtime.shutdown().await;
    Ok(outcome?)
}

fn options(args: &PlayArgs, config: &::runtime::Config) -> PlayOptions {
    PlayOptions {
        file: args.file.clone(),
        down: args.down,
        follow: !args.detach && !args.wait,
        wait: args.wait,
        kubelet_root: args.root_dir.clone(),
        pod_logs_root: args.pod_logs_dir.clone(),
        resolv_conf: "/etc/resolv.conf".into(),
        cgroup_root: String::new(),
        cgroup_driver: match config.cgroup_driver {
            ::runtime::config::CgroupDriver::Cgroupfs => kubelet::pod::CgroupDriver::Cgroupfs,
            ::runtime::config::CgroupDriver::Systemd => kubelet::pod::CgroupDriver::Systemd,
        },
    }
}
