//! postStart and preStop.

use super::probe::{Target, http, port};
use cri_proto::v1;
use k8s_openapi::api::core::v1::LifecycleHandler;
use std::time::Duration;

/// Why a hook did not do what it should.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum HookError {
    #[error("command '{command}' exited with {code}: {output}")]
    Exit {
        command: String,
        code: i32,
        output: String,
    },
    #[error("exec of '{command}': {reason}")]
    Exec { command: String, reason: String },
    #[error("{reason}")]
    Port { reason: String },
    #[error(transparent)]
    Http(#[from] http::HttpError),
    #[error("HTTP hook {url} answered {status}")]
    HttpStatus { url: String, status: u16 },
    #[error("dial tcp {address}: {source}")]
    Tcp {
        address: String,
        source: std::io::Error,
    },
    #[error("not over within {seconds}s")]
    TimedOut { seconds: u64 },
}

/// Runs a hook to its end or until `limit`.
///
/// # Errors
/// When it fails, or time is up.
pub async fn run(
    target: &Target,
    hook: &LifecycleHandler,
    limit: Option<Duration>,
) -> Result<(), HookError> {
    let Some(limit) = limit else {
        return once(target, hook, 0).await;
    };
    let seconds = limit.as_secs();
    let work = once(
        target,
        hook,
        i64::try_from(seconds.max(1)).unwrap_or(i64::MAX),
    );
    match tokio::time::timeout(limit, work).await {
        Ok(result) => result,
        Err(_) => Err(HookError::TimedOut { seconds }),
    }
}

async fn once(target: &Target, hook: &LifecycleHandler, timeout: i64) -> Result<(), HookError> {
    if let Some(action) = &hook.exec {
        return exec(target, action.command.clone().unwrap_or_default(), timeout).await;
    }
    if let Some(action) = &hook.http_get {
        let wish = super::probe::request(action, target);
        let wish = wish.map_err(|reason| HookError::Port { reason })?;
        let url = http::url(&wish);
        let status = http::get(wish).await?.status;
        return match status {
            200..400 => Ok(()),
            status => Err(HookError::HttpStatus { url, status }),
        };
    }
    if let Some(action) = &hook.sleep {
        let seconds = u64::try_from(action.seconds).unwrap_or(0);
        tokio::time::sleep(Duration::from_secs(seconds)).await;
        return Ok(());
    }
    if let Some(action) = &hook.tcp_socket {
        let number = port(&action.port, &target.container);
        let number = number.map_err(|reason| HookError::Port { reason })?;
        let host = action.host.as_deref().filter(|h| !h.is_empty());
        let address = http::authority(host.unwrap_or(&target.pod_ip), number);
        let stream = tokio::net::TcpStream::connect(&address).await;
        stream.map_err(|source| HookError::Tcp { address, source })?;
    }
    Ok(())
}

async fn exec(target: &Target, cmd: Vec<String>, timeout: i64) -> Result<(), HookError> {
    let command = cmd.join(" ");
    let request = v1::ExecSyncRequest {
        container_id: target.id.clone(),
        cmd,
        timeout,
    };
    let answer = target.cri.exec_sync(request).await;
    let answer = answer.map_err(|status| HookError::Exec {
        command: command.clone(),
        reason: status.message().to_owned(),
    })?;
    if answer.exit_code == 0 {
        return Ok(());
    }
    let output = [&answer.stdout[..], &answer.stderr[..]].concat();
    Err(HookError::Exit {
        command,
        code: answer.exit_code,
        output: String::from_utf8_lossy(&output).trim_end().to_owned(),
    })
}
