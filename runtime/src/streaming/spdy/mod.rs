//! SPDY/3.1 as far as Kubernetes speaks it: the server's side of streams that
//! the client opens. There are no priorities and no windows: its client
//! (moby/spdystream v0.5.1) neither sends nor obeys WINDOW_UPDATE, so a slow
//! reader holds the TCP connection up, on both sides.

mod connection;
pub(super) mod frame;
pub(super) mod headers;

pub use connection::{Connection, Incoming, Out};

/// Parsers that only this room sees, for the tests with damaged input.
#[cfg(test)]
pub mod fuzzed {
    pub use super::connection::fuzzed as connection;
}
