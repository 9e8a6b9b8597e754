//! The server over real sockets, with a client made of the same frames.

use super::spdy_wire::{Client, Event};
use super::*;
use base64::Engine;
use std::sync::Arc;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

/// `cat` echoes to stdout until the end of stdin and exits with 3; `size`
/// prints the first size; `hang` never ends and tells when it is dropped.
struct Shell {
    dropped: mpsc::Sender<()>,
}

struct Tell(mpsc::Sender<()>);

impl Drop for Tell {
    fn drop(&mut self) {
        let _ = self.0.try_send(());
    }
}

#[async_trait::async_trait]
impl Handler for Shell {
    async fn exec(&self, request: v1::ExecRequest, mut streams: Streams) -> Result<i32, String> {
        match request.cmd[0].as_str() {
            "cat" => {
                let mut stdin = streams.stdin.ok_or("no stdin")?;
                let mut stdout = streams.stdout.ok_or("no stdout")?;
                tokio::io::copy(&mut stdin, &mut stdout)
                    .await
                    .map_err(|e| e.to_string())?;
                Ok(3)
            }
            "true" => Ok(0),
            "size" => {
                let size = streams.resize.recv().await.ok_or("no size")?;
                let text = format!("{}x{}", size.width, size.height);
                let mut stdout = streams.stdout.ok_or("no stdout")?;
                stdout
                    .write_all(text.as_bytes())
                    .await
                    .map_err(|e| e.to_string())?;
                Ok(0)
            }
            "hang" => {
                let _tell = Tell(self.dropped.clone());
                std::future::pending().await
            }
            other => Err(format!("no such program: {other}")),
        }
    }

    async fn attach(&self, _: v1::AttachRequest, _: Streams) -> Result<(), String> {
        Ok(())
    }

    async fn port_forward(&self, sandbox: &str, port: u16) -> Result<Box<dyn Duplex>, String> {
        if port == 1 {
            return Err(format!("nobody listens in {sandbox}"));
        }
        let (ours, mut theirs) = tokio::io::duplex(1024);
        tokio::spawn(async move {
            let mut word = [0; 4];
            theirs.read_exact(&mut word).await.unwrap();
            theirs.write_all(&word).await.unwrap();
            theirs.write_all(&port.to_be_bytes()).await.unwrap();
        });
        Ok(Box::new(ours))
    }
}

struct Bed {
    server: Arc<Server>,
    dropped: mpsc::Receiver<()>,
    _stop: tokio_util::sync::DropGuard,
}

fn bed() -> Bed {
    let server = Server::bind(([127, 0, 0, 1], 0).into()).unwrap();
    let (sender, dropped) = mpsc::channel(1);
    let stop = CancellationToken::new();
    let handler = Arc::new(Shell { dropped: sender });
    tokio::spawn(server.clone().run(handler, stop.clone()));
    Bed {
        server,
        dropped,
        _stop: stop.drop_guard(),
    }
}

fn exec(command: &str, tty: bool) -> v1::ExecRequest {
    v1::ExecRequest {
        container_id: "c".to_owned(),
        cmd: vec![command.to_owned()],
        tty,
        stdin: command == "cat",
        stdout: true,
        stderr: true,
    }
}

/// Opens a URL and answers the socket with the head of the response.
async fn open(url: &str, method: &str, headers: &str) -> (TcpStream, String) {
    let rest = url.strip_prefix("http://").unwrap();
    let (host, path) = rest.split_once('/').unwrap();
    let mut socket = TcpStream::connect(host).await.unwrap();
    let head = format!("{method} /{path} HTTP/1.1\r\nHost: {host}\r\n{headers}\r\n");
    socket.write_all(head.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        answer.push(socket.read_u8().await.unwrap());
    }
    let answer = String::from_utf8(answer).unwrap();
    if answer.starts_with("HTTP/1.1 101") {
        // Go's clients refuse an upgrade that says anything else.
        let connection = answer
            .lines()
            .filter(|l| l.to_ascii_lowercase().starts_with("connection:"));
        let values: Vec<_> = connection
            .map(|l| l[11..].trim().to_ascii_lowercase())
            .collect();
        assert_eq!(values, ["upgrade"], "{answer}");
    }
    (socket, answer)
}

async fn spdy(url: &str, protocol: &str) -> Client<TcpStream> {
    let headers = format!(
        "Connection: Upgrade\r\nUpgrade: SPDY/3.1\r\nX-Stream-Protocol-Version: {protocol}\r\nContent-Length: 0\r\n"
    );
    let (socket, answer) = open(url, "POST", &headers).await;
    assert!(answer.starts_with("HTTP/1.1 101"), "{answer}");
    assert!(answer.to_ascii_lowercase().contains(protocol), "{answer}");
    Client::new(socket)
}

#[tokio::test]
async fn spdy_exec_copies_streams_and_ends_with_the_exit_code() {
    let bed = bed();
    let url = bed.server.url_for_exec(exec("cat", false));
    let mut client = spdy(&url, "v4.channel.k8s.io").await;
    for (id, kind) in [(1, "error"), (3, "stdin"), (5, "stdout"), (7, "stderr")] {
        client.open(id, &[("streamtype", kind)]).await;
    }
    let long = vec![b'x'; 200_000];
    client.data(3, &long, true).await;
    let seen = client.until_goaway().await;
    assert_eq!(seen.bytes(5), long);
    let status: serde_json::Value = serde_json::from_slice(&seen.bytes(1)).unwrap();
    assert_eq!(status["details"]["causes"][0]["message"], "3");
    assert_eq!(seen.ended(), [5, 7, 1]);
}

#[tokio::test]
async fn spdy_exec_ends_though_stdin_stays_open() {
    let bed = bed();
    let mut request = exec("true", false);
    request.stdin = true;
    let url = bed.server.url_for_exec(request);
    let mut client = spdy(&url, "v5.channel.k8s.io").await;
    for (id, kind) in [(1, "error"), (3, "stdin"), (5, "stdout"), (7, "stderr")] {
        client.open(id, &[("streamtype", kind)]).await;
    }
    let seen = client.until_goaway().await;
    assert_eq!(seen.bytes(1), br#"{"metadata":{},"status":"Success"}"#);
}

#[tokio::test]
async fn spdy_resize_reaches_the_terminal_and_pings_are_answered() {
    let bed = bed();
    let url = bed.server.url_for_exec(exec("size", true));
    let mut client = spdy(&url, "v4.channel.k8s.io").await;
    for (id, kind) in [(1, "error"), (3, "stdout"), (5, "resize")] {
        client.open(id, &[("streamtype", kind)]).await;
    }
    client.ping(9).await;
    client.data(5, br#"{"Width":132,"Height":43}"#, false).await;
    let seen = client.until_goaway().await;
    assert_eq!(seen.bytes(3), b"132x43");
    assert!(seen.events.contains(&Event::Pong(9)));
}

#[tokio::test]
async fn cve_2022_23471_and_2025_64329_exec_is_dropped_when_the_client_goes() {
    let mut bed = bed();
    let url = bed.server.url_for_exec(exec("hang", false));
    let mut client = spdy(&url, "v4.channel.k8s.io").await;
    for (id, kind) in [(1, "error"), (5, "stdout"), (7, "stderr")] {
        client.open(id, &[("streamtype", kind)]).await;
    }
    client.reply(7).await;
    drop(client);
    assert_eq!(bed.dropped.recv().await, Some(()));
}

#[tokio::test]
async fn url_opens_once_and_says_so() {
    let bed = bed();
    let url = bed.server.url_for_exec(exec("true", false));
    let (_, answer) = open(&url, "GET", "").await;
    assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
    let (_, answer) = open(&url, "GET", "").await;
    assert!(answer.starts_with("HTTP/1.1 404"), "{answer}");
}

#[tokio::test]
async fn spdy_forwards_several_pairs_and_reports_a_refused_port() {
    let bed = bed();
    let request = v1::PortForwardRequest {
        pod_sandbox_id: "s".to_owned(),
        port: vec![],
    };
    let url = bed.server.url_for_port_forward(request);
    let mut client = spdy(&url, "portforward.k8s.io").await;
    let pairs = [(1, 3, "80", "0"), (5, 7, "81", "1"), (9, 11, "1", "2")];
    for (error, data, port, request) in pairs {
        let with = |kind| [("streamtype", kind), ("port", port), ("requestid", request)];
        client.open(error, &with("error")).await;
        client.data(error, b"", true).await;
        client.open(data, &with("data")).await;
    }
    client.data(7, b"ping", true).await;
    client.data(3, b"pong", true).await;
    let seen = client.until_ended(6).await;
    assert_eq!(seen.bytes(3), b"pong\0\x50");
    assert_eq!(seen.bytes(7), b"ping\0\x51");
    assert!(seen.bytes(9).ends_with(b"nobody listens in s"));
}

async fn websocket(url: &str, protocol: &str) -> TcpStream {
    let headers = format!(
        "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: {protocol}\r\n"
    );
    let (socket, answer) = open(url, "GET", &headers).await;
    assert!(answer.starts_with("HTTP/1.1 101"), "{answer}");
    assert!(answer.contains("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="), "{answer}");
    socket
}

/// A client's message; the mask is zero, so the bytes stay readable.
async fn say(socket: &mut TcpStream, message: &[u8]) {
    let length = u16::try_from(message.len()).unwrap();
    let mut frame = vec![0x82, 0x80 | 126];
    frame.extend_from_slice(&length.to_be_bytes());
    frame.extend_from_slice(&[0; 4]);
    frame.extend_from_slice(message);
    socket.write_all(&frame).await.unwrap();
}

/// The server's messages up to its close, each with its opcode.
async fn hear(socket: &mut TcpStream) -> Vec<(u8, Vec<u8>)> {
    let mut all = Vec::new();
    loop {
        let [first, second] = socket.read_u16().await.unwrap().to_be_bytes();
        let length = match second {
            126 => u64::from(socket.read_u16().await.unwrap()),
            127 => socket.read_u64().await.unwrap(),
            short => u64::from(short),
        };
        let mut payload = vec![0; length as usize];
        socket.read_exact(&mut payload).await.unwrap();
        if first == 0x88 {
            return all;
        }
        all.push((first & 15, payload));
    }
}

fn channel(messages: &[(u8, Vec<u8>)], channel: u8) -> Vec<u8> {
    let of = messages.iter().filter(|(_, m)| m[0] == channel);
    of.flat_map(|(_, m)| m[1..].to_vec()).collect()
}

#[tokio::test]
async fn websocket_v5_closes_stdin_by_its_channel() {
    let bed = bed();
    let url = bed.server.url_for_exec(exec("cat", false));
    let mut socket = websocket(&url, "v5.channel.k8s.io").await;
    say(&mut socket, b"\0hello").await;
    say(&mut socket, &[255, 0]).await;
    let heard = hear(&mut socket).await;
    assert_eq!(heard[0].1, [1], "the empty message on stdout comes first");
    assert_eq!(channel(&heard, 1), b"hello");
    let status: serde_json::Value = serde_json::from_slice(&channel(&heard, 3)).unwrap();
    assert_eq!(status["reason"], "NonZeroExitCode");
}

#[tokio::test]
async fn websocket_base64_speaks_digits_and_text() {
    let bed = bed();
    let url = bed.server.url_for_exec(exec("nothing", false));
    let mut socket = websocket(&url, "base64.channel.k8s.io").await;
    let heard = hear(&mut socket).await;
    assert_eq!(heard[0], (1, b"1".to_vec()));
    let text = base64::engine::general_purpose::STANDARD
        .decode(channel(&heard, b'3'))
        .unwrap();
    assert_eq!(text, b"no such program: nothing");
}

#[tokio::test]
async fn websocket_forward_names_each_port_first() {
    let bed = bed();
    let request = v1::PortForwardRequest {
        pod_sandbox_id: "s".to_owned(),
        port: vec![80, 1],
    };
    let url = bed.server.url_for_port_forward(request);
    let mut socket = websocket(&url, "v4.channel.k8s.io").await;
    say(&mut socket, b"\0ping").await;
    let heard = hear(&mut socket).await;
    assert_eq!(channel(&heard, 0), b"\x50\0ping\0\x50");
    assert_eq!(channel(&heard, 1), b"\x50\0");
    assert!(channel(&heard, 3).starts_with(b"\x01\0error forwarding port 1"));
}

#[tokio::test]
async fn garbage_ends_the_connection_and_nothing_else() {
    let bed = bed();
    let url = bed.server.url_for_exec(exec("cat", false));
    let mut client = spdy(&url, "v4.channel.k8s.io").await;
    client.raw(&[0xff; 64]).await;
    client.until_closed().await;
    let url = bed.server.url_for_exec(exec("true", false));
    let mut client = spdy(&url, "v4.channel.k8s.io").await;
    for (id, kind) in [(1, "error"), (3, "stdout"), (5, "stderr")] {
        client.open(id, &[("streamtype", kind)]).await;
    }
    client.until_goaway().await;
}
