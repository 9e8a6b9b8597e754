//! grpc.health.v1.Health/Check: one request of one field, over plain HTTP/2.
//! Wire facts: github.com/grpc/grpc doc/PROTOCOL-HTTP2.md and
//! src/proto/grpc/health/v1/health.proto.

use super::http::authority;
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::Request;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;

/// Why a service is not known to serve.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum GrpcError {
    #[error("timeout: failed to connect service {address:?}: {source}")]
    Connect {
        address: String,
        source: std::io::Error,
    },
    #[error("health check of {address}: {reason}")]
    Exchange { address: String, reason: String },
    #[error(
        "this server does not implement the grpc health protocol (grpc.health.v1.Health): {message}"
    )]
    Unimplemented { message: String },
    #[error("health check answered grpc-status {status}: {message}")]
    Status { status: String, message: String },
    #[error("service unhealthy (responded with {answer:?})")]
    Unhealthy { answer: &'static str },
}

impl GrpcError {
    /// Nothing listens there (yet).
    #[must_use]
    pub fn refused(&self) -> bool {
        matches!(self, GrpcError::Connect { source, .. }
            if source.kind() == std::io::ErrorKind::ConnectionRefused)
    }
}

/// Whether `service` (empty: the whole server) is SERVING.
///
/// # Errors
/// Whatever else it says, or nothing. The caller sets the time limit.
pub async fn check(host: &str, port: u16, service: &str) -> Result<(), GrpcError> {
    let address = authority(host, port);
    let failed = |reason: String| GrpcError::Exchange {
        address: address.clone(),
        reason,
    };
    let stream = TcpStream::connect(&address).await;
    let stream = stream.map_err(|source| GrpcError::Connect {
        address: address.clone(),
        source,
    })?;
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
            .await
            .map_err(|e| failed(e.to_string()))?;
    let driver = tokio::spawn(connection);
    let request = Request::post(format!("http://{address}/grpc.health.v1.Health/Check"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header("user-agent", crate::defaults::PROBE_USER_AGENT)
        .body(Full::new(message(service)))
        .map_err(|e| failed(e.to_string()))?;
    let answer = sender.send_request(request).await;
    let answer = answer.map_err(|e| failed(e.to_string()))?;
    let headers = answer.headers().clone();
    let body = answer.into_body().collect().await;
    driver.abort();
    let body = body.map_err(|e| failed(e.to_string()))?;
    let trailers = body.trailers().cloned().unwrap_or(headers);
    judge(&trailers, &body.to_bytes())
}

/// A length-prefixed HealthCheckRequest { service = 1 }.
fn message(service: &str) -> Bytes {
    let mut body = Vec::new();
    if !service.is_empty() {
        body.push(0x0a);
        varint(service.len(), &mut body);
        body.extend_from_slice(service.as_bytes());
    }
    let length = u32::try_from(body.len()).unwrap_or(u32::MAX);
    let mut framed = vec![0];
    framed.extend_from_slice(&length.to_be_bytes());
    framed.extend_from_slice(&body);
    framed.into()
}

fn varint(mut value: usize, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn judge(trailers: &http::HeaderMap, body: &[u8]) -> Result<(), GrpcError> {
    let text = |name: &str| {
        let value = trailers.get(name).and_then(|v| v.to_str().ok());
        value.unwrap_or_default().to_owned()
    };
    let message = text("grpc-message");
    match text("grpc-status").as_str() {
        "0" => {}
        "12" => return Err(GrpcError::Unimplemented { message }),
        status => {
            let status = status.to_owned();
            return Err(GrpcError::Status { status, message });
        }
    }
    // HealthCheckResponse { status = 1 }: absent means UNKNOWN.
    let answer = match body.get(5..) {
        Some([0x08, value, ..]) => *value,
        Some(_) | None => 0,
    };
    match answer {
        1 => Ok(()),
        2 => Err(GrpcError::Unhealthy {
            answer: "NOT_SERVING",
        }),
        3 => Err(GrpcError::Unhealthy {
            answer: "SERVICE_UNKNOWN",
        }),
        _ => Err(GrpcError::Unhealthy { answer: "UNKNOWN" }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trailers(status: &'static str) -> http::HeaderMap {
        let mut map = http::HeaderMap::new();
        map.insert("grpc-status", http::HeaderValue::from_static(status));
        map
    }

    #[test]
    fn request_is_a_frame_with_the_service() {
        assert_eq!(message("").as_ref(), [0, 0, 0, 0, 0]);
        assert_eq!(message("ab").as_ref(), [0, 0, 0, 0, 4, 0x0a, 2, b'a', b'b']);
    }

    #[test]
    fn only_serving_is_healthy() {
        let frame = |status: u8| [0, 0, 0, 0, 2, 0x08, status];
        assert!(judge(&trailers("0"), &frame(1)).is_ok());
        assert!(judge(&trailers("0"), &frame(2)).is_err());
        assert!(judge(&trailers("0"), &[0, 0, 0, 0, 0]).is_err());
        assert!(judge(&trailers("5"), &frame(1)).is_err());
    }
}
