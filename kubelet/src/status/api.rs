//! The sink that writes to the API server.

use super::patch;
use super::{StatusSink, is_over};
use crate::metrics::Metrics;
use crate::source::{CONFIG_HASH, CONFIG_MIRROR, Mirrors, is_static};
use k8s_openapi::api::core::v1::{ContainerStatus, Pod, PodStatus};
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams, Preconditions};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::{Notify, Semaphore};
use tracing::Instrument;

/// Writes under way at once; a pod has at most one.
const WRITERS: usize = 16;
/// How long the status of a pod that is just coming up waits for the next: most
/// pods run by then, and one write says it all.
const GATHER: Duration = Duration::from_millis(50);
const FIRST_RETRY: Duration = Duration::from_millis(200);
const LAST_RETRY: Duration = Duration::from_secs(10);

/// Patches `/status` when something changed, and deletes what is finished.
///
/// # Guarantees
/// - Only fields and conditions that are the kubelet's are sent, and only when
///   they differ from what the API server has.
/// - `metadata.uid` is in every write: a pod of the same name made since is
///   never touched.
/// - A newer status replaces one that waits; a pod never has two writes at once.
pub struct ApiStatus {
    client: kube::Client,
    mirrors: Arc<Mirrors>,
    metrics: Metrics,
    slots: Mutex<HashMap<String, Slot>>,
    writers: Semaphore,
    this: std::sync::Weak<Self>,
}

/// One pod's standing.
#[derive(Clone)]
struct Slot {
    pod: Arc<Pod>,
    status: PodStatus,
    finished: bool,
    /// It was deleted: nothing is left to say.
    deleted: bool,
    /// Something is to be written that no task has taken up.
    dirty: bool,
    /// A task is at it.
    driven: bool,
    /// Wakes that task when it waits for more.
    settled: Arc<Notify>,
    written: Option<Written>,
    /// When it began to differ from what was written.
    since: Option<Instant>,
}

/// What was written last.
#[derive(Clone)]
struct Written {
    sent: PodStatus,
    answer: PodStatus,
    version: u64,
}

enum Outcome {
    Done,
    /// We deleted it.
    Deleted,
    /// The object is not there any more, or is another.
    Gone,
    Retry,
}

impl ApiStatus {
    /// Over a client that is for writes.
    #[must_use]
    pub fn new(client: kube::Client, mirrors: Arc<Mirrors>, metrics: Metrics) -> Arc<Self> {
        Arc::new_cyclic(|this| Self {
            client,
            mirrors,
            metrics,
            slots: Mutex::default(),
            writers: Semaphore::new(WRITERS),
            this: this.clone(),
        })
    }

    fn slots(&self) -> MutexGuard<'_, HashMap<String, Slot>> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self, pod: &Arc<Pod>, status: PodStatus, finished: bool) {
        let uid = uid(pod);
        let mut slots = self.slots();
        let slot = slots.entry(uid.clone()).or_insert_with(|| Slot {
            pod: pod.clone(),
            status: PodStatus::default(),
            finished: false,
            deleted: false,
            dirty: false,
            driven: false,
            settled: Arc::default(),
            written: None,
            since: None,
        });
        if slot.deleted {
            return;
        }
        slot.pod = pod.clone();
        slot.status = status;
        slot.finished |= finished;
        if finished || !coming_up(&slot.status) {
            slot.settled.notify_one();
        }
        // While a write is under way nobody knows yet what it will have changed.
        slot.dirty = slot.driven || slot.finished || is_static(pod) || slot.change().is_some();
        if slot.dirty {
            slot.since.get_or_insert_with(Instant::now);
        }
        if slot.dirty
            && !slot.driven
            && let Some(this) = self.this.upgrade()
        {
            slot.driven = true;
            tokio::spawn(async move { this.drive(uid).await });
        }
    }

    /// Writes until nothing is left to write.
    async fn drive(&self, uid: String) {
        let mut wait = FIRST_RETRY;
        while let Some(mut slot) = self.take(&uid) {
            if coming_up(&slot.status) && !slot.finished {
                let _ = tokio::time::timeout(GATHER, slot.settled.notified()).await;
                slot = self.take_newer(&uid).unwrap_or(slot);
            }
            let permit = self.writers.acquire().await;
            let settled = settled(&slot.status);
            let span = tracing::debug_span!("patch_status", uid, settled);
            let outcome = self.write(&uid, &slot).instrument(span).await;
            drop(permit);
            match outcome {
                Outcome::Done => {
                    wait = FIRST_RETRY;
                    self.count(&uid);
                }
                Outcome::Deleted => {
                    if let Some(slot) = self.slots().get_mut(&uid) {
                        (slot.deleted, slot.dirty) = (true, false);
                    }
                }
                Outcome::Gone => drop(self.slots().remove(&uid)),
                Outcome::Retry => {
                    tokio::time::sleep(wait).await;
                    wait = wait.saturating_mul(2).min(LAST_RETRY);
                    if let Some(slot) = self.slots().get_mut(&uid) {
                        slot.dirty = true;
                    }
                }
            }
        }
    }

    fn count(&self, uid: &str) {
        let since = self.slots().get_mut(uid).and_then(|slot| slot.since.take());
        if let Some(since) = since {
            self.metrics.status_written(since.elapsed());
        }
    }

    fn take(&self, uid: &str) -> Option<Slot> {
        let mut slots = self.slots();
        let slot = slots.get_mut(uid)?;
        slot.driven = slot.dirty;
        slot.dirty = false;
        slot.driven.then(|| slot.clone())
    }

    /// The slot as it is by now, whose task goes on.
    fn take_newer(&self, uid: &str) -> Option<Slot> {
        let mut slots = self.slots();
        let slot = slots.get_mut(uid)?;
        slot.dirty = false;
        Some(slot.clone())
    }

    async fn write(&self, uid: &str, slot: &Slot) -> Outcome {
        let namespace = slot.pod.metadata.namespace.as_deref().unwrap_or("default");
        let api: Api<Pod> = Api::namespaced(self.client.clone(), namespace);
        let name = slot.pod.metadata.name.as_deref().unwrap_or_default();
        if is_static(&slot.pod) {
            return self.write_mirror(&api, name, slot).await;
        }
        if let Some(body) = slot.change() {
            match api
                .patch_status(name, &PatchParams::default(), &Patch::Strategic(body))
                .await
            {
                Ok(answer) => self.written(uid, slot, answer),
                Err(error) => match judge(&error, name, "patch status") {
                    Outcome::Done => {}
                    other => return other,
                },
            }
        }
        if slot.finished {
            delete(&api, name, uid).await
        } else {
            Outcome::Done
        }
    }

    fn written(&self, uid: &str, slot: &Slot, answer: Pod) {
        if let Some(current) = self.slots().get_mut(uid) {
            current.written = Some(Written {
                sent: slot.status.clone(),
                version: version(&answer),
                answer: answer.status.unwrap_or_default(),
            });
        }
    }

    /// A static pod is reported through its mirror, which has a UID of its own.
    async fn write_mirror(&self, api: &Api<Pod>, name: &str, slot: &Slot) -> Outcome {
        // It would be denied, not missing: the authorizer knows of no such pod on this node.
        // Whoever is new is asked for its status again when it has a mirror.
        if self.mirrors.uid_of(&slot.pod).is_none() {
            return Outcome::Done;
        }
        let mirror = match api.get(name).await {
            Ok(mirror) => mirror,
            // Its source makes one soon, or the pod is on its way out.
            Err(_) if slot.finished => return Outcome::Gone,
            Err(_) => return Outcome::Retry,
        };
        match annotation(&mirror, CONFIG_MIRROR) {
            None => {
                tracing::warn!(pod = name, "the API's pod of this name is no mirror pod");
                return Outcome::Gone;
            }
            // Of another version of the manifest.
            hash if hash != annotation(&slot.pod, CONFIG_HASH) => return Outcome::Done,
            Some(_) => {}
        }
        let old = mirror.status.clone().unwrap_or_default();
        let Some(body) = patch::between(&uid(&mirror), &old, &slot.status) else {
            return Outcome::Done;
        };
        match api
            .patch_status(name, &PatchParams::default(), &Patch::Strategic(body))
            .await
        {
            Ok(_) => Outcome::Done,
            Err(error) => judge(&error, name, "patch status of mirror"),
        }
    }
}

impl Slot {
    /// What is to be sent. If nobody else wrote since our last write, what we
    /// sent is the base: the server's own spelling of it is not a change.
    fn change(&self) -> Option<serde_json::Value> {
        let seen = self.pod.status.clone().unwrap_or_default();
        let base = match &self.written {
            Some(w) if version(&self.pod) <= w.version || seen == w.answer => w.sent.clone(),
            Some(_) | None => seen,
        };
        patch::between(&uid(&self.pod), &base, &self.status)
    }
}

impl StatusSink for ApiStatus {
    fn publish(&self, pod: &Arc<Pod>, status: PodStatus) {
        self.note(pod, status, false);
    }

    fn finished(&self, pod: &Arc<Pod>, status: PodStatus) {
        self.note(pod, status, true);
    }

    fn owes(&self, pod_uid: &str) -> bool {
        let slots = self.slots();
        let slot = slots.get(pod_uid);
        slot.is_some_and(|slot| slot.dirty || slot.driven || !is_over(&slot.status))
    }

    fn forget(&self, pod: &Arc<Pod>) {
        self.slots().remove(&uid(pod));
    }
}

async fn delete(api: &Api<Pod>, name: &str, uid: &str) -> Outcome {
    let parameters = DeleteParams {
        grace_period_seconds: Some(0),
        preconditions: Some(Preconditions {
            uid: Some(uid.to_owned()),
            ..Preconditions::default()
        }),
        ..DeleteParams::default()
    };
    match api.delete(name, &parameters).await {
        Ok(_) => Outcome::Deleted,
        Err(error) => judge(&error, name, "delete"),
    }
}

/// Not found and conflict (another UID) mean that the pod is gone; what the API
/// server refuses for good is given up until the next change.
fn judge(error: &kube::Error, name: &str, what: &str) -> Outcome {
    match error {
        kube::Error::Api(status) if matches!(status.code, 404 | 409) => Outcome::Gone,
        kube::Error::Api(status) if matches!(status.code, 400 | 403 | 422) => {
            tracing::warn!(pod = name, code = status.code, error = %status.message, "{what}");
            Outcome::Done
        }
        _ => {
            tracing::info!(pod = name, %error, "{what}; trying again");
            Outcome::Retry
        }
    }
}

/// Pending, with nothing to tell but that it takes its course.
fn coming_up(status: &PodStatus) -> bool {
    let init = status.init_container_statuses.iter().flatten();
    let all = init.chain(status.container_statuses.iter().flatten());
    let waits = |c: &ContainerStatus| c.state.as_ref().and_then(|s| s.waiting.clone());
    let mut reasons = all.filter_map(waits).map(|w| w.reason.unwrap_or_default());
    status.phase.as_deref() == Some("Pending")
        && reasons.all(|r| matches!(r.as_str(), "ContainerCreating" | "PodInitializing"))
}

/// The start is over: ready, or at an end already.
fn settled(status: &PodStatus) -> bool {
    let mut conditions = status.conditions.iter().flatten();
    is_over(status) || conditions.any(|c| c.type_ == "Ready" && c.status == "True")
}

fn uid(pod: &Pod) -> String {
    pod.metadata.uid.clone().unwrap_or_default()
}

fn version(pod: &Pod) -> u64 {
    let text = pod.metadata.resource_version.as_deref();
    text.and_then(|v| v.parse().ok()).unwrap_or(0)
}

fn annotation<'a>(pod: &'a Pod, key: &str) -> Option<&'a str> {
    let annotations = pod.metadata.annotations.as_ref()?;
    annotations.get(key).map(String::as_str)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn coming(status: Value) -> bool {
        coming_up(&serde_json::from_value(status).unwrap_or_default())
    }

    #[test]
    fn only_a_status_that_says_nothing_new_waits_for_the_next() {
        let waiting = |reason: &str| {
            let state = json!({"waiting": {"reason": reason}});
            json!({"phase": "Pending", "containerStatuses": [{
                "name": "a", "image": "", "imageID": "", "ready": false, "restartCount": 0, "state": state
            }]})
        };
        assert!(coming(json!({"phase": "Pending"})));
        assert!(coming(waiting("ContainerCreating")));
        assert!(!coming(waiting("ErrImagePull")));
        assert!(!coming(json!({"phase": "Running"})));
    }

    fn still(annotations: Value) -> Pod {
        let meta =
            json!({"name": "still", "namespace": "d", "uid": "u", "annotations": annotations});
        serde_json::from_value(json!({"metadata": meta})).unwrap()
    }

    /// An API server that has one mirror and answers its patches; the methods it was asked for.
    fn server_with(mirror: Pod) -> (kube::Client, Arc<Mutex<Vec<String>>>) {
        let asked = Arc::new(Mutex::new(Vec::new()));
        let seen = asked.clone();
        let answer = move |request: http::Request<kube::client::Body>| {
            seen.lock().unwrap().push(request.method().to_string());
            let body = serde_json::to_vec(&mirror).unwrap();
            async { Ok::<_, std::io::Error>(http::Response::new(kube::client::Body::from(body))) }
        };
        (kube::Client::new(tower::service_fn(answer), "d"), asked)
    }

    #[tokio::test]
    async fn a_static_pod_is_reported_to_the_mirror_of_its_own_version_alone() {
        for (hash, requests) in [("new", &["GET", "PATCH"][..]), ("old", &[])] {
            let mirror = still(json!({CONFIG_MIRROR: "new"}));
            let mirrors = Mirrors::detached();
            mirrors.seen(&mirror);
            let (client, asked) = server_with(mirror);
            let status = ApiStatus::new(client, mirrors, Metrics::default());
            let pod = still(json!({crate::source::CONFIG_SOURCE: "file", CONFIG_HASH: hash}));
            let ended = serde_json::from_value(json!({"phase": "Failed"})).unwrap();
            status.note(&Arc::new(pod), ended, true);
            while status.slots().values().any(|slot| slot.driven) {
                tokio::task::yield_now().await;
            }
            assert_eq!(*asked.lock().unwrap(), requests, "of version {hash}");
        }
    }

    #[tokio::test]
    async fn the_end_of_a_pod_is_owed_until_it_is_written() {
        let pod = Arc::new(still(json!({})));
        let (client, _) = server_with(Pod::clone(&pod));
        let status = ApiStatus::new(client, Mirrors::detached(), Metrics::default());
        assert!(!status.owes("u"), "nobody was told of it");
        for (phase, owed) in [("Running", true), ("Failed", false)] {
            let phase = serde_json::from_value(json!({ "phase": phase })).unwrap();
            status.publish(&pod, phase);
            assert!(status.owes("u"));
            while status.slots().values().any(|slot| slot.driven) {
                tokio::task::yield_now().await;
            }
            assert_eq!(status.owes("u"), owed);
        }
    }
}
