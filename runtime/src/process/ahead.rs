//! A monitor that waits for its pod, as the agent has it.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use tokio::sync::mpsc;

use super::connection::Connection;
use super::link::Answer;
use super::wire::Body;
use super::{Event, NetworkNamespace, ProcessError, Sandbox, answer};

/// A monitor with the namespaces that most pods have: network, IPC, UTS and mounts. It ends
/// when this is dropped.
#[derive(Debug)]
pub struct SandboxAhead {
    connection: Connection,
    network: NetworkNamespace,
}

impl SandboxAhead {
    pub(super) fn open(
        connection: Connection,
        answer: io::Result<Answer>,
    ) -> Result<Self, ProcessError> {
        let id = &connection.sandbox;
        let answer = answer.map_err(|error| answer::lost(id, error))?;
        match (answer.body, <[OwnedFd; 2]>::try_from(answer.fds)) {
            (Body::Done(_), Ok(fds)) => Ok(Self {
                network: NetworkNamespace::new(fds),
                connection,
            }),
            (Body::Failed(why), _) => Err(answer::failed(id, "", why)),
            _ => Err(answer::garbled(id)),
        }
    }

    /// Id of the sandbox that it is for.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.connection.sandbox
    }

    /// Its network namespace.
    #[must_use]
    pub fn network(&self) -> &NetworkNamespace {
        &self.network
    }

    /// Whether it can still become a sandbox.
    #[must_use]
    pub fn waits(&self) -> bool {
        !self.connection.link.is_closed()
    }

    pub(super) async fn run(
        self,
        spawn: Body,
        events: mpsc::UnboundedSender<Event>,
    ) -> Result<Arc<Sandbox>, ProcessError> {
        let answer = self.connection.link.ask(spawn, &[]).await;
        Sandbox::open(self.connection, answer, events)
    }
}
