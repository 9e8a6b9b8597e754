//! What systemd is told, where it is there: sd_notify(3).

use kubelet::agent::Running;
use kubelet::pod::PodView as _;
use sd_notify::NotifyState;

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

/// Nobody may be there to hear it, and then nothing is lost.
fn say(state: NotifyState) {
    let _ = sd_notify::notify(&[state]);
}
