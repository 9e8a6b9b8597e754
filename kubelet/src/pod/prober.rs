//! The probes of one pod: one task each, for as long as its container runs.

use super::executor::Executor;
use super::lifecycle::{Desired, restartable_init, started};
use super::observed::{ContainerSeen, Observed, Run, Verdicts};
use super::probe::{Kind, Target, Watch, watch};
use super::spec::host_network;
use super::subject::Subject;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, Probe};
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use tokio::task::AbortHandle;

/// What a probe found out.
#[derive(Debug)]
#[allow(missing_docs)]
pub struct Verdict {
    /// Its id.
    pub container: String,
    pub kind: Kind,
    pub healthy: bool,
}

impl Verdicts {
    /// Takes a verdict in.
    pub fn set(&mut self, kind: Kind, healthy: bool) {
        let slot = match kind {
            Kind::Startup => &mut self.startup,
            Kind::Liveness => &mut self.liveness,
            Kind::Readiness => &mut self.readiness,
        };
        *slot = Some(healthy);
    }
}

/// The running probes of a pod.
pub struct Prober {
    verdicts: UnboundedSender<Verdict>,
    running: BTreeMap<(String, Kind), AbortHandle>,
}

impl Prober {
    /// Sends its verdicts there.
    #[must_use]
    pub fn new(verdicts: UnboundedSender<Verdict>) -> Self {
        Self {
            verdicts,
            running: BTreeMap::new(),
        }
    }

    /// Starts probes of containers that run, ends those of others. While the
    /// pod ends only readiness matters.
    pub fn follow(&mut self, executor: &Executor, want: &Desired, seen: &Observed, ending: bool) {
        let mut wanted: BTreeMap<(String, Kind), (Probe, Container, Timestamp)> = BTreeMap::new();
        for container in probed(want) {
            let Some((found, since)) = running(seen, &container.name) else {
                continue;
            };
            for (kind, probe) in due(container, seen, found) {
                if ending && kind != Kind::Readiness {
                    continue;
                }
                let key = (found.id.clone(), kind);
                wanted.insert(key, (probe.clone(), container.clone(), since));
            }
        }
        self.running.retain(|key, task| {
            let keep = wanted.contains_key(key);
            if !keep {
                task.abort();
            }
            keep
        });
        for (key, (probe, container, since)) in wanted {
            if !self.running.contains_key(&key) {
                let watch = Watch {
                    known: known(seen, &key.0, key.1),
                    target: target(executor, want, seen, &key.0, container),
                    probe,
                    kind: key.1,
                    started: since,
                    subject: Subject::new(want.pod.clone(), executor.deps().events.clone()),
                    metrics: executor.deps().metrics.clone(),
                };
                let task = self.spawn(key.clone(), watch);
                self.running.insert(key, task);
            }
        }
    }

    fn spawn(&self, (container, kind): (String, Kind), what: Watch) -> AbortHandle {
        let verdicts = self.verdicts.clone();
        let task = tokio::spawn(async move {
            let (sender, mut found) = unbounded_channel();
            let pass_on = async {
                while let Some(healthy) = found.recv().await {
                    let container = container.clone();
                    let verdict = Verdict {
                        container,
                        kind,
                        healthy,
                    };
                    if verdicts.send(verdict).is_err() {
                        return;
                    }
                    // A startup probe ends with its first success.
                    if kind == Kind::Startup && healthy {
                        return;
                    }
                }
            };
            tokio::select! {
                () = watch(what, sender) => {}
                () = pass_on => {}
            }
        });
        task.abort_handle()
    }
}

impl Drop for Prober {
    fn drop(&mut self) {
        self.running.values().for_each(AbortHandle::abort);
    }
}

/// App containers and sidecars.
fn probed(want: &Desired) -> impl Iterator<Item = &Container> {
    let spec = want.pod.spec.iter();
    spec.flat_map(|s| {
        let init = s.init_containers.iter().flatten();
        s.containers
            .iter()
            .chain(init.filter(|c| restartable_init(c)))
    })
}

fn running<'a>(seen: &'a Observed, name: &str) -> Option<(&'a ContainerSeen, Timestamp)> {
    let found = seen.newest(name)?;
    match found.run {
        Run::Running { started } => Some((found, started)),
        Run::Created | Run::Exited(_) => None,
    }
}

/// The startup probe first; the others once it has passed.
fn due<'a>(
    container: &'a Container,
    seen: &Observed,
    found: &ContainerSeen,
) -> Vec<(Kind, &'a Probe)> {
    let verdicts = seen.probes.get(&found.id).copied().unwrap_or_default();
    let starting = container.startup_probe.as_ref();
    if let Some(probe) = starting.filter(|_| verdicts.startup != Some(true)) {
        return vec![(Kind::Startup, probe)];
    }
    if !started(seen, container, found) {
        return Vec::new();
    }
    let others = [
        (Kind::Liveness, container.liveness_probe.as_ref()),
        (Kind::Readiness, container.readiness_probe.as_ref()),
    ];
    others
        .into_iter()
        .filter_map(|(kind, probe)| Some((kind, probe?)))
        .collect()
}

fn known(seen: &Observed, id: &str, kind: Kind) -> Option<bool> {
    let verdicts = seen.probes.get(id)?;
    match kind {
        Kind::Startup => verdicts.startup,
        Kind::Liveness => verdicts.liveness,
        Kind::Readiness => verdicts.readiness,
    }
}

fn target(
    executor: &Executor,
    want: &Desired,
    seen: &Observed,
    id: &str,
    container: Container,
) -> Target {
    let deps = executor.deps();
    let pod_ip = match host_network(&want.pod) {
        true => deps.node.ips.now().first().map(ToString::to_string),
        false => seen.sandbox().and_then(|s| s.ips.first().cloned()),
    };
    Target {
        cri: deps.cri.clone(),
        id: id.to_owned(),
        container: Arc::new(container),
        pod_ip: pod_ip.unwrap_or_default(),
    }
}
