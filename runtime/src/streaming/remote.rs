//! Exec and attach: which streams there are, whoever carries them.

use super::outcome::Outcome;
use super::pipe::{ChannelReader, ChannelWriter, Data};
use super::{Handler, Streams, TerminalSize, spdy, websocket};
use bytes::Bytes;
use cri_proto::v1;
use std::collections::HashMap;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;

/// How long the client may take to open its streams
/// (k8s.io/cri-streaming v0.37 `DefaultStreamCreationTimeout`).
pub const STREAM_CREATION: Duration = Duration::from_secs(30);
/// Sizes that may wait; only the latest matters.
const SIZES: usize = 4;
/// Bytes of one size in JSON; more is no size.
const MAX_SIZE: usize = 4096;

// WebSocket channels (wsstream's order) and SPDY stream types.
const STDIN: u8 = 0;
const STDOUT: u8 = 1;
const STDERR: u8 = 2;
const ERROR: u8 = 3;
const RESIZE: u8 = 4;
const STREAM_TYPES: [(&str, u8); 5] = [
    ("stdin", STDIN),
    ("stdout", STDOUT),
    ("stderr", STDERR),
    ("error", ERROR),
    ("resize", RESIZE),
];

/// What runs with the streams.
#[derive(Debug, Clone)]
pub enum Command {
    /// A new process.
    Exec(v1::ExecRequest),
    /// The container's first process.
    Attach(v1::AttachRequest),
}

/// Which streams the request asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Wanted {
    stdin: bool,
    stdout: bool,
    stderr: bool,
    resize: bool,
}

impl Command {
    fn wanted(&self) -> Wanted {
        let (stdin, stdout, stderr, tty) = match self {
            Self::Exec(r) => (r.stdin, r.stdout, r.stderr, r.tty),
            Self::Attach(r) => (r.stdin, r.stdout, r.stderr, r.tty),
        };
        // A terminal has one output.
        let stderr = stderr && !tty;
        Wanted {
            stdin,
            stdout,
            stderr,
            resize: tty,
        }
    }
}

/// The client's ends.
struct Ends<W: Send> {
    stdin: Option<ChannelReader>,
    stdout: Option<ChannelWriter<W>>,
    stderr: Option<ChannelWriter<W>>,
    resize: Option<ChannelReader>,
}

/// Serves the request over SPDY.
pub async fn over_spdy<T>(io: T, version: u8, command: Command, handler: &dyn Handler)
where
    T: AsyncRead + AsyncWrite + Send + 'static,
{
    let mut connection = spdy::Connection::new(io);
    let mut wanted = command.wanted();
    wanted.resize &= version >= 3;
    let collected = collect(&mut connection, wanted);
    let Ok(Some((ends, mut error))) = tokio::time::timeout(STREAM_CREATION, collected).await else {
        tracing::debug!("the client did not open the streams it asked for");
        return connection.finish().await;
    };
    let outputs: Vec<_> = [&ends.stdout, &ends.stderr].into_iter().flatten().collect();
    let twins: Vec<_> = outputs.into_iter().map(ChannelWriter::twin).collect();
    let outcome = tokio::select! {
        outcome = perform(handler, command, ends) => outcome,
        () = gone(&mut connection) => return,
    };
    for mut twin in twins {
        let _ = twin.shutdown().await;
    }
    let _ = error.write_all(&outcome.message(version)).await;
    let _ = error.shutdown().await;
    connection.finish().await;
}

async fn gone(connection: &mut spdy::Connection) {
    while let Some(late) = connection.accept().await {
        connection.refuse(late.id).await;
    }
}

/// Takes streams until all that are wanted are there.
async fn collect(
    connection: &mut spdy::Connection,
    wanted: Wanted,
) -> Option<(Ends<spdy::Out>, ChannelWriter<spdy::Out>)> {
    let mut found: HashMap<u8, spdy::Incoming> = HashMap::new();
    let needed = [
        (STDIN, wanted.stdin),
        (STDOUT, wanted.stdout),
        (STDERR, wanted.stderr),
        (RESIZE, wanted.resize),
        (ERROR, true),
    ];
    let missing = |found: &HashMap<u8, _>| needed.iter().any(|(c, w)| *w && !found.contains_key(c));
    while missing(&found) {
        let stream = connection.accept().await?;
        let kind = stream.header("streamtype").map(str::to_ascii_lowercase);
        let known = STREAM_TYPES
            .iter()
            .find(|(name, _)| Some(*name) == kind.as_deref());
        match known {
            Some((_, channel)) if !found.contains_key(channel) => {
                found.insert(*channel, stream);
            }
            _ => connection.refuse(stream.id).await,
        }
    }
    let mut write = |channel| found.remove(&channel).map(|s| connection.writer(s.id));
    let (stdout, stderr, error) = (write(STDOUT), write(STDERR), write(ERROR)?);
    let mut read = |channel| found.remove(&channel).map(|s| s.reader);
    let (stdin, resize) = (read(STDIN), read(RESIZE));
    Some((
        Ends {
            stdin,
            stdout,
            stderr,
            resize,
        },
        error,
    ))
}

/// Serves the request over WebSocket channels.
pub async fn over_websocket<T>(
    io: T,
    choice: websocket::Choice,
    command: Command,
    handler: &dyn Handler,
) where
    T: AsyncRead + AsyncWrite + Send + 'static,
{
    let wanted = command.wanted();
    let mut channels = HashMap::new();
    let mut open = |channel, wanted: bool| {
        wanted.then(|| {
            let (pieces, reader) = ChannelReader::new();
            channels.insert(channel, pieces);
            reader
        })
    };
    let (stdin, resize) = (open(STDIN, wanted.stdin), open(RESIZE, wanted.resize));
    let mode = websocket::Mode::Channels(choice.encoding);
    let mut connection = websocket::Connection::new(io, mode, channels);
    let write = |channel, wanted: bool| wanted.then(|| connection.writer(channel));
    let (stdout, stderr) = (write(STDOUT, wanted.stdout), write(STDERR, wanted.stderr));
    // An empty message tells old clients that the connection stands.
    let first = match (wanted.stdout, wanted.stderr) {
        (true, _) => STDOUT,
        (_, true) => STDERR,
        _ => ERROR,
    };
    connection.send(first, Bytes::new()).await;
    let ends = Ends {
        stdin,
        stdout,
        stderr,
        resize,
    };
    let outcome = tokio::select! {
        outcome = perform(handler, command, ends) => outcome,
        () = connection.gone() => return,
    };
    let message = outcome.message(choice.version);
    if !message.is_empty() {
        connection.send(ERROR, message.into()).await;
    }
    connection.finish().await;
}

async fn perform<W>(handler: &dyn Handler, command: Command, ends: Ends<W>) -> Outcome
where
    W: From<Data> + Send + 'static,
{
    let (sizes, resize) = mpsc::channel(SIZES);
    // Held until the end: the handler takes its closing for the client's going.
    let _open = sizes.clone();
    let _pump = ends.resize.map(|reader| {
        let pump = tokio::spawn(pump_sizes(reader, sizes));
        AbortOnDropHandle::new(pump)
    });
    let streams = Streams {
        stdin: ends.stdin.map(|r| Box::new(r) as _),
        stdout: ends.stdout.map(|w| Box::new(w) as _),
        stderr: ends.stderr.map(|w| Box::new(w) as _),
        resize,
    };
    match command {
        Command::Exec(request) => match handler.exec(request, streams).await {
            Ok(0) => Outcome::Success,
            Ok(code) => Outcome::Exit(code),
            Err(message) => Outcome::Failed(message),
        },
        Command::Attach(request) => match handler.attach(request, streams).await {
            Ok(()) => Outcome::Success,
            Err(message) => Outcome::Failed(message),
        },
    }
}

/// Sizes come as JSON objects one after another, cut anywhere.
async fn pump_sizes(mut reader: ChannelReader, sizes: mpsc::Sender<TerminalSize>) {
    let mut text = Vec::new();
    let mut buffer = [0; 512];
    while let Ok(n @ 1..) = reader.read(&mut buffer).await {
        text.extend_from_slice(&buffer[..n]);
        for size in take_sizes(&mut text) {
            if sizes.send(size).await.is_err() {
                return;
            }
        }
    }
}

/// Takes the whole objects off the text; garbage is dropped.
fn take_sizes(text: &mut Vec<u8>) -> Vec<TerminalSize> {
    #[derive(serde::Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Size {
        width: u16,
        height: u16,
    }
    let mut found = Vec::new();
    let mut objects = serde_json::Deserializer::from_slice(text).into_iter::<Size>();
    let mut used = 0;
    let mut garbage = false;
    for object in objects.by_ref() {
        match object {
            Ok(Size { width, height }) if width > 0 && height > 0 => {
                found.push(TerminalSize { width, height });
            }
            Ok(_) => {}
            Err(e) => {
                garbage = !e.is_eof();
                break;
            }
        }
        used = usize::MAX;
    }
    if used == usize::MAX {
        used = objects.byte_offset();
    }
    let drop = if garbage || text.len() - used > MAX_SIZE {
        text.len()
    } else {
        used
    };
    text.drain(..drop);
    found
}

/// Sizes that come in pieces, damaged: what waits is bounded.
#[cfg(test)]
pub fn fuzzed_sizes(input: &[u8]) {
    let mut text = Vec::new();
    for piece in input.chunks(7) {
        text.extend_from_slice(piece);
        for size in take_sizes(&mut text) {
            assert!(size.width > 0 && size.height > 0);
        }
        assert!(text.len() <= MAX_SIZE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn size(width: u16, height: u16) -> TerminalSize {
        TerminalSize { width, height }
    }

    #[test]
    fn sizes_are_taken_whole_and_the_rest_waits() {
        let mut text = br#"{"Width":80,"Height":24}{"Width":1"#.to_vec();
        assert_eq!(take_sizes(&mut text), [size(80, 24)]);
        text.extend_from_slice(br#"00,"Height":30}"#);
        assert_eq!(take_sizes(&mut text), [size(100, 30)]);
        assert!(text.is_empty());
    }

    #[test]
    fn sizes_of_nothing_or_garbage_are_dropped() {
        let mut text = br#"{"Width":0,"Height":24}"#.to_vec();
        assert!(take_sizes(&mut text).is_empty());
        let mut text = b"what?".to_vec();
        assert!(take_sizes(&mut text).is_empty() && text.is_empty());
        let mut endless = vec![b' '; MAX_SIZE + 1];
        endless.insert(0, b'{');
        assert!(take_sizes(&mut endless).is_empty() && endless.is_empty());
    }

    #[test]
    fn terminal_has_no_stderr() {
        let request = v1::ExecRequest {
            tty: true,
            stdout: true,
            stderr: true,
            ..Default::default()
        };
        let wanted = Command::Exec(request).wanted();
        assert!(!wanted.stderr && wanted.stdout && wanted.resize);
    }
}
