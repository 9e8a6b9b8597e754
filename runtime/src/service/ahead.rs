//! Sandboxes that wait for their pods: monitor, namespaces, wire and address, which are most
//! of what a sandbox takes; and the folders of the first container's writable layer.
//!
//! Both have their ids already. Nobody but this process knows of the monitor, which ends with it,
//! and the wire with the monitor's namespace; what the network has written down of it belongs
//! to no sandbox on record, so the next start gives it back, and removes the layer.

use super::VerbError;
use super::core::{Core, blocking, new_id};
use super::error::chain;
use crate::process::{self, SandboxAhead, SandboxSpec};
use cni::{Attachment, PodNetwork};
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// How long the kernel may take to make one; it takes a millisecond.
const PATIENCE: Duration = Duration::from_secs(5);

/// How long no pod must have been started for the missing ones to be made.
const QUIET: Duration = Duration::from_millis(50);

/// Those that are ready, the oldest first.
#[derive(Debug, Default)]
pub(crate) struct Ahead {
    ready: Mutex<VecDeque<Ready>>,
    filling: tokio::sync::Mutex<()>,
    /// Steps of pods' starts, which come first.
    starting: AtomicUsize,
    /// Somebody waits for a quiet moment.
    waiting: AtomicBool,
    /// How many steps there were.
    steps: AtomicUsize,
}

/// One of them.
#[derive(Debug)]
pub(super) struct Ready {
    pub monitor: SandboxAhead,
    attachment: Attachment,
    /// Id of its first container, whose writable layer is there.
    pub container: String,
}

impl Ahead {
    fn ready(&self) -> MutexGuard<'_, VecDeque<Ready>> {
        self.ready.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A step of a pod's start, until this is dropped.
pub(super) struct Starting(Arc<Core>);

impl Drop for Starting {
    fn drop(&mut self) {
        self.0.ahead.starting.fetch_sub(1, Ordering::AcqRel);
        self.0.fill_when_quiet();
    }
}

impl Core {
    /// To be held while a sandbox or a container is made or started.
    pub(super) fn starting(self: &Arc<Self>) -> Starting {
        self.ahead.starting.fetch_add(1, Ordering::AcqRel);
        self.ahead.steps.fetch_add(1, Ordering::AcqRel);
        Starting(self.clone())
    }

    /// A container has started, which most pods have one of. Pods that come one after the other
    /// leave no quiet moment: when the last one is all there is, the others are made now, and
    /// all at once, so that few pods have that beside them.
    pub(super) fn pod_started(self: &Arc<Self>) {
        let low = self.config.networks_ahead / 4;
        if self.lacks_ahead() && self.ahead.ready().len() <= low {
            self.fill_ahead(Duration::ZERO);
        }
    }

    fn fill_when_quiet(self: &Arc<Self>) {
        if self.lacks_ahead() && !self.ahead.waiting.swap(true, Ordering::AcqRel) {
            self.fill_ahead(QUIET);
        }
    }

    /// One that suits the sandbox, if there is one. Interfaces take over settings as they
    /// are made, so a pod with network settings of its own gets namespaces of its own.
    pub(super) async fn take_ahead(&self, spec: &SandboxSpec) -> Option<Ready> {
        let own = spec.sysctls.iter().any(|(name, value)| {
            let usual = crate::spec::is_default_sysctl(name, value);
            name.starts_with("net.") && !usual
        });
        let usual = spec.network && spec.ipc && spec.uts && spec.user.is_none();
        if !usual || own {
            return None;
        }
        loop {
            let ready = self.ahead.ready().pop_front()?;
            if ready.monitor.waits() && self.network.is_current(&ready.attachment) {
                return Some(ready);
            }
            self.end_ahead(ready).await;
        }
    }

    async fn end_ahead(&self, ready: Ready) {
        let id = ready.monitor.id().to_owned();
        self.give_back(&id).await;
        self.discard_layer(&self.layers_dir().join(&ready.container));
        drop(ready);
        self.engine.forget(&id);
    }

    /// Gives back what the network gave to a sandbox that is none.
    pub(super) async fn give_back(&self, id: &str) {
        let pod = PodNetwork {
            sandbox_id: id.to_owned(),
            ..PodNetwork::default()
        };
        if let Err(error) = self.network.del(&pod, None, None).await {
            let error = chain(&error);
            tracing::warn!(sandbox = id, error, "an address stays until the next start");
        }
    }

    /// Makes as many as there shall be, when there was no step for so long.
    fn fill_ahead(self: &Arc<Self>, quiet: Duration) {
        let core = self.clone();
        // There is none when the last sandbox is dropped with the executor.
        let Ok(executor) = tokio::runtime::Handle::try_current() else {
            return;
        };
        executor.spawn(async move {
            if !quiet.is_zero() {
                core.quiet(quiet).await;
            }
            core.fill().await;
        });
    }

    async fn quiet(&self, quiet: Duration) {
        let steps = || self.ahead.steps.load(Ordering::Acquire);
        loop {
            let before = steps();
            tokio::time::sleep(quiet).await;
            if before == steps() && self.ahead.starting.load(Ordering::Acquire) == 0 {
                break;
            }
        }
        self.ahead.waiting.store(false, Ordering::Release);
    }

    async fn fill(&self) {
        let Ok(_one) = self.ahead.filling.try_lock() else {
            return;
        };
        while self.wants_ahead() {
            match tokio::time::timeout(PATIENCE, self.make_ahead()).await {
                Ok(Ok(ready)) => self.ahead.ready().push_back(ready),
                Ok(Err(error)) => {
                    tracing::debug!(error = chain(&error), "no sandbox ahead");
                    return;
                }
                Err(_) => return,
            }
        }
    }

    fn wants_ahead(&self) -> bool {
        // Last what looks into a folder.
        self.ahead.starting.load(Ordering::Acquire) == 0
            && self.lacks_ahead()
            && self.network.wires_ahead()
    }

    /// Whether there shall be more than there are.
    fn lacks_ahead(&self) -> bool {
        !self.shutdown.is_cancelled() && self.ahead.ready().len() < self.config.networks_ahead
    }

    async fn make_ahead(&self) -> Result<Ready, VerbError> {
        let id = new_id();
        let monitor = self.engine.sandbox_ahead(&id).await?;
        let pod = PodNetwork {
            sandbox_id: id.clone(),
            ..PodNetwork::default()
        };
        let container = new_id();
        let layer = self.layers_dir().join(&container);
        let made = {
            let layer = layer.clone();
            let path = layer.clone();
            let work = move || {
                process::make_layer(&layer).map_err(|errno| VerbError::Make {
                    path,
                    source: errno.into(),
                })
            };
            async {
                let attachment = self.network.add(&pod, monitor.network()).await?;
                blocking(work).await?;
                Ok(attachment)
            }
        };
        match made.await {
            Ok(attachment) => Ok(Ready {
                monitor,
                attachment,
                container,
            }),
            Err(error) => {
                drop(monitor);
                self.discard_layer(&layer);
                self.give_back(&id).await;
                self.engine.forget(&id);
                Err(error)
            }
        }
    }

    /// Gives all of them back: the agent ends, or somebody needs their addresses.
    /// Answers whether there were any.
    pub(super) async fn drop_ahead(&self) -> bool {
        let _none_is_made = self.ahead.filling.lock().await;
        let all = std::mem::take(&mut *self.ahead.ready());
        let any = !all.is_empty();
        for ready in all {
            self.end_ahead(ready).await;
        }
        any
    }
}
