//! One object, watched by its name as the Node authorizer allows.

use crate::api::{from_cache, of_one};
use futures::StreamExt as _;
use k8s_openapi::NamespaceResourceScope;
use kube::runtime::WatchStreamExt as _;
use kube::runtime::utils::Backoff;
use kube::runtime::watcher::{self, watcher};
use kube::{Api, Resource};
use serde::de::DeserializeOwned;
use std::fmt::Debug;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

/// How long a caller waits for the first answer of a watch.
const PATIENCE: Duration = Duration::from_secs(10);

/// What can be watched here.
pub trait Watchable:
    Resource<DynamicType = (), Scope = NamespaceResourceScope>
    + Clone
    + Debug
    + DeserializeOwned
    + Send
    + Sync
    + 'static
{
    /// In the API server's messages.
    const KIND: &'static str;
    fn immutable(&self) -> bool;
}

impl Watchable for k8s_openapi::api::core::v1::ConfigMap {
    const KIND: &'static str = "configmap";
    fn immutable(&self) -> bool {
        self.immutable.unwrap_or(false)
    }
}

impl Watchable for k8s_openapi::api::core::v1::Secret {
    const KIND: &'static str = "secret";
    fn immutable(&self) -> bool {
        self.immutable.unwrap_or(false)
    }
}

#[derive(Debug, Clone)]
enum State<K> {
    Unknown,
    Failed(String),
    Known(Option<Arc<K>>),
}

/// Ends its watch when dropped.
pub struct Watched<K> {
    api: Api<K>,
    name: String,
    state: watch::Receiver<State<K>>,
    /// The first list comes from the API server's cache, which may be behind:
    /// that an object is missing is asked for once more.
    missing_confirmed: AtomicBool,
    _task: AbortOnDropHandle<()>,
}

impl<K: Watchable> Watched<K> {
    /// `changed` is called on each change after the first answer.
    pub fn start(api: Api<K>, name: &str, changed: impl Fn() + Send + 'static) -> Self {
        let (state, seen) = watch::channel(State::Unknown);
        let task = tokio::spawn(follow(api.clone(), name.to_owned(), state, changed));
        Self {
            api,
            name: name.to_owned(),
            state: seen,
            missing_confirmed: AtomicBool::new(false),
            _task: AbortOnDropHandle::new(task),
        }
    }

    /// The object as it is now, `None` if there is none.
    ///
    /// # Errors
    /// Why the API server did not answer, if it did not within ten seconds.
    pub async fn get(&self) -> Result<Option<Arc<K>>, String> {
        let mut state = self.state.clone();
        let known = |s: &State<K>| matches!(s, State::Known(_));
        // In time or not: what there is by then is the answer.
        let waited = tokio::time::timeout(PATIENCE, state.wait_for(known)).await;
        drop(waited);
        let found = self.state.borrow().clone();
        match found {
            State::Known(Some(object)) => Ok(Some(object)),
            State::Known(None) if self.missing_confirmed.load(Ordering::Relaxed) => Ok(None),
            State::Known(None) => self.ask().await,
            State::Failed(reason) => Err(reason),
            State::Unknown => Err("the API server does not answer".to_owned()),
        }
    }

    async fn ask(&self) -> Result<Option<Arc<K>>, String> {
        let answer = self.api.get_opt(&self.name).await;
        let object = answer.map_err(|e| one_line(&e))?;
        self.missing_confirmed
            .store(object.is_none(), Ordering::Relaxed);
        Ok(object.map(Arc::new))
    }
}

async fn follow<K: Watchable>(
    api: Api<K>,
    name: String,
    state: watch::Sender<State<K>>,
    changed: impl Fn(),
) {
    let only = format!("metadata.name={name}");
    let config = from_cache().fields(&only);
    let mut events = watcher(api, config).backoff(Quick::default()).boxed();
    let mut listed = None;
    while let Some(event) = events.next().await {
        let now = match event {
            Ok(event) => of_one(event, &mut listed),
            Err(error) => {
                note_failure(&state, &error);
                continue;
            }
        };
        let Some(now) = now else { continue };
        let final_word = now.as_ref().is_some_and(K::immutable);
        if publish(&state, now) {
            changed();
        }
        if final_word {
            return;
        }
    }
}

/// Answers whether something changed that was known before.
fn publish<K: Watchable>(state: &watch::Sender<State<K>>, now: Option<K>) -> bool {
    let now = now.map(|mut object| {
        object.meta_mut().managed_fields = None;
        Arc::new(object)
    });
    let version = |o: &Option<Arc<K>>| o.as_ref().map(|o| o.meta().resource_version.clone());
    let mut news = false;
    state.send_modify(|state| {
        news = match state {
            State::Known(before) => version(before) != version(&now),
            // An object that appears after a failure may be waited for.
            State::Failed(_) => true,
            State::Unknown => false,
        };
        *state = State::Known(now);
    });
    news
}

fn note_failure<K>(state: &watch::Sender<State<K>>, error: &watcher::Error) {
    let reason = one_line(error);
    tracing::debug!(reason, "watch of one object");
    state.send_if_modified(|state| {
        // What was known stays good while the API server is away.
        let unknown = !matches!(state, State::Known(_));
        if unknown {
            *state = State::Failed(reason);
        }
        unknown
    });
}

/// The error and what caused it, each said once.
pub fn one_line(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = String::new();
    let mut next = Some(error);
    while let Some(error) = next {
        let words;
        (words, next) = said(error);
        if text.is_empty() {
            text = words;
        } else if !text.contains(&words) {
            text = format!("{text}: {words}");
        }
    }
    text
}

type Cause<'a> = Option<&'a (dyn std::error::Error + 'static)>;

/// An error's words and its cause; an answer of the API server is its message.
fn said<'a>(error: &'a (dyn std::error::Error + 'static)) -> (String, Cause<'a>) {
    match error.downcast_ref::<kube::Error>() {
        Some(kube::Error::Api(status)) => (status.message.clone(), None),
        _ => (error.to_string(), error.source()),
    }
}

/// What the API server forbids at first is tried again for so long.
const AUTHORIZER_LAG: Duration = Duration::from_secs(2);

/// The answer, once the authorizer knows of the pod that the call is about: it
/// learns of a pod a moment after we do.
pub async fn authorized<T, F: Future<Output = kube::Result<T>>>(
    call: impl Fn() -> F,
) -> kube::Result<T> {
    let start = Instant::now();
    for delay in Quick::default() {
        match call().await {
            Err(kube::Error::Api(status)) if lags(&status) && start.elapsed() < AUTHORIZER_LAG => {
                tokio::time::sleep(delay).await;
            }
            answer => return answer,
        }
    }
    call().await
}

/// Forbidden, and not since the namespace goes, which it will not cease to do.
fn lags(status: &kube::core::Status) -> bool {
    let details = status.details.as_ref();
    let terminating = details.is_some_and(|d| {
        let mut causes = d.causes.iter();
        causes.any(|c| c.reason == "NamespaceTerminating")
    });
    status.code == 403 && !terminating
}

/// The authorizer learns of a pod a moment after we do, so the first tries come
/// quickly one after the other.
///
/// A watch that fails at its first list says each time that it begins, which is
/// no success: tries are counted anew only when none has failed for a while.
#[derive(Debug, Default)]
pub struct Quick {
    tries: u32,
    failed: Option<Instant>,
}

const FIRST_DELAY: Duration = Duration::from_millis(5);
const MAX_DELAY: Duration = Duration::from_secs(30);
const FORGET_AFTER: Duration = Duration::from_secs(90);

impl Iterator for Quick {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        Some(self.delay(Instant::now()))
    }
}

impl Quick {
    fn delay(&mut self, now: Instant) -> Duration {
        if self.failed.is_some_and(|at| now > at + FORGET_AFTER) {
            self.tries = 0;
        }
        self.failed = Some(now);
        let delay = FIRST_DELAY.saturating_mul(1 << self.tries.min(16));
        self.tries += 1;
        delay.min(MAX_DELAY)
    }
}

impl Backoff for Quick {
    fn reset(&mut self) {}
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::ConfigMap;

    fn version(version: &str) -> Option<ConfigMap> {
        let mut object = ConfigMap::default();
        object.metadata.resource_version = Some(version.into());
        object.metadata.managed_fields = Some(vec![]);
        Some(object)
    }

    #[test]
    fn only_what_differs_from_what_was_known_is_a_change() {
        let (state, seen) = watch::channel(State::Unknown);
        assert!(!publish(&state, version("1")), "the first answer");
        assert!(!publish(&state, version("1")), "a relist");
        assert!(publish(&state, version("2")));
        assert!(publish(&state, None), "deleted");
        assert!(publish(&state, version("3")), "made again");
        let State::Known(Some(object)) = &*seen.borrow() else {
            panic!("{seen:?}");
        };
        assert!(
            object.metadata.managed_fields.is_none(),
            "memory is not spent on it"
        );
    }

    #[tokio::test]
    async fn what_is_forbidden_at_first_is_tried_again() {
        let forbidden = || {
            let status = serde_json::json!({"code": 403, "message": "no relationship found"});
            kube::Error::Api(serde_json::from_value(status).unwrap())
        };
        let tries = std::cell::Cell::new(0);
        let third = || async {
            tries.set(tries.get() + 1);
            (tries.get() == 3).then_some(()).ok_or_else(forbidden)
        };
        assert!(authorized(third).await.is_ok());
        assert_eq!(one_line(&forbidden()), "no relationship found");
    }

    #[test]
    fn delays_grow_to_half_a_minute_and_start_over_when_all_was_well() {
        let mut quick = Quick::default();
        let now = Instant::now();
        assert_eq!(quick.delay(now), FIRST_DELAY);
        quick.reset();
        let second = quick.delay(now);
        assert_eq!(second, FIRST_DELAY * 2, "a watch that begins is no success");
        assert_eq!((0..40).map(|_| quick.delay(now)).max(), Some(MAX_DELAY));
        let later = now + FORGET_AFTER + MAX_DELAY;
        assert_eq!(quick.delay(later), FIRST_DELAY);
    }
}
