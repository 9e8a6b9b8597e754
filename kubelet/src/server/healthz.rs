//! `http://127.0.0.1:10248/healthz`: for kubeadm and node-problem-detector.

use super::accept::ServerError;
use axum::Router;
use axum::routing::get;
use std::net::SocketAddr;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// Serves until `shutdown`. Whoever answers at all is alive.
///
/// # Errors
/// When the port is taken.
pub async fn serve_healthz(
    address: SocketAddr,
    shutdown: CancellationToken,
) -> Result<(), ServerError> {
    let bind = |source| ServerError::Bind { address, source };
    let listener = TcpListener::bind(address).await.map_err(bind)?;
    let ok = || async { "ok" };
    let router = Router::new()
        .route("/healthz", get(ok))
        .route("/healthz/ping", get(ok));
    axum::serve(listener, router)
        .with_graceful_shutdown(shutdown.cancelled_owned())
        .await
        .map_err(bind)
}
