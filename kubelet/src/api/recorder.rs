//! Events to the API server: aggregated, rate-limited, never in anyone's way.
//!
//! The same thing said again is one Event whose count grows; many messages that
//! differ only in their text become one that says so.

mod aggregate;
pub(crate) mod spend;

use crate::defaults;
use crate::event::{EventType, Recorder};
use aggregate::{Aggregate, Write};
use k8s_openapi::api::core::v1::{Event, EventSource, ObjectReference};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::api::{Api, ObjectMeta, Patch, PatchParams, PostParams};
use serde_json::json;
use spend::Bucket;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;

/// What was said about an object.
#[derive(Debug, Clone)]
pub(super) struct Said {
    pub about: ObjectReference,
    pub kind: EventType,
    pub reason: String,
    pub message: String,
    pub at: jiff::Timestamp,
}

/// The recorder of this node's component. Events that come while
/// [`defaults::EVENT_QUEUE`] others wait are dropped.
pub struct EventRecorder {
    queue: mpsc::Sender<Said>,
}

impl EventRecorder {
    /// Records as `kubelet` of `host`, up to `qps` events a second (0: as many
    /// as come) after a burst of `burst`. Must be called within a tokio runtime;
    /// its task ends with the recorder.
    pub fn new(client: kube::Client, host: &str, qps: u32, burst: u32) -> Arc<EventRecorder> {
        let (queue, said) = mpsc::channel(defaults::EVENT_QUEUE);
        let writer = Writer {
            client,
            host: host.to_owned(),
        };
        tokio::spawn(writer.run(said, Bucket::new(qps, burst, Instant::now())));
        Arc::new(EventRecorder { queue })
    }
}

impl Recorder for EventRecorder {
    fn record(&self, about: &ObjectReference, kind: EventType, reason: &str, message: &str) {
        let said = Said {
            about: about.clone(),
            kind,
            reason: reason.to_owned(),
            message: message.to_owned(),
            at: jiff::Timestamp::now(),
        };
        tracing::debug!(reason, message, object = about.name.as_deref(), "event");
        if self.queue.try_send(said).is_err() {
            tracing::warn!(reason, "event dropped: the API server does not keep up");
        }
    }
}

struct Writer {
    client: kube::Client,
    host: String,
}

impl Writer {
    async fn run(self, mut said: mpsc::Receiver<Said>, mut bucket: Bucket) {
        let mut aggregate = Aggregate::default();
        while let Some(next) = said.recv().await {
            if let Some(wait) = bucket.take(Instant::now()) {
                tokio::time::sleep(wait).await;
            }
            let write = aggregate.add(next, Instant::now());
            self.write_with_retries(&mut aggregate, write).await;
        }
    }

    async fn write_with_retries(&self, aggregate: &mut Aggregate, write: Write) {
        for attempt in 1..=defaults::EVENT_TRIES {
            let error = match self.write(&write).await {
                Ok(()) => return,
                Err(e) => e,
            };
            let code = match &error {
                kube::Error::Api(status) => status.code,
                _ => 0,
            };
            match (&write, code) {
                // It has expired (an hour by default): a new one takes its place.
                (Write::Count { said, .. }, 404) => {
                    let anew = aggregate.renew(said);
                    let _ = self.write(&anew).await;
                    return;
                }
                (Write::New { .. }, 409) => return,
                (_, 400..=499) if code != 429 => {
                    // A namespace that is going away takes no events: normal.
                    tracing::debug!(%error, "event refused");
                    return;
                }
                _ if attempt == defaults::EVENT_TRIES => {
                    tracing::warn!(%error, "event given up");
                }
                _ => tokio::time::sleep(Duration::from_millis(500 << attempt)).await,
            }
        }
    }

    async fn write(&self, write: &Write) -> Result<(), kube::Error> {
        match write {
            Write::New { name, said } => {
                let event = self.event(name, said);
                let namespace = event.metadata.namespace.clone().unwrap_or_default();
                let api: Api<Event> = Api::namespaced(self.client.clone(), &namespace);
                api.create(&PostParams::default(), &event).await?;
            }
            Write::Count { name, said, count } => {
                let api: Api<Event> =
                    Api::namespaced(self.client.clone(), namespace_of(&said.about));
                let patch = json!({
                    "count": count,
                    "lastTimestamp": Time(said.at),
                    "message": said.message,
                });
                api.patch(name, &PatchParams::default(), &Patch::Strategic(patch))
                    .await?;
            }
        }
        Ok(())
    }

    fn event(&self, name: &str, said: &Said) -> Event {
        let kind = match said.kind {
            EventType::Normal => "Normal",
            EventType::Warning => "Warning",
        };
        Event {
            metadata: ObjectMeta {
                name: Some(name.to_owned()),
                namespace: Some(namespace_of(&said.about).to_owned()),
                ..ObjectMeta::default()
            },
            involved_object: said.about.clone(),
            type_: Some(kind.to_owned()),
            reason: Some(said.reason.clone()),
            message: Some(said.message.clone()),
            count: Some(1),
            first_timestamp: Some(Time(said.at)),
            last_timestamp: Some(Time(said.at)),
            source: Some(EventSource {
                component: Some("kubelet".to_owned()),
                host: Some(self.host.clone()),
            }),
            reporting_component: Some("kubelet".to_owned()),
            reporting_instance: Some(self.host.clone()),
            ..Event::default()
        }
    }
}

/// Events about a Node are kept in `default`.
fn namespace_of(about: &ObjectReference) -> &str {
    about
        .namespace
        .as_deref()
        .filter(|n| !n.is_empty())
        .unwrap_or("default")
}
