//! Exec, Attach and PortForward: URLs on one side, the engine's streams on
//! the other.

use super::VerbError;
use super::core::Core;
use super::error::chain;
use super::exec::{Command, DRAIN};
use super::fd_stream::FdStream;
use crate::container::{Container, State};
use crate::process;
use crate::sandbox::Identified;
use crate::streaming::{Duplex, Handler, Server, Streams, TerminalSize};
use cri_proto::Status;
use cri_proto::v1::*;
use std::future::Future;
use std::os::fd::OwnedFd;
use std::pin::pin;
use std::sync::{Arc, Weak};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc::Receiver;
use tokio::time::timeout;

pub(super) fn exec(core: &Core, mut request: ExecRequest) -> Result<ExecResponse, Status> {
    let container = running(core, &request.container_id)?;
    check(request.stdin, request.stdout, request.stderr, request.tty)?;
    request.container_id = container.id().to_owned();
    let url = core.streaming.url_for_exec(request);
    Ok(ExecResponse { url })
}

pub(super) fn attach(core: &Core, mut request: AttachRequest) -> Result<AttachResponse, Status> {
    let container = running(core, &request.container_id)?;
    check(request.stdin, request.stdout, request.stderr, request.tty)?;
    request.container_id = container.id().to_owned();
    let url = core.streaming.url_for_attach(request);
    Ok(AttachResponse { url })
}

pub(super) fn port_forward(
    core: &Core,
    mut request: PortForwardRequest,
) -> Result<PortForwardResponse, Status> {
    let sandbox = core.sandbox(&request.pod_sandbox_id)?;
    if !sandbox.is_ready() {
        let id = sandbox.id().to_owned();
        return Err(VerbError::SandboxNotReady { id }.into());
    }
    request.pod_sandbox_id = sandbox.id().to_owned();
    let url = core.streaming.url_for_port_forward(request);
    Ok(PortForwardResponse { url })
}

fn running(core: &Core, id: &str) -> Result<Arc<Container>, VerbError> {
    let container = core.container(id)?;
    if container.state() != State::Running {
        return Err(VerbError::NotRunning {
            id: container.id().to_owned(),
        });
    }
    Ok(container)
}

/// kubernetes v1.37 staging/src/k8s.io/kubelet/pkg/cri/streaming `validateExecRequest`.
fn check(stdin: bool, stdout: bool, stderr: bool, tty: bool) -> Result<(), Status> {
    if !(stdin || stdout || stderr) {
        return Err(Status::invalid_argument(
            "one of stdin, stdout and stderr must be asked for",
        ));
    }
    if tty && stderr {
        return Err(Status::invalid_argument(
            "a terminal has no stderr of its own: tty and stderr exclude each other",
        ));
    }
    Ok(())
}

/// The streaming server's hands; holds up nobody's end.
pub(super) struct Hands(pub Weak<Core>);

impl Hands {
    fn core(&self) -> Result<Arc<Core>, String> {
        self.0
            .upgrade()
            .ok_or_else(|| chain(&VerbError::ShuttingDown))
    }
}

#[async_trait::async_trait]
impl Handler for Hands {
    async fn exec(&self, request: ExecRequest, streams: Streams) -> Result<i32, String> {
        let core = self.core()?;
        let text = |error: VerbError| chain(&error);
        let container = running(&core, &request.container_id).map_err(text)?;
        let command = Command {
            args: request.cmd,
            tty: request.tty,
            stdin: request.stdin,
        };
        let (mut exec, id) = core.start_exec(&container, command).await.map_err(text)?;
        let theirs = std::mem::take(&mut exec.streams);
        let size = Resize {
            container: &container,
            exec: Some(&id),
        };
        let exit = pump(streams, theirs, size, exec.wait()).await;
        Ok(exit.map_err(text)?.code)
    }

    async fn attach(&self, request: AttachRequest, streams: Streams) -> Result<(), String> {
        let core = self.core()?;
        let text = |error: VerbError| chain(&error);
        let container = running(&core, &request.container_id).map_err(text)?;
        let engine = container.sandbox.engine();
        let engine = engine.ok_or_else(|| format!("container not running: {}", container.id()))?;
        let theirs = engine.attach(container.id(), request.stdin).await;
        let theirs = theirs.map_err(|error| chain(&error))?;
        let size = Resize {
            container: &container,
            exec: None,
        };
        let ended = pump(streams, theirs, size, container.wait()).await;
        ended.map_err(text)
    }

    async fn port_forward(&self, sandbox: &str, port: u16) -> Result<Box<dyn Duplex>, String> {
        let core = self.core()?;
        let sandbox = core.sandbox(sandbox).map_err(|error| chain(&error))?;
        let engine = sandbox.engine();
        let engine = engine.ok_or_else(|| format!("pod sandbox {} is not ready", sandbox.id()))?;
        match engine.connect_tcp(port).await {
            Ok(stream) => Ok(Box::new(stream)),
            Err(error) => Err(format!(
                "connect to port {port} inside the pod: {}",
                chain(&error)
            )),
        }
    }
}

/// Whose terminal follows the client's.
struct Resize<'a> {
    container: &'a Container,
    exec: Option<&'a str>,
}

impl Resize<'_> {
    async fn follow(&self, mut sizes: Receiver<TerminalSize>) {
        while let Some(size) = sizes.recv().await {
            let Some(engine) = self.container.sandbox.engine() else {
                return;
            };
            let id = self.container.id();
            if let Err(error) = engine.resize(id, self.exec, size.width, size.height).await {
                tracing::debug!(container = id, error = chain(&error), "resize");
            }
        }
    }
}

/// Carries bytes both ways until `end`, then what output is still there.
async fn pump<T>(
    client: Streams,
    process: process::Streams,
    resize: Resize<'_>,
    end: impl Future<Output = T>,
) -> Result<T, VerbError> {
    let inward = async {
        tokio::join!(
            copy_in(client.stdin, process.stdin),
            resize.follow(client.resize)
        );
        std::future::pending::<()>().await;
    };
    let outward = async {
        let (out, err) = tokio::join!(
            copy_out(process.stdout, client.stdout),
            copy_out(process.stderr, client.stderr)
        );
        out.and(err)
    };
    let (mut inward, mut outward, mut end) = (pin!(inward), pin!(outward), pin!(end));
    let mut drained = false;
    let ended = loop {
        tokio::select! {
            ended = &mut end => break ended,
            result = &mut outward, if !drained => {
                result.map_err(|source| VerbError::Streams { source })?;
                drained = true;
            }
            () = &mut inward => {}
        }
    };
    if !drained {
        let _ = timeout(DRAIN, outward).await;
    }
    Ok(ended)
}

async fn copy_in(client: Option<Box<dyn AsyncRead + Send + Unpin>>, process: Option<OwnedFd>) {
    let (Some(mut client), Some(Ok(mut process))) = (client, process.map(FdStream::new)) else {
        return;
    };
    // End of file is told by dropping; a process that reads no more is its own affair.
    let _ = tokio::io::copy(&mut client, &mut process).await;
}

async fn copy_out(
    process: Option<OwnedFd>,
    client: Option<Box<dyn AsyncWrite + Send + Unpin>>,
) -> std::io::Result<()> {
    let (Some(process), Some(mut client)) = (process, client) else {
        return Ok(());
    };
    let mut process = FdStream::new(process)?;
    tokio::io::copy(&mut process, &mut client).await?;
    client.shutdown().await
}

/// Serves streams until the runtime is shut down.
pub(super) fn serve(core: &Arc<Core>) {
    let server: Arc<Server> = core.streaming.clone();
    let hands = Arc::new(Hands(Arc::downgrade(core)));
    tokio::spawn(server.run(hands, core.shutdown.clone()));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn request_without_streams_or_with_a_terminals_stderr_is_refused() {
        assert!(check(false, false, false, false).is_err());
        assert!(check(true, true, true, true).is_err());
        assert!(check(true, true, false, true).is_ok());
        assert!(check(false, true, true, false).is_ok());
    }
}
