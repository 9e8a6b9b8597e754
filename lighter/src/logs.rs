//! What the process says of itself, on stderr.

use crate::cli::{Cli, Command, LogFormat};
use crate::waterfall::{Recorder, Starts};
use std::sync::Arc;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::prelude::*;

/// The netlink connections report their own end at shutdown as an error.
fn quiet() -> tracing_subscriber::filter::Directive {
    "netlink_proto=off"
        .parse()
        .unwrap_or_else(|_| tracing::Level::ERROR.into())
}

/// Log of a daemon at `info`, of a command for people at `warn`; `-v` and
/// `LIGHTER_LOG` (as tracing's EnvFilter) raise it. What starts pods is recorded
/// beside, in the answer.
pub fn init(cli: &Cli) -> Arc<Starts> {
    let daemon = matches!(
        cli.command,
        Command::Agent(_) | Command::Kubelet(_) | Command::Runtime(_)
    );
    let level = match (daemon, cli.verbose) {
        (false, 0) => "warn",
        (true, 0) | (false, 1) => "info",
        (_, 1 | 2) => "debug,hyper=info,h2=info,rustls=info,tower=info,kube=info",
        _ => "trace,hyper=info,h2=info,rustls=info",
    };
    let filter = EnvFilter::try_from_env("LIGHTER_LOG")
        .unwrap_or_else(|_| EnvFilter::new(level).add_directive(quiet()));
    let layer = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        .with_target(false);
    let starts = Arc::new(Starts::default());
    let recorder = runs_pods(&cli.command)
        .then(|| Recorder::new(starts.clone()).with_filter(filter_fn(Recorder::wants)));
    let registry = tracing_subscriber::registry().with(recorder);
    match cli.log_format {
        LogFormat::Text => registry
            .with(layer.with_ansi(false).with_filter(filter))
            .init(),
        LogFormat::Json => registry.with(layer.json().with_filter(filter)).init(),
    }
    starts
}

fn runs_pods(command: &Command) -> bool {
    matches!(
        command,
        Command::Agent(_) | Command::Kubelet(_) | Command::Runtime(_) | Command::Play(_)
    )
}
