//! What can go wrong between an OCI spec and a running process.

use std::io;
use std::path::PathBuf;

/// An operation of the engine that failed.
#[derive(Debug, thiserror::Error)]
pub enum ProcessError {
    /// A file or directory of the engine's own state.
    #[error("{action} {}", path.display())]
    State {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The spawner could not be started or did not answer.
    #[error("start the spawner")]
    Spawner {
        /// Why not.
        source: io::Error,
    },
    /// The pod's monitor is dead; so is the sandbox.
    #[error("the monitor of sandbox {sandbox} is gone: the sandbox is to be made anew")]
    MonitorGone {
        /// The sandbox.
        sandbox: String,
    },
    /// A step of setting up a sandbox, in its monitor.
    #[error("set up sandbox {sandbox}: {step} {context}")]
    Sandbox {
        /// The sandbox.
        sandbox: String,
        /// The step.
        step: String,
        /// Path or name the step was about.
        context: String,
        /// Why not.
        source: io::Error,
    },
    /// Something of the host that a container needs could not be prepared.
    #[error("prepare container {container}: {step} {context}")]
    Prepare {
        /// The container.
        container: String,
        /// What was tried.
        step: &'static str,
        /// Path or name it was about.
        context: String,
        /// Why not.
        source: io::Error,
    },
    /// A step of the stage, in the container.
    #[error("set up {subject}: {step} {context}")]
    Stage {
        /// Container, or container and exec.
        subject: String,
        /// The step.
        step: String,
        /// Path or name the step was about.
        context: String,
        /// Why not.
        source: io::Error,
    },
    /// The command could not be executed; the sentence is what users know
    /// from other runtimes.
    #[error("exec: {command:?}: {reason}")]
    Command {
        /// `args[0]`.
        command: String,
        /// Why not.
        reason: String,
    },
    /// The spec asks for what cannot be.
    #[error("spec of {subject}: {reason}")]
    Spec {
        /// Container or sandbox.
        subject: String,
        /// Which field, and what is wrong.
        reason: String,
    },
    /// No such container in the sandbox.
    #[error("no container {container} in sandbox {sandbox}")]
    NotFound {
        /// The sandbox.
        sandbox: String,
        /// The container.
        container: String,
    },
    /// The container has no running process.
    #[error("container {container} is not running")]
    NotRunning {
        /// The container.
        container: String,
    },
    /// A container of that id exists already.
    #[error("container {container} exists already")]
    Exists {
        /// The container.
        container: String,
    },
    /// The monitor answered what this agent does not understand.
    #[error("talk to the monitor of sandbox {sandbox}")]
    Protocol {
        /// The sandbox.
        sandbox: String,
        /// What was wrong.
        source: io::Error,
    },
}

/// Why a sandbox found on disk could not be taken over.
#[derive(Debug, thiserror::Error)]
pub enum AdoptError {
    /// Its monitor no longer lives: processes that are left are to be killed by
    /// cgroup, exits are in [`Engine::exits`](super::Engine::exits).
    #[error("the monitor of sandbox {sandbox} is gone")]
    Gone {
        /// The sandbox.
        sandbox: String,
    },
    /// It lives but cannot be talked to.
    #[error("adopt sandbox {sandbox}")]
    Monitor {
        /// The sandbox.
        sandbox: String,
        /// Why not.
        source: ProcessError,
    },
}
