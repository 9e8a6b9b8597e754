//! Keeps the spans of starts.
//!
//! A span belongs to a pod when it, or a span around it, has the field `uid` (of
//! a pod) or `sandbox`. Events of the target `lighter::waterfall` are moments
//! within a span: each ends a row that began where the one before ended.

use super::starts::{Row, Start, Starts};
use rustix::time::{ClockId, clock_gettime};
use std::sync::Arc;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id};
use tracing::{Event, Subscriber};
use tracing_subscriber::layer::{Context, Layer};
use tracing_subscriber::registry::LookupSpan;

const MOMENTS: &str = "lighter::waterfall";
/// The whole life of a pod, in its worker.
const LIFE: &str = "pod";
/// The first of a pod that no kubelet of ours runs.
const SANDBOX: &str = "run_pod_sandbox";
const LAST: &str = "patch_status";

/// The layer that fills [`Starts`].
pub struct Recorder {
    starts: Arc<Starts>,
}

/// What a span carries.
struct Recording {
    key: Arc<str>,
    label: String,
    depth: usize,
    begun: u64,
    moment: u64,
    settled: bool,
}

impl Recorder {
    pub fn new(starts: Arc<Starts>) -> Self {
        Self { starts }
    }

    /// Whether a span or event is looked at.
    pub fn wants(metadata: &tracing::Metadata<'_>) -> bool {
        let target = metadata.target();
        let ours = ["kubelet::", "runtime::", "cni::"];
        target == MOMENTS || metadata.is_span() && ours.iter().any(|room| target.starts_with(room))
    }
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Recorder {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let Some(span) = context.span(id) else { return };
        let mut fields = Fields::default();
        attributes.record(&mut fields);
        let outer = span.parent().and_then(|parent| {
            let extensions = parent.extensions();
            let recording = extensions.get::<Recording>()?;
            Some((recording.key.clone(), recording.depth + 1))
        });
        let name = span.name();
        let begun = monotonic();
        let (key, depth) = match outer {
            Some(outer) => outer,
            None => match fields.key() {
                Some(key) => (Arc::from(key), 0),
                None => return,
            },
        };
        if name == LIFE || name == SANDBOX {
            self.starts.begin(Start {
                key: key.to_string(),
                namespace: fields.namespace.clone(),
                name: fields.name.clone(),
                begun,
                ..Start::default()
            });
        }
        span.extensions_mut().insert(Recording {
            key,
            label: fields.label(name),
            // The life of the pod is no row, so what is in it is not indented.
            depth: if name == LIFE { 0 } else { depth },
            begun,
            moment: begun,
            settled: fields.settled,
        });
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        if event.metadata().target() != MOMENTS {
            return;
        }
        let mut fields = Fields::default();
        event.record(&mut fields);
        let Some(span) = context.event_span(event) else {
            return;
        };
        let mut extensions = span.extensions_mut();
        let Some(recording) = extensions.get_mut::<Recording>() else {
            return;
        };
        let row = Row {
            name: fields.what,
            depth: recording.depth + 1,
            from: recording.moment,
            took: fields.at.saturating_sub(recording.moment),
        };
        recording.moment = fields.at;
        self.starts.row(&recording.key, row);
    }

    fn on_close(&self, id: Id, context: Context<'_, S>) {
        let Some(span) = context.span(&id) else {
            return;
        };
        let extensions = span.extensions();
        let Some(recording) = extensions.get::<Recording>() else {
            return;
        };
        if span.name() == LIFE || !of_a_start(span.name()) {
            return;
        }
        let row = Row {
            name: recording.label.clone(),
            depth: recording.depth,
            from: recording.begun,
            took: monotonic().saturating_sub(recording.begun),
        };
        self.starts.row(&recording.key, row);
        if recording.settled && span.name() == LAST {
            self.starts.settle(&recording.key);
        }
    }
}

/// Verbs that a pod under a foreign kubelet meets later in its life.
fn of_a_start(name: &str) -> bool {
    let later = ["exec", "stop", "remove", "update"];
    !later.iter().any(|verb| name.starts_with(verb)) || name == "execute"
}

fn monotonic() -> u64 {
    let time = clock_gettime(ClockId::Monotonic);
    let nanoseconds = time.tv_sec * 1_000_000_000 + time.tv_nsec;
    u64::try_from(nanoseconds).unwrap_or(0)
}

#[derive(Default)]
struct Fields {
    uid: String,
    sandbox: String,
    namespace: String,
    name: String,
    what: String,
    at: u64,
    settled: bool,
}

impl Fields {
    fn key(&self) -> Option<&str> {
        [&self.uid, &self.sandbox]
            .into_iter()
            .find(|key| !key.is_empty())
            .map(String::as_str)
    }

    /// `effect` spans say themselves what they are.
    fn label(&self, span: &str) -> String {
        match (span, self.name.as_str()) {
            _ if !self.what.is_empty() => self.what.clone(),
            (SANDBOX, _) | (_, "") => span.to_owned(),
            (_, name) => format!("{span} {name}"),
        }
    }

    fn text(&mut self, field: &Field) -> Option<&mut String> {
        Some(match field.name() {
            "uid" => &mut self.uid,
            "sandbox" => &mut self.sandbox,
            "namespace" => &mut self.namespace,
            "name" => &mut self.name,
            "what" => &mut self.what,
            _ => return None,
        })
    }
}

impl Visit for Fields {
    fn record_str(&mut self, field: &Field, value: &str) {
        if let Some(text) = self.text(field) {
            value.clone_into(text);
        }
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        if field.name() == "at" {
            self.at = value;
        }
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        if field.name() == "settled" {
            self.settled = value;
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        if let Some(text) = self.text(field) {
            *text = format!("{value:?}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tracing_subscriber::prelude::*;

    fn recorded(work: impl FnOnce()) -> Vec<Start> {
        let starts = Arc::new(Starts::default());
        let layer = Recorder::new(starts.clone());
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), work);
        starts.list()
    }

    #[test]
    fn spans_within_a_pod_are_its_rows_and_its_life_is_none() {
        let starts = recorded(|| {
            let _life =
                tracing::info_span!("pod", uid = "u", namespace = "n", name = "web").entered();
            let _effect = tracing::debug_span!("effect", what = %"RunSandbox").entered();
            let _verb =
                tracing::info_span!("run_pod_sandbox", sandbox = "s", name = "web").entered();
            tracing::info_span!("network").in_scope(|| ());
        });
        assert_eq!(starts.len(), 1);
        assert_eq!(
            (starts[0].key.as_str(), starts[0].name.as_str()),
            ("u", "web")
        );
        let rows: Vec<_> = starts[0]
            .rows
            .iter()
            .map(|r| (r.name.as_str(), r.depth))
            .collect();
        assert_eq!(
            rows,
            [("RunSandbox", 1), ("run_pod_sandbox", 2), ("network", 3)]
        );
    }

    #[test]
    fn without_a_kubelet_the_sandbox_names_the_pod() {
        let starts = recorded(|| {
            tracing::info_span!("run_pod_sandbox", sandbox = "s", name = "web").in_scope(|| ());
            tracing::info_span!("create_container", sandbox = "s", name = "c").in_scope(|| ());
            tracing::info_span!("exec_sync", sandbox = "s").in_scope(|| ());
        });
        let rows: Vec<_> = starts[0].rows.iter().map(|r| r.name.as_str()).collect();
        assert_eq!(rows, ["run_pod_sandbox", "create_container c"]);
    }

    #[test]
    fn a_moment_ends_the_row_that_began_with_the_one_before() {
        let starts = recorded(|| {
            let _verb =
                tracing::info_span!("run_pod_sandbox", sandbox = "s", name = "web").entered();
            let at = monotonic();
            tracing::debug!(target: "lighter::waterfall", what = "forked", at = at + 10);
            tracing::debug!(target: "lighter::waterfall", what = "made", at = at + 30);
        });
        let made = starts[0].rows.iter().find(|r| r.name == "made");
        assert_eq!(made.map(|r| (r.took, r.depth)), Some((20, 1)));
    }

    #[test]
    fn a_settled_status_ends_the_start() {
        let starts = recorded(|| {
            let _life = tracing::info_span!("pod", uid = "u", name = "web").entered();
            tracing::debug_span!("patch_status", uid = "u", settled = true).in_scope(|| ());
            tracing::debug_span!("effect", what = %"StartContainer web").in_scope(|| ());
        });
        let rows: Vec<_> = starts[0].rows.iter().map(|r| r.name.as_str()).collect();
        assert_eq!(rows, ["patch_status"]);
        assert!(starts[0].settled);
    }
}
