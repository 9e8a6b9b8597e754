//! What systemd is told, where it is there: sd_notify(3); and the socket it may hold for us,
//! sd_listen_fds(3).

use anyhow::{Context, bail};
use kubelet::agent::Running;
use kubelet::pod::PodView as _;
use sd_notify::NotifyState;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixListener as Held;
use std::path::Path;
use tokio::net::UnixListener;

/// That the service has started.
pub fn ready() {
    say(NotifyState::Ready);
}

/// Twice in the time that the unit's `WatchdogSec` gives: that the node lives. An agent whose
/// pods can't be looked at any more falls silent, and systemd starts another.
pub fn keep_alive(running: &Running) {
    let Some(limit) = sd_notify::watchdog_enabled() else {
        return;
    };
    tracing::info!(?limit, "systemd's watchdog is told that the node lives");
    let engine = running.engine.clone();
    tokio::spawn(async move {
        loop {
            let pods = engine.pods().len();
            tracing::trace!(pods, "alive");
            say(NotifyState::Watchdog);
            tokio::time::sleep(limit / 2).await;
        }
    });
}

/// The socket that systemd has handed over. To be taken once, and before any process is made,
/// which would inherit it.
///
/// # Errors
/// When what was handed over is not open.
pub fn held() -> io::Result<Option<Held>> {
    let Some(fd) = sd_notify::listen_fds()?.next() else {
        return Ok(None);
    };
    Ok(Some(runtime::sys::inherited(fd)?.into()))
}

/// The CRI socket: that which systemd holds, else one of our own.
///
/// # Errors
/// When systemd holds another: nobody would answer on it.
pub async fn cri_socket(held: Option<Held>, path: &Path) -> anyhow::Result<UnixListener> {
    let Some(held) = held else {
        return Ok(cri_proto::bind(path).await?);
    };
    let address = held.local_addr().context("the socket of systemd")?;
    let other = address.as_pathname().unwrap_or(Path::new("(no path)"));
    if !same_file(other, path) {
        bail!(
            "systemd holds the socket {}, but CRI is to be served on {}: set ListenStream= of \
             lighter-runtime.socket to it",
            other.display(),
            path.display()
        );
    }
    held.set_nonblocking(true)
        .and_then(|()| UnixListener::from_std(held))
        .with_context(|| format!("listen on {}", path.display()))
}

/// Also by way of a link, as /var/run is.
fn same_file(one: &Path, other: &Path) -> bool {
    let id = |path: &Path| path.metadata().map(|m| (m.dev(), m.ino())).ok();
    id(one).is_some_and(|one| id(other) == Some(one))
}

/// Nobody may be there to hear it, and then nothing is lost.
fn say(state: NotifyState) {
    let _ = sd_notify::notify(&[state]);
}
