//! Ports that an agent before us may be just about to give back.

use super::accept::ServerError;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::time::Instant;

/// The sockets of a process that was killed are closed a moment after it can't be seen
/// running any more.
const PATIENCE: Duration = Duration::from_secs(5);
const PAUSE: Duration = Duration::from_millis(20);

/// Listens; a taken port is tried again for five seconds.
///
/// # Errors
/// When the port stays taken, or can't be listened on.
pub(super) async fn listen(address: SocketAddr) -> Result<TcpListener, ServerError> {
    let end = Instant::now() + PATIENCE;
    loop {
        match TcpListener::bind(address).await {
            Err(error) if error.kind() == ErrorKind::AddrInUse && Instant::now() < end => {
                tokio::time::sleep(PAUSE).await;
            }
            bound => return bound.map_err(|source| ServerError::Bind { address, source }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn port_is_had_as_soon_as_it_is_given_back() {
        let first = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = first.local_addr().unwrap();
        let second = tokio::spawn(listen(address));
        tokio::time::sleep(PAUSE * 3).await;
        assert!(!second.is_finished(), "the port is still taken");
        drop(first);
        assert!(second.await.unwrap().is_ok());
    }
}
