//! Traces for an OpenTelemetry collector, where the configuration names one (`tracing`).
//!
//! A trace is one piece of work on a pod, `syncPod`, or one request that is served; within it are
//! the calls of the runtime and the requests to the API server that it took. Requests that nobody
//! waits for are traces of their own. A runtime behind a socket and the API server are told which
//! (W3C traceparent), and may go on with it. Which traces are kept is decided at their beginning. A
//! collector that is slow or away loses spans and holds up nothing.

mod export;
mod otlp;
mod requests;

pub use export::Exporter;
pub use requests::Asked;

use crate::config::Tracing;
use cri_proto::{CallTracer, Ended};
use k8s_openapi::api::core::v1::Pod;
use otlp::{KeyValue, Span, SpanStatus};
use std::fmt::Write;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};
use tokio::sync::mpsc;

/// opentelemetry-proto v1.5 trace.proto `SpanKind`.
const INTERNAL: i32 = 1;
const SERVER: i32 = 2;
const CLIENT: i32 = 3;
const MILLION: u32 = 1_000_000;

tokio::task_local! {
    static CURRENT: Context;
}

/// Where in a trace somebody is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Context {
    trace: [u8; 16],
    span: [u8; 8],
    kept: bool,
}

impl Context {
    fn root(kept: bool) -> Context {
        Context {
            trace: random(),
            span: random(),
            kept,
        }
    }

    fn child(self) -> Context {
        Context {
            span: random(),
            ..self
        }
    }

    fn current() -> Option<Context> {
        CURRENT.try_with(|c| *c).ok()
    }

    /// W3C Trace Context, 3.2.
    fn traceparent(&self) -> String {
        let kept = u8::from(self.kept);
        format!("00-{}-{}-{kept:02x}", hex(&self.trace), hex(&self.span))
    }

    /// Later versions may say more behind what the first says.
    fn parse(traceparent: &str) -> Option<Context> {
        let mut parts = traceparent.split('-');
        let mut part = || parts.next();
        let version = unhex::<1>(part()?)?;
        let context = Context {
            trace: unhex(part()?)?,
            span: unhex(part()?)?,
            kept: unhex::<1>(part()?)?[0] & 1 == 1,
        };
        let whole = version != [0xff] && (version != [0] || part().is_none());
        let named = context.trace != [0; 16] && context.span != [0; 8];
        (whole && named).then_some(context)
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

    /// Whether anybody is told.
    pub fn is_on(&self) -> bool {
        self.0.is_some()
    }

    /// Work on a pod, as a trace of its own.
    pub async fn sync_pod<T>(
        &self,
        pod: &Pod,
        what: &impl std::fmt::Display,
        work: impl Future<Output = T>,
    ) -> T {
        let Some(inner) = &self.0 else {
            return work.await;
        };
        let context = inner.enter(None);
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
        let ended = Span {
            name: "syncPod".to_owned(),
            kind: INTERNAL,
            attributes: attributes
                .map(|(key, value)| KeyValue::text(key, value))
                .into(),
            ..span(context, None, begin)
        };
        inner.send(context, ended);
        result
    }
}

impl Inner {
    fn keeps(&self) -> bool {
        u32::from_ne_bytes(random()) % MILLION < self.per_million
    }

    /// Within the trace of who asks for it, else in one of its own.
    fn enter(&self, parent: Option<Context>) -> Context {
        parent.map_or_else(|| Context::root(self.keeps()), Context::child)
    }

    /// What the collector does not take in time is lost.
    fn send(&self, context: Context, span: Span) {
        if context.kept {
            let _ = self.spans.try_send(span);
        }
    }
}

impl CallTracer for Tracer {
    fn begins(&self, service: &'static str, verb: &'static str) -> Option<(String, Ended)> {
        let inner = self.0.clone()?;
        let parent = Context::current()?;
        let (context, begin) = (parent.child(), now());
        let ended = move |failed: bool| {
            let service = format!("runtime.v1.{service}");
            let method = method(verb);
            let attributes = [
                ("rpc.system", "grpc"),
                ("rpc.service", service.as_str()),
                ("rpc.method", method.as_str()),
            ];
            let ended = Span {
                name: format!("{service}/{method}"),
                kind: CLIENT,
                attributes: attributes
                    .map(|(key, value)| KeyValue::text(key, value))
                    .into(),
                status: failed.then(SpanStatus::error),
                ..span(context, Some(parent), begin)
            };
            inner.send(context, ended);
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

fn unhex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let lower = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
    let is_hex = text.len() == 2 * N && text.bytes().all(lower);
    let mut bytes = [0; N];
    for (i, byte) in bytes.iter_mut().enumerate().filter(|_| is_hex) {
        *byte = u8::from_str_radix(&text[2 * i..2 * i + 2], 16).ok()?;
    }
    is_hex.then_some(bytes)
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

    pub(super) fn tracer(per_million: u32) -> (Tracer, mpsc::Receiver<Span>) {
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
        assert_eq!(call.status, Some(SpanStatus::error()));
        assert_eq!(
            (&call.trace_id, &call.parent_span_id),
            (&sync.trace_id, &sync.span_id)
        );
        assert_eq!(sync.parent_span_id, Vec::<u8>::new());
        let expected = format!("00-{}-{}-01", hex(&call.trace_id), hex(&call.span_id));
        assert_eq!(traceparent, expected);
        assert!(sync.start_time_unix_nano <= call.start_time_unix_nano);
    }

    #[test]
    fn traceparent_is_read_as_it_is_written() {
        for kept in [true, false] {
            let context = Context::root(kept);
            assert_eq!(Context::parse(&context.traceparent()), Some(context));
        }
        let (trace, span) = ("0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331");
        let some = |text: String| Context::parse(&text).is_some();
        assert!(some(format!("00-{trace}-{span}-03")));
        assert!(some(format!("cc-{trace}-{span}-01-what-the-future-says")));
        for wrong in [
            format!("00-{trace}-{span}-01-more"),
            format!("ff-{trace}-{span}-01"),
            format!("00-{trace}-{span}"),
            format!("00-{}-{span}-01", trace.to_uppercase()),
            format!("00-{trace}-{}-01", "0".repeat(16)),
            format!("00-{}-{span}-01", "0".repeat(32)),
            format!("00-{trace}-{}-01", &span[2..]),
            "00-é".to_owned(),
        ] {
            assert!(!some(wrong.clone()), "{wrong}");
        }
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
