//! ExecSync, and a further process in a container for whoever asks.

use super::VerbError;
use super::core::{Core, new_id};
use super::fd_stream::FdStream;
use super::flights::detached;
use crate::container::{Container, State};
use crate::process::{Exec, ExecSpec, Exit, ProcessError};
use crate::sandbox::Identified;
use cri_proto::Status;
use cri_proto::v1::{ExecSyncRequest, ExecSyncResponse};
use oci_spec::runtime::Process;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::io::AsyncReadExt;
use tokio::time::timeout;
use tracing::Instrument;

/// Of each stream: CVE-2022-1708, CVE-2022-31030. More is thrown away.
const MAX_OUTPUT: usize = 16 << 20;

/// How long output is awaited once the command has ended: processes that it
/// left in the background may hold its pipes for ever.
pub(super) const DRAIN: Duration = Duration::from_millis(500);

const SIGKILL: i32 = 9;

/// What to run in a container.
#[derive(Debug)]
pub(super) struct Command {
    pub args: Vec<String>,
    pub tty: bool,
    pub stdin: bool,
}

pub(super) async fn exec_sync(
    core: Arc<Core>,
    request: ExecSyncRequest,
) -> Result<ExecSyncResponse, Status> {
    let container = core.container(&request.container_id)?;
    let span = tracing::info_span!("exec_sync", id = &container.id()[..13]);
    let work = async move { Ok(run(&core, &container, request).await?) };
    detached(work.instrument(span)).await
}

async fn run(
    core: &Core,
    container: &Container,
    request: ExecSyncRequest,
) -> Result<ExecSyncResponse, VerbError> {
    let command = Command {
        args: request.cmd.clone(),
        tty: false,
        stdin: false,
    };
    let (mut exec, _) = core.start_exec(container, command).await?;
    let (stdout, stderr) = (Output::default(), Output::default());
    let streams = std::mem::take(&mut exec.streams);
    let reading = futures::future::join(
        collect(streams.stdout, stdout.clone()),
        collect(streams.stderr, stderr.clone()),
    );
    let mut reading = tokio::spawn(reading);
    let Some(exit) = wait(&mut exec, request.timeout).await else {
        let _ = exec.signal(SIGKILL).await;
        let _ = timeout(DRAIN, exec.wait()).await;
        reading.abort();
        return Err(VerbError::ExecTimeout {
            command: request.cmd,
            seconds: request.timeout,
        });
    };
    if timeout(DRAIN, &mut reading).await.is_err() {
        reading.abort();
    }
    Ok(ExecSyncResponse {
        stdout: stdout.take(),
        stderr: stderr.take(),
        exit_code: exit.code,
    })
}

/// `None` when the time is over; 0 seconds = no limit.
async fn wait(exec: &mut Exec, seconds: i64) -> Option<Exit> {
    match u64::try_from(seconds) {
        Ok(0) | Err(_) => Some(exec.wait().await),
        Ok(seconds) => timeout(Duration::from_secs(seconds), exec.wait())
            .await
            .ok(),
    }
}

/// What has been read of a stream so far.
#[derive(Debug, Clone, Default)]
struct Output(Arc<Mutex<Vec<u8>>>);

impl Output {
    fn push(&self, bytes: &[u8]) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let room = MAX_OUTPUT.saturating_sub(all.len()).min(bytes.len());
        all.extend_from_slice(&bytes[..room]);
    }

    fn take(&self) -> Vec<u8> {
        std::mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Reads to the end, so that the command never blocks on a full pipe.
async fn collect(fd: Option<OwnedFd>, output: Output) {
    let Some(Ok(mut stream)) = fd.map(FdStream::new) else {
        return;
    };
    let mut chunk = vec![0; 16 << 10];
    while let Ok(read @ 1..) = stream.read(&mut chunk).await {
        output.push(&chunk[..read]);
    }
}

impl Core {
    /// Starts a command in a running container; answers its id, too.
    pub(super) async fn start_exec(
        &self,
        container: &Container,
        command: Command,
    ) -> Result<(Exec, String), VerbError> {
        let not_running = || VerbError::NotRunning {
            id: container.id().to_owned(),
        };
        if container.state() != State::Running {
            return Err(not_running());
        }
        if command.args.is_empty() {
            return Err(VerbError::Missing { field: "cmd" });
        }
        let engine = container.sandbox.engine().ok_or_else(not_running)?;
        let (cgroup, selection, capabilities) =
            container.read(|r| (r.cgroup.clone(), r.seccomp.clone(), r.capabilities.clone()));
        let id = new_id();
        let spec = ExecSpec {
            id: id.clone(),
            process: process(container, &command),
            stdin: command.stdin,
            cgroups: self.cgroups.doors(&cgroup)?,
            seccomp: self.seccomp.get(&selection, &capabilities)?.to_vec(),
        };
        match engine.exec(container.id(), spec).await {
            Ok(exec) => Ok((exec, id)),
            Err(ProcessError::NotRunning { .. }) => Err(not_running()),
            Err(error) => Err(error.into()),
        }
    }
}

/// As the container's own, with another command.
fn process(container: &Container, command: &Command) -> Process {
    let mut process = container.spec.process().clone().unwrap_or_default();
    if command.tty
        && let Some(env) = process.env_mut()
        && !env.iter().any(|v| v.starts_with("TERM="))
    {
        env.push("TERM=xterm".to_owned());
    }
    process
        .set_args(Some(command.args.clone()))
        .set_terminal(Some(command.tty));
    process
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cve_2022_1708_output_is_capped() {
        let output = Output::default();
        let chunk = vec![b'y'; 1 << 20];
        for _ in 0..20 {
            output.push(&chunk);
        }
        assert_eq!(output.take().len(), MAX_OUTPUT);
    }
}
