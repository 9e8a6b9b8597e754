//! exec, attach, port-forward: the runtime names a URL, and the upgraded
//! connection is passed on to it byte for byte, SPDY and WebSocket alike.

use super::Refusal;
use super::pods::{container_id, find_uid, uid};
use super::query::Params;
use super::routes::State;
use axum::body::Body;
use axum::extract::{Path, Request, State as Extract};
use axum::http::{HeaderValue, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use cri_proto::v1;
use hyper_util::rt::TokioIo;
use std::sync::Arc;
use tokio::net::TcpStream;

type Answer = Result<Response, Refusal>;
type Shared = Extract<Arc<State>>;

struct Target {
    namespace: String,
    pod: String,
    uid: Option<String>,
    container: String,
}

/// namespace, pod, container.
type OfPod = (String, String, String);
/// namespace, pod, uid, container.
type OfUid = (String, String, String, String);

impl From<OfPod> for Target {
    fn from((namespace, pod, container): OfPod) -> Target {
        Target {
            namespace,
            pod,
            uid: None,
            container,
        }
    }
}

impl From<OfUid> for Target {
    fn from((namespace, pod, uid, container): OfUid) -> Target {
        Target {
            namespace,
            pod,
            uid: Some(uid),
            container,
        }
    }
}

pub(super) async fn exec(state: Shared, Path(target): Path<OfPod>, request: Request) -> Answer {
    exec_in(state, target.into(), request).await
}

pub(super) async fn exec_uid(state: Shared, Path(target): Path<OfUid>, request: Request) -> Answer {
    exec_in(state, target.into(), request).await
}

async fn exec_in(Extract(state): Shared, target: Target, request: Request) -> Answer {
    let params = Params::of(request.uri())?;
    let streams = Streams::of(&params)?;
    let id = container(&state, &target)?;
    let answer = state
        .cri
        .exec(v1::ExecRequest {
            container_id: id,
            cmd: params.all("command"),
            tty: streams.tty,
            stdin: streams.stdin,
            stdout: streams.stdout,
            stderr: streams.stderr,
        })
        .await?;
    pass_on(request, &answer.url).await
}

pub(super) async fn attach(state: Shared, Path(target): Path<OfPod>, request: Request) -> Answer {
    attach_to(state, target.into(), request).await
}

pub(super) async fn attach_uid(
    state: Shared,
    Path(target): Path<OfUid>,
    request: Request,
) -> Answer {
    attach_to(state, target.into(), request).await
}

async fn attach_to(Extract(state): Shared, target: Target, request: Request) -> Answer {
    let streams = Streams::of(&Params::of(request.uri())?)?;
    let answer = state
        .cri
        .attach(v1::AttachRequest {
            container_id: container(&state, &target)?,
            stdin: streams.stdin,
            tty: streams.tty,
            stdout: streams.stdout,
            stderr: streams.stderr,
        })
        .await?;
    pass_on(request, &answer.url).await
}

pub(super) async fn port_forward(
    state: Shared,
    Path((namespace, pod)): Path<(String, String)>,
    request: Request,
) -> Answer {
    forward(state, &namespace, &pod, None, request).await
}

pub(super) async fn port_forward_uid(
    state: Shared,
    Path((namespace, pod, uid)): Path<(String, String, String)>,
    request: Request,
) -> Answer {
    forward(state, &namespace, &pod, Some(&uid), request).await
}

async fn forward(
    Extract(state): Shared,
    namespace: &str,
    pod: &str,
    pod_uid: Option<&str>,
    request: Request,
) -> Answer {
    let ports = ports(&Params::of(request.uri())?)?;
    let known = find_uid(&state, namespace, pod, pod_uid)?;
    let sandbox = state.pods.sandbox_id(uid(&known));
    let sandbox = sandbox.ok_or_else(|| {
        Refusal(
            StatusCode::NOT_FOUND,
            format!("pod {pod:?} has no running sandbox"),
        )
    })?;
    let answer = state
        .cri
        .port_forward(v1::PortForwardRequest {
            pod_sandbox_id: sandbox,
            port: ports,
        })
        .await?;
    pass_on(request, &answer.url).await
}

/// `port=80&port=443` or `port=80,443`, for WebSockets only: SPDY names ports
/// in its streams.
fn ports(params: &Params) -> Result<Vec<i32>, Refusal> {
    let all = params.all("port").join(",");
    let texts = all.split(',').filter(|t| !t.is_empty());
    let parse = |text: &str| match text.parse::<u16>() {
        Ok(port) if port > 0 => Ok(i32::from(port)),
        _ => Err(Refusal(
            StatusCode::BAD_REQUEST,
            format!("unable to parse {text:?} as a port"),
        )),
    };
    texts.map(parse).collect()
}

pub(super) async fn run(state: Shared, Path(target): Path<OfPod>, request: Request) -> Answer {
    run_in(state, target.into(), request).await
}

pub(super) async fn run_uid(state: Shared, Path(target): Path<OfUid>, request: Request) -> Answer {
    run_in(state, target.into(), request).await
}

async fn run_in(Extract(state): Shared, target: Target, request: Request) -> Answer {
    let params = Params::of(request.uri())?;
    let command = params.get("cmd").unwrap_or_default();
    let answer = state
        .cri
        .exec_sync(v1::ExecSyncRequest {
            container_id: container(&state, &target)?,
            cmd: command.split(' ').map(str::to_owned).collect(),
            timeout: 0,
        })
        .await?;
    let output = [answer.stdout, answer.stderr].concat();
    let code = match answer.exit_code {
        0 => StatusCode::OK,
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    };
    Ok((code, output).into_response())
}

fn container(state: &State, target: &Target) -> Result<String, Refusal> {
    let known = find_uid(state, &target.namespace, &target.pod, target.uid.as_deref())?;
    container_id(state, &known, &target.container)
}

#[derive(Debug, PartialEq, Eq)]
struct Streams {
    stdin: bool,
    stdout: bool,
    stderr: bool,
    tty: bool,
}

impl Streams {
    fn of(params: &Params) -> Result<Streams, Refusal> {
        let tty = params.is_one("tty");
        let streams = Streams {
            stdin: params.is_one("input"),
            stdout: params.is_one("output"),
            // A terminal has one output.
            stderr: params.is_one("error") && !tty,
            tty,
        };
        match streams.stdin || streams.stdout || streams.stderr {
            true => Ok(streams),
            false => Err(Refusal(
                StatusCode::BAD_REQUEST,
                "you must specify at least 1 of stdin, stdout, stderr".to_owned(),
            )),
        }
    }
}

fn bad_gateway(what: &str, why: impl std::fmt::Display) -> Refusal {
    Refusal(StatusCode::BAD_GATEWAY, format!("{what}: {why}"))
}

/// Repeats the request at `url`. When that switches protocols, so does ours,
/// and the two connections become one.
async fn pass_on(mut request: Request, url: &str) -> Answer {
    if !request.headers().contains_key(header::UPGRADE) {
        let why = "Upgrade request required".to_owned();
        return Err(Refusal(StatusCode::INTERNAL_SERVER_ERROR, why));
    }
    let url: Uri = url
        .parse()
        .map_err(|e| bad_gateway("the runtime's stream URL", e))?;
    let authority = match (url.scheme_str(), url.authority()) {
        (Some("http"), Some(authority)) => authority.clone(),
        _ => {
            return Err(bad_gateway(
                "the runtime's stream URL",
                format!("{url} is not http://HOST:PORT/…"),
            ));
        }
    };
    let host = authority.host().trim_matches(['[', ']']);
    let stream = TcpStream::connect((host, authority.port_u16().unwrap_or(80)));
    let stream = stream
        .await
        .map_err(|e| bad_gateway("connect to the runtime's streams", e))?;
    let _ = stream.set_nodelay(true);
    let shake = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
    let (mut sender, connection) = shake.map_err(|e| bad_gateway("the runtime's streams", e))?;
    tokio::spawn(connection.with_upgrades());

    let mut onward = hyper::Request::new(Body::empty());
    *onward.method_mut() = request.method().clone();
    let path = url.path_and_query().map_or("/", |p| p.as_str());
    *onward.uri_mut() = path
        .parse()
        .map_err(|e| bad_gateway("the runtime's stream URL", e))?;
    *onward.headers_mut() = request.headers().clone();
    onward.headers_mut().remove(header::CONTENT_LENGTH);
    let host = authority.as_str().parse();
    onward.headers_mut().insert(
        header::HOST,
        host.map_err(|e| bad_gateway("the runtime's stream URL", e))?,
    );
    let ours = hyper::upgrade::on(&mut request);
    let answer = sender.send_request(onward).await;
    let mut answer = answer.map_err(|e| bad_gateway("the runtime's streams", e))?;
    if answer.status() == StatusCode::SWITCHING_PROTOCOLS {
        let theirs = hyper::upgrade::on(&mut answer);
        // Some servers add "close", at which Go's client drops the whole header
        // and takes the upgrade for refused.
        let upgrade = HeaderValue::from_static("Upgrade");
        answer.headers_mut().insert(header::CONNECTION, upgrade);
        tokio::spawn(join(ours, theirs));
    }
    Ok(answer.map(Body::new))
}

async fn join(ours: hyper::upgrade::OnUpgrade, theirs: hyper::upgrade::OnUpgrade) {
    let (ours, theirs) = match tokio::try_join!(ours, theirs) {
        Ok(both) => both,
        Err(error) => {
            tracing::debug!(%error, "a stream was not upgraded");
            return;
        }
    };
    let (mut ours, mut theirs) = (TokioIo::new(ours), TokioIo::new(theirs));
    // Either end may vanish: that is how streams end.
    let _ = tokio::io::copy_bidirectional(&mut ours, &mut theirs).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn streams(query: &str) -> Result<Streams, Refusal> {
        let uri: Uri = format!("/exec/ns/p/c?{query}").parse().unwrap();
        Streams::of(&Params::of(&uri)?)
    }

    #[test]
    fn terminal_has_no_error_stream() {
        let got = streams("tty=1&input=1&output=1&error=1").unwrap();
        assert_eq!(
            got,
            Streams {
                stdin: true,
                stdout: true,
                stderr: false,
                tty: true
            }
        );
    }

    #[test]
    fn streams_must_be_asked_for_with_a_one() {
        assert!(streams("input=true&output=yes").is_err());
    }

    #[test]
    fn ports_are_read_in_both_forms() {
        let uri: Uri = "/portForward/ns/p?port=80&port=443,8080".parse().unwrap();
        assert_eq!(ports(&Params::of(&uri).unwrap()).unwrap(), [80, 443, 8080]);
        let uri: Uri = "/portForward/ns/p?port=0".parse().unwrap();
        assert!(ports(&Params::of(&uri).unwrap()).is_err());
    }
}
