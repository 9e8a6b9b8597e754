//! The HTTP server behind the URLs.

use super::token::{Request, Waiting};
use super::{Handler, upgrade};
use cri_proto::v1;
use http::StatusCode;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

/// Connections at a time; more wait in the listener's queue.
const MAX_CONNECTIONS: usize = 4096;
/// A client has this long for the head of its request.
const HEAD: Duration = Duration::from_secs(10);
/// Pause after a failed accept (out of descriptors), so as not to spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Why streams can't be served.
#[derive(Debug, thiserror::Error)]
#[error("listen on {address} for exec, attach and port-forward streams (streamingAddress)")]
pub struct BindError {
    /// Where.
    pub address: SocketAddr,
    #[allow(missing_docs)]
    pub source: io::Error,
}

/// Hands out URLs and serves who opens them.
#[derive(Debug)]
pub struct Server {
    /// Taken by `run`.
    listener: Mutex<Option<std::net::TcpListener>>,
    address: SocketAddr,
    pub(super) waiting: Waiting,
}

impl Server {
    /// Listens; port 0 is any. URLs may be handed out from now on.
    pub fn bind(address: SocketAddr) -> Result<Arc<Self>, BindError> {
        let bound = || {
            let listener = std::net::TcpListener::bind(address)?;
            listener.set_nonblocking(true)?;
            let local = listener.local_addr()?;
            Ok((listener, local))
        };
        let (listener, local) = bound().map_err(|source| BindError { address, source })?;
        Ok(Arc::new(Self {
            listener: Mutex::new(Some(listener)),
            address: reachable(local),
            waiting: Waiting::default(),
        }))
    }

    /// The address in the URLs.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// A URL that runs the command once, for a minute.
    pub fn url_for_exec(&self, request: v1::ExecRequest) -> String {
        self.url(Request::Exec(request))
    }

    /// A URL that attaches once, for a minute.
    pub fn url_for_attach(&self, request: v1::AttachRequest) -> String {
        self.url(Request::Attach(request))
    }

    /// A URL that forwards ports for one session, for a minute until it is opened.
    pub fn url_for_port_forward(&self, request: v1::PortForwardRequest) -> String {
        self.url(Request::PortForward(request))
    }

    fn url(&self, request: Request) -> String {
        let verb = request.verb();
        let token = self.waiting.put(request, Instant::now());
        format!("http://{}/{verb}/{token}", self.address)
    }

    /// Serves until the shutdown; sessions end with it. A second call returns
    /// at once.
    pub async fn run(self: Arc<Self>, handler: Arc<dyn Handler>, shutdown: CancellationToken) {
        let listener = self
            .listener
            .lock()
            .unwrap_or_else(|e| e.into_inner())
            .take();
        let Some(Ok(listener)) = listener.map(TcpListener::from_std) else {
            return;
        };
        let room = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        loop {
            let accepted = tokio::select! {
                () = shutdown.cancelled() => return,
                accepted = accept(&listener, &room) => accepted,
            };
            match accepted {
                Some((socket, permit)) => {
                    let session = upgrade::Session {
                        server: self.clone(),
                        handler: handler.clone(),
                        shutdown: shutdown.clone(),
                        permit: Arc::new(permit),
                    };
                    tokio::spawn(serve(socket, session));
                }
                None => tokio::time::sleep(ACCEPT_PAUSE).await,
            }
        }
    }
}

async fn accept(
    listener: &TcpListener,
    room: &Arc<Semaphore>,
) -> Option<(TcpStream, OwnedSemaphorePermit)> {
    let permit = room.clone().acquire_owned().await.ok()?;
    match listener.accept().await {
        Ok((socket, _)) => {
            // Keystrokes are small; without this each may wait 40 ms.
            let _ = socket.set_nodelay(true);
            Some((socket, permit))
        }
        Err(error) => {
            tracing::warn!(%error, "accept a streaming connection");
            None
        }
    }
}

async fn serve(socket: TcpStream, session: upgrade::Session) {
    let shutdown = session.shutdown.clone();
    let service = service_fn(|request: http::Request<Incoming>| {
        let response = upgrade::respond(&session, request);
        async move { Ok::<_, Infallible>(response) }
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD)
        .serve_connection(TokioIo::new(socket), service)
        .with_upgrades();
    tokio::select! {
        () = shutdown.cancelled() => {}
        done = connection => if let Err(error) = done {
            tracing::debug!(%error, "streaming connection");
        }
    }
}

/// A plain answer.
pub(super) fn answer(status: StatusCode, text: &str) -> http::Response<String> {
    let mut response = http::Response::new(format!("{text}\n"));
    *response.status_mut() = status;
    response
}

/// Bound to every address, it is reached by the loopback's.
fn reachable(mut address: SocketAddr) -> SocketAddr {
    match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => address.set_ip(Ipv4Addr::LOCALHOST.into()),
        IpAddr::V6(ip) if ip.is_unspecified() => address.set_ip(Ipv6Addr::LOCALHOST.into()),
        _ => {}
    }
    address
}
