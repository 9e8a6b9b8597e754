//! All pods of the node: one worker each.

use super::admit::{self, Answer};
use super::executor::Executor;
use super::kept::Kept;
use super::lifecycle::{Desired, Verdict};
use super::observe::{self, PodSeen};
use super::preempt;
use super::registry::{Entry, Registry};
use super::spec::{self, labels};
use super::worker::{Mail, Worker};
use super::{Deps, Known, PodView};
use crate::defaults::{EVENT_STREAM_RETRY, RELIST_PERIOD};
use crate::source::{PodUpdate, Source};
use cri_proto::v1;
use futures::StreamExt;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;
use tokio::sync::mpsc::{self, UnboundedSender};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// Runs pods. Cheap to share; does nothing until [`Engine::run`].
pub struct Engine {
    executor: Arc<Executor>,
    registry: Arc<Registry>,
    workers: Mutex<HashMap<String, UnboundedSender<Mail>>>,
    /// The runtime's events are being read.
    listening: AtomicBool,
}

/// What the engine's main task keeps to itself.
struct Start {
    runtime: Arc<str>,
    /// What ran before and nobody has asked for yet.
    found: BTreeMap<String, PodSeen>,
    /// Sources that have not synced yet.
    waiting: Vec<Source>,
    /// Pods that were removed and whose workers may still be at it, by uid.
    ending: HashSet<String>,
    /// Pods that wait for the end of another.
    parked: Vec<(Source, Arc<Pod>)>,
    /// Pods that were told to make room, by uid.
    leaving: BTreeSet<String>,
}

impl Engine {
    /// An engine over these.
    #[must_use]
    pub fn new(deps: Deps) -> Arc<Self> {
        let kept = Kept::load(&deps.node.kubelet_root);
        Arc::new(Self {
            executor: Arc::new(Executor::new(deps)),
            registry: Arc::new(Registry::new(kept)),
            workers: Mutex::default(),
            listening: AtomicBool::new(false),
        })
    }

    /// Observes what runs, then follows `updates` until `shutdown`.
    ///
    /// Containers are left running when it returns. A runtime that does not
    /// answer is waited for.
    pub async fn run(
        self: Arc<Self>,
        mut updates: mpsc::Receiver<PodUpdate>,
        shutdown: CancellationToken,
    ) {
        let start = tokio::select! {
            () = shutdown.cancelled() => return,
            start = self.start() => start,
        };
        let follow = {
            let mut start = start;
            let this = self.clone();
            async move {
                loop {
                    tokio::select! {
                        Some(update) = updates.recv() => this.update(&mut start, update).await,
                        () = this.registry.freed() => this.unpark(&mut start),
                    }
                }
            }
        };
        tokio::select! {
            () = shutdown.cancelled() => {}
            () = follow => {}
            () = self.follow_runtime() => {}
            () = self.relist() => {}
            () = self.follow_objects() => {}
            () = self.follow_devices() => {}
            () = self.follow_claims() => {}
        }
        self.workers().clear();
    }

    fn deps(&self) -> &Deps {
        self.executor.deps()
    }

    fn workers(&self) -> MutexGuard<'_, HashMap<String, UnboundedSender<Mail>>> {
        self.workers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn start(&self) -> Start {
        loop {
            let cri = self.deps().cri.as_ref();
            let version = cri.version(v1::VersionRequest::default()).await;
            match (version, observe::all(cri).await) {
                (Ok(version), Ok(found)) => {
                    return Start {
                        runtime: version.runtime_name.into(),
                        found,
                        waiting: self.deps().options.sources.clone(),
                        ending: HashSet::new(),
                        parked: Vec::new(),
                        leaving: BTreeSet::new(),
                    };
                }
                (Err(error), _) | (_, Err(error)) => {
                    tracing::warn!(%error, "the runtime does not answer yet");
                    tokio::time::sleep(EVENT_STREAM_RETRY).await;
                }
            }
        }
    }

    async fn update(&self, start: &mut Start, update: PodUpdate) {
        match update {
            PodUpdate::Set(source, pod) => self.set(start, source, pod),
            PodUpdate::Remove(source, uid) => self.remove(start, source, &uid),
            PodUpdate::Synced(source) => {
                start.waiting.retain(|s| *s != source);
                if start.waiting.is_empty() {
                    self.end_orphans(start).await;
                }
            }
        }
    }

    fn set(&self, start: &mut Start, source: Source, pod: Arc<Pod>) {
        let uid = spec::uid(&pod).to_owned();
        if self.must_wait(start, source, &pod) {
            start.parked.retain(|(_, p)| spec::uid(p) != uid);
            start.parked.push((source, pod));
            return;
        }
        if start.ending.remove(&uid) {
            self.workers().remove(&uid);
        }
        let mut want = Desired {
            pod,
            source,
            removed: false,
            verdict: None,
        };
        let worker = self.workers().get(&uid).cloned();
        if let Some(worker) = worker
            && worker.send(Mail::Want(want.clone())).is_ok()
        {
            return;
        }
        let seen = start.found.remove(&uid).unwrap_or_default();
        let turn = self.registry.turn();
        let granted = self.registry.as_granted(&want.pod, &seen);
        if seen.sandboxes.is_empty() && !admit::settled(&want.pod) {
            match self.admit(start, &granted) {
                Some(verdict) => want.verdict = verdict,
                None => return start.parked.push((source, want.pod)),
            }
        } else {
            self.executor.adopt(&want.pod);
        }
        self.registry.put(&uid, Entry::new(granted));
        drop(turn);
        self.spawn(start, want, seen);
    }

    /// A pod that comes back waits for its own end. A static pod also waits for
    /// the end of another version of itself, which has the same name: both want
    /// the same ports and files.
    fn must_wait(&self, start: &mut Start, source: Source, pod: &Pod) -> bool {
        let uid = spec::uid(pod);
        if start.ending.contains(uid) && self.registry.of(uid, |_| ()).is_some() {
            return true;
        }
        if source == Source::Api {
            return false;
        }
        let (namespace, name) = (spec::namespace(pod), spec::name(pod));
        let old = start.found.iter().find(|(other, seen)| {
            source == Source::File
                && *other != uid
                && seen.namespace == namespace
                && seen.name == name
        });
        if let Some(old) = old.map(|(other, _)| other.clone()) {
            let seen = start.found.remove(&old).unwrap_or_default();
            self.end_orphan(start, old, seen);
        }
        self.registry.all().iter().any(|k| {
            let same = spec::namespace(&k.pod) == namespace && spec::name(&k.pod) == name;
            same && spec::uid(&k.pod) != uid
        })
    }

    /// A pod is gone: whoever waited for that may go on.
    fn unpark(&self, start: &mut Start) {
        for (source, pod) in std::mem::take(&mut start.parked) {
            self.set(start, source, pod);
        }
    }

    /// Ends a pod for good: the node can't keep it.
    pub fn evict(&self, uid: &str, verdict: Verdict) {
        let Some(pod) = self.registry.of(uid, |e| e.pod.clone()) else {
            return;
        };
        let subject = super::subject::Subject::new(pod, self.deps().events.clone());
        subject.warning(&verdict.reason, &verdict.message);
        self.end(uid, verdict);
    }

    /// Ends a pod for good, without an event.
    pub fn end(&self, uid: &str, verdict: Verdict) {
        if let Some(worker) = self.workers().get(uid) {
            let _ = worker.send(Mail::End(verdict));
        }
    }

    /// That a pod has come, ended, gone or been granted other resources.
    pub fn changes(&self) -> watch::Receiver<()> {
        self.registry.changes()
    }

    /// Whether the end of a pod that is over is still to be reported.
    pub fn owes(&self, uid: &str) -> bool {
        self.deps().status.owes(uid)
    }

    /// Why the pod may not run, if it may not; `None` when it has to wait for others' end.
    fn admit(&self, start: &mut Start, pod: &Arc<Pod>) -> Option<Option<Verdict>> {
        let options = &self.deps().options;
        if !options.admit {
            return Some(None);
        }
        let others = self.registry.all();
        let present: BTreeSet<&str> = others.iter().map(|k| spec::uid(&k.pod)).collect();
        start.leaving.retain(|uid| present.contains(uid.as_str()));
        match admit::ask(pod, &others, &self.deps().node, options) {
            Answer::Take => Some(None),
            Answer::Refuse(mut verdict) => {
                let events = self.deps().events.clone();
                let subject = super::subject::Subject::new(pod.clone(), events);
                subject.warning(&verdict.reason, &verdict.message);
                tracing::info!(
                    pod = spec::name(pod),
                    reason = verdict.reason,
                    counted = admit::holders(pod, &others),
                    "refused a pod"
                );
                verdict.message.insert_str(0, "Pod was rejected: ");
                Some(Some(verdict))
            }
            Answer::After(victims) => {
                let stays = |k: &Known| !start.leaving.contains(spec::uid(&k.pod));
                let staying: Vec<Known> = others.iter().filter(|k| stays(k)).cloned().collect();
                // Those that are on their way out may be enough.
                if let Answer::After(more) = admit::ask(pod, &staying, &self.deps().node, options) {
                    let told = if start.leaving.is_empty() {
                        victims
                    } else {
                        more
                    };
                    for uid in told {
                        tracing::info!(pod = %uid, "makes room for a critical pod");
                        self.evict(&uid, preempt::verdict());
                        start.leaving.insert(uid);
                    }
                }
                None
            }
        }
    }

    fn spawn(&self, start: &Start, want: Desired, seen: PodSeen) {
        let uid = spec::uid(&want.pod).to_owned();
        let worker = Worker::spawn(
            self.executor.clone(),
            self.registry.clone(),
            start.runtime.clone(),
            want,
            seen,
        );
        self.workers().insert(uid, worker);
    }

    fn remove(&self, start: &mut Start, source: Source, uid: &str) {
        start.parked.retain(|(_, pod)| spec::uid(pod) != uid);
        let Some(pod) = self.registry.of(uid, |e| e.pod.clone()) else {
            self.workers().remove(uid);
            return;
        };
        self.registry.disown(uid);
        let want = Desired {
            pod,
            source,
            removed: true,
            verdict: None,
        };
        let mut workers = self.workers();
        workers.retain(|_, worker| !worker.is_closed());
        // Its worker ends by itself once nothing is left of the pod; until then it
        // has to hear what the runtime says.
        if let Some(worker) = workers.get(uid) {
            start.ending.insert(uid.to_owned());
            let _ = worker.send(Mail::Want(want));
        }
    }

    /// Ends what ran before and nobody wants, and clears its volumes.
    async fn end_orphans(&self, start: &mut Start) {
        for (uid, seen) in std::mem::take(&mut start.found) {
            self.end_orphan(start, uid, seen);
        }
        let known = self.workers().keys().cloned().collect();
        self.deps().allocations.keep_only(&known);
        self.registry.kept.keep_only(&known);
        for uid in self.deps().volumes.orphans(&known).await {
            tracing::info!(pod = %uid, "removed the folder of a pod that is no more");
        }
    }

    fn end_orphan(&self, start: &mut Start, uid: String, seen: PodSeen) {
        tracing::info!(pod = %uid, name = %seen.name, "nobody wants this pod any more");
        let want = Desired {
            pod: Arc::new(known_only_by_name(&seen)),
            source: Source::Api,
            removed: true,
            verdict: None,
        };
        let entry = Entry {
            removed: true,
            ..Entry::new(want.pod.clone())
        };
        self.registry.put(&uid, entry);
        self.spawn(start, want, seen);
        start.ending.insert(uid);
    }

    /// Tells workers what the runtime tells us, as soon as it does.
    async fn follow_runtime(&self) {
        loop {
            match self.deps().cri.get_container_events().await {
                Ok(mut events) => {
                    // What happened while nobody listened.
                    self.listening.store(true, Ordering::Relaxed);
                    self.list_now().await;
                    while let Some(Ok(event)) = events.next().await {
                        self.tell(event);
                    }
                    self.listening.store(false, Ordering::Relaxed);
                    tracing::warn!("the runtime's stream of events ended; opening it again");
                }
                Err(error) => tracing::debug!(%error, "no stream of events from the runtime"),
            }
            tokio::time::sleep(EVENT_STREAM_RETRY).await;
        }
    }

    fn tell(&self, event: v1::ContainerEventResponse) {
        let deleted = event.container_event_type() == v1::ContainerEventType::ContainerDeletedEvent;
        let id = event.container_id.clone();
        let Some(seen) = observe::event(event) else {
            return;
        };
        if let Some(worker) = self.workers().get(&seen.uid) {
            let sandbox = seen.sandboxes.iter().any(|s| s.id == id);
            let _ = worker.send(Mail::Seen(seen));
            if deleted && !sandbox {
                let _ = worker.send(Mail::Removed(id));
            }
        }
    }

    /// The safety net under the events; the only way with a runtime without them.
    async fn relist(&self) {
        let mut last = Instant::now();
        loop {
            tokio::time::sleep(EVENT_STREAM_RETRY).await;
            let listening = self.listening.load(Ordering::Relaxed);
            if !listening || last.elapsed() >= RELIST_PERIOD {
                self.list_now().await;
                last = Instant::now();
            }
        }
    }

    async fn list_now(&self) {
        let asked = Instant::now();
        match observe::all(self.deps().cri.as_ref()).await {
            Ok(mut found) => {
                let mut workers = self.workers();
                workers.retain(|_, worker| !worker.is_closed());
                for (uid, worker) in workers.iter() {
                    let seen = found.remove(uid).unwrap_or_default();
                    let _ = worker.send(Mail::Listed(seen, asked));
                }
            }
            Err(error) => tracing::warn!(%error, "list pods of the runtime"),
        }
    }

    /// A device that fails, or is well again, is told of in its pod's status.
    async fn follow_devices(&self) {
        use tokio::sync::broadcast::error::RecvError;
        let mut unwell = self.deps().allocations.devices.unwell();
        loop {
            let pods = match unwell.recv().await {
                Ok(pods) => pods,
                Err(RecvError::Lagged(_)) => continue,
                Err(RecvError::Closed) => std::future::pending().await,
            };
            let workers = self.workers();
            for worker in pods.iter().filter_map(|uid| workers.get(uid)) {
                let _ = worker.send(Mail::Nudge);
            }
        }
    }

    /// The same of devices that pods claim.
    async fn follow_claims(&self) {
        use tokio::sync::broadcast::error::RecvError;
        let dra = &self.deps().allocations.dra;
        let mut changes = dra.changes();
        loop {
            let pods = match changes.recv().await {
                Ok(changed) => dra.pods_with(&changed),
                Err(RecvError::Lagged(_)) => continue,
                Err(RecvError::Closed) => std::future::pending().await,
            };
            let workers = self.workers();
            for worker in pods.iter().filter_map(|uid| workers.get(uid)) {
                let _ = worker.send(Mail::Nudge);
            }
        }
    }

    /// A ConfigMap that appears lets pods that wait for it try again at once.
    async fn follow_objects(&self) {
        use tokio::sync::broadcast::error::RecvError;
        let mut changes = self.deps().objects.changes();
        loop {
            match changes.recv().await {
                Ok(_) | Err(RecvError::Lagged(_)) => {
                    for worker in self.workers().values() {
                        let _ = worker.send(Mail::Nudge);
                    }
                }
                Err(RecvError::Closed) => std::future::pending().await,
            }
        }
    }
}

/// A pod of which only its labels are left.
fn known_only_by_name(seen: &PodSeen) -> Pod {
    let pairs = [
        (labels::POD_NAME, &seen.name),
        (labels::POD_NAMESPACE, &seen.namespace),
        (labels::POD_UID, &seen.uid),
    ];
    Pod {
        metadata: ObjectMeta {
            name: Some(seen.name.clone()),
            namespace: Some(seen.namespace.clone()),
            uid: Some(seen.uid.clone()),
            labels: Some(pairs.map(|(k, v)| (k.to_owned(), v.clone())).into()),
            ..ObjectMeta::default()
        },
        ..Pod::default()
    }
}

impl PodView for Engine {
    fn pods(&self) -> Vec<Known> {
        self.registry.all()
    }

    fn container_id(&self, pod_uid: &str, container: &str, previous: bool) -> Option<String> {
        let of = |e: &Entry| {
            let ids = if previous { &e.previous } else { &e.current };
            ids.get(container).cloned()
        };
        self.registry.of(pod_uid, of).flatten()
    }

    fn sandbox_id(&self, pod_uid: &str) -> Option<String> {
        self.registry.of(pod_uid, |e| e.sandbox.clone()).flatten()
    }
}

#[cfg(test)]
#[path = "engine_tests.rs"]
mod tests;
