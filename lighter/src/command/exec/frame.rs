//! Frames of a WebSocket (RFC 6455, 5.2) and the channels of Kubernetes' remote commands in them
//! (k8s.io/client-go tools/remotecommand/v5.go). Pure.

use anyhow::{anyhow, bail};
use serde_json::Value;

/// Opcodes.
pub const BINARY: u8 = 0x2;
pub const PONG: u8 = 0xa;
const CONTINUATION: u8 = 0x0;
const TEXT: u8 = 0x1;
const CLOSE: u8 = 0x8;
const PING: u8 = 0x9;

/// In place of a channel: the next byte names one that ends.
pub const CLOSE_CHANNEL: u8 = 255;
/// More than the runtime ever sends at once.
const FRAME_MAX: u64 = 16 << 20;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Channel {
    Stdin = 0,
    Stdout = 1,
    Stderr = 2,
    Error = 3,
    Resize = 4,
}

#[derive(Debug, PartialEq, Eq)]
pub enum Frame {
    Part(Vec<u8>),
    Last(Vec<u8>),
    Ping(Vec<u8>),
    Pong,
    Close,
}

/// A client masks what it sends.
pub fn encode(kind: u8, bytes: &[u8], mask: [u8; 4]) -> Vec<u8> {
    let mut frame = vec![0x80 | kind];
    match bytes.len() {
        length @ 0..=125 => frame.push(0x80 | length as u8),
        length @ 126..=0xffff => {
            frame.push(0x80 | 126);
            frame.extend((length as u16).to_be_bytes());
        }
        length => {
            frame.push(0x80 | 127);
            frame.extend((length as u64).to_be_bytes());
        }
    }
    frame.extend(mask);
    frame.extend(bytes.iter().zip(mask.iter().cycle()).map(|(b, m)| b ^ m));
    frame
}

/// The first frame and how long it is; `None` while part of it is missing.
pub fn decode(bytes: &[u8]) -> anyhow::Result<Option<(Frame, usize)>> {
    let [first, second, rest @ ..] = bytes else {
        return Ok(None);
    };
    if second & 0x80 != 0 {
        bail!("the runtime masks its frames, which only clients do");
    }
    let (length, extra) = match (second & 0x7f, rest) {
        (126, [a, b, ..]) => (u64::from(u16::from_be_bytes([*a, *b])), 2),
        (127, [a, b, c, d, e, f, g, h, ..]) => {
            (u64::from_be_bytes([*a, *b, *c, *d, *e, *f, *g, *h]), 8)
        }
        (126 | 127, _) => return Ok(None),
        (length, _) => (u64::from(length), 0),
    };
    if length > FRAME_MAX {
        bail!("the runtime sends a frame of {length} bytes");
    }
    let end = extra + length as usize;
    let Some(payload) = rest.get(extra..end) else {
        return Ok(None);
    };
    let payload = payload.to_vec();
    let last = first & 0x80 != 0;
    let frame = match first & 0x0f {
        CONTINUATION | TEXT | BINARY if last => Frame::Last(payload),
        CONTINUATION | TEXT | BINARY => Frame::Part(payload),
        PING => Frame::Ping(payload),
        PONG => Frame::Pong,
        CLOSE => Frame::Close,
        kind => bail!("the runtime sends a frame of unknown kind {kind}"),
    };
    Ok(Some((frame, 2 + end)))
}

/// A message's channel and its data; `None` for one that is not known.
pub fn channel(message: &[u8]) -> Option<(Channel, &[u8])> {
    use Channel::{Error, Resize, Stderr, Stdin, Stdout};
    let (number, data) = message.split_first()?;
    let known = [Stdin, Stdout, Stderr, Error, Resize];
    let channel = known.into_iter().find(|c| *c as u8 == *number)?;
    Some((channel, data))
}

/// What a `metav1.Status` says of the command's end.
pub fn exit_code(status: &[u8]) -> anyhow::Result<u8> {
    let status: Value = serde_json::from_slice(status)?;
    if status["status"] == "Success" {
        return Ok(0);
    }
    let message = status["message"].as_str().unwrap_or("the command failed");
    let causes = status["details"]["causes"].as_array();
    let code = causes
        .into_iter()
        .flatten()
        .find(|c| c["reason"] == "ExitCode");
    let code = code.and_then(|c| c["message"].as_str()?.parse::<i32>().ok());
    let code = code.ok_or_else(|| anyhow!("{message}"))?;
    Ok(u8::try_from(code).unwrap_or(u8::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decode_waits_for_a_whole_frame_of_each_length() {
        for length in [0, 1, 125, 126, 70_000] {
            let payload = vec![7; length];
            let mut frame = vec![0x82];
            match length {
                0..=125 => frame.push(length as u8),
                126..=0xffff => frame.extend([&[126][..], &(length as u16).to_be_bytes()].concat()),
                _ => frame.extend([&[127][..], &(length as u64).to_be_bytes()].concat()),
            }
            frame.extend(&payload);
            let whole = frame.len();
            assert_eq!(decode(&frame[..whole - 1]).unwrap(), None);
            frame.push(0xff);
            let decoded = decode(&frame).unwrap().unwrap();
            assert_eq!(decoded, (Frame::Last(payload), whole));
        }
    }

    #[test]
    fn decode_refuses_what_no_server_sends() {
        assert!(decode(&[0x82, 0x81, 0, 0, 0, 0, 1]).is_err());
        assert!(decode(&[0x87, 0]).is_err());
        assert!(decode(&[0x82, 127, 255, 0, 0, 0, 0, 0, 0, 0]).is_err());
    }

    #[test]
    fn encode_masks_and_keeps_the_length() {
        let frame = encode(BINARY, b"ab", [1, 2, 3, 4]);
        assert_eq!(frame, [0x82, 0x82, 1, 2, 3, 4, b'a' ^ 1, b'b' ^ 2]);
        assert_eq!(encode(BINARY, &[0; 300], [0; 4])[..4], [0x82, 0xfe, 1, 44]);
        assert_eq!(encode(BINARY, &[0; 70_000], [0; 4])[1], 0xff);
    }

    #[test]
    fn exit_code_is_that_of_the_status() {
        assert_eq!(exit_code(br#"{"status":"Success"}"#).unwrap(), 0);
        let failed = br#"{"status":"Failure","reason":"NonZeroExitCode","message":"exit 3",
            "details":{"causes":[{"reason":"ExitCode","message":"3"}]}}"#;
        assert_eq!(exit_code(failed).unwrap(), 3);
        let error = exit_code(br#"{"status":"Failure","message":"no such file"}"#);
        assert_eq!(error.unwrap_err().to_string(), "no such file");
    }
}
