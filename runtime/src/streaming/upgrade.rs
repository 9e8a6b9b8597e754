//! From an HTTP request to a session: which transport, which protocol.

use super::remote::{self, Command};
use super::server::{Server, answer};
use super::token::Request;
use super::{Handler, forward, websocket};
use http::header::{CONNECTION, HeaderMap, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY};
use http::header::{SEC_WEBSOCKET_PROTOCOL, UPGRADE};
use http::{HeaderValue, Method, Response, StatusCode};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use std::sync::Arc;
use std::time::Instant;
use tokio::sync::OwnedSemaphorePermit;
use tokio_util::sync::CancellationToken;

/// The protocols of SPDY exec and attach with their versions, newest first
/// (k8s.io/cri-streaming v0.37 pkg/streaming/remotecommand/constants.go).
const REMOTE: [(&str, u8); 5] = [
    ("v5.channel.k8s.io", 5),
    ("v4.channel.k8s.io", 4),
    ("v3.channel.k8s.io", 3),
    ("v2.channel.k8s.io", 2),
    ("channel.k8s.io", 1),
];
/// Of SPDY port-forward.
const FORWARD: [(&str, u8); 1] = [("portforward.k8s.io", 1)];
/// SPDY within WebSocket.
const TUNNEL: &str = "SPDY/3.1+portforward.k8s.io";
const SPDY: &str = "SPDY/3.1";
const STREAM_PROTOCOL: &str = "x-stream-protocol-version";
const ACCEPTED_PROTOCOL: &str = "x-accepted-stream-protocol-versions";

/// What a connection needs to become a session.
pub struct Session {
    pub server: Arc<Server>,
    pub handler: Arc<dyn Handler>,
    pub shutdown: CancellationToken,
    pub permit: Arc<OwnedSemaphorePermit>,
}

/// How the session will speak.
#[derive(Debug, Clone, Copy)]
enum Transport {
    Spdy { protocol: &'static str, version: u8 },
    Channels(websocket::Choice),
    Tunnel,
}

/// Answers the request, and starts the session when it is an upgrade.
pub fn respond(session: &Session, request: http::Request<Incoming>) -> Response<String> {
    if !matches!(*request.method(), Method::GET | Method::POST) {
        return answer(StatusCode::METHOD_NOT_ALLOWED, "use GET or POST");
    }
    let mut path = request.uri().path().trim_start_matches('/').splitn(2, '/');
    let (verb, token) = (
        path.next().unwrap_or_default(),
        path.next().unwrap_or_default(),
    );
    let Some(wanted) = session.server.waiting.take(verb, token, Instant::now()) else {
        return answer(
            StatusCode::NOT_FOUND,
            "unknown, used or expired URL; ask the CRI for a new one",
        );
    };
    let transport = match negotiate(request.headers(), &wanted) {
        Ok(transport) => transport,
        Err(refusal) => return *refusal,
    };
    let ports = ports(&wanted, request.uri().query().unwrap_or_default());
    let response = switching(request.headers(), transport);
    let (handler, permit) = (session.handler.clone(), session.permit.clone());
    let shutdown = session.shutdown.clone();
    tokio::spawn(async move {
        let _permit = permit;
        let Ok(upgraded) = hyper::upgrade::on(request).await else {
            return;
        };
        let io = TokioIo::new(upgraded);
        tokio::select! {
            () = shutdown.cancelled() => {}
            () = run(io, transport, wanted, ports, handler) => {}
        }
    });
    response
}

async fn run(
    io: TokioIo<hyper::upgrade::Upgraded>,
    transport: Transport,
    wanted: Request,
    ports: Vec<u16>,
    handler: Arc<dyn Handler>,
) {
    let command = match wanted {
        Request::Exec(request) => Command::Exec(request),
        Request::Attach(request) => Command::Attach(request),
        Request::PortForward(request) => {
            let sandbox = request.pod_sandbox_id;
            let target = forward::Target { handler, sandbox };
            return match transport {
                Transport::Spdy { .. } => forward::over_spdy(io, target).await,
                Transport::Tunnel => forward::over_tunnel(io, target).await,
                Transport::Channels(c) => forward::over_websocket(io, c, ports, target).await,
            };
        }
    };
    match transport {
        Transport::Spdy { version, .. } => {
            remote::over_spdy(io, version, command, &*handler).await;
        }
        Transport::Channels(c) => remote::over_websocket(io, c, command, &*handler).await,
        // Not negotiated for these.
        Transport::Tunnel => {}
    }
}

fn negotiate(headers: &HeaderMap, wanted: &Request) -> Result<Transport, Box<Response<String>>> {
    let forward = matches!(wanted, Request::PortForward(_));
    let upgrades = list(headers, UPGRADE.as_str());
    let asks = |name: &str| upgrades.iter().any(|u| u.eq_ignore_ascii_case(name));
    let refuse = |status, text: &str| Err(Box::new(answer(status, text)));
    if asks("websocket") {
        let offered = list(headers, SEC_WEBSOCKET_PROTOCOL.as_str());
        if !headers.contains_key(SEC_WEBSOCKET_KEY) {
            return refuse(StatusCode::BAD_REQUEST, "Sec-WebSocket-Key is missing");
        }
        if forward && offered.iter().any(|o| o == TUNNEL) {
            return Ok(Transport::Tunnel);
        }
        return match websocket::choose(&offered) {
            Some(choice) => Ok(Transport::Channels(choice)),
            None => refuse(StatusCode::FORBIDDEN, "no common WebSocket subprotocol"),
        };
    }
    if !asks(SPDY) {
        return refuse(
            StatusCode::BAD_REQUEST,
            "upgrade to SPDY/3.1 or websocket required",
        );
    }
    let known: &[(&'static str, u8)] = if forward { &FORWARD } else { &REMOTE };
    match choose_spdy(&list(headers, STREAM_PROTOCOL), known) {
        Some((protocol, version)) => Ok(Transport::Spdy { protocol, version }),
        None => {
            let mut refusal = answer(StatusCode::FORBIDDEN, "no common stream protocol");
            for (name, _) in known {
                let value = HeaderValue::from_static(name);
                refusal.headers_mut().append(ACCEPTED_PROTOCOL, value);
            }
            Err(Box::new(refusal))
        }
    }
}

/// The first of the client's that is known; a client that names none speaks
/// the oldest.
fn choose_spdy(offered: &[String], known: &[(&'static str, u8)]) -> Option<(&'static str, u8)> {
    if offered.is_empty() {
        return known.last().copied();
    }
    let find = |name: &String| known.iter().find(|(k, _)| k == name);
    offered.iter().find_map(find).copied()
}

/// 101 in the words of the transport.
fn switching(request: &HeaderMap, transport: Transport) -> Response<String> {
    let mut response = Response::new(String::new());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    let upgrade = if matches!(transport, Transport::Spdy { .. }) {
        SPDY
    } else {
        "websocket"
    };
    headers.insert(UPGRADE, HeaderValue::from_static(upgrade));
    let subprotocol = match transport {
        Transport::Spdy { protocol, .. } => {
            headers.insert(STREAM_PROTOCOL, HeaderValue::from_static(protocol));
            return response;
        }
        Transport::Channels(choice) => choice.name,
        Transport::Tunnel => TUNNEL,
    };
    let key = request.get(SEC_WEBSOCKET_KEY).and_then(|k| k.to_str().ok());
    let accept = websocket::accept_key(key.unwrap_or_default());
    if let Ok(accept) = HeaderValue::from_str(&accept) {
        headers.insert(SEC_WEBSOCKET_ACCEPT, accept);
    }
    if !subprotocol.is_empty() {
        headers.insert(
            SEC_WEBSOCKET_PROTOCOL,
            HeaderValue::from_static(subprotocol),
        );
    }
    response
}

/// Ports of a WebSocket port-forward: those of the CRI request, or else those
/// that the client's query names.
fn ports(wanted: &Request, query: &str) -> Vec<u16> {
    let Request::PortForward(request) = wanted else {
        return Vec::new();
    };
    if !request.port.is_empty() {
        return request
            .port
            .iter()
            .filter_map(|p| u16::try_from(*p).ok())
            .collect();
    }
    let named = query.split('&').filter_map(|pair| pair.split_once('='));
    let values = named.filter(|(name, _)| matches!(*name, "port" | "ports"));
    let numbers = values.flat_map(|(_, value)| value.split(',').flat_map(|v| v.split("%2C")));
    numbers.filter_map(|p| p.parse().ok()).collect()
}

/// Values of a header that may be repeated and may be lists.
fn list(headers: &HeaderMap, name: &str) -> Vec<String> {
    let texts = headers.get_all(name).iter().filter_map(|v| v.to_str().ok());
    let parts = texts.flat_map(|t| t.split(','));
    parts
        .map(|p| p.trim().to_owned())
        .filter(|p| !p.is_empty())
        .collect()
}

/// A query and headers, damaged.
#[cfg(test)]
pub fn fuzzed(input: &[u8]) {
    let request = Request::PortForward(cri_proto::v1::PortForwardRequest::default());
    let named = ports(&request, &String::from_utf8_lossy(input));
    assert!(named.len() <= input.len());
    let Ok(value) = HeaderValue::from_bytes(input) else {
        return;
    };
    let mut headers = HeaderMap::new();
    for name in [UPGRADE.as_str(), "sec-websocket-protocol", STREAM_PROTOCOL] {
        if let Ok(name) = name.parse::<http::HeaderName>() {
            headers.append(name, value.clone());
        }
    }
    headers.append(UPGRADE, HeaderValue::from_static(SPDY));
    headers.append(SEC_WEBSOCKET_KEY, value);
    if let Ok(transport) = negotiate(&headers, &request) {
        let answer = switching(&headers, transport);
        assert_eq!(answer.status(), StatusCode::SWITCHING_PROTOCOLS);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn protocol_is_the_clients_first_that_is_known() {
        let offer =
            |names: &[&str]| -> Vec<String> { names.iter().map(|n| (*n).to_owned()).collect() };
        let chosen = choose_spdy(
            &offer(&["v6.x", "v4.channel.k8s.io", "channel.k8s.io"]),
            &REMOTE,
        );
        assert_eq!(chosen, Some(("v4.channel.k8s.io", 4)));
        assert_eq!(choose_spdy(&[], &REMOTE), Some(("channel.k8s.io", 1)));
        assert_eq!(choose_spdy(&offer(&["x"]), &FORWARD), None);
    }

    #[test]
    fn ports_come_from_the_query_when_the_request_has_none() {
        let request = |port: Vec<i32>| {
            Request::PortForward(cri_proto::v1::PortForwardRequest {
                pod_sandbox_id: "s".to_owned(),
                port,
            })
        };
        assert_eq!(ports(&request(vec![80, 70000]), "port=1"), [80]);
        assert_eq!(
            ports(&request(vec![]), "a=b&port=80,81&ports=82%2C83"),
            [80, 81, 82, 83]
        );
    }
}
