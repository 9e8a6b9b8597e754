//! HTTP/2 connections to one API server, as many as the open streams need.

use super::endpoint::{Endpoint, EndpointError};
use crate::defaults;
use crate::metrics;
use crate::trace::{Asked, Tracer};
use futures::future::BoxFuture;
use http::header::{AUTHORIZATION, HeaderValue, USER_AGENT};
use http::{Request, Response, StatusCode, Uri};
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::{Client, connect::HttpConnector};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Instant;

type KubeBody = kube::client::Body;
type Http = Client<HttpsConnector<HttpConnector>, KubeBody>;

/// A pool that opens another connection when the open ones have as many
/// streams as a server allows on one, and starts over when told to.
pub struct Connections {
    endpoint: Arc<Endpoint>,
    tls: rustls::ClientConfig,
    /// One element is one HTTP/2 connection; an `Arc`'s further holders are the
    /// streams that are open on it.
    open: Mutex<Vec<Arc<Http>>>,
    requests: metrics::Requests,
    tracer: Tracer,
}

impl Connections {
    /// Nothing is connected before the first request; `requests` counts them, `tracer` tells of them.
    ///
    /// # Errors
    /// When the endpoint's roots can't be used.
    pub fn new(
        endpoint: Arc<Endpoint>,
        requests: metrics::Requests,
        tracer: Tracer,
    ) -> Result<Arc<Connections>, EndpointError> {
        let tls = endpoint.tls()?;
        Ok(Arc::new(Connections {
            endpoint,
            tls,
            open: Mutex::default(),
            requests,
            tracer,
        }))
    }

    /// A client whose requests go here.
    pub fn client(self: &Arc<Self>) -> kube::Client {
        kube::Client::new(Requests(self.clone()), "default")
    }

    /// Forgets the connections: streams that are open end by themselves.
    pub fn renew(&self) {
        self.open
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clear();
    }

    fn pick(&self) -> Arc<Http> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        // One holder is the list itself.
        let free = |c: &&Arc<Http>| Arc::strong_count(c) <= defaults::STREAMS_PER_CONNECTION;
        if let Some(connection) = open.iter().find(free) {
            return connection.clone();
        }
        let connection = Arc::new(self.http());
        open.push(connection.clone());
        connection
    }

    fn http(&self) -> Http {
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_connect_timeout(Some(defaults::API_CONNECT_TIMEOUT));
        let https = HttpsConnectorBuilder::new().with_tls_config(self.tls.clone());
        let https = match self.server_name() {
            Some(name) => https
                .https_or_http()
                .with_server_name_resolver(hyper_rustls::FixedServerNameResolver::new(name)),
            None => https.https_or_http(),
        };
        let connector = https.enable_http1().enable_http2().wrap_connector(tcp);
        Client::builder(TokioExecutor::new())
            .timer(TokioTimer::new())
            .pool_timer(TokioTimer::new())
            .http2_adaptive_window(true)
            .http2_keep_alive_interval(defaults::API_PING_INTERVAL)
            .http2_keep_alive_timeout(defaults::API_PING_TIMEOUT)
            .build(connector)
    }

    fn server_name(&self) -> Option<rustls_pki_types::ServerName<'static>> {
        let name = self.endpoint.tls_server_name.clone()?;
        name.try_into().ok()
    }

    fn complete(&self, request: &mut Request<KubeBody>) -> Result<(), http::Error> {
        let mut parts = self.endpoint.server.clone().into_parts();
        let base = self.endpoint.server.path().trim_end_matches('/');
        let path = request.uri().path_and_query().map_or("/", |p| p.as_str());
        parts.path_and_query = Some(format!("{base}{path}").parse()?);
        *request.uri_mut() = Uri::from_parts(parts)?;
        let headers = request.headers_mut();
        headers.insert(USER_AGENT, HeaderValue::from_static(defaults::USER_AGENT));
        if let Some(token) = self.endpoint.bearer() {
            let mut value = HeaderValue::try_from(format!("Bearer {token}"))?;
            value.set_sensitive(true);
            headers.insert(AUTHORIZATION, value);
        }
        Ok(())
    }
}

struct Requests(Arc<Connections>);

impl tower::Service<Request<KubeBody>> for Requests {
    type Response = Response<Counted>;
    type Error = tower::BoxError;
    type Future = BoxFuture<'static, Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: Request<KubeBody>) -> Self::Future {
        let completed = self.0.complete(&mut request);
        let connections = self.0.clone();
        Box::pin(async move {
            completed?;
            connections.endpoint.identity.there().await;
            let connection = connections.pick();
            let method = request.method().to_string();
            let host = request.uri().authority().map(ToString::to_string);
            let start = Instant::now();
            let mut asked = connections.tracer.asks(&mut request);
            let response = connection.request(request).await;
            let status = response.as_ref().ok().map(Response::status);
            asked.iter_mut().for_each(|asked| asked.answered(status));
            let status = status.as_ref().map(StatusCode::as_str);
            let host = host.unwrap_or_default();
            let requests = &connections.requests;
            requests.ended(&method, &host, status, start.elapsed());
            let response = response?;
            Ok(response.map(|body| Counted {
                body,
                _connection: connection,
                _asked: asked,
            }))
        })
    }
}

/// A response body that counts as a stream of its connection until it ends.
pub struct Counted {
    body: Incoming,
    _connection: Arc<Http>,
    _asked: Option<Asked>,
}

impl Body for Counted {
    type Data = bytes::Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::Trust;

    fn connections() -> Arc<Connections> {
        let roots = rcgen::generate_simple_self_signed(vec!["a".to_owned()]).unwrap();
        let trust = Trust::Roots(vec![roots.cert.der().clone()]);
        let endpoint = Endpoint::anonymous("https://a:6443/base/", trust).unwrap();
        Connections::new(Arc::new(endpoint), Default::default(), Default::default()).unwrap()
    }

    fn open(connections: &Connections) -> usize {
        connections.open.lock().unwrap().len()
    }

    #[tokio::test]
    async fn another_connection_is_opened_when_the_streams_of_one_are_used_up() {
        let connections = connections();
        let streams: Vec<_> = (0..defaults::STREAMS_PER_CONNECTION)
            .map(|_| connections.pick())
            .collect();
        assert_eq!(open(&connections), 1);
        let one_more = connections.pick();
        assert_eq!(open(&connections), 2);
        drop((streams, one_more));
        connections.pick();
        assert_eq!(open(&connections), 2);
        connections.renew();
        assert_eq!(open(&connections), 0);
    }

    #[tokio::test]
    async fn request_is_completed_with_server_and_path() {
        let mut request = Request::get("/api/v1/nodes?watch=1")
            .body(KubeBody::empty())
            .unwrap();
        connections().complete(&mut request).unwrap();
        assert_eq!(request.uri(), "https://a:6443/base/api/v1/nodes?watch=1");
    }
}
