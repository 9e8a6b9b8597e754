//! The agent's end of the spawner: makes, finds and adopts sandboxes.

use std::collections::HashMap;
use std::sync::Arc;

use tokio::sync::mpsc;

use super::{AdoptError, EngineConfig, Event, Exit, ProcessError, Sandbox, SandboxSpec};

/// Makes and finds sandboxes. One for each state folder.
#[derive(Debug)]
pub struct Engine {
    config: EngineConfig,
}

impl Engine {
    /// Takes the state folder and starts the spawner.
    ///
    /// # Errors
    /// [`ProcessError::InUse`] while another agent holds the folder.
    pub async fn open(
        config: EngineConfig,
    ) -> Result<(Self, mpsc::UnboundedReceiver<Event>), ProcessError> {
        let (_events, receiver) = mpsc::unbounded_channel();
        Ok((Self { config }, receiver))
    }

    /// Makes a monitor with the pod's namespaces.
    ///
    /// # Errors
    /// The step of the monitor that failed; nothing is left then.
    pub async fn run_sandbox(&self, spec: SandboxSpec) -> Result<Arc<Sandbox>, ProcessError> {
        Err(ProcessError::MonitorGone { sandbox: spec.id })
    }

    /// Takes over the sandbox of an earlier agent. Exits seen meanwhile come
    /// as [`Event`]s.
    ///
    /// # Errors
    /// [`AdoptError::Gone`] when its monitor is dead.
    pub async fn adopt(&self, id: &str) -> Result<Arc<Sandbox>, AdoptError> {
        Err(AdoptError::Gone { sandbox: id.into() })
    }

    /// Ids of the sandboxes that this state folder knows, living or not.
    pub fn found(&self) -> Vec<String> {
        let _ = &self.config;
        Vec::new()
    }

    /// Exit records left by a sandbox's monitor, by container.
    pub fn exits(&self, _id: &str) -> HashMap<String, Exit> {
        HashMap::new()
    }

    /// Removes what the state folder holds of a sandbox whose monitor is gone
    /// (after [`Sandbox::shutdown`] there is nothing left to remove).
    pub fn forget(&self, _id: &str) {}
}
