//! The machine goes down, and pods end in order before it does.
//!
//! logind is asked to wait ([`logind`]); when it says that a shutdown begins, the Node is not
//! Ready, pods that come are refused, and those that run end by priority, as [`plan`] has it.
//! When the last has ended, and the API server has been told, the lock is given back. Nothing of this happens unless the
//! configuration gives pods time (`shutdownGracePeriod…`).

mod logind;
mod plan;
mod record;

use crate::config::ShutdownGrace;
use crate::event::{EventType, Recorder};
use crate::eviction::node as about_node;
use crate::join::report::chain;
use crate::metrics::Metrics;
use crate::pod::{Engine, Known, PodView as _};
use crate::status::is_over;
use futures::StreamExt;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use logind::{Logind, LogindError};
use plan::Group;
use record::Times;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// Between attempts at a bus or a logind that is not there.
const RETRY: [u64; 4] = [1, 5, 30, 60];
const POLL: Duration = Duration::from_millis(50);
/// Ours: how long the shutdown waits for the API server to take the last status of each pod. It may
/// be going down with this machine.
const LAST_WORDS: Duration = Duration::from_secs(3);

/// What it is told once.
pub struct ShutdownOptions {
    pub node_name: String,
    /// `/var/lib/kubelet`.
    pub root_dir: PathBuf,
    /// The lowest priority first; empty: nobody waits for pods.
    pub periods: Vec<ShutdownGrace>,
}

/// Waits for shutdowns.
pub struct Shutdown {
    engine: Arc<Engine>,
    events: Arc<dyn Recorder>,
    metrics: Metrics,
    options: ShutdownOptions,
    going_down: watch::Sender<bool>,
}

impl Shutdown {
    /// Does nothing before [`Shutdown::run`]; `going_down` is told of what logind says.
    pub fn new(
        engine: Arc<Engine>,
        events: Arc<dyn Recorder>,
        metrics: Metrics,
        options: ShutdownOptions,
        going_down: watch::Sender<bool>,
    ) -> Shutdown {
        let times = record::load(&options.root_dir);
        metrics.shutdown_times(times.start_time, times.end_time);
        Shutdown {
            engine,
            events,
            metrics,
            options,
            going_down,
        }
    }

    /// Until `shutdown`, which is the agent's own end and not the machine's.
    pub async fn run(self, shutdown: CancellationToken) {
        if self.options.periods.is_empty() {
            return;
        }
        tokio::select! {
            () = shutdown.cancelled() => {}
            () = self.follow() => {}
        }
    }

    async fn follow(&self) {
        let mut attempt = 0;
        loop {
            let (heard, Err(error)) = self.watch().await;
            attempt = if heard { 0 } else { attempt + 1 };
            let wait = RETRY[attempt.min(RETRY.len() - 1)];
            let (why, again) = (chain(&error), format!("{wait}s"));
            tracing::warn!(why, again, "a shutdown would not wait for pods");
            tokio::time::sleep(Duration::from_secs(wait)).await;
        }
    }

    /// Until the connection breaks; whether there was one.
    async fn watch(&self) -> (bool, Result<std::convert::Infallible, LogindError>) {
        let begun = async {
            let logind = Logind::connect().await?;
            logind.allow(plan::requested(&self.options.periods)).await?;
            // Listening comes first: what begins before the lock is held is heard as well.
            let shutdowns = logind.shutdowns().await?;
            let lock = logind.inhibit().await?;
            let now = logind.is_going_down().await?;
            Ok((logind, shutdowns, lock, now))
        };
        let (logind, shutdowns, lock, now) = match begun.await {
            Ok(begun) => begun,
            Err(error) => return (false, Err(error)),
        };
        tracing::info!("shutdowns of this machine wait for pods");
        let mut lock = Some(lock);
        let first = futures::stream::iter(now.then_some(true));
        let mut shutdowns = first.chain(shutdowns);
        while let Some(down) = shutdowns.next().await {
            self.tell(down);
            if down {
                self.end_pods().await;
                lock = None;
            } else {
                // The new one before the old one goes.
                match logind.inhibit().await {
                    Ok(new) => lock = Some(new),
                    Err(error) => return (true, Err(error)),
                }
            }
        }
        drop(lock);
        (true, Err(LogindError::Closed))
    }

    fn tell(&self, down: bool) {
        let message = match down {
            true => "Shutdown manager detected shutdown event",
            false => "Shutdown manager detected shutdown cancellation",
        };
        tracing::info!("{message}");
        let node = about_node(&self.options.node_name);
        self.events
            .record(&node, EventType::Normal, "NodeShutdown", message);
        self.going_down.send_replace(down);
    }

    async fn end_pods(&self) {
        let mut times = Times {
            start_time: Some(Timestamp::now()),
            end_time: None,
        };
        self.keep(times);
        let alive = |k: &Known| !is_over(&k.status);
        let pods = self.engine.pods().into_iter().filter(alive);
        let pods: Vec<_> = pods.map(|k| k.pod).collect();
        for group in plan::groups(&self.options.periods, &pods) {
            self.end(group).await;
        }
        times.end_time = Some(Timestamp::now());
        self.keep(times);
        self.tell_ends(&pods).await;
        tracing::info!("pods have ended; the shutdown goes on");
    }

    /// Those that have not ended have nothing to tell yet.
    async fn tell_ends(&self, pods: &[Arc<Pod>]) {
        let uids: Vec<_> = pods
            .iter()
            .filter_map(|p| p.metadata.uid.as_ref())
            .collect();
        let untold = || -> Vec<String> {
            let over = self
                .engine
                .pods()
                .into_iter()
                .filter(|k| is_over(&k.status));
            let over = over.filter_map(|k| k.pod.metadata.uid.clone());
            over.filter(|uid| uids.contains(&uid) && self.engine.owes(uid))
                .collect()
        };
        let told = async {
            while !untold().is_empty() {
                tokio::time::sleep(POLL).await;
            }
        };
        if tokio::time::timeout(LAST_WORDS, told).await.is_err() {
            tracing::warn!(pods = ?untold(), "the API server did not take their last status in time");
        }
    }

    async fn end(&self, group: Group) {
        tracing::info!(pods = group.pods.len(), limit = ?group.limit, "ending pods");
        let mut left: Vec<String> = group.pods.iter().map(|(uid, _)| uid.clone()).collect();
        for (uid, verdict) in group.pods {
            self.engine.end(&uid, verdict);
        }
        let ended = async {
            while self.any_left(&mut left) {
                tokio::time::sleep(POLL).await;
            }
        };
        if tokio::time::timeout(group.limit, ended).await.is_err() {
            tracing::warn!(pods = ?left, "not ended in time; the others go on");
        }
    }

    /// Volumes are part of it: a CSI driver in a later group has to let go of them.
    fn any_left(&self, left: &mut Vec<String>) -> bool {
        let pods = self.engine.pods();
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let dirs = self.options.root_dir.join("pods");
        left.retain(|uid| {
            let is_it = |k: &&Known| k.pod.metadata.uid.as_ref() == Some(uid);
            let runs = pods.iter().find(is_it).is_some_and(|k| !is_over(&k.status));
            let dir = format!(" {}/", dirs.join(uid).display());
            runs || mounts.contains(&dir)
        });
        !left.is_empty()
    }

    fn keep(&self, times: Times) {
        self.metrics
            .shutdown_times(times.start_time, times.end_time);
        if let Err(error) = record::store(&self.options.root_dir, times) {
            tracing::warn!(%error, "the times of the shutdown are not kept");
        }
    }
}
