//! What is known of every pod, for whoever asks.

use super::kept::Kept;
use super::observe::PodSeen;
use super::resize::{self, Granted};
use super::{Known, spec};
use crate::status::is_over;
use k8s_openapi::api::core::v1::{Pod, PodStatus};
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use tokio::sync::{Notify, watch};

/// One pod, as its worker left it last.
#[derive(Debug, Clone)]
#[allow(missing_docs)]
pub struct Entry {
    pub pod: Arc<Pod>,
    pub status: PodStatus,
    /// Container ids by name: of the newest attempts.
    pub current: BTreeMap<String, String>,
    /// And of those before them.
    pub previous: BTreeMap<String, String>,
    pub sandbox: Option<String>,
    pub removed: bool,
}

impl Entry {
    /// A pod of which nothing is seen yet.
    #[must_use]
    pub fn new(pod: Arc<Pod>) -> Self {
        Self {
            status: pod.status.clone().unwrap_or_default(),
            pod,
            current: BTreeMap::new(),
            previous: BTreeMap::new(),
            sandbox: None,
            removed: false,
        }
    }
}

/// Every pod by its uid.
#[derive(Debug)]
pub struct Registry {
    /// What pods keep whose resize was not granted.
    pub kept: Kept,
    pods: RwLock<HashMap<String, Entry>>,
    freed: Notify,
    changes: watch::Sender<()>,
    turn: Mutex<()>,
}

impl Registry {
    /// Of no pods yet.
    #[must_use]
    pub fn new(kept: Kept) -> Self {
        Self {
            kept,
            pods: RwLock::default(),
            freed: Notify::new(),
            changes: watch::Sender::new(()),
            turn: Mutex::default(),
        }
    }

    /// What an agent before this one granted a pod, if there was one.
    #[must_use]
    pub fn granted(&self, pod: &Pod, seen: &PodSeen) -> Granted {
        let kept = self.kept.of(spec::uid(pod));
        kept.unwrap_or_else(|| resize::remembered(pod, seen.granted()))
    }

    /// The pod, asking for that.
    #[must_use]
    pub fn as_granted(&self, pod: &Arc<Pod>, seen: &PodSeen) -> Arc<Pod> {
        let granted = self.granted(pod, seen);
        match resize::differs(pod, &granted) {
            true => Arc::new(resize::with(pod, &granted)),
            false => pod.clone(),
        }
    }

    /// Replaces what was known.
    pub fn put(&self, uid: &str, mut entry: Entry) {
        let ends = is_over(&entry.status);
        let mut pods = self.pods.write().unwrap_or_else(PoisonError::into_inner);
        // A worker may not have heard of it yet.
        entry.removed |= pods.get(uid).is_some_and(|e| e.removed);
        let before = pods.insert(uid.to_owned(), entry);
        drop(pods);
        let is_new = before.is_none();
        // What it had is free for others.
        let frees = ends && before.is_some_and(|b| !is_over(&b.status));
        if frees {
            self.freed.notify_one();
        }
        if frees || is_new {
            self.changes.send_replace(());
        }
    }

    /// That a pod has come, ended, gone or been granted other resources.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<()> {
        self.changes.subscribe()
    }

    /// Held by whoever counts what the node has left, until what it takes of that is written
    /// here: two who count at once would take the same.
    pub fn turn(&self) -> MutexGuard<'_, ()> {
        self.turn.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The pod has been granted what this asks for.
    pub fn grant(&self, uid: &str, pod: &Arc<Pod>) {
        let mut pods = self.pods.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(entry) = pods.get_mut(uid) {
            entry.pod = pod.clone();
        }
        drop(pods);
        self.changes.send_replace(());
    }

    /// The pod's source has it no more: from now on it has no claim to what it still holds.
    pub fn disown(&self, uid: &str) {
        let mut pods = self.pods.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(entry) = pods.get_mut(uid) {
            entry.removed = true;
        }
        drop(pods);
        self.freed.notify_one();
    }

    /// The pod is gone.
    pub fn remove(&self, uid: &str) {
        let mut pods = self.pods.write().unwrap_or_else(PoisonError::into_inner);
        pods.remove(uid);
        drop(pods);
        self.kept.forget(uid);
        self.freed.notify_one();
        self.changes.send_replace(());
    }

    /// Returns when a pod has ended or gone since the last call.
    pub async fn freed(&self) {
        self.freed.notified().await;
    }

    /// Something about one pod.
    pub fn of<T>(&self, uid: &str, look: impl FnOnce(&Entry) -> T) -> Option<T> {
        let pods = self.pods.read().unwrap_or_else(PoisonError::into_inner);
        pods.get(uid).map(look)
    }

    /// All pods with their newest status.
    #[must_use]
    pub fn all(&self) -> Vec<Known> {
        let pods = self.pods.read().unwrap_or_else(PoisonError::into_inner);
        let known = |entry: &Entry| Known {
            pod: entry.pod.clone(),
            status: entry.status.clone(),
            removed: entry.removed,
        };
        pods.values().map(known).collect()
    }
}
