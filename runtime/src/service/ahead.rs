//! Network namespaces that wait for their pods, with wire and address: making those takes
//! about as long as all else of a sandbox.
//!
//! Each bears the id of the sandbox that it is for. Nobody but this process holds the
//! namespace, which ends with it, and the wire with the namespace; what the network has
//! written down of it belongs to no sandbox, so the next start gives it back.

use super::VerbError;
use super::core::{Core, new_id};
use super::error::chain;
use crate::process::SandboxSpec;
use cni::{Attachment, PodNetwork};
use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// How long the kernel may take to make one; it takes a millisecond.
const PATIENCE: Duration = Duration::from_secs(5);

/// Those that are ready, the oldest first.
#[derive(Debug, Default)]
pub(crate) struct Ahead {
    ready: Mutex<VecDeque<Ready>>,
    filling: tokio::sync::Mutex<()>,
    /// Sandboxes that are being made, which come first.
    running: AtomicUsize,
}

/// One of them.
#[derive(Debug)]
pub(super) struct Ready {
    /// Of the sandbox that takes it.
    pub id: String,
    pub netns: Arc<OwnedFd>,
    attachment: Attachment,
}

impl Ahead {
    fn ready(&self) -> MutexGuard<'_, VecDeque<Ready>> {
        self.ready.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A sandbox is being made until this is dropped; then what it took is made again.
pub(super) struct Running(Arc<Core>);

impl Drop for Running {
    fn drop(&mut self) {
        if self.0.ahead.running.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.0.fill_ahead();
        }
    }
}

impl Core {
    pub(super) fn running(self: &Arc<Self>) -> Running {
        self.ahead.running.fetch_add(1, Ordering::AcqRel);
        Running(self.clone())
    }

    /// One that suits the sandbox, if there is one. Interfaces take over settings as they
    /// are made, so a pod with network settings of its own gets a namespace of its own.
    pub(super) async fn take_ahead(&self, spec: &SandboxSpec) -> Option<Ready> {
        let own = spec.sysctls.iter().any(|(name, value)| {
            let usual = crate::spec::is_default_sysctl(name, value);
            name.starts_with("net.") && !usual
        });
        if !spec.network || spec.user.is_some() || own {
            return None;
        }
        loop {
            let ready = self.ahead.ready().pop_front()?;
            if self.network.is_current(&ready.attachment) {
                return Some(ready);
            }
            self.give_back(&ready.id).await;
        }
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

    /// Makes as many as there shall be, while nobody waits for a sandbox.
    fn fill_ahead(self: &Arc<Self>) {
        let core = self.clone();
        // There is none when the last sandbox is dropped with the executor.
        let Ok(executor) = tokio::runtime::Handle::try_current() else {
            return;
        };
        executor.spawn(async move {
            let Ok(_one) = core.ahead.filling.try_lock() else {
                return;
            };
            while core.wants_ahead() {
                match tokio::time::timeout(PATIENCE, core.make_ahead()).await {
                    Ok(Ok(ready)) => core.ahead.ready().push_back(ready),
                    Ok(Err(error)) => {
                        tracing::debug!(error = chain(&error), "no network namespace ahead");
                        return;
                    }
                    Err(_) => return,
                }
            }
        });
    }

    fn wants_ahead(&self) -> bool {
        !self.shutdown.is_cancelled()
            && self.ahead.running.load(Ordering::Acquire) == 0
            && self.ahead.ready().len() < self.config.networks_ahead
            && self.network.wires_ahead()
    }

    async fn make_ahead(&self) -> Result<Ready, VerbError> {
        let netns = self.engine.network_namespace().await?;
        let id = new_id();
        let pod = PodNetwork {
            sandbox_id: id.clone(),
            ..PodNetwork::default()
        };
        let attachment = self.network.add(&pod, &netns).await?;
        Ok(Ready {
            id,
            netns: netns.into_fd(),
            attachment,
        })
    }

    /// Gives all of them back: the agent ends, or somebody needs their addresses.
    /// Answers whether there were any.
    pub(super) async fn drop_ahead(&self) -> bool {
        let _none_is_made = self.ahead.filling.lock().await;
        let all = std::mem::take(&mut *self.ahead.ready());
        for ready in &all {
            self.give_back(&ready.id).await;
        }
        !all.is_empty()
    }
}
