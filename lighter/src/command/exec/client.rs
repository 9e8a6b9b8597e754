//! A WebSocket to the runtime's streaming server (RFC 6455), speaking `v5.channel.k8s.io`.

use super::frame::{self, Channel, Frame};
use anyhow::{Context, bail};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const PROTOCOL: &str = "v5.channel.k8s.io";
/// What is typed goes in messages of at most this.
pub const MESSAGE_MAX: usize = 16 << 10;
/// An answer to the handshake is a few lines.
const HEAD_MAX: usize = 16 << 10;

pub struct Client {
    stream: TcpStream,
    /// Received and not yet understood.
    pending: Vec<u8>,
    /// A message whose last frame has not come.
    partial: Vec<u8>,
}

pub enum Event {
    Data(Channel, Vec<u8>),
    /// To be answered by [`Client::pong`].
    Ping(Vec<u8>),
    Closed,
}

impl Client {
    pub async fn connect(url: &str) -> anyhow::Result<Client> {
        let (host, path) = super::parts(url)?;
        let stream = TcpStream::connect(host).await;
        let mut client = Client {
            stream: stream
                .with_context(|| format!("connect to the runtime's streams at {host}"))?,
            pending: Vec::new(),
            partial: Vec::new(),
        };
        let key = STANDARD.encode(random::<16>());
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n\
             Sec-WebSocket-Protocol: {PROTOCOL}\r\n\r\n"
        );
        client.stream.write_all(request.as_bytes()).await?;
        let head = client.head().await?;
        let status = head.lines().next().unwrap_or_default();
        if status.split(' ').nth(1) != Some("101") {
            bail!("the runtime refuses the streams: {status}");
        }
        Ok(client)
    }

    async fn head(&mut self) -> anyhow::Result<String> {
        const END: &[u8] = b"\r\n\r\n";
        loop {
            if let Some(at) = self.pending.windows(END.len()).position(|w| w == END) {
                let rest = self.pending.split_off(at + END.len());
                let head = std::mem::replace(&mut self.pending, rest);
                return Ok(String::from_utf8_lossy(&head).into_owned());
            }
            if self.pending.len() > HEAD_MAX || self.fill().await? == 0 {
                bail!("the runtime's answer is no HTTP");
            }
        }
    }

    async fn fill(&mut self) -> std::io::Result<usize> {
        self.stream.read_buf(&mut self.pending).await
    }

    /// May be dropped while it waits: what has come stays.
    pub async fn receive(&mut self) -> anyhow::Result<Event> {
        loop {
            while let Some((frame, length)) = frame::decode(&self.pending)? {
                self.pending.drain(..length);
                match frame {
                    Frame::Part(bytes) => self.partial.extend(bytes),
                    Frame::Last(bytes) => {
                        self.partial.extend(bytes);
                        let message = std::mem::take(&mut self.partial);
                        if let Some((channel, data)) = frame::channel(&message) {
                            return Ok(Event::Data(channel, data.to_vec()));
                        }
                    }
                    Frame::Ping(bytes) => return Ok(Event::Ping(bytes)),
                    Frame::Pong => {}
                    Frame::Close => return Ok(Event::Closed),
                }
            }
            if self.fill().await? == 0 {
                return Ok(Event::Closed);
            }
        }
    }

    pub async fn send(&mut self, channel: Channel, bytes: &[u8]) -> anyhow::Result<()> {
        let mut message = vec![channel as u8];
        message.extend(bytes);
        self.write(frame::BINARY, &message).await
    }

    /// Says that nothing more comes on a channel.
    pub async fn close(&mut self, channel: Channel) -> anyhow::Result<()> {
        let message = [frame::CLOSE_CHANNEL, channel as u8];
        self.write(frame::BINARY, &message).await
    }

    pub async fn pong(&mut self, bytes: &[u8]) -> anyhow::Result<()> {
        self.write(frame::PONG, bytes).await
    }

    async fn write(&mut self, kind: u8, bytes: &[u8]) -> anyhow::Result<()> {
        let frame = frame::encode(kind, bytes, random());
        self.stream
            .write_all(&frame)
            .await
            .context("the runtime's streams")
    }
}

/// Keys and masks need only be new each time.
fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    let flags = rustix::rand::GetRandomFlags::empty();
    // A kernel that has started never fails here; zeros would still be a valid mask.
    let _ = rustix::rand::getrandom(&mut bytes, flags);
    bytes
}
