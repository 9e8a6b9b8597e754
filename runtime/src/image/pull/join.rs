//! Calls for the same image become one pull.

use super::progress::{Live, Progress};
use super::{Auth, PullError};
use crate::image::{Image, Reference, Store};
use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

type Outcome = Result<Arc<Image>, Arc<PullError>>;
/// Who may not read an image must not get it by joining one who may.
type Key = (Reference, Option<Auth>);

/// Pulls under way.
#[derive(Default)]
pub struct Pulls {
    running: Mutex<HashMap<Key, Arc<Running>>>,
    /// One extraction of a layer at a time, across pulls.
    layers: Mutex<HashMap<String, Arc<tokio::sync::Mutex<()>>>>,
}

struct Running {
    live: Live,
    outcome: watch::Sender<Option<Outcome>>,
    waiters: AtomicUsize,
    cancel: CancellationToken,
}

/// Counts one caller; the last to go ends the pull.
struct Waiter(Arc<Running>);

impl Drop for Waiter {
    fn drop(&mut self) {
        if self.0.waiters.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.0.cancel.cancel();
        }
    }
}

impl Pulls {
    fn running(&self) -> MutexGuard<'_, HashMap<Key, Arc<Running>>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn progress(&self) -> Vec<Progress> {
        let running = self.running();
        let mut all: Vec<_> = running.values().map(|r| r.live.snapshot()).collect();
        all.sort_by(|a, b| a.reference.cmp(&b.reference));
        all
    }

    /// The turn of a layer: whoever waits finds it on disk afterwards.
    pub fn layer_turn(&self, diff_id: &str) -> Arc<tokio::sync::Mutex<()>> {
        let mut layers = self.layers.lock().unwrap_or_else(PoisonError::into_inner);
        layers.retain(|_, turn| Arc::strong_count(turn) > 1);
        layers.entry(diff_id.to_owned()).or_default().clone()
    }
}

impl Store {
    pub(super) async fn join_pull(
        self: &Arc<Self>,
        reference: Reference,
        auth: Option<Auth>,
    ) -> Outcome {
        let waiter = self.waiter((reference.clone(), auth));
        let mut outcome = waiter.0.outcome.subscribe();
        let done = outcome.wait_for(Option::is_some).await;
        match done.ok().and_then(|outcome| outcome.clone()) {
            Some(outcome) => outcome,
            // The pull's task was torn down with its executor.
            None => Err(Arc::new(PullError::Cancelled {
                reference: reference.to_string(),
            })),
        }
    }

    fn waiter(self: &Arc<Self>, key: Key) -> Waiter {
        let mut running = self.pulls.running();
        if let Some(found) = running.get(&key) {
            // Under the lock: the last waiter may have gone just now.
            found.waiters.fetch_add(1, Ordering::AcqRel);
            let waiter = Waiter(found.clone());
            if !found.cancel.is_cancelled() {
                return waiter;
            }
        }
        let new = Arc::new(Running {
            live: Live::new(key.0.to_string()),
            outcome: watch::Sender::new(None),
            waiters: AtomicUsize::new(1),
            cancel: CancellationToken::new(),
        });
        running.insert(key.clone(), new.clone());
        tokio::spawn(self.clone().run_pull(key, new.clone()));
        Waiter(new)
    }

    async fn run_pull(self: Arc<Self>, key: Key, running: Arc<Running>) {
        let (reference, auth) = &key;
        let pulled = self
            .pull_now(reference, auth.as_ref(), &running.live, &running.cancel)
            .await;
        let mut all = self.pulls.running();
        // A younger pull may have taken the place of a cancelled one.
        if all.get(&key).is_some_and(|r| Arc::ptr_eq(r, &running)) {
            all.remove(&key);
        }
        drop(all);
        running.outcome.send_replace(Some(pulled.map_err(Arc::new)));
    }
}
