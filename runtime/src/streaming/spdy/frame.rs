//! Frames on the wire: "SPDY Protocol - Draft 3.1", section 2.2 and 2.6.

/// Length of every frame's header.
pub const HEADER: usize = 8;
/// Largest control frame taken; headers of a stream are some hundred bytes.
pub const MAX_CONTROL: usize = 64 * 1024;
/// Stream is half-closed by its sender.
pub const FLAG_FIN: u8 = 1;
const VERSION: u16 = 3;
const CONTROL: u8 = 0x80;

pub const SYN_STREAM: u16 = 1;
pub const SYN_REPLY: u16 = 2;
pub const RST_STREAM: u16 = 3;
pub const PING: u16 = 6;
pub const GOAWAY: u16 = 7;
pub const HEADERS: u16 = 8;

/// Status of RST_STREAM: the stream is not wanted.
pub const REFUSED_STREAM: u32 = 3;

/// What the first eight bytes say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Header {
    /// Bytes of a stream follow.
    Data {
        stream: u32,
        flags: u8,
        length: usize,
    },
    /// A control frame of a known version follows.
    Control { kind: u16, flags: u8, length: usize },
    /// Somebody speaks another protocol.
    Foreign,
}

/// Reads a frame's header.
pub fn header(bytes: [u8; HEADER]) -> Header {
    let [a, b, c, d, flags, x, y, z] = bytes;
    let length = usize::from(x) << 16 | usize::from(y) << 8 | usize::from(z);
    if a & CONTROL == 0 {
        let stream = u32::from_be_bytes([a, b, c, d]);
        return Header::Data {
            stream,
            flags,
            length,
        };
    }
    if u16::from_be_bytes([a & !CONTROL, b]) != VERSION {
        return Header::Foreign;
    }
    let kind = u16::from_be_bytes([c, d]);
    Header::Control {
        kind,
        flags,
        length,
    }
}

/// Header of a data frame.
pub fn data(stream: u32, end: bool, length: usize) -> [u8; HEADER] {
    let [a, b, c, d] = stream.to_be_bytes();
    let [_, x, y, z] = (length as u32).to_be_bytes();
    [a, b, c, d, if end { FLAG_FIN } else { 0 }, x, y, z]
}

/// A whole control frame.
pub fn control(kind: u16, flags: u8, body: &[&[u8]]) -> Vec<u8> {
    let length: usize = body.iter().map(|part| part.len()).sum();
    let [_, x, y, z] = (length as u32).to_be_bytes();
    let [c, d] = kind.to_be_bytes();
    let mut frame = vec![CONTROL, VERSION as u8, c, d, flags, x, y, z];
    for part in body {
        frame.extend_from_slice(part);
    }
    frame
}

/// The number that a control frame's body has at this byte.
pub fn number(body: &[u8], at: usize) -> Option<u32> {
    let bytes = body.get(at..)?.first_chunk::<4>()?;
    Some(u32::from_be_bytes(*bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn header_of_a_ping_and_of_data() {
        let ping = control(PING, 0, &[&7u32.to_be_bytes()]);
        assert_eq!(ping, [0x80, 3, 0, 6, 0, 0, 0, 4, 0, 0, 0, 7]);
        let read = header(*ping.first_chunk().unwrap());
        assert_eq!(
            read,
            Header::Control {
                kind: PING,
                flags: 0,
                length: 4
            }
        );
        let bytes = data(5, true, 0x01_02_03);
        assert_eq!(bytes, [0, 0, 0, 5, 1, 1, 2, 3]);
        let read = Header::Data {
            stream: 5,
            flags: FLAG_FIN,
            length: 0x01_02_03,
        };
        assert_eq!(header(bytes), read);
    }

    #[test]
    fn header_of_another_version_or_protocol_is_foreign() {
        assert_eq!(header([0x80, 2, 0, 6, 0, 0, 0, 4]), Header::Foreign);
        assert_eq!(header([0xff; 8]), Header::Foreign);
    }
}
