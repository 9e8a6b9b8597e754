use super::frame;
use super::protocol::Encoding;
use crate::streaming::pipe::{ChannelReader, ChannelWriter, Data, PIECE, WRITE_BUFFER, hand_over};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use std::collections::HashMap;
use std::io;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, BufWriter, ReadHalf, WriteHalf};
use tokio::sync::{mpsc, oneshot};
use tokio_util::task::AbortOnDropHandle;

/// Messages that may wait to be written.
const OUT_DEPTH: usize = 16;
/// How long the client may take to answer our close.
const LINGER: Duration = Duration::from_secs(5);
/// RFC 6455, 7.4.1: the purpose has been fulfilled.
const NORMAL: u16 = 1000;
/// Of v5.channel.k8s.io: the next byte names a channel that the client is
/// done with.
const CLOSE_CHANNEL: u8 = 255;

/// What a message's bytes are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// A channel's.
    Channels(Encoding),
    /// All of the one channel 0.
    Raw,
}

/// What is to be written.
#[derive(Debug)]
pub enum Out {
    /// Bytes of a channel.
    Data(Data),
    /// Answer to a ping.
    Pong(Vec<u8>),
    /// Whether the client is there.
    Ping,
    /// Goodbye; nothing is written after it.
    Close,
}

impl From<Data> for Out {
    fn from(data: Data) -> Self {
        Self::Data(data)
    }
}

/// A connection whose reader and writer are tasks; both end when it is dropped.
#[derive(Debug)]
pub struct Connection {
    out: mpsc::Sender<Out>,
    gone: oneshot::Receiver<()>,
    writer: AbortOnDropHandle<()>,
    _reader: AbortOnDropHandle<()>,
}

impl Connection {
    /// Speaks WebSocket over the socket; what the client sends on one of the
    /// channels goes there, and on others nowhere.
    pub fn new<T: AsyncRead + AsyncWrite + Send + 'static>(
        io: T,
        mode: Mode,
        channels: HashMap<u8, mpsc::Sender<Bytes>>,
    ) -> Self {
        let (read, write) = tokio::io::split(io);
        let (out, outgoing) = mpsc::channel(OUT_DEPTH);
        let (alive, gone) = oneshot::channel();
        let reader = MessageReader {
            io: read,
            out: out.clone(),
            mode,
            channels,
        };
        let reader = async move {
            reader.run().await;
            drop(alive);
        };
        Self {
            out,
            gone,
            writer: AbortOnDropHandle::new(tokio::spawn(write_all(write, outgoing, mode))),
            _reader: AbortOnDropHandle::new(tokio::spawn(reader)),
        }
    }

    /// A writer of a channel.
    pub fn writer(&self, channel: u8) -> ChannelWriter<Out> {
        ChannelWriter::new(u32::from(channel), self.out.clone())
    }

    /// Sends bytes on a channel, even none.
    pub async fn send(&self, channel: u8, bytes: Bytes) {
        let data = Data {
            id: u32::from(channel),
            bytes,
            end: false,
        };
        let _ = self.out.send(data.into()).await;
    }

    /// Returns when the client has gone.
    pub async fn gone(&mut self) {
        let _ = (&mut self.gone).await;
    }

    /// Says goodbye, and waits for the client to go.
    pub async fn finish(mut self) {
        let farewell = async {
            let _ = self.out.send(Out::Close).await;
            let _ = (&mut self.writer).await;
            let _ = (&mut self.gone).await;
        };
        let _ = tokio::time::timeout(LINGER, farewell).await;
    }
}

/// The bytes of all messages as one stream, for a protocol tunnelled within.
pub fn raw<T: AsyncRead + AsyncWrite + Send + 'static>(
    io: T,
) -> (Connection, impl AsyncRead + AsyncWrite + Send + 'static) {
    let (pieces, reader) = ChannelReader::new();
    let connection = Connection::new(io, Mode::Raw, HashMap::from([(0, pieces)]));
    let writer = connection.writer(0);
    (connection, tokio::io::join(reader, writer))
}

struct MessageReader<T> {
    io: ReadHalf<T>,
    out: mpsc::Sender<Out>,
    mode: Mode,
    channels: HashMap<u8, mpsc::Sender<Bytes>>,
}

impl<T: AsyncRead> MessageReader<T> {
    async fn run(mut self) {
        while let Ok(Some(message)) = self.message().await {
            if self.deliver(message).await.is_none() {
                break;
            }
        }
    }

    /// A whole message; none when the client says that it goes.
    async fn message(&mut self) -> io::Result<Option<Vec<u8>>> {
        let mut message = Vec::new();
        let mut begun = false;
        loop {
            let frame = frame::read(&mut self.io).await?;
            let fits = match frame.opcode {
                frame::CLOSE => return Ok(None),
                frame::PING => {
                    // One that finds no room is answered by a later one.
                    let _ = self.out.try_send(Out::Pong(frame.payload));
                    continue;
                }
                frame::PONG => continue,
                frame::TEXT | frame::BINARY => !begun,
                frame::CONTINUATION => begun,
                _ => false,
            };
            if !fits || message.len() + frame.payload.len() > frame::MAX_MESSAGE {
                return Err(io::ErrorKind::InvalidData.into());
            }
            begun = true;
            message.extend_from_slice(&frame.payload);
            if frame.last {
                return Ok(Some(message));
            }
        }
    }

    /// Hands a message to its channel; none if it makes no sense.
    async fn deliver(&mut self, message: Vec<u8>) -> Option<()> {
        let message = Bytes::from(message);
        let (channel, bytes) = match self.mode {
            Mode::Raw => (0, message),
            Mode::Channels(_) if message.is_empty() => return Some(()),
            Mode::Channels(Encoding::Binary) => (message[0], message.slice(1..)),
            Mode::Channels(Encoding::Base64) => {
                let channel = message[0].checked_sub(b'0')?;
                (channel, STANDARD.decode(&message[1..]).ok()?.into())
            }
        };
        if channel == CLOSE_CHANNEL {
            self.channels.remove(bytes.first()?);
            return Some(());
        }
        if let Some(pieces) = self.channels.get(&channel) {
            for start in (0..bytes.len()).step_by(PIECE) {
                let piece = bytes.slice(start..bytes.len().min(start + PIECE));
                let handed = hand_over(pieces, piece, &self.out, || Out::Ping).await;
                handed.ok()?;
            }
        }
        Some(())
    }
}

async fn write_all<T: AsyncWrite>(io: WriteHalf<T>, mut outgoing: mpsc::Receiver<Out>, mode: Mode) {
    let mut io = BufWriter::with_capacity(WRITE_BUFFER, io);
    while let Some(out) = outgoing.recv().await {
        let last = matches!(out, Out::Close);
        let (opcode, payload) = encode(out, mode);
        let Some(payload) = payload else { continue };
        let header = frame::header(opcode, payload.len());
        let written = async {
            io.write_all(&header).await?;
            io.write_all(&payload).await?;
            if outgoing.is_empty() {
                io.flush().await
            } else {
                Ok(())
            }
        };
        if written.await.is_err() || last {
            break;
        }
    }
    let _ = io.flush().await;
    let _ = io.shutdown().await;
}

/// A message; none for a channel's end, which only SPDY can tell.
fn encode(out: Out, mode: Mode) -> (u8, Option<Vec<u8>>) {
    match (out, mode) {
        (Out::Data(data), _) if data.end && data.bytes.is_empty() => (frame::BINARY, None),
        (Out::Data(data), Mode::Raw) => (frame::BINARY, Some(data.bytes.to_vec())),
        (Out::Data(data), Mode::Channels(Encoding::Binary)) => {
            let mut message = vec![data.id as u8];
            message.extend_from_slice(&data.bytes);
            (frame::BINARY, Some(message))
        }
        (Out::Data(data), Mode::Channels(Encoding::Base64)) => {
            let mut message = data.id.to_string();
            STANDARD.encode_string(&data.bytes, &mut message);
            (frame::TEXT, Some(message.into_bytes()))
        }
        (Out::Pong(payload), _) => (frame::PONG, Some(payload)),
        (Out::Ping, _) => (frame::PING, Some(Vec::new())),
        (Out::Close, _) => (frame::CLOSE, Some(NORMAL.to_be_bytes().to_vec())),
    }
}

/// Reads all that a client sends, in every mode, in its own task, where a panic
/// is seen. Channel 0 is read to the end, nobody reads channel 4.
#[cfg(test)]
pub async fn fuzzed(input: &[u8]) {
    let channels = [Encoding::Binary, Encoding::Base64].map(Mode::Channels);
    for mode in channels.into_iter().chain([Mode::Raw]) {
        let (mut client, server) = tokio::io::duplex(1 << 20);
        let (read, _write) = tokio::io::split(server);
        let (out, mut outgoing) = mpsc::channel(OUT_DEPTH);
        let (pieces, mut stdin) = ChannelReader::new();
        let (sizes, _) = ChannelReader::new();
        let reader = MessageReader {
            io: read,
            out,
            mode,
            channels: HashMap::from([(0, pieces), (4, sizes)]),
        };
        let feed = async move {
            let _ = client.write_all(input).await;
        };
        let answers = async { while outgoing.recv().await.is_some() {} };
        let mut sink = tokio::io::sink();
        let take = tokio::io::copy(&mut stdin, &mut sink);
        let (_, (), (), taken) = tokio::join!(feed, reader.run(), answers, take);
        // What comes out was sent.
        assert!(taken.is_ok_and(|n| n <= input.len() as u64));
    }
}
