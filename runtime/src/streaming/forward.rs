//! Port-forward: pairs of a data and an error stream, any number at a time.

use super::pipe::{ChannelReader, ChannelWriter, Data};
use super::{Duplex, Handler, spdy, websocket};
use bytes::Bytes;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::task::JoinSet;

/// Halves of pairs whose other half has not come.
const MAX_HALVES: usize = 128;
/// What the client still sends after the pod has closed its side is waited
/// for this long.
const AFTER_POD: Duration = Duration::from_secs(1);
/// Ports of one WebSocket: two channels each, numbered in a byte.
const MAX_PORTS: usize = 64;

/// Where to connect.
#[derive(Clone)]
pub struct Target {
    /// Who connects.
    pub handler: Arc<dyn Handler>,
    /// Into which sandbox.
    pub sandbox: String,
}

/// One connection to be forwarded.
struct Pair<W: Send> {
    port: u16,
    read: ChannelReader,
    write: ChannelWriter<W>,
    error: ChannelWriter<W>,
}

#[derive(Default)]
struct Halves {
    data: Option<spdy::Incoming>,
    error: Option<spdy::Incoming>,
}

/// Serves pairs over SPDY until the client goes.
pub async fn over_spdy<T>(io: T, target: Target)
where
    T: AsyncRead + AsyncWrite + Send + 'static,
{
    let mut connection = spdy::Connection::new(io);
    let mut halves: HashMap<String, Halves> = HashMap::new();
    let mut forwards = JoinSet::new();
    loop {
        tokio::select! {
            stream = connection.accept() => {
                let Some(stream) = stream else { return };
                let id = stream.id;
                match pair(&connection, &mut halves, stream) {
                    Ok(Some(pair)) => {
                        forwards.spawn(forward(target.clone(), pair));
                    }
                    Ok(None) => {}
                    Err(Unwanted) => connection.refuse(id).await,
                }
            }
            Some(_) = forwards.join_next() => {}
        }
    }
}

/// A stream that fits no pair.
struct Unwanted;

/// Puts the stream with its other half, if that is there.
fn pair(
    connection: &spdy::Connection,
    halves: &mut HashMap<String, Halves>,
    stream: spdy::Incoming,
) -> Result<Option<Pair<spdy::Out>>, Unwanted> {
    let kind = stream.header("streamtype").unwrap_or_default().to_owned();
    let request = match stream.header("requestid") {
        Some(id) => id.to_owned(),
        // Clients before Kubernetes 1.3: the error stream, then the data stream.
        None if kind == "data" => stream.id.saturating_sub(2).to_string(),
        None => stream.id.to_string(),
    };
    let data = match kind.as_str() {
        "data" => true,
        "error" => false,
        // It takes no place among the halves.
        _ => return Err(Unwanted),
    };
    if !halves.contains_key(&request) && halves.len() >= MAX_HALVES {
        return Err(Unwanted);
    }
    let found = halves.entry(request.clone()).or_default();
    let slot = match data {
        true => &mut found.data,
        false => &mut found.error,
    };
    if slot.is_some() {
        return Err(Unwanted);
    }
    *slot = Some(stream);
    if found.data.is_none() || found.error.is_none() {
        return Ok(None);
    }
    let Some(Halves {
        data: Some(data),
        error: Some(error),
    }) = halves.remove(&request)
    else {
        return Err(Unwanted);
    };
    let port = data
        .header("port")
        .and_then(|p| p.parse().ok())
        .unwrap_or(0);
    Ok(Some(Pair {
        port,
        write: connection.writer(data.id),
        read: data.reader,
        error: connection.writer(error.id),
    }))
}

/// Serves these ports over WebSocket channels, two for each: first its number,
/// then its bytes.
pub async fn over_websocket<T>(io: T, choice: websocket::Choice, ports: Vec<u16>, target: Target)
where
    T: AsyncRead + AsyncWrite + Send + 'static,
{
    let channel = |n: usize| (n * 2) as u8;
    let mut channels = HashMap::new();
    let readers: Vec<_> = ports
        .iter()
        .take(MAX_PORTS)
        .enumerate()
        .map(|(n, port)| {
            let (pieces, reader) = ChannelReader::new();
            channels.insert(channel(n), pieces);
            (n, *port, reader)
        })
        .collect();
    let mode = websocket::Mode::Channels(choice.encoding);
    let mut connection = websocket::Connection::new(io, mode, channels);
    let mut forwards = JoinSet::new();
    for (n, port, read) in readers {
        let number = Bytes::copy_from_slice(&port.to_le_bytes());
        connection.send(channel(n), number.clone()).await;
        connection.send(channel(n) + 1, number).await;
        let pair = Pair {
            port,
            read,
            write: connection.writer(channel(n)),
            error: connection.writer(channel(n) + 1),
        };
        forwards.spawn(forward(target.clone(), pair));
    }
    let all = async { while forwards.join_next().await.is_some() {} };
    tokio::select! {
        () = all => connection.finish().await,
        () = connection.gone() => {}
    }
}

/// SPDY within WebSocket messages, as kubectl's newer port-forward has it.
pub async fn over_tunnel<T>(io: T, target: Target)
where
    T: AsyncRead + AsyncWrite + Send + 'static,
{
    let (connection, tunnel) = websocket::raw(io);
    over_spdy(tunnel, target).await;
    connection.finish().await;
}

async fn forward<W>(target: Target, mut pair: Pair<W>)
where
    W: From<Data> + Send + 'static,
{
    let (sandbox, port) = (&target.sandbox, pair.port);
    let connected = if port == 0 {
        Err("no port in the request".to_owned())
    } else {
        target.handler.port_forward(sandbox, port).await
    };
    match connected {
        Ok(pod) => copy(pod, pair.read, &mut pair.write).await,
        Err(message) => {
            let text = format!("error forwarding port {port} to pod {sandbox}: {message}");
            let _ = pair.error.write_all(text.as_bytes()).await;
        }
    }
    let _ = pair.write.shutdown().await;
    let _ = pair.error.shutdown().await;
}

/// Both directions until the pod has closed its side.
async fn copy<W>(pod: Box<dyn Duplex>, mut read: ChannelReader, write: &mut ChannelWriter<W>)
where
    W: From<Data> + Send + 'static,
{
    let (mut from_pod, mut to_pod) = tokio::io::split(pod);
    let up = async {
        let _ = tokio::io::copy(&mut read, &mut to_pod).await;
        let _ = to_pod.shutdown().await;
    };
    let down = async {
        let _ = tokio::io::copy(&mut from_pod, write).await;
        let _ = write.shutdown().await;
    };
    tokio::pin!(up, down);
    tokio::select! {
        () = &mut up => down.await,
        () = &mut down => {
            let _ = tokio::time::timeout(AFTER_POD, up).await;
        }
    }
}
