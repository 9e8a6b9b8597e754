//! WebSocket (RFC 6455), the server's side, with Kubernetes' channels in it:
//! the first byte of a message says of which channel it is.

mod connection;
mod frame;
mod protocol;

pub use connection::{Connection, Mode, raw};
pub use protocol::{Choice, accept_key, choose};

/// Parsers that only this room sees, for the tests with damaged input.
#[cfg(test)]
pub mod fuzzed {
    pub use super::connection::fuzzed as connection;
}
