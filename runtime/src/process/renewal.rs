//! Monitors of earlier agents, which are to go on as our program before anything new starts
//! in their pods.

use std::io;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::link::Link;
use super::wire::{Body, Empty, RENEWS, State};
use super::{ProcessError, answer, own};

/// After a monitor could not be renewed it stays as it is for so long.
const AGAIN: Duration = Duration::from_secs(10);

/// What is to be done about one monitor.
#[derive(Debug)]
pub struct Renewal {
    /// It executes another program.
    due: AtomicBool,
    /// When it was tried last.
    tried: tokio::sync::Mutex<Option<Instant>>,
}

impl Renewal {
    /// Of a monitor that our own spawner has just made.
    pub fn never() -> Self {
        Self {
            due: AtomicBool::new(false),
            tried: tokio::sync::Mutex::default(),
        }
    }

    /// Of a monitor that was found, and has told its state.
    pub fn of(pid: i32, state: &State) -> Self {
        let due = state.version >= RENEWS && own::is_foreign(pid);
        Self {
            due: AtomicBool::new(due),
            ..Self::never()
        }
    }

    /// Does it, if it is due. A monitor that is busy stays what it was, for now: its program
    /// is older, not wrong.
    ///
    /// # Errors
    /// [`ProcessError::MonitorGone`]: it did not survive, and its pod with it.
    pub async fn settle(&self, sandbox: &str, link: &Link) -> Result<(), ProcessError> {
        if !self.due.load(Ordering::Acquire) {
            return Ok(());
        }
        let mut tried = self.tried.lock().await;
        let early = tried.is_some_and(|tried| tried.elapsed() < AGAIN);
        if early || !self.due.load(Ordering::Acquire) {
            return Ok(());
        }
        *tried = Some(Instant::now());
        match renew(sandbox, link).await {
            Ok(()) => self.due.store(false, Ordering::Release),
            Err(gone @ ProcessError::MonitorGone { .. }) => return Err(gone),
            Err(error) => {
                let error: &dyn std::error::Error = &error;
                tracing::warn!(sandbox, error, "the pod's monitor stays an older program");
            }
        }
        Ok(())
    }
}

/// Has a monitor go on as our program.
///
/// # Errors
/// When it can't, or not now: it is what it was then.
pub async fn renew(sandbox: &str, link: &Link) -> Result<(), ProcessError> {
    let protocol = |source: io::Error| ProcessError::Protocol {
        sandbox: sandbox.to_owned(),
        source,
    };
    let program = own::program().map_err(protocol)?;
    let asked = link.ask(Body::Renew(Empty {}), &[program.as_fd()]).await;
    let answer = asked.map_err(|error| answer::lost(sandbox, error))?;
    match answer.body {
        Body::Done(_) => Ok(()),
        Body::Failed(why) => Err(answer::failed(sandbox, "", why)),
        _ => Err(protocol(io::ErrorKind::InvalidData.into())),
    }
}
