//! What each command does: options in, calls to the crates, an exit code out.

mod agent;
mod doctor;
mod exec;
mod image;
mod join;
pub mod kubelet;
mod look;
mod play;
mod runtime;
mod waterfall;

use crate::cli::{Cli, Command};
use crate::exit::{NO_PERMISSION, coded};
use crate::logs::Logs;

/// The agent mostly waits: two threads keep its memory small, and a blocking
/// pool does what blocks.
pub fn worker_threads() -> usize {
    2
}

/// Runs the command; the answer is the exit code. What it starts is in `logs`.
pub async fn run(cli: Cli, logs: Logs) -> anyhow::Result<u8> {
    match cli.command {
        Command::Agent(args) => agent::run(*args, logs).await,
        Command::Kubelet(args) => kubelet::run(args.flags, logs).await,
        Command::Join(args) => join::run(args).await,
        Command::Reset(args) => join::reset(&args),
        Command::Play(args) => play::run(args, &logs.starts).await,
        Command::Runtime(args) => runtime::run(args, logs.starts).await,
        Command::Image(command) => image::run(command).await,
        Command::Ps(args) => look::ps(&args).await,
        Command::Logs(args) => look::logs(&args).await,
        Command::Exec(args) => exec::run(args).await,
        Command::Waterfall(args) => waterfall::run(&args).await,
        Command::Doctor(args) => doctor::run(args).await,
    }
}

/// Namespaces, mounts and cgroups need root.
fn need_root(command: &str) -> anyhow::Result<()> {
    if rustix::process::geteuid().is_root() {
        return Ok(());
    }
    Err(coded(
        NO_PERMISSION,
        format!("`lighter {command}` needs root; run it with sudo"),
    ))
}
