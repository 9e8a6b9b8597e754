//! The agent's handle of one monitor.

use std::io;
use std::sync::Arc;

use super::{ContainerSpec, ExecSpec, Exit, ProcessError, Streams};

/// A pod's sandbox: its namespaces and its containers, through its monitor.
///
/// Every verb may be repeated; removing what is not there is no error.
/// Dropping the handle leaves the sandbox as it is.
#[derive(Debug)]
pub struct Sandbox {
    id: String,
}

impl Sandbox {
    /// 64 hex digits.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Pid of the monitor, as the agent sees it.
    pub fn monitor_pid(&self) -> i32 {
        0
    }

    /// The pod's network namespace.
    pub fn netns(&self) -> Arc<dyn cni::Netns> {
        unreachable!("no sandbox is made yet")
    }

    /// Connects to the pod's own 127.0.0.1, then ::1.
    ///
    /// # Errors
    /// Of the last connect.
    pub async fn connect_tcp(&self, _port: u16) -> io::Result<tokio::net::TcpStream> {
        Err(io::ErrorKind::NotConnected.into())
    }

    /// Sets a container up to the point before its command is executed; the
    /// answer is its pid. A container that joins a PID namespace (pod, target)
    /// gets its final pid only by [`start_container`](Self::start_container).
    ///
    /// # Errors
    /// The step that failed; nothing of the container is left then but its
    /// writable layer.
    pub async fn create_container(&self, spec: ContainerSpec) -> Result<i32, ProcessError> {
        Err(self.gone(&spec.id))
    }

    /// Executes the container's command.
    ///
    /// # Errors
    /// [`ProcessError::Command`] when there is no such command.
    pub async fn start_container(&self, id: &str) -> Result<i32, ProcessError> {
        Err(self.gone(id))
    }

    /// Sends a signal to the first process; none there is no error.
    ///
    /// # Errors
    /// Only of a dead monitor.
    pub async fn signal(&self, id: &str, _signal: i32) -> Result<(), ProcessError> {
        Err(self.gone(id))
    }

    /// Runs a further process in a running container.
    ///
    /// # Errors
    /// [`ProcessError::NotRunning`], [`ProcessError::Command`], or the step.
    pub async fn exec(&self, container: &str, _spec: ExecSpec) -> Result<Exec, ProcessError> {
        Err(self.gone(container))
    }

    /// Joins the streams of the first process: output from now on.
    ///
    /// # Errors
    /// [`ProcessError::NotRunning`].
    pub async fn attach(&self, id: &str, _want_stdin: bool) -> Result<Streams, ProcessError> {
        Err(self.gone(id))
    }

    /// Tells a terminal its size; without a terminal nothing happens.
    ///
    /// # Errors
    /// Only of a dead monitor.
    pub async fn resize(
        &self,
        id: &str,
        _exec: Option<&str>,
        _width: u16,
        _height: u16,
    ) -> Result<(), ProcessError> {
        Err(self.gone(id))
    }

    /// Opens the container's log anew, after somebody renamed it.
    ///
    /// # Errors
    /// When the file cannot be opened.
    pub async fn reopen_log(&self, id: &str) -> Result<(), ProcessError> {
        Err(self.gone(id))
    }

    /// Forgets a container; its first process is killed if it runs.
    ///
    /// # Errors
    /// Only of a dead monitor.
    pub async fn remove_container(&self, id: &str) -> Result<(), ProcessError> {
        Err(self.gone(id))
    }

    /// Pid of the container's first process while it runs.
    pub fn container_pid(&self, _id: &str) -> Option<i32> {
        None
    }

    /// Kills every container and ends the monitor; the pod's namespaces go
    /// with it, and so does what the state folder holds of the sandbox.
    ///
    /// # Errors
    /// When the monitor can't be ended.
    pub async fn shutdown(&self) -> Result<(), ProcessError> {
        Err(self.gone(""))
    }

    fn gone(&self, _container: &str) -> ProcessError {
        ProcessError::MonitorGone {
            sandbox: self.id.clone(),
        }
    }
}

/// A process that was started in a running container.
#[derive(Debug)]
pub struct Exec {
    /// The caller's ends.
    pub streams: Streams,
    /// Its pid, as the agent sees it.
    pub pid: i32,
}

impl Exec {
    /// Waits for the process itself, not for those it left behind, whoever
    /// holds its streams.
    pub async fn wait(&mut self) -> Exit {
        std::future::pending().await
    }

    /// Sends it a signal; none there is no error.
    ///
    /// # Errors
    /// Of kill(2).
    pub async fn signal(&self, _signal: i32) -> io::Result<()> {
        Ok(())
    }
}
