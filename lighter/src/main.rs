//! `lighter`: a Kubernetes node in one binary.
//!
//! Nothing is decided here. The first lines hand over to the process kinds that
//! must run before any thread exists; then arguments, log, runtime, command.

mod cli;
mod command;
mod config;
mod control;
mod doctor;
mod exit;
mod logs;
mod signals;
mod systemd;
mod waterfall;

use clap::Parser;
use std::process::ExitCode;

fn main() -> ExitCode {
    // Spawner and CNI executables are this same file under other names; they
    // are single-threaded and must not meet tokio.
    runtime::process::dispatch();
    if let Some(code) = cni::plugin::dispatch(&std::env::args_os().next().unwrap_or_default()) {
        return code;
    }

    let cli = match cli::Cli::for_kubelet().map_or_else(cli::Cli::try_parse, Ok) {
        Ok(cli) => cli,
        Err(error) => return exit::clap(&error),
    };
    let logs = logs::init(&cli);
    kubelet::panics::install();
    if rustls::crypto::ring::default_provider()
        .install_default()
        .is_err()
    {
        return exit::software("a TLS provider was installed before ring");
    }
    let tokio = match tokio::runtime::Builder::new_multi_thread()
        .worker_threads(command::worker_threads())
        .enable_all()
        .build()
    {
        Ok(tokio) => tokio,
        Err(error) => return exit::software(&format!("start the async runtime: {error}")),
    };
    match tokio.block_on(command::run(cli, logs)) {
        Ok(code) => ExitCode::from(code),
        Err(error) => exit::failure(&error),
    }
}
