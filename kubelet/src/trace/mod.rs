//! Traces for an OpenTelemetry collector, where the configuration names one (`tracing`).
//!
//! A trace is one piece of work on a pod, `syncPod`; within it are the calls of the runtime that
//! it took. A runtime behind a socket is told which (W3C traceparent), and may go on with it.
//! Which traces are kept is decided at their beginning. A collector that is slow or away loses
//! spans and holds up nothing.

mod export;
mod otlp;

pub use export::Exporter;

use crate::config::Tracing;
use cri_proto::{CallTracer, Ended};
use k8s_openapi::api::core::v1::Pod;
use otlp::{KeyValue, Span, SpanStatus};
use std::fmt::Write;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};
use tokio::sync::mpsc;

/// opentelemetry-proto v1.5 trace.proto `SpanKind`, `StatusCode`.
const INTERNAL: i32 = 1;
const CLIENT: i32 = 3;
const ERROR: i32 = 2;
const MILLION: u32 = 1_000_000;

tokio::task_local! {
    static CURRENT: Context;
}

/// Where in a trace somebody is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Context {
    trace: [u8; 16],
    span: [u8; 8],
}

impl Context {
    fn root() -> Context {
        Context {
            trace: random(),
            span: random(),
        }
    }

    fn child(self) -> Context {
        Context {
            span: random(),
            ..self
        }
    }

    /// Of a trace that is kept.
    fn traceparent(&self) -> String {
        format!("00-{}-{}-01", hex(&self.trace), hex(&self.span))
    }
}

/// Makes spans; clones make them for the same collector.
#[derive(Debug, Clone, Default)]
pub struct Tracer(Option<Arc<Inner>>);

#[derive(Debug)]
struct Inner {
    per_million: u32,
    spans: mpsc::Sender<Span>,
}

impl Tracer {
    /// With what sends the spans away; nothing where no trace would be kept.
    pub fn new(tracing: Option<&Tracing>, node_name: &str) -> (Tracer, Option<Exporter>) {
        let Some(tracing) = tracing.filter(|t| t.per_million > 0) else {
            return (Tracer::default(), None);
        };
        let (spans, made) = mpsc::channel(export::QUEUE);
        let inner = Inner {
            per_million: tracing.per_million,
            spans,
        };
        let exporter = Exporter::new(&tracing.collector, node_name, made);
        (Tracer(Some(Arc::new(inner))), Some(exporter))
    }

    /// Work on a pod, as a trace of its own.
    pub async fn sync_pod<T>(
        &self,
        pod: &Pod,
        what: &impl std::fmt::Display,
        work: impl Future<Output = T>,
    ) -> T {
        let Some(inner) = self.0.as_ref().filter(|inner| inner.keeps()) else {
            return work.await;
        };
        let context = Context::root();
        let begin = now();
        let result = CURRENT.scope(context, work).await;
        let of = |value: &Option<String>| value.clone().unwrap_or_default();
        let meta = &pod.metadata;
        let attributes = [
            ("k8s.namespace.name", of(&meta.namespace)),
            ("k8s.pod.name", of(&meta.name)),
            ("k8s.pod.uid", of(&meta.uid)),
            ("effect", what.to_string()),
        ];
        inner.send(Span {
            name: "syncPod".to_owned(),
            kind: INTERNAL,
            attributes: attributes
                .map(|(key, value)| KeyValue::text(key, value))
                .into(),
            ..span(context, None, begin)
        });
        result
    }
}

impl Inner {
    fn keeps(&self) -> bool {
        u32::from_ne_bytes(random()) % MILLION < self.per_million
    }

    /// What the collector does not take in time is lost.
    fn send(&self, span: Span) {
        let _ = self.spans.try_send(span);
    }
}

impl CallTracer for Tracer {
    fn begins(&self, service: &'static str, verb: &'static str) -> Option<(String, Ended)> {
        let inner = self.0.clone()?;
        let parent = CURRENT.try_with(|c| *c).ok()?;
        let (context, begin) = (parent.child(), now());
        let ended = move |failed: bool| {
            let service = format!("runtime.v1.{service}");
            let method = method(verb);
            let attributes = [
                ("rpc.system", "grpc"),
                ("rpc.service", service.as_str()),
                ("rpc.method", method.as_str()),
            ];
            inner.send(Span {
                name: format!("{service}/{method}"),
                kind: CLIENT,
                attributes: attributes
                    .map(|(key, value)| KeyValue::text(key, value))
                    .into(),
                status: failed.then(|| SpanStatus {
                    code: ERROR,
                    ..SpanStatus::default()
                }),
                ..span(context, Some(parent), begin)
            });
        };
        Some((context.traceparent(), Box::new(ended)))
    }
}

/// One that ends now.
fn span(context: Context, parent: Option<Context>, begin: u64) -> Span {
    Span {
        trace_id: context.trace.into(),
        span_id: context.span.into(),
        parent_span_id: parent.map(|p| p.span.into()).unwrap_or_default(),
        start_time_unix_nano: begin,
        end_time_unix_nano: now(),
        flags: 1,
        ..Span::default()
    }
}

/// `run_pod_sandbox` as the proto has it: `RunPodSandbox`.
fn method(verb: &str) -> String {
    let words = verb.split('_').map(|word| {
        let (first, rest) = word.split_at(word.len().min(1));
        first.to_uppercase() + rest
    });
    words.collect()
}

/// Ids of nothing but zeros count as none; that is as good as impossible.
fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    let source = ring::rand::SystemRandom::new();
    let filled = ring::rand::SecureRandom::fill(&source, &mut bytes);
    debug_assert!(filled.is_ok());
    bytes
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn now() -> u64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Collector;

    fn tracer(per_million: u32) -> (Tracer, mpsc::Receiver<Span>) {
        let (spans, made) = mpsc::channel(10);
        let inner = Inner { per_million, spans };
        (Tracer(Some(Arc::new(inner))), made)
    }

    #[tokio::test]
    async fn calls_within_a_sync_are_its_children() {
        let (tracer, mut made) = tracer(MILLION);
        assert!(
            tracer.begins("RuntimeService", "version").is_none(),
            "no trace"
        );
        let call = async {
            let (traceparent, ended) = tracer.begins("RuntimeService", "run_pod_sandbox").unwrap();
            ended(true);
            traceparent
        };
        let traceparent = tracer.sync_pod(&Pod::default(), &"RunSandbox", call).await;
        let (call, sync) = (made.recv().await.unwrap(), made.recv().await.unwrap());
        assert_eq!(call.name, "runtime.v1.RuntimeService/RunPodSandbox");
        assert_eq!(call.status.map(|s| s.code), Some(ERROR));
        assert_eq!(
            (&call.trace_id, &call.parent_span_id),
            (&sync.trace_id, &sync.span_id)
        );
        assert_eq!(sync.parent_span_id, Vec::<u8>::new());
        let expected = format!("00-{}-{}-01", hex(&call.trace_id), hex(&call.span_id));
        assert_eq!(traceparent, expected);
        assert!(sync.start_time_unix_nano <= call.start_time_unix_nano);
    }

    #[tokio::test]
    async fn traces_are_kept_at_the_rate_asked_for() {
        let (some, mut made) = tracer(500_000);
        let mut kept = 0;
        for _ in 0..200 {
            some.sync_pod(&Pod::default(), &"x", async {}).await;
            kept += usize::from(made.try_recv().is_ok());
        }
        // Outside of this once in more than 10^20 runs.
        assert!((30..170).contains(&kept), "{kept} of 200");
        let (none, mut nothing) = tracer(0);
        none.sync_pod(&Pod::default(), &"x", async {}).await;
        assert!(nothing.try_recv().is_err());
        let off = Tracing {
            collector: Collector::Tcp("localhost:4317".into()),
            per_million: 0,
        };
        assert!(Tracer::new(Some(&off), "n").1.is_none());
        assert!(Tracer::new(None, "n").1.is_none());
    }
}
