//! One try of one probe.

use super::{grpc, http};
use cri_proto::{Cri, v1};
use k8s_openapi::api::core::v1::{Container, HTTPGetAction, Probe};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpStream;

/// What is probed.
#[derive(Clone)]
#[allow(missing_docs)]
pub struct Target {
    pub cri: Arc<dyn Cri>,
    pub id: String,
    pub container: Arc<Container>,
    pub pod_ip: String,
}

/// What a try showed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It is well.
    Success,
    /// It is well as far as can be told.
    Warning {
        /// For the event.
        message: String,
    },
    /// It is not; `refused` when nothing listens yet.
    Failure {
        /// For the event.
        message: String,
        /// The connection was refused.
        refused: bool,
    },
    /// The probe itself could not be made: no result.
    Unknown {
        /// For the event.
        message: String,
    },
}

impl Outcome {
    fn failure(message: String, refused: bool) -> Self {
        Outcome::Failure { message, refused }
    }
}

/// Tries once, for at most `timeoutSeconds`.
pub async fn check(target: &Target, probe: &Probe) -> Outcome {
    let seconds = u64::try_from(probe.timeout_seconds.unwrap_or(1).max(1)).unwrap_or(1);
    let limit = Duration::from_secs(seconds);
    if let Some(command) = &probe.exec {
        return exec(target, command.command.clone().unwrap_or_default(), limit).await;
    }
    match tokio::time::timeout(limit, over_network(target, probe)).await {
        Ok(outcome) => outcome,
        Err(_) => {
            let message = format!("no answer within {seconds}s (Client.Timeout exceeded)");
            Outcome::failure(message, false)
        }
    }
}

async fn exec(target: &Target, cmd: Vec<String>, limit: Duration) -> Outcome {
    let request = v1::ExecSyncRequest {
        container_id: target.id.clone(),
        cmd,
        timeout: i64::try_from(limit.as_secs()).unwrap_or(1),
    };
    match target.cri.exec_sync(request).await {
        Ok(answer) if answer.exit_code == 0 => Outcome::Success,
        Ok(answer) => {
            let output = [&answer.stdout[..], &answer.stderr[..]].concat();
            Outcome::failure(String::from_utf8_lossy(&output).into_owned(), false)
        }
        Err(status) if status.code() == cri_proto::Code::DeadlineExceeded => {
            let message = format!("command timed out: {}", status.message());
            Outcome::failure(message, false)
        }
        Err(status) => Outcome::Unknown {
            message: status.message().to_owned(),
        },
    }
}

async fn over_network(target: &Target, probe: &Probe) -> Outcome {
    if let Some(action) = &probe.http_get {
        return match request(action, target) {
            Ok(wish) => http_get(wish).await,
            Err(message) => Outcome::Unknown { message },
        };
    }
    if let Some(action) = &probe.tcp_socket {
        let host = action.host.as_deref().filter(|h| !h.is_empty());
        let host = host.unwrap_or(&target.pod_ip);
        return match port(&action.port, &target.container) {
            Ok(port) => tcp(host, port).await,
            Err(message) => Outcome::Unknown { message },
        };
    }
    if let Some(action) = &probe.grpc {
        let port = u16::try_from(action.port).unwrap_or(0);
        let service = action.service.as_deref().unwrap_or_default();
        return match grpc::check(&target.pod_ip, port, service).await {
            Ok(()) => Outcome::Success,
            Err(error) => Outcome::failure(error.to_string(), error.refused()),
        };
    }
    Outcome::Unknown {
        message: "missing probe handler".into(),
    }
}

async fn http_get(wish: http::Get) -> Outcome {
    let url = http::url(&wish);
    match http::get(wish).await {
        Ok(answer) if (200..300).contains(&answer.status) => Outcome::Success,
        Ok(answer) if (300..400).contains(&answer.status) => Outcome::Warning {
            message: format!("Probe terminated redirects, Response body: {}", answer.body),
        },
        Ok(answer) => {
            let message = format!("HTTP probe failed with statuscode: {}", answer.status);
            Outcome::failure(message, false)
        }
        Err(error) => {
            let refused = error.refused();
            Outcome::failure(format!("Get {url:?}: {error}"), refused)
        }
    }
}

async fn tcp(host: &str, port: u16) -> Outcome {
    let address = http::authority(host, port);
    match TcpStream::connect(&address).await {
        Ok(_) => Outcome::Success,
        Err(error) => {
            let refused = error.kind() == std::io::ErrorKind::ConnectionRefused;
            Outcome::failure(format!("dial tcp {address}: {error}"), refused)
        }
    }
}

/// The GET that an action describes; by default to the pod's address.
///
/// # Errors
/// When its port can't be told.
pub fn request(action: &HTTPGetAction, target: &Target) -> Result<http::Get, String> {
    let host = action.host.clone().filter(|h| !h.is_empty());
    let path = action.path.as_deref().unwrap_or("/");
    let slash = if path.starts_with('/') { "" } else { "/" };
    let headers = action.http_headers.iter().flatten();
    Ok(http::Get {
        tls: action
            .scheme
            .as_deref()
            .is_some_and(|s| s.eq_ignore_ascii_case("https")),
        host: host.unwrap_or_else(|| target.pod_ip.clone()),
        port: port(&action.port, &target.container)?,
        path: format!("{slash}{path}"),
        headers: headers.map(|h| (h.name.clone(), h.value.clone())).collect(),
    })
}

/// A port by number or by the name a container gave it.
///
/// # Errors
/// When no port has that name.
pub fn port(wish: &IntOrString, container: &Container) -> Result<u16, String> {
    let number = match wish {
        IntOrString::Int(number) => Some(*number),
        IntOrString::String(name) => {
            let mut ports = container.ports.iter().flatten();
            let named = ports.find(|p| p.name.as_deref() == Some(name));
            named
                .map(|p| p.container_port)
                .or_else(|| name.parse().ok())
        }
    };
    let valid = number
        .and_then(|n| u16::try_from(n).ok())
        .filter(|n| *n > 0);
    valid.ok_or_else(|| match wish {
        IntOrString::Int(number) => format!("invalid port number: {number}"),
        IntOrString::String(name) => format!("couldn't find port: {name}"),
    })
}
