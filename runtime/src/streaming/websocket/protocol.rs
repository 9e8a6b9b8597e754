//! What client and server agree on in the handshake.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// How a channel's bytes stand in a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    /// Binary message: channel as a byte, then the bytes.
    Binary,
    /// Text message: channel as a digit, then base64.
    Base64,
}

/// A subprotocol that both sides speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Choice {
    /// Its name; empty when the client named none.
    pub name: &'static str,
    /// How bytes are written.
    pub encoding: Encoding,
    /// Version of the remote command protocol: 1, 4 or 5.
    pub version: u8,
}

const fn choice(name: &'static str, encoding: Encoding, version: u8) -> Choice {
    Choice {
        name,
        encoding,
        version,
    }
}

/// kubernetes v1.37 k8s.io/streaming pkg/httpstream/wsstream and
/// k8s.io/client-go tools/remotecommand/websocket.go.
const KNOWN: [Choice; 5] = [
    choice("v5.channel.k8s.io", Encoding::Binary, 5),
    choice("v4.channel.k8s.io", Encoding::Binary, 4),
    choice("v4.base64.channel.k8s.io", Encoding::Base64, 4),
    choice("channel.k8s.io", Encoding::Binary, 1),
    choice("base64.channel.k8s.io", Encoding::Base64, 1),
];

/// The first of the client's subprotocols that is known; a client that names
/// none gets the oldest.
pub fn choose(offered: &[String]) -> Option<Choice> {
    if offered.is_empty() {
        return Some(choice("", Encoding::Binary, 1));
    }
    let known = |name: &String| KNOWN.iter().find(|c| c.name == name);
    offered.iter().find_map(known).copied()
}

/// `Sec-WebSocket-Accept` for the client's key (RFC 6455, 4.2.2).
pub fn accept_key(key: &str) -> String {
    const GUID: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
    let sha1 = &ring::digest::SHA1_FOR_LEGACY_USE_ONLY;
    let digest = ring::digest::digest(sha1, format!("{key}{GUID}").as_bytes());
    STANDARD.encode(digest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accept_key_is_that_of_the_rfc() {
        let key = accept_key("dGhlIHNhbXBsZSBub25jZQ==");
        assert_eq!(key, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }

    #[test]
    fn choice_is_the_clients_first_that_is_known() {
        let offer =
            |names: &[&str]| -> Vec<String> { names.iter().map(|n| (*n).to_owned()).collect() };
        let chosen = choose(&offer(&["v9.x", "v4.channel.k8s.io", "v5.channel.k8s.io"]));
        assert_eq!(chosen.unwrap().version, 4);
        assert_eq!(choose(&[]).unwrap().name, "");
        assert_eq!(choose(&offer(&["chat"])), None);
    }
}
