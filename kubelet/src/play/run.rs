//! Runs a manifest, or removes what an earlier run made.

use super::terminal::{Stages, Terminal};
use super::{Manifest, ManifestError, existing, host, load, logs, progress::Stage};
use crate::allocation::Allocations;
use crate::metrics::Metrics;
use crate::objects::FileObjects;
use crate::pod::{CgroupDriver, Deps, Engine, NodeFacts, Options};
use crate::source::{PodUpdate, Source};
use crate::volume::dns::DnsSettings;
use crate::volume::{Volumes, VolumesConfig};
use cri_proto::{Cri, Status};
use k8s_openapi::api::core::v1::Pod;
use std::path::PathBuf;
use std::sync::Arc;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

/// What to play, and how.
#[derive(Debug, Clone)]
pub struct PlayOptions {
    /// The manifest; `-` for standard input.
    pub file: PathBuf,
    /// Remove what a play of this file made, instead of playing it.
    pub down: bool,
    /// Follow logs until interrupted or until every pod is over.
    pub follow: bool,
    /// Without logs: wait until every pod is over, not only ready.
    pub wait: bool,
    /// Usually /var/lib/kubelet.
    pub kubelet_root: PathBuf,
    /// Usually /var/log/pods.
    pub pod_logs_root: PathBuf,
    /// Usually /etc/resolv.conf.
    pub resolv_conf: PathBuf,
    /// Parent of `kubepods`; usually empty.
    pub cgroup_root: String,
    /// As the runtime's.
    pub cgroup_driver: CgroupDriver,
}

/// How it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Every pod is ready and runs on.
    Ready,
    /// Every pod ended well.
    Succeeded,
    /// At least one pod failed.
    Failed,
    /// The person had enough; pods run on.
    Interrupted,
    /// All of it is gone.
    Removed,
}

/// Why there was nothing to play.
#[derive(Debug, thiserror::Error)]
pub enum PlayError {
    /// The file.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// The runtime.
    #[error("ask the runtime for the pods of an earlier play: {}", .0.message())]
    Runtime(Status),
}

/// Plays a file. Returns when the options say so, or on `shutdown`; pods that
/// run then run on, but nobody restarts them.
///
/// # Errors
/// A file that can't be played, a runtime that does not answer. What goes wrong
/// with a pod is said on the terminal and tried again.
pub async fn run(
    options: PlayOptions,
    cri: Arc<dyn Cri>,
    shutdown: CancellationToken,
) -> Result<Outcome, PlayError> {
    let mut manifest = load(&options.file)?;
    let before = existing::of_play(&cri, &manifest.id)
        .await
        .map_err(PlayError::Runtime)?;
    let terminal = Terminal::new();
    if !options.down {
        manifest
            .warnings
            .iter()
            .for_each(|w| terminal.say("", &format!("warning: {w}")));
    }
    let pods: Vec<Arc<Pod>> = std::mem::take(&mut manifest.pods)
        .into_iter()
        .map(Arc::new)
        .collect();
    let stop = shutdown.child_token();
    let play = Play {
        updates: start(&options, &manifest, cri, &terminal, &stop),
        stages: terminal.stages(),
        terminal,
        options,
    };
    let wanted = |uid: &String| pods.iter().any(|p| p.metadata.uid.as_ref() == Some(uid));
    let outcome = if play.options.down {
        let known = before.into_iter().map(|(uid, recalled)| {
            let known = pods.iter().find(|p| p.metadata.uid.as_ref() == Some(&uid));
            known.map_or(recalled, |p| Pod::clone(p))
        });
        play.remove(known.collect(), &shutdown).await
    } else {
        let stale = before
            .into_iter()
            .filter(|(uid, _)| !wanted(uid))
            .map(|(_, pod)| pod);
        match play.remove(stale.collect(), &shutdown).await {
            Outcome::Interrupted => Outcome::Interrupted,
            _ => play.up(&pods, &shutdown).await,
        }
    };
    stop.cancel();
    Ok(outcome)
}

struct Play {
    updates: mpsc::Sender<PodUpdate>,
    stages: watch::Receiver<Stages>,
    terminal: Arc<Terminal>,
    options: PlayOptions,
}

impl Play {
    async fn up(&self, pods: &[Arc<Pod>], shutdown: &CancellationToken) -> Outcome {
        for pod in pods {
            // The engine ends only on shutdown, which is looked at below.
            let _ = self
                .updates
                .send(PodUpdate::Set(Source::Play, pod.clone()))
                .await;
        }
        let over = CancellationToken::new();
        let followers: Vec<_> = pods
            .iter()
            .filter(|_| self.options.follow)
            .map(|pod| {
                let (pod, root) = (pod.clone(), self.options.pod_logs_root.clone());
                let over = over.clone();
                tokio::spawn(async move { logs::follow(&pod, &root, over).await })
            })
            .collect();
        let to_the_end = self.options.follow || self.options.wait;
        let outcome = self
            .until(pods, shutdown, |stages| verdict(stages, to_the_end))
            .await;
        over.cancel();
        futures::future::join_all(followers).await;
        if matches!(outcome, Outcome::Interrupted | Outcome::Ready) {
            let file = self.options.file.display();
            self.terminal.say(
                "",
                &format!("pods run on; remove them with `lighter play --down {file}`"),
            );
        }
        outcome
    }

    async fn remove(&self, pods: Vec<Pod>, shutdown: &CancellationToken) -> Outcome {
        let pods: Vec<Arc<Pod>> = pods
            .into_iter()
            .map(existing::deleted)
            .map(Arc::new)
            .collect();
        for pod in &pods {
            let _ = self
                .updates
                .send(PodUpdate::Set(Source::Play, pod.clone()))
                .await;
        }
        let gone = |stages: &[Option<Option<Stage>>]| {
            let all = stages.iter().all(|s| *s == Some(None));
            all.then_some(Outcome::Removed)
        };
        self.until(&pods, shutdown, gone).await
    }

    /// Waits for a verdict over the stages of these pods.
    async fn until(
        &self,
        pods: &[Arc<Pod>],
        shutdown: &CancellationToken,
        verdict: impl Fn(&[Option<Option<Stage>>]) -> Option<Outcome>,
    ) -> Outcome {
        let mut stages = self.stages.clone();
        loop {
            let now: Vec<_> = {
                let seen = stages.borrow_and_update();
                let uids = pods
                    .iter()
                    .map(|p| p.metadata.uid.clone().unwrap_or_default());
                uids.map(|uid| seen.get(&uid).copied()).collect()
            };
            if let Some(outcome) = verdict(&now) {
                return outcome;
            }
            tokio::select! {
                () = shutdown.cancelled() => return Outcome::Interrupted,
                changed = stages.changed() => if changed.is_err() {
                    return Outcome::Interrupted;
                },
            }
        }
    }
}

/// `None` while there is something to wait for.
fn verdict(stages: &[Option<Option<Stage>>], to_the_end: bool) -> Option<Outcome> {
    let stages: Vec<Stage> = stages
        .iter()
        .map(|s| s.flatten().unwrap_or_default())
        .collect();
    let all_over = stages.iter().all(|s| s.is_over());
    let none_starting = !stages.contains(&Stage::Starting);
    let failed = stages.contains(&Stage::Failed);
    match (all_over, none_starting) {
        (true, _) if failed => Some(Outcome::Failed),
        (true, _) => Some(Outcome::Succeeded),
        (false, true) if !to_the_end && failed => Some(Outcome::Failed),
        (false, true) if !to_the_end => Some(Outcome::Ready),
        _ => None,
    }
}

fn start(
    options: &PlayOptions,
    manifest: &Manifest,
    cri: Arc<dyn Cri>,
    terminal: &Arc<Terminal>,
    stop: &CancellationToken,
) -> mpsc::Sender<PodUpdate> {
    let objects = FileObjects::new(manifest.config_maps.clone(), manifest.secrets.clone());
    let config = VolumesConfig {
        kubelet_root: options.kubelet_root.clone(),
        node_name: host::name(),
        allocatable: host::allocatable(),
        node_labels: Arc::new(std::collections::BTreeMap::new()),
        csi: None,
        dns: DnsSettings {
            resolv_conf: host::resolv_conf(&options.resolv_conf),
            ..DnsSettings::default()
        },
        operations: Default::default(),
    };
    let engine = Engine::new(Deps {
        cri,
        volumes: Volumes::new(config, objects.clone(), terminal.clone()),
        objects,
        allocations: Allocations::none(),
        events: terminal.clone(),
        status: terminal.clone(),
        node: node(options),
        options: Options {
            sources: vec![Source::Play],
            cgroup_root: options.cgroup_root.clone(),
            cgroup_driver: options.cgroup_driver,
            admit: false,
            ..Options::default()
        },
        metrics: Metrics::default(),
    });
    let (updates, wanted) = mpsc::channel(64);
    // Synced is never sent: pods of other plays, and of an agent, are not ours.
    tokio::spawn(engine.run(wanted, stop.clone()));
    updates
}

fn node(options: &PlayOptions) -> NodeFacts {
    NodeFacts {
        name: host::name(),
        ips: vec![host::address()].into(),
        allocatable: host::allocatable(),
        memory_capacity: host::memory(),
        labels: Arc::new(std::collections::BTreeMap::<String, String>::new()),
        pod_logs_root: options.pod_logs_root.clone(),
        container_links: PathBuf::new(),
        kubelet_root: options.kubelet_root.clone(),
        cluster_domain: String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_play_ends_when_all_are_over_or_ready_as_asked() {
        let is = |stage| Some(Some(stage));
        let mixed = [is(Stage::Ready), is(Stage::Succeeded)];
        assert_eq!(verdict(&mixed, false), Some(Outcome::Ready));
        assert_eq!(verdict(&mixed, true), None);
        let failed = [is(Stage::Succeeded), is(Stage::Failed)];
        assert_eq!(verdict(&failed, true), Some(Outcome::Failed));
        assert_eq!(
            verdict(&[is(Stage::Succeeded)], true),
            Some(Outcome::Succeeded)
        );
        assert_eq!(
            verdict(&[is(Stage::Ready), None], false),
            None,
            "not heard of yet"
        );
    }
}
