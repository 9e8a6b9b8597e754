//! Listens, speaks TLS, hands requests to the routes.

use super::authn::PeerChain;
use super::listen::listen;
use super::routes::{State, router};
use super::tls::{self, Serving, ServingError};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tower::Service;

/// A client that is slower than this to shake hands is not there.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// After an accept that failed for want of file descriptors.
const BREATH: Duration = Duration::from_millis(50);

/// Why :10250 is not served.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum ServerError {
    #[error("listen on {address}; is another kubelet running? try: ss -ltnp 'sport = :{}'", address.port())]
    Bind {
        address: SocketAddr,
        source: std::io::Error,
    },
    #[error(transparent)]
    Serving(#[from] ServingError),
}

/// The kubelet API, bound and not yet served.
pub struct Server {
    listener: TcpListener,
    acceptor: TlsAcceptor,
    state: Arc<State>,
}

impl Server {
    /// Binds.
    ///
    /// # Errors
    /// When the port is taken or TLS can't be set up.
    pub async fn bind(
        address: SocketAddr,
        serving: Arc<Serving>,
        state: Arc<State>,
    ) -> Result<Server, ServerError> {
        Ok(Server {
            listener: listen(address).await?,
            acceptor: TlsAcceptor::from(Arc::new(tls::config(serving)?)),
            state,
        })
    }

    /// Serves until `shutdown`; connections that are open then are dropped.
    pub async fn run(self, shutdown: CancellationToken) {
        let router = router(self.state);
        loop {
            let accepted = tokio::select! {
                () = shutdown.cancelled() => return,
                accepted = self.listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, _)) => {
                    let connection = serve(stream, self.acceptor.clone(), router.clone());
                    let shutdown = shutdown.clone();
                    tokio::spawn(async move {
                        tokio::select! {
                            () = shutdown.cancelled() => {}
                            () = connection => {}
                        }
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "accept on the kubelet API");
                    tokio::time::sleep(BREATH).await;
                }
            }
        }
    }
}

async fn serve(stream: TcpStream, acceptor: TlsAcceptor, router: axum::Router) {
    let _ = stream.set_nodelay(true);
    let tls = match tokio::time::timeout(HANDSHAKE, acceptor.accept(stream)).await {
        Ok(Ok(tls)) => tls,
        Ok(Err(error)) => {
            tracing::debug!(%error, "TLS handshake on the kubelet API");
            return;
        }
        Err(_) => return,
    };
    let chain = tls.get_ref().1.peer_certificates();
    let chain = chain.map(|c| c.iter().map(|der| der.clone().into_owned()).collect());
    let chain: Option<PeerChain> = chain.map(Arc::new);
    let service = hyper::service::service_fn(move |mut request: hyper::Request<_>| {
        if let Some(chain) = &chain {
            request.extensions_mut().insert(chain.clone());
        }
        router.clone().call(request)
    });
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new());
    builder.http2().timer(TokioTimer::new());
    let served = builder
        .serve_connection_with_upgrades(TokioIo::new(tls), service)
        .await;
    if let Err(error) = served {
        tracing::trace!(error, "connection of the kubelet API");
    }
}
