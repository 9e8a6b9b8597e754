//! Streams of exec, attach and port-forward over HTTP upgrades: SPDY/3.1 and
//! WebSocket, as the API server, kubectl and crictl speak them.
//!
//! The CRI verbs put a request in and get a URL; whoever opens the URL within
//! a minute is handed to [`Handler`] with its streams.

mod forward;
#[cfg(test)]
mod fuzz;
mod outcome;
mod pipe;
mod remote;
mod server;
mod spdy;
#[cfg(test)]
mod spdy_wire;
#[cfg(test)]
mod tests;
mod token;
mod upgrade;
mod websocket;

pub use server::{BindError, Server};

use cri_proto::v1;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;

/// A size of a terminal in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TerminalSize {
    /// Columns.
    pub width: u16,
    /// Rows.
    pub height: u16,
}

/// The client's end, made of channels of one connection.
pub struct Streams {
    /// What the client types; end of file when it closes its side.
    pub stdin: Option<Box<dyn AsyncRead + Send + Unpin>>,
    /// To the client.
    pub stdout: Option<Box<dyn AsyncWrite + Send + Unpin>>,
    /// To the client; never with a terminal.
    pub stderr: Option<Box<dyn AsyncWrite + Send + Unpin>>,
    /// Sizes of the client's terminal as they change; closes when the client goes.
    pub resize: mpsc::Receiver<TerminalSize>,
}

/// Both directions of one forwarded connection.
pub trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

/// Who does what the streams ask for. Errors are sentences for the client.
#[async_trait::async_trait]
pub trait Handler: Send + Sync + 'static {
    /// Runs the command to its end and answers its exit code. Dropping the
    /// future (the client has gone) ends the command's streams.
    async fn exec(&self, request: v1::ExecRequest, streams: Streams) -> Result<i32, String>;
    /// Joins the streams of the container's first process until it ends or
    /// the client goes.
    async fn attach(&self, request: v1::AttachRequest, streams: Streams) -> Result<(), String>;
    /// Connects to a port inside the sandbox's network namespace.
    async fn port_forward(&self, sandbox: &str, port: u16) -> Result<Box<dyn Duplex>, String>;
}
