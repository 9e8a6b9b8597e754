//! `http://127.0.0.1:10248/healthz`: for kubeadm and node-problem-detector.

use super::accept::ServerError;
use super::listen::listen;
use axum::Router;
use axum::routing::get;
use std::net::SocketAddr;
use tokio_util::sync::CancellationToken;

/// Serves until `shutdown`. Whoever answers at all is alive.
///
/// # Errors
/// When the port is taken.
pub async fn serve_healthz(
    address: SocketAddr,
    shutdown: CancellationToken,
) -> Result<(), ServerError> {
    let listener = listen(address).await?;
    let ok = || async { "ok" };
    let router = Router::new()
        .route("/healthz", get(ok))
        .route("/healthz/ping", get(ok));
    axum::serve(listener, router)
        .with_graceful_shutdown(shutdown.cancelled_owned())
        .await
        .map_err(|source| ServerError::Bind { address, source })
}
