use super::frame::{self, Header};
use super::headers::{Pairs, Reader, Writer};
use crate::streaming::pipe::{ChannelReader, ChannelWriter, Data, PIECE, WRITE_BUFFER, hand_over};
use bytes::{Bytes, BytesMut};
use std::collections::HashMap;
use std::io;
use std::time::Duration;
use tokio::io::{
    AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufWriter, ReadHalf, WriteHalf,
};
use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;

/// Streams that may be open at once on one connection.
const MAX_STREAMS: usize = 512;
/// Frames that may wait to be written.
const OUT_DEPTH: usize = 16;
/// A server's pings are even; the answers are not waited for.
const OUR_PING: u32 = 2;
/// How long the client may take to go once everything has been said.
const LINGER: Duration = Duration::from_secs(5);

/// What is to be written.
#[derive(Debug)]
pub enum Out {
    /// Bytes of a stream.
    Data(Data),
    /// The stream is taken.
    Reply(u32),
    /// The stream is not taken.
    Refuse(u32),
    /// Answer to a ping.
    Pong(u32),
    /// Whether the client is there.
    Ping,
    /// No more streams; nothing is written after it.
    GoAway(u32),
}

impl From<Data> for Out {
    fn from(data: Data) -> Self {
        Self::Data(data)
    }
}

/// A stream that the client opened.
#[derive(Debug)]
pub struct Incoming {
    /// Its number.
    pub id: u32,
    /// Its headers, names in lower case.
    pub headers: Pairs,
    /// What the client sends on it.
    pub reader: ChannelReader,
}

impl Incoming {
    /// A header's value.
    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(n, _)| n == name);
        found.map(|(_, value)| value.as_str())
    }
}

/// A connection whose reader and writer are tasks; both end when it is dropped.
#[derive(Debug)]
pub struct Connection {
    streams: mpsc::Receiver<Incoming>,
    out: mpsc::Sender<Out>,
    writer: AbortOnDropHandle<()>,
    _reader: AbortOnDropHandle<()>,
    last: u32,
}

impl Connection {
    /// Speaks SPDY over the socket.
    pub fn new<T: AsyncRead + AsyncWrite + Send + 'static>(io: T) -> Self {
        let (read, write) = tokio::io::split(io);
        let (out, outgoing) = mpsc::channel(OUT_DEPTH);
        let (accepted, streams) = mpsc::channel(MAX_STREAMS);
        let reader = StreamReader {
            io: read,
            out: out.clone(),
            accepted,
            headers: Reader::new(),
            open: HashMap::new(),
            last: 0,
        };
        Self {
            streams,
            out,
            writer: AbortOnDropHandle::new(tokio::spawn(write_all(write, outgoing))),
            _reader: AbortOnDropHandle::new(tokio::spawn(reader.run())),
            last: 0,
        }
    }

    /// The next stream that the client opens; none once it has gone.
    pub async fn accept(&mut self) -> Option<Incoming> {
        let stream = self.streams.recv().await?;
        self.last = stream.id;
        Some(stream)
    }

    /// A writer of a stream.
    pub fn writer(&self, id: u32) -> ChannelWriter<Out> {
        ChannelWriter::new(id, self.out.clone())
    }

    /// Refuses a stream.
    pub async fn refuse(&self, id: u32) {
        let _ = self.out.send(Out::Refuse(id)).await;
    }

    /// Says goodbye, and waits for the client to go: closing at once with
    /// bytes of its unread would reset the connection and lose our last ones.
    pub async fn finish(mut self) {
        let farewell = async {
            let _ = self.out.send(Out::GoAway(self.last)).await;
            let _ = (&mut self.writer).await;
            while self.streams.recv().await.is_some() {}
        };
        let _ = tokio::time::timeout(LINGER, farewell).await;
    }
}

struct StreamReader<T> {
    io: ReadHalf<T>,
    out: mpsc::Sender<Out>,
    accepted: mpsc::Sender<Incoming>,
    headers: Reader,
    open: HashMap<u32, mpsc::Sender<Bytes>>,
    last: u32,
}

impl<T: AsyncRead> StreamReader<T> {
    async fn run(mut self) {
        while let Ok(true) = self.frame().await {}
    }

    /// Reads one frame; false when the client says that it goes.
    async fn frame(&mut self) -> io::Result<bool> {
        let mut bytes = [0; frame::HEADER];
        self.io.read_exact(&mut bytes).await?;
        match frame::header(bytes) {
            Header::Foreign => Err(io::ErrorKind::InvalidData.into()),
            Header::Data {
                stream,
                flags,
                length,
            } => {
                self.data(stream, length).await?;
                if flags & frame::FLAG_FIN != 0 {
                    self.open.remove(&stream);
                }
                Ok(true)
            }
            Header::Control { length, .. } if length > frame::MAX_CONTROL => {
                Err(io::ErrorKind::InvalidData.into())
            }
            Header::Control {
                kind,
                flags,
                length,
            } => {
                let mut body = vec![0; length];
                self.io.read_exact(&mut body).await?;
                self.control(kind, flags, &body).await
            }
        }
    }

    /// Hands a data frame on piece by piece, however long it is.
    async fn data(&mut self, stream: u32, mut length: usize) -> io::Result<()> {
        while length > 0 {
            let n = length.min(PIECE);
            let mut piece = BytesMut::zeroed(n);
            self.io.read_exact(&mut piece).await?;
            length -= n;
            if let Some(pieces) = self.open.get(&stream) {
                hand_over(pieces, piece.freeze(), &self.out, || Out::Ping).await?;
            }
        }
        Ok(())
    }

    async fn control(&mut self, kind: u16, flags: u8, body: &[u8]) -> io::Result<bool> {
        let bad = || io::Error::from(io::ErrorKind::InvalidData);
        let first = || frame::number(body, 0).ok_or_else(bad);
        match kind {
            frame::SYN_STREAM => self.opened(flags, body).await?,
            frame::RST_STREAM => {
                self.open.remove(&first()?);
            }
            // Ours would be even; the client's are odd.
            frame::PING if first()? % 2 == 1 => self.send(Out::Pong(first()?)).await?,
            frame::HEADERS => {
                let block = body.get(4..).ok_or_else(bad)?;
                self.headers.read(block).map_err(|_| bad())?;
                if flags & frame::FLAG_FIN != 0 {
                    self.open.remove(&first()?);
                }
            }
            frame::GOAWAY => return Ok(false),
            frame::SYN_REPLY => return Err(bad()),
            // SETTINGS, WINDOW_UPDATE, answers to pings, what is unknown.
            _ => {}
        }
        Ok(true)
    }

    async fn opened(&mut self, flags: u8, body: &[u8]) -> io::Result<()> {
        let bad = || io::Error::from(io::ErrorKind::InvalidData);
        let id = frame::number(body, 0).ok_or_else(bad)? & 0x7fff_ffff;
        let block = body.get(10..).ok_or_else(bad)?;
        let headers = self.headers.read(block).map_err(|_| bad())?;
        // Numbers of a client are odd and go up.
        if id % 2 == 0 || id <= self.last {
            return Err(bad());
        }
        self.last = id;
        self.open.retain(|_, pieces| !pieces.is_closed());
        if self.open.len() >= MAX_STREAMS {
            return self.send(Out::Refuse(id)).await;
        }
        let (pieces, reader) = ChannelReader::new();
        if flags & frame::FLAG_FIN == 0 {
            self.open.insert(id, pieces);
        }
        // Answered before it is handed on, so that no data precedes it.
        self.send(Out::Reply(id)).await?;
        let stream = Incoming {
            id,
            headers,
            reader,
        };
        let full = self.accepted.try_send(stream).is_err();
        if full {
            self.open.remove(&id);
            self.send(Out::Refuse(id)).await?;
        }
        Ok(())
    }

    async fn send(&mut self, out: Out) -> io::Result<()> {
        let gone = |_| io::Error::from(io::ErrorKind::BrokenPipe);
        self.out.send(out).await.map_err(gone)
    }
}

async fn write_all<T: AsyncWrite>(io: WriteHalf<T>, mut outgoing: mpsc::Receiver<Out>) {
    let mut io = BufWriter::with_capacity(WRITE_BUFFER, io);
    let mut headers = Writer::new();
    while let Some(out) = outgoing.recv().await {
        let last = matches!(out, Out::GoAway(_));
        if write(&mut io, &mut headers, out).await.is_err() || last {
            break;
        }
        if outgoing.is_empty() && io.flush().await.is_err() {
            break;
        }
    }
    let _ = io.flush().await;
    let _ = io.shutdown().await;
}

async fn write<T: AsyncWrite>(
    io: &mut BufWriter<WriteHalf<T>>,
    headers: &mut Writer,
    out: Out,
) -> io::Result<()> {
    let frame = match out {
        Out::Data(data) => {
            let header = frame::data(data.id, data.end, data.bytes.len());
            io.write_all(&header).await?;
            return io.write_all(&data.bytes).await;
        }
        Out::Reply(id) => {
            let block = headers.write(&[]).map_err(io::Error::other)?;
            frame::control(frame::SYN_REPLY, 0, &[&id.to_be_bytes(), &block])
        }
        Out::Refuse(id) => {
            let status = frame::REFUSED_STREAM.to_be_bytes();
            frame::control(frame::RST_STREAM, 0, &[&id.to_be_bytes(), &status])
        }
        Out::Pong(id) => frame::control(frame::PING, 0, &[&id.to_be_bytes()]),
        Out::Ping => frame::control(frame::PING, 0, &[&OUR_PING.to_be_bytes()]),
        Out::GoAway(last) => frame::control(
            frame::GOAWAY,
            0,
            &[&last.to_be_bytes(), &0u32.to_be_bytes()],
        ),
    };
    io.write_all(&frame).await
}

/// Reads all that a client sends in its own task, where a panic is seen. Of its
/// streams every other one is read to the end, and the rest are dropped.
#[cfg(test)]
pub async fn fuzzed(input: &[u8]) {
    let (mut client, server) = tokio::io::duplex(1 << 20);
    let (read, _write) = tokio::io::split(server);
    let (out, mut outgoing) = mpsc::channel(OUT_DEPTH);
    let (accepted, mut streams) = mpsc::channel::<Incoming>(MAX_STREAMS);
    let reader = StreamReader {
        io: read,
        out,
        accepted,
        headers: Reader::new(),
        open: HashMap::new(),
        last: 0,
    };
    let feed = async move {
        let _ = client.write_all(input).await;
    };
    let answers = async { while outgoing.recv().await.is_some() {} };
    let take = async {
        while let Some(mut stream) = streams.recv().await {
            assert_eq!(stream.id % 2, 1);
            if stream.id % 4 == 1 {
                tokio::spawn(async move {
                    let _ = tokio::io::copy(&mut stream.reader, &mut tokio::io::sink()).await;
                });
            }
        }
    };
    tokio::join!(feed, reader.run(), answers, take);
}
