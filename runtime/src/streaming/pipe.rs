//! Channels of one connection as ordinary readers and writers. Both ends are
//! bounded: who reads slowly holds the other side up, and nothing piles up.

use bytes::{Buf, Bytes};
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::mpsc;
use tokio_util::sync::PollSender;

/// Pieces that may wait in a channel.
pub const DEPTH: usize = 8;
/// Largest piece in bytes.
pub const PIECE: usize = 16 * 1024;

/// Bytes gathered before a write to the socket, header and piece together.
pub const WRITE_BUFFER: usize = 32 * 1024;
/// While nobody takes a piece nothing is read, so a client's going is noticed
/// only by writing to it, this often.
const STILL_THERE: Duration = Duration::from_secs(10);

/// Puts a piece into a channel, for however long that takes; a channel that
/// nobody reads drops it. An error if the client has gone meanwhile.
pub async fn hand_over<T>(
    channel: &mpsc::Sender<Bytes>,
    piece: Bytes,
    out: &mpsc::Sender<T>,
    ping: impl Fn() -> T,
) -> io::Result<()> {
    let put = channel.send(piece);
    tokio::pin!(put);
    loop {
        tokio::select! {
            _ = &mut put => return Ok(()),
            () = out.closed() => return Err(io::ErrorKind::BrokenPipe.into()),
            () = tokio::time::sleep(STILL_THERE) => {
                // Full: then something is being written already.
                let _ = out.try_send(ping());
            }
        }
    }
}

/// A piece of a channel on its way to the client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Data {
    /// Which channel of the connection.
    pub id: u32,
    /// The bytes.
    pub bytes: Bytes,
    /// Whether it is the last.
    pub end: bool,
}

/// What a client sends on one channel.
#[derive(Debug)]
pub struct ChannelReader {
    pieces: mpsc::Receiver<Bytes>,
    current: Bytes,
}

impl ChannelReader {
    /// A reader, and where its pieces are put in; dropping that is its end.
    pub fn new() -> (mpsc::Sender<Bytes>, Self) {
        let (sender, pieces) = mpsc::channel(DEPTH);
        let current = Bytes::new();
        (sender, Self { pieces, current })
    }
}

impl AsyncRead for ChannelReader {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        while self.current.is_empty() {
            match ready!(self.pieces.poll_recv(cx)) {
                Some(piece) => self.current = piece,
                None => return Poll::Ready(Ok(())),
            }
        }
        let n = self.current.len().min(buf.remaining());
        buf.put_slice(&self.current[..n]);
        self.current.advance(n);
        Poll::Ready(Ok(()))
    }
}

/// One channel towards the client.
#[derive(Debug)]
pub struct ChannelWriter<T: Send> {
    id: u32,
    out: PollSender<T>,
    ended: Arc<AtomicBool>,
}

impl<T: From<Data> + Send + 'static> ChannelWriter<T> {
    /// A writer of the channel, into the connection's outlet.
    pub fn new(id: u32, out: mpsc::Sender<T>) -> Self {
        let out = PollSender::new(out);
        let ended = Arc::default();
        Self { id, out, ended }
    }

    /// Another writer of the same channel: whichever ends it first ends it.
    pub fn twin(&self) -> Self {
        Self {
            id: self.id,
            out: self.out.clone(),
            ended: self.ended.clone(),
        }
    }

    fn poll_send(&mut self, cx: &mut Context<'_>, bytes: Bytes, end: bool) -> Poll<io::Result<()>> {
        let gone = || io::Error::from(io::ErrorKind::BrokenPipe);
        ready!(self.out.poll_reserve(cx)).map_err(|_| gone())?;
        let data = Data {
            id: self.id,
            bytes,
            end,
        };
        Poll::Ready(self.out.send_item(data.into()).map_err(|_| gone()))
    }
}

impl<T: From<Data> + Send + 'static> AsyncWrite for ChannelWriter<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.ended.load(Ordering::Relaxed) {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        if buf.is_empty() {
            return Poll::Ready(Ok(0));
        }
        let gone = || io::Error::from(io::ErrorKind::BrokenPipe);
        // Room first: the bytes are copied once, when there is some.
        ready!(self.out.poll_reserve(cx)).map_err(|_| gone())?;
        let n = buf.len().min(PIECE);
        let bytes = Bytes::copy_from_slice(&buf[..n]);
        ready!(self.poll_send(cx, bytes, false))?;
        Poll::Ready(Ok(n))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.ended.load(Ordering::Relaxed) {
            ready!(self.poll_send(cx, Bytes::new(), true))?;
            self.ended.store(true, Ordering::Relaxed);
        }
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    #[tokio::test]
    async fn reader_joins_pieces_and_ends_with_its_sender() {
        let (sender, mut reader) = ChannelReader::new();
        sender.send(Bytes::from_static(b"ab")).await.unwrap();
        sender.send(Bytes::new()).await.unwrap();
        sender.send(Bytes::from_static(b"c")).await.unwrap();
        drop(sender);
        let mut text = String::new();
        reader.read_to_string(&mut text).await.unwrap();
        assert_eq!(text, "abc");
    }

    #[tokio::test]
    async fn writer_cuts_pieces_and_ends_once() {
        let (out, mut received) = mpsc::channel::<Data>(8);
        let mut writer = ChannelWriter::new(3, out);
        writer.write_all(&[7; PIECE + 1]).await.unwrap();
        let mut twin = writer.twin();
        writer.shutdown().await.unwrap();
        twin.shutdown().await.unwrap();
        drop(twin);
        assert!(writer.write_all(b"late").await.is_err());
        drop(writer);
        let mut all = Vec::new();
        while let Some(data) = received.recv().await {
            all.push((data.id, data.bytes.len(), data.end));
        }
        assert_eq!(all, [(3, PIECE, false), (3, 1, false), (3, 0, true)]);
    }

    #[tokio::test]
    async fn piece_that_nobody_takes_is_given_up_when_the_client_goes() {
        let (channel, _reader) = ChannelReader::new();
        for _ in 0..DEPTH {
            channel.send(Bytes::from_static(b"x")).await.unwrap();
        }
        let (out, outgoing) = mpsc::channel::<Data>(1);
        let ping = || Data {
            id: 9,
            bytes: Bytes::new(),
            end: false,
        };
        let waiting =
            tokio::spawn(
                async move { hand_over(&channel, Bytes::from_static(b"y"), &out, ping).await },
            );
        drop(outgoing);
        assert!(waiting.await.unwrap().is_err());
    }

    #[tokio::test]
    async fn writer_fails_when_the_connection_has_gone() {
        let (out, received) = mpsc::channel::<Data>(8);
        drop(received);
        let mut writer = ChannelWriter::new(1, out);
        let error = writer.write_all(b"x").await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
    }
}
