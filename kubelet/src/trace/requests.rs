//! Requests that are made and served, as spans.
//!
//! Names and attributes are OpenTelemetry's semantic conventions for HTTP, as the stock kubelet
//! has them by way of otelhttp and otelrestful.

use super::otlp::{KeyValue, Span, SpanStatus};
use super::{CLIENT, CURRENT, Context, Inner, SERVER, Tracer, now, span};
use http::header::{HeaderName, HeaderValue, USER_AGENT};
use http::{Request, Response, StatusCode};
use std::sync::Arc;

const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const STATUS: &str = "http.response.status_code";

/// A span that ends when this is dropped.
struct Open {
    inner: Arc<Inner>,
    context: Context,
    parent: Option<Context>,
    span: Span,
}

impl Open {
    fn answered(&mut self, status: StatusCode, failed: bool) {
        let code = KeyValue::number(STATUS, status.as_u16());
        self.span.attributes.push(code);
        self.failed(failed);
    }

    fn failed(&mut self, failed: bool) {
        self.span.status = failed.then(SpanStatus::error);
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        let open = std::mem::take(&mut self.span);
        let ended = Span {
            name: open.name,
            kind: open.kind,
            attributes: open.attributes,
            status: open.status,
            ..span(self.context, self.parent, open.start_time_unix_nano)
        };
        self.inner.send(self.context, ended);
    }
}

/// A request that was made; its span ends with its answer, when this is dropped.
pub struct Asked(Open);

impl Asked {
    /// What the answer begins with; `None`: there is none.
    pub fn answered(&mut self, status: Option<StatusCode>) {
        match status {
            Some(status) => {
                let bad = status.is_client_error() || status.is_server_error();
                self.0.answered(status, bad);
            }
            None => self.0.failed(true),
        }
    }
}

impl Tracer {
    /// Begins the span of a request that is made, and has the request tell of it.
    pub fn asks<B>(&self, request: &mut Request<B>) -> Option<Asked> {
        let inner = self.0.clone()?;
        let parent = Context::current();
        let context = inner.enter(parent);
        if let Ok(value) = HeaderValue::try_from(context.traceparent()) {
            request.headers_mut().insert(TRACEPARENT, value);
        }
        let uri = request.uri();
        let mut attributes = vec![
            KeyValue::text("http.request.method", request.method().as_str()),
            KeyValue::text("url.full", uri.to_string()),
        ];
        attributes.extend(
            uri.host()
                .map(|host| KeyValue::text("server.address", host)),
        );
        attributes.extend(
            uri.port_u16()
                .map(|port| KeyValue::number("server.port", port)),
        );
        let span = Span {
            name: format!("HTTP {}", request.method()),
            kind: CLIENT,
            start_time_unix_nano: now(),
            attributes,
            ..Span::default()
        };
        Some(Asked(Open {
            inner,
            context,
            parent,
            span,
        }))
    }

    /// Begins the span of a request of somebody who may ask, as part of their trace if they have
    /// one. `route` is the path with its variables.
    pub fn serves<B>(&self, request: &Request<B>, route: &str) -> Served {
        let Some(inner) = self.0.clone() else {
            return Served(None);
        };
        let header = |name: &HeaderName| request.headers().get(name)?.to_str().ok();
        let parent = header(&TRACEPARENT).and_then(Context::parse);
        let mut attributes = vec![
            KeyValue::text("http.request.method", request.method().as_str()),
            KeyValue::text("http.route", route),
            KeyValue::text("url.path", request.uri().path()),
            KeyValue::text("url.scheme", "https"),
        ];
        let agent = header(&USER_AGENT);
        attributes.extend(agent.map(|agent| KeyValue::text("user_agent.original", agent)));
        let span = Span {
            name: route.to_owned(),
            kind: SERVER,
            start_time_unix_nano: now(),
            attributes,
            ..Span::default()
        };
        Served(Some(Open {
            context: inner.enter(parent),
            inner,
            parent,
            span,
        }))
    }
}

/// A request that is served.
pub struct Served(Option<Open>);

impl Served {
    /// Does so; what it takes is part of its trace.
    pub async fn by<R>(self, work: impl Future<Output = Response<R>>) -> Response<R> {
        let Some(mut open) = self.0 else {
            return work.await;
        };
        let response = CURRENT.scope(open.context, work).await;
        let status = response.status();
        open.answered(status, status.is_server_error());
        response
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::tracer;
    use super::super::{MILLION, hex};
    use super::*;

    fn get(uri: &str) -> Request<()> {
        Request::get(uri).body(()).unwrap()
    }

    #[tokio::test]
    async fn request_that_a_served_one_takes_is_its_child_and_it_is_the_callers() {
        let (tracer, mut made) = tracer(0);
        let caller = Context::root(true);
        let mut request = get("/pods");
        let header = HeaderValue::try_from(caller.traceparent()).unwrap();
        request.headers_mut().insert(TRACEPARENT, header);
        let work = async {
            let mut request = get("https://10.0.0.1:6443/api/v1/pods?x=1");
            let mut asked = tracer.asks(&mut request).unwrap();
            asked.answered(Some(StatusCode::NOT_FOUND));
            Response::new(request.headers()[TRACEPARENT].clone())
        };
        let told = tracer.serves(&request, "/pods").by(work).await.into_body();
        let (inner, outer) = (made.recv().await.unwrap(), made.recv().await.unwrap());
        assert_eq!(outer.parent_span_id, caller.span);
        assert_eq!(outer.trace_id, caller.trace);
        assert_eq!((outer.name.as_str(), outer.kind), ("/pods", SERVER));
        assert!(outer.status.is_none());
        assert_eq!(inner.parent_span_id, outer.span_id);
        assert_eq!((inner.name.as_str(), inner.kind), ("HTTP GET", CLIENT));
        assert_eq!(inner.status, Some(SpanStatus::error()));
        let expected = format!("00-{}-{}-01", hex(&caller.trace), hex(&inner.span_id));
        assert_eq!(told, expected);
        assert!(
            inner
                .attributes
                .contains(&KeyValue::number(STATUS, 404_u16))
        );
        assert!(
            inner
                .attributes
                .contains(&KeyValue::number("server.port", 6443_u16))
        );
    }

    #[tokio::test]
    async fn trace_that_is_not_kept_is_told_on_as_such() {
        let (tracer, mut made) = tracer(MILLION);
        let mut request = get("/pods");
        let header = HeaderValue::try_from(Context::root(false).traceparent()).unwrap();
        request.headers_mut().insert(TRACEPARENT, header);
        let work = async {
            let mut request = get("https://a/");
            drop(tracer.asks(&mut request));
            let told = request.headers()[TRACEPARENT].to_str().unwrap().to_owned();
            assert!(told.ends_with("-00"), "{told}");
            Response::new(())
        };
        tracer.serves(&request, "/pods").by(work).await;
        assert!(made.try_recv().is_err());
        // Nobody asked for this one: it is a trace of its own.
        let mut request = get("https://a/");
        drop(tracer.asks(&mut request));
        assert_eq!(made.recv().await.unwrap().parent_span_id, Vec::<u8>::new());
        assert!(Tracer::default().asks(&mut request).is_none());
    }
}
