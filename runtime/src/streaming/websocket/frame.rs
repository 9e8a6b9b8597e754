//! Frames on the wire: RFC 6455, section 5.2.

use std::io;
use tokio::io::{AsyncRead, AsyncReadExt};

/// Largest message taken. kubectl and the API server send pieces of 32 KiB.
pub const MAX_MESSAGE: usize = 1024 * 1024;

pub const CONTINUATION: u8 = 0;
pub const TEXT: u8 = 1;
pub const BINARY: u8 = 2;
pub const CLOSE: u8 = 8;
pub const PING: u8 = 9;
pub const PONG: u8 = 10;

/// One frame, unmasked.
#[derive(Debug, PartialEq, Eq)]
pub struct Frame {
    /// The message's last.
    pub last: bool,
    /// What it is.
    pub opcode: u8,
    /// Its bytes.
    pub payload: Vec<u8>,
}

/// Reads a client's frame; an unmasked or too large one is an error.
pub async fn read<R: AsyncRead + Unpin>(io: &mut R) -> io::Result<Frame> {
    let bad = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what.to_owned());
    let [first, second] = io.read_u16().await?.to_be_bytes();
    let opcode = first & 0x0f;
    if first & 0x70 != 0 {
        return Err(bad("reserved bits without an extension"));
    }
    // RFC 6455, 5.5.
    if opcode >= CLOSE && first & 0x80 == 0 {
        return Err(bad("a control frame in pieces"));
    }
    if second & 0x80 == 0 {
        return Err(bad("a client's frame must be masked"));
    }
    let length = match second & 0x7f {
        126 => u64::from(io.read_u16().await?),
        127 => io.read_u64().await?,
        short => u64::from(short),
    };
    if length > MAX_MESSAGE as u64 || (opcode >= CLOSE && length > 125) {
        return Err(bad("frame too large"));
    }
    let mut mask = [0; 4];
    io.read_exact(&mut mask).await?;
    let mut payload = vec![0; length as usize];
    io.read_exact(&mut payload).await?;
    for (byte, key) in payload.iter_mut().zip(mask.iter().cycle()) {
        *byte ^= key;
    }
    Ok(Frame {
        last: first & 0x80 != 0,
        opcode,
        payload,
    })
}

/// Header of a server's frame, which is a whole message.
pub fn header(opcode: u8, length: usize) -> Vec<u8> {
    let mut header = vec![0x80 | opcode];
    match length {
        0..=125 => header.push(length as u8),
        126..=0xffff => {
            header.push(126);
            header.extend_from_slice(&(length as u16).to_be_bytes());
        }
        _ => {
            header.push(127);
            header.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
    header
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn frame_of_the_rfc_is_unmasked() {
        // RFC 6455, 5.7: a single-frame masked text message "Hello"
        let bytes = [
            0x81, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58,
        ];
        let frame = read(&mut &bytes[..]).await.unwrap();
        assert_eq!((frame.last, frame.opcode), (true, TEXT));
        assert_eq!(frame.payload, b"Hello");
    }

    #[tokio::test]
    async fn frame_is_refused_when_unmasked_huge_or_a_torn_ping() {
        assert!(read(&mut &[0x81, 0x05, b'H'][..]).await.is_err());
        let huge = [0x82, 0xff, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0];
        assert!(read(&mut &huge[..]).await.is_err());
        let long_ping = [0x89, 0xfe, 1, 0, 0, 0, 0, 0];
        assert!(read(&mut &long_ping[..]).await.is_err());
        let torn_ping = [0x09, 0x81, 0, 0, 0, 0, 1];
        assert!(read(&mut &torn_ping[..]).await.is_err());
    }

    #[test]
    fn header_has_three_forms() {
        assert_eq!(header(BINARY, 5), [0x82, 5]);
        assert_eq!(header(BINARY, 256), [0x82, 126, 1, 0]);
        assert_eq!(header(TEXT, 65536), [0x81, 127, 0, 0, 0, 0, 0, 1, 0, 0]);
    }
}
