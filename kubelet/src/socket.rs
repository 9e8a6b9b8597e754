//! gRPC over unix sockets of this node.

use hyper_util::rt::TokioIo;
use std::convert::Infallible;
use std::io::ErrorKind;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::oneshot;
use tonic::transport::{Channel, Endpoint};

/// kubernetes v1.37 pkg/kubelet/cm/devicemanager/plugin/v1beta1/client.go `dial`.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Nothing answers on a plugin's socket.
#[derive(Debug, thiserror::Error)]
#[error("connect to {path}")]
pub struct ConnectError {
    path: PathBuf,
    source: tonic::transport::Error,
}

/// A socket of ours could not be made.
#[derive(Debug, thiserror::Error)]
#[error("bind {path}")]
pub struct BindError {
    path: PathBuf,
    source: std::io::Error,
}

/// Connects to whoever serves a socket.
///
/// # Errors
/// When nobody does, or does not answer in time.
pub async fn connect(path: &Path) -> Result<Channel, ConnectError> {
    connect_told(path).await.map(|(channel, _)| channel)
}

/// The same; what it answers besides ends when the connection does.
///
/// # Errors
/// When nobody serves it, or does not answer in time.
pub async fn connect_told(
    path: &Path,
) -> Result<(Channel, oneshot::Receiver<Infallible>), ConnectError> {
    let to = path.to_owned();
    let (end, ended) = oneshot::channel();
    // The channel may connect again by itself: that is another connection.
    let mut end = Some(end);
    endpoint()
        .connect_with_connector(tower::service_fn(move |_| {
            let (to, end) = (to.clone(), end.take());
            async move {
                let stream = UnixStream::connect(to).await?;
                Ok::<_, std::io::Error>(TokioIo::new(Told { stream, _end: end }))
            }
        }))
        .await
        .map(|channel| (channel, ended))
        .map_err(|source| ConnectError {
            path: path.to_owned(),
            source,
        })
}

/// Connects when it is first used, and again whenever that was lost; a call takes at most `timeout`.
pub fn lazy(path: &Path, timeout: Duration) -> Channel {
    let to = path.to_owned();
    let connector = tower::service_fn(move |_| {
        let to = to.clone();
        async move { UnixStream::connect(to).await.map(TokioIo::new) }
    });
    endpoint()
        .timeout(timeout)
        .connect_with_connector_lazy(connector)
}

/// Go's servers look at the authority, and refuse an encoded path.
fn endpoint() -> Endpoint {
    Endpoint::from_static("http://localhost").connect_timeout(CONNECT_TIMEOUT)
}

/// Whoever drops it drops the other end of what tells of it.
struct Told {
    stream: UnixStream,
    _end: Option<oneshot::Sender<Infallible>>,
}

impl AsyncRead for Told {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Told {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// Makes a socket, with its folder, in place of one that an earlier agent left.
///
/// # Errors
/// When the folder or the socket can't be made.
pub fn bind(path: &Path, folder_mode: u32) -> Result<UnixListener, BindError> {
    let failed = |source| BindError {
        path: path.to_owned(),
        source,
    };
    if let Some(dir) = path.parent()
        && !dir.exists()
    {
        std::fs::create_dir_all(dir).map_err(failed)?;
        let mode = std::fs::Permissions::from_mode(folder_mode);
        std::fs::set_permissions(dir, mode).map_err(failed)?;
    }
    match std::fs::remove_file(path) {
        Err(e) if e.kind() != ErrorKind::NotFound => return Err(failed(e)),
        _ => {}
    }
    UnixListener::bind(path).map_err(failed)
}
