//! Events, statuses and logs on a terminal.

use super::progress::{Stage, sentences};
use crate::event::{EventType, Recorder};
use crate::status::StatusSink;
use k8s_openapi::api::core::v1::{ObjectReference, Pod, PodStatus};
use std::collections::HashMap;
use std::io::Write;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;
use tokio::sync::watch;

/// Stages by UID; `None` once a pod is gone from the node.
pub type Stages = HashMap<String, Option<Stage>>;

/// Progress goes to standard error, logs to standard output.
pub struct Terminal {
    start: Instant,
    statuses: Mutex<HashMap<String, PodStatus>>,
    stages: watch::Sender<Stages>,
}

impl Terminal {
    pub fn new() -> Arc<Self> {
        Arc::new(Self {
            start: Instant::now(),
            statuses: Mutex::default(),
            stages: watch::channel(Stages::new()).0,
        })
    }

    pub fn stages(&self) -> watch::Receiver<Stages> {
        self.stages.subscribe()
    }

    /// One line about the play or one of its pods.
    pub fn say(&self, about: &str, text: &str) {
        let after = self.start.elapsed().as_secs_f64();
        let about = if about.is_empty() {
            String::new()
        } else {
            format!("{about}: ")
        };
        // A terminal that is gone is no reason to stop.
        let _ = writeln!(std::io::stderr().lock(), "{after:7.2}s  {about}{text}");
    }

    /// A line of a container.
    pub fn log(pod: &str, container: &str, line: &str) {
        let _ = writeln!(std::io::stdout().lock(), "[{pod}/{container}] {line}");
    }

    fn statuses(&self) -> MutexGuard<'_, HashMap<String, PodStatus>> {
        self.statuses.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Recorder for Terminal {
    fn record(&self, about: &ObjectReference, kind: EventType, reason: &str, message: &str) {
        let name = about.name.as_deref().unwrap_or_default();
        match kind {
            EventType::Normal => self.say(name, message),
            EventType::Warning => self.say(name, &format!("{reason}: {message}")),
        }
    }
}

impl StatusSink for Terminal {
    fn publish(&self, pod: &Arc<Pod>, status: PodStatus) {
        let uid = pod.metadata.uid.clone().unwrap_or_default();
        let name = pod.metadata.name.as_deref().unwrap_or_default();
        let stage = Stage::of(&status);
        let before = self.statuses().insert(uid.clone(), status.clone());
        for sentence in sentences(&before.unwrap_or_default(), &status) {
            self.say(name, &sentence);
        }
        self.stages.send_if_modified(|stages| {
            let changed = stages.get(&uid) != Some(&Some(stage));
            stages.insert(uid, Some(stage));
            changed
        });
    }

    fn finished(&self, pod: &Arc<Pod>, _: PodStatus) {
        let uid = pod.metadata.uid.clone().unwrap_or_default();
        let name = pod.metadata.name.as_deref().unwrap_or_default();
        self.say(name, "removed");
        self.stages.send_modify(|stages| {
            stages.insert(uid, None);
        });
    }
}
