//! A SPDY client for the tests of the server.

use super::spdy::{frame, headers};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// What the server sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    Data(u32, Vec<u8>),
    End(u32),
    Reply(u32),
    Reset(u32),
    Pong(u32),
    GoAway,
    Closed,
}

/// All of it, in order.
pub struct Seen {
    pub events: Vec<Event>,
}

impl Seen {
    pub fn bytes(&self, stream: u32) -> Vec<u8> {
        let of = |e: &Event| match e {
            Event::Data(id, bytes) if *id == stream => bytes.clone(),
            _ => Vec::new(),
        };
        self.events.iter().flat_map(of).collect()
    }

    pub fn ended(&self) -> Vec<u32> {
        let end = |e: &Event| match e {
            Event::End(id) => Some(*id),
            _ => None,
        };
        self.events.iter().filter_map(end).collect()
    }
}

/// A client's side over a socket.
pub struct Client<T> {
    io: T,
    write: headers::Writer,
    read: headers::Reader,
}

impl<T: AsyncRead + AsyncWrite + Unpin> Client<T> {
    pub fn new(io: T) -> Self {
        Self {
            io,
            write: headers::Writer::new(),
            read: headers::Reader::new(),
        }
    }

    pub async fn open(&mut self, id: u32, pairs: &[(&str, &str)]) {
        let block = self.write.write(pairs).unwrap();
        let fixed = [id.to_be_bytes(), [0; 4]].concat();
        let body: [&[u8]; 3] = [&fixed, &[0, 0], &block];
        self.raw(&frame::control(frame::SYN_STREAM, 0, &body)).await;
    }

    pub async fn data(&mut self, id: u32, bytes: &[u8], end: bool) {
        self.raw(&frame::data(id, end, bytes.len())).await;
        self.raw(bytes).await;
    }

    pub async fn ping(&mut self, id: u32) {
        self.raw(&frame::control(frame::PING, 0, &[&id.to_be_bytes()]))
            .await;
    }

    pub async fn raw(&mut self, bytes: &[u8]) {
        self.io.write_all(bytes).await.unwrap();
    }

    pub async fn until_goaway(&mut self) -> Seen {
        self.until(|events| events.last() == Some(&Event::GoAway))
            .await
    }

    pub async fn until_closed(&mut self) -> Seen {
        self.until(|events| events.last() == Some(&Event::Closed))
            .await
    }

    pub async fn reply(&mut self, id: u32) {
        self.until(|events| events.contains(&Event::Reply(id)))
            .await;
    }

    pub async fn until_ended(&mut self, count: usize) -> Seen {
        let ended = |events: &[Event]| {
            events.iter().filter(|e| matches!(e, Event::End(_))).count() == count
        };
        self.until(ended).await
    }

    async fn until(&mut self, enough: impl Fn(&[Event]) -> bool) -> Seen {
        let mut events = Vec::new();
        while !enough(&events) {
            assert_ne!(events.last(), Some(&Event::Closed), "{events:?}");
            events.extend(self.frame().await);
        }
        Seen { events }
    }

    async fn frame(&mut self) -> Vec<Event> {
        let mut header = [0; frame::HEADER];
        if self.io.read_exact(&mut header).await.is_err() {
            return vec![Event::Closed];
        }
        match frame::header(header) {
            frame::Header::Data {
                stream,
                flags,
                length,
            } => {
                let mut bytes = vec![0; length];
                self.io.read_exact(&mut bytes).await.unwrap();
                let mut events = vec![Event::Data(stream, bytes)];
                if flags & frame::FLAG_FIN != 0 {
                    events.push(Event::End(stream));
                }
                events
            }
            frame::Header::Control { kind, length, .. } => {
                let mut body = vec![0; length];
                self.io.read_exact(&mut body).await.unwrap();
                let id = frame::number(&body, 0).unwrap();
                vec![match kind {
                    frame::SYN_REPLY => {
                        self.read.read(&body[4..]).unwrap();
                        Event::Reply(id)
                    }
                    frame::RST_STREAM => Event::Reset(id),
                    frame::PING => Event::Pong(id),
                    frame::GOAWAY => Event::GoAway,
                    other => panic!("frame of type {other}"),
                }]
            }
            frame::Header::Foreign => panic!("not SPDY: {header:?}"),
        }
    }
}
