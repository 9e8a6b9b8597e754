//! What a client of exec, attach and port-forward may send, damaged: nothing
//! panics, nothing grows without bounds, and every connection comes to its end.

use super::spdy::{frame, fuzzed as spdy, headers};
use super::websocket::fuzzed as websocket;
use super::{remote, upgrade};
use fuzz::Fuzz;

/// Runs what a connection does to its end; one that has none is a failure.
fn complete(work: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .expect("a runtime");
    let limit = std::time::Duration::from_secs(60);
    let ended = runtime.block_on(async { tokio::time::timeout(limit, work).await });
    assert!(ended.is_ok(), "the connection never ends");
}

fn spdy_conversation() -> Vec<u8> {
    let mut writer = headers::Writer::new();
    let mut bytes = Vec::new();
    for (id, kind) in [(1u32, "error"), (3, "stdin"), (5, "stdout")] {
        let block = writer
            .write(&[("streamtype", kind), ("port", "80"), ("requestid", "0")])
            .expect("block");
        let fixed = [id.to_be_bytes(), [0; 4]].concat();
        bytes.extend(frame::control(
            frame::SYN_STREAM,
            0,
            &[&fixed, &[0, 0], &block],
        ));
    }
    for (id, data) in [(3, &b"ls\n"[..]), (3, &[7; 300])] {
        bytes.extend(frame::data(id, false, data.len()));
        bytes.extend(data);
    }
    let block = writer.write(&[("x", "y")]).expect("block");
    let id = 3u32.to_be_bytes();
    bytes.extend(frame::control(frame::HEADERS, 1, &[&id, &block]));
    bytes.extend(frame::control(frame::PING, 0, &[&7u32.to_be_bytes()]));
    bytes.extend(frame::control(frame::RST_STREAM, 0, &[&id, &[0, 0, 0, 5]]));
    bytes.extend(frame::control(frame::GOAWAY, 0, &[&[0; 8]]));
    bytes
}

#[test]
fn spdy_frames_of_a_stranger_do_no_harm() {
    let words = ["\u{1}", "\0\0\0\u{3}\0", "\0\0\u{1}\0", "\0\0\0\0"];
    Fuzz::new("SPDY frames", [spdy_conversation()])
        .words(&words)
        .bytes(|input| complete(spdy::connection(input)));
}

#[test]
fn spdy_header_blocks_of_a_stranger_do_no_harm() {
    let words = ["\0\0\0\u{1}", "\0\0\u{1}\0", "\u{7f}", "streamtype", "\0"];
    let plain = b"\0\0\0\x02\0\0\0\x0astreamtype\0\0\0\x05stdin\0\0\0\x04port\0\0\0\x0280";
    Fuzz::new("SPDY header pairs", [&plain[..]])
        .words(&words)
        .bytes(headers::fuzzed_pairs);
    let mut writer = headers::Writer::new();
    let block = writer
        .write(&[("streamtype", "stdin"), ("requestid", &"7".repeat(700))])
        .expect("block");
    Fuzz::new("SPDY header block", [block])
        .words(&words)
        .bytes(headers::fuzzed_block);
}

/// A client's frame, masked.
fn masked(first: u8, payload: &[u8]) -> Vec<u8> {
    let key = [1, 2, 3, 4];
    let mut bytes = vec![first, 0x80 | 126];
    bytes.extend((payload.len() as u16).to_be_bytes());
    bytes.extend(key);
    bytes.extend(payload.iter().zip(key.iter().cycle()).map(|(b, k)| b ^ k));
    bytes
}

#[test]
fn websocket_frames_of_a_stranger_do_no_harm() {
    let close = [0x88, 0x82, 0, 0, 0, 0, 3, 0xe8];
    let ping = [0x89, 0x81, 0, 0, 0, 0, 9];
    let binary = [
        &masked(0x82, b"\0ls\n")[..],
        &masked(0x02, b"\x04{\"Width\":80,"),
        &ping,
        &masked(0x80, b"\"Height\":24}"),
        &masked(0x82, b"\xff\0"),
        &close,
    ];
    let text = [&masked(0x81, b"0bHMK")[..], &masked(0x81, b"4e30="), &close];
    let words = ["\0", "\u{1}", "~", "\u{7f}", "\0\0\0\0"];
    Fuzz::new("WebSocket frames", [binary.concat(), text.concat()])
        .words(&words)
        .bytes(|input| complete(websocket::connection(input)));
}

#[test]
fn sizes_of_a_stranger_do_no_harm() {
    let seed = r#"{"Width":80,"Height":24}{"Width":132,"Height":50}"#;
    Fuzz::new("terminal sizes", [seed])
        .words(&["{", "}", "-1", "65536", "[[[[", "\"Width\":", "null"])
        .bytes(remote::fuzzed_sizes);
}

#[test]
fn upgrade_of_a_stranger_does_no_harm() {
    Fuzz::new(
        "upgrade",
        ["port=80,81&ports=82%2C83", "v5.channel.k8s.io, SPDY/3.1"],
    )
    .words(&["&", "=", ",", "%2C", "port", "70000", "-", "websocket"])
    .bytes(upgrade::fuzzed);
}
