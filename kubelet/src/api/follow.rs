//! A watch that begins with what etcd holds.
//!
//! [`watcher`](kube::runtime::watcher) can ask a watch for its first objects as well, but then
//! takes those of any cache: an API server that lags behind the one that was asked before would
//! have pods ended that are still wanted. A list would be right too, and is one request more.

use futures::stream::{BoxStream, Stream, StreamExt as _, unfold};
use kube::api::{WatchEvent, WatchParams};
use kube::core::Status;
use kube::runtime::watcher::{Error, Event};
use kube::{Api, Resource, ResourceExt as _};
use serde::de::DeserializeOwned;
use std::fmt::Debug;
use std::time::Duration;

/// The server ends a watch after so long; who hears nothing for longer has lost it.
const LIFE: Duration = Duration::from_secs(290);
const MARGIN: Duration = Duration::from_secs(5);
/// kubernetes apimachinery pkg/apis/meta/v1/types.go `InitialEventsAnnotationKey`.
const END_OF_INITIAL: &str = "k8s.io/initial-events-end";
const GONE: u16 = 410;

type Events<K> = BoxStream<'static, kube::Result<WatchEvent<K>>>;

enum At<K> {
    Start,
    Initial(Events<K>),
    /// The watch was lost; it goes on from this version.
    Lost(String),
    Following(String, Events<K>),
}

/// Objects that `fields` selects: all of them, then their changes, for ever. After an error
/// it goes on where it was, or from the start if the server has forgotten where that is.
pub fn from_etcd<K>(api: Api<K>, fields: &str) -> impl Stream<Item = Result<Event<K>, Error>>
where
    K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
{
    let parameters = WatchParams {
        field_selector: Some(fields.to_owned()),
        bookmarks: true,
        timeout: u32::try_from(LIFE.as_secs()).ok(),
        ..WatchParams::default()
    };
    unfold(
        (api, parameters, At::Start),
        |(api, parameters, mut at)| async {
            loop {
                let (event, next) = step(&api, &parameters, at).await;
                at = next;
                if let Some(event) = event {
                    return Some((event, (api, parameters, at)));
                }
            }
        },
    )
}

type Step<K> = (Option<Result<Event<K>, Error>>, At<K>);

async fn step<K>(api: &Api<K>, parameters: &WatchParams, at: At<K>) -> Step<K>
where
    K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
{
    match at {
        At::Start => {
            let initial = WatchParams {
                send_initial_events: true,
                ..parameters.clone()
            };
            match api.watch(&initial, "").await {
                Ok(events) => (Some(Ok(Event::Init)), At::Initial(events.boxed())),
                Err(error) => (Some(Err(Error::WatchStartFailed(error))), At::Start),
            }
        }
        At::Lost(version) => match api.watch(parameters, &version).await {
            Ok(events) => (None, At::Following(version, events.boxed())),
            Err(kube::Error::Api(status)) if status.code == GONE => (None, At::Start),
            Err(error) => (Some(Err(Error::WatchStartFailed(error))), At::Lost(version)),
        },
        At::Initial(mut events) => match next(&mut events).await {
            Some(Ok(event)) => first(event, events),
            Some(Err(error)) => (Some(Err(Error::WatchFailed(error))), At::Start),
            None => (None, At::Start),
        },
        At::Following(version, mut events) => match next(&mut events).await {
            Some(Ok(event)) => later(event, version, events),
            Some(Err(error)) => (Some(Err(Error::WatchFailed(error))), At::Lost(version)),
            None => (None, At::Lost(version)),
        },
    }
}

async fn next<K>(events: &mut Events<K>) -> Option<kube::Result<WatchEvent<K>>> {
    tokio::time::timeout(LIFE + MARGIN, events.next())
        .await
        .unwrap_or(None)
}

/// One of the objects that there are.
fn first<K>(event: WatchEvent<K>, events: Events<K>) -> Step<K> {
    match event {
        WatchEvent::Added(object) | WatchEvent::Modified(object) => {
            (Some(Ok(Event::InitApply(object))), At::Initial(events))
        }
        WatchEvent::Bookmark(mark) if mark.metadata.annotations.contains_key(END_OF_INITIAL) => {
            let at = At::Following(mark.metadata.resource_version, events);
            (Some(Ok(Event::InitDone)), at)
        }
        WatchEvent::Bookmark(_) | WatchEvent::Deleted(_) => (None, At::Initial(events)),
        WatchEvent::Error(status) => (Some(Err(refused(*status))), At::Start),
    }
}

/// A change.
fn later<K: Resource>(event: WatchEvent<K>, version: String, events: Events<K>) -> Step<K> {
    let follow = |object: &K, events| match object.resource_version() {
        Some(version) => At::Following(version, events),
        None => At::Start,
    };
    match event {
        WatchEvent::Added(object) | WatchEvent::Modified(object) => {
            let at = follow(&object, events);
            (Some(Ok(Event::Apply(object))), at)
        }
        WatchEvent::Deleted(object) => {
            let at = follow(&object, events);
            (Some(Ok(Event::Delete(object))), at)
        }
        WatchEvent::Bookmark(mark) => (None, At::Following(mark.metadata.resource_version, events)),
        WatchEvent::Error(status) if status.code == GONE => (None, At::Start),
        WatchEvent::Error(status) => (Some(Err(refused(*status))), At::Lost(version)),
    }
}

fn refused(status: Status) -> Error {
    Error::WatchError(status.boxed())
}
