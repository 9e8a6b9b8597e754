//! Container events: those who listen, and the engine's news made into them.

use super::core::{Core, now};
use crate::cgroup::CgroupError;
use crate::container::{Container, State};
use crate::process::{Event, Exit};
use crate::sandbox::{Identified, Sandbox};
use cri_proto::v1::{ContainerEventResponse, ContainerEventType};
use cri_proto::{EventStream, Status};
use futures::StreamExt;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio_stream::wrappers::UnboundedReceiverStream;

/// Everybody who listens. Nothing is dropped for a slow one: a lost event is a
/// pod that seems to run for ever.
#[derive(Debug, Default)]
pub(crate) struct Events {
    listeners: Mutex<Vec<UnboundedSender<ContainerEventResponse>>>,
}

impl Events {
    /// Events from now on.
    pub(crate) fn listen(&self) -> EventStream {
        let (sender, receiver) = unbounded_channel();
        let mut listeners = self
            .listeners
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        listeners.push(sender);
        UnboundedReceiverStream::new(receiver)
            .map(Ok::<_, Status>)
            .boxed()
    }

    fn publish(&self, event: &ContainerEventResponse) {
        let mut listeners = self
            .listeners
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        listeners.retain(|listener| listener.send(event.clone()).is_ok());
    }

    /// Ends everybody's stream.
    pub(crate) fn close(&self) {
        let mut listeners = self
            .listeners
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        listeners.clear();
    }

    fn is_heard(&self) -> bool {
        let listeners = self
            .listeners
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        !listeners.is_empty()
    }
}

impl Core {
    /// Tells everybody, with the state of the whole pod after it. `id` is the
    /// container's, or the sandbox's own.
    pub(super) fn emit(&self, kind: ContainerEventType, id: &str, sandbox: &Sandbox) {
        if !self.events.is_heard() {
            return;
        }
        let containers = self.containers_of(sandbox.id());
        self.events.publish(&ContainerEventResponse {
            container_id: id.to_owned(),
            container_event_type: kind.into(),
            created_at: now(),
            pod_sandbox_status: Some(sandbox.status()),
            containers_statuses: containers.iter().map(|c| c.status()).collect(),
        });
    }

    /// A container's first process has ended: why is read before the cgroup
    /// goes, and whatever it left behind is killed. The cgroup goes at once, not
    /// with the container: on v1 no pod may be given less CPU than a child has.
    pub(super) fn container_ended(self: &Arc<Self>, container: &Arc<Container>, exit: Exit) {
        let cgroup = container.read(|r| r.cgroup.clone());
        let oom = self.cgroups.oom_kills(&cgroup) > 0;
        let (reason, message) = why(exit, oom);
        if container.exited(exit, reason, message) {
            tracing::info!(
                container = container.id(),
                code = exit.code,
                reason,
                "container ended"
            );
            self.cgroups.kill(&cgroup);
            self.remove_soon(container);
            self.emit(
                ContainerEventType::ContainerStoppedEvent,
                container.id(),
                &container.sandbox,
            );
        }
    }

    /// Whoever removes the container finds what is left.
    fn remove_soon(self: &Arc<Self>, container: &Arc<Container>) {
        let (core, container) = (self.clone(), container.clone());
        tokio::spawn(async move {
            if let Err(error) = core.remove_cgroup(&container).await {
                let error = super::error::chain(&error);
                tracing::debug!(
                    error,
                    "cgroup of an ended container stays until it is removed"
                );
            }
        });
    }

    /// Kills whatever is left in a container's cgroup and removes it, once.
    pub(super) async fn remove_cgroup(&self, container: &Container) -> Result<(), CgroupError> {
        let remove = async || {
            let cgroup = container.read(|r| r.cgroup.clone());
            self.cgroups.kill_and_remove(&cgroup).await
        };
        container.cgroup_removed.get_or_try_init(remove).await?;
        Ok(())
    }

    async fn on_event(self: &Arc<Self>, event: Event) {
        match event {
            Event::ContainerExited {
                container, exit, ..
            } => {
                let found = self.containers.get(&container);
                if let Some(container) = found.filter(|c| !never_began(c)) {
                    self.container_ended(&container, exit);
                }
            }
            Event::MonitorDied { sandbox } => {
                if let Some(sandbox) = self.sandboxes.get(&sandbox) {
                    let core = self.clone();
                    tokio::spawn(async move { core.sandbox_died(&sandbox).await });
                }
            }
        }
    }

    /// Its monitor was killed: whatever lives of the pod is killed by cgroup,
    /// and the network given back; the kubelet then makes a new sandbox.
    async fn sandbox_died(self: &Arc<Self>, sandbox: &Arc<Sandbox>) {
        tracing::error!(
            sandbox = sandbox.id(),
            "the monitor died; the pod is taken down"
        );
        for container in self.containers_of(sandbox.id()) {
            if container.state() == State::Running {
                self.container_ended(&container, lost());
            }
        }
        if let Err(error) = self.end_sandbox(sandbox).await {
            let error = super::error::chain(&error);
            tracing::warn!(sandbox = sandbox.id(), error, "leftovers of a dead sandbox");
        }
    }
}

/// What ends with its sandbox before it was started has not run, and is not
/// told as ended: it stays CREATED until it is removed.
fn never_began(container: &Container) -> bool {
    let sandbox = &container.sandbox;
    let ends = !sandbox.is_ready() || sandbox.ending.try_lock().is_err();
    ends && container.state() == State::Created
}

/// The end of a container that nobody saw.
pub(super) fn lost() -> Exit {
    Exit {
        code: 255,
        finished_at: now(),
        unknown: true,
    }
}

/// The end of a container whose sandbox was ended with it.
pub(super) fn killed() -> Exit {
    Exit {
        code: 128 + 9,
        finished_at: now(),
        unknown: false,
    }
}

/// Reason and message, in the words that kubelets and users know.
fn why(exit: Exit, oom: bool) -> (&'static str, &'static str) {
    match exit {
        Exit { unknown: true, .. } => (
            "ContainerStatusUnknown",
            "the container's monitor died; how the container ended is not known",
        ),
        _ if oom => ("OOMKilled", ""),
        Exit { code: 0, .. } => ("Completed", ""),
        Exit { .. } => ("Error", ""),
    }
}

/// Hands the engine's news on until the runtime or the engine goes.
pub(super) fn follow(core: Weak<Core>, mut events: UnboundedReceiver<Event>) {
    tokio::spawn(async move {
        while let Some(event) = events.recv().await {
            let Some(core) = core.upgrade() else { return };
            core.on_event(event).await;
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reason_follows_code_and_oom_counter() {
        let exit = |code| Exit {
            code,
            finished_at: 1,
            unknown: false,
        };
        assert_eq!(why(exit(0), false).0, "Completed");
        assert_eq!(why(exit(1), false).0, "Error");
        assert_eq!(why(exit(137), true).0, "OOMKilled");
        assert_eq!(why(lost(), true).0, "ContainerStatusUnknown");
    }
}
