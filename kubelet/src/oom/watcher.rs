//! Follows the kernel's messages.

use super::parser::{Kill, Parser, message};
use crate::event::{EventType, Recorder};
use k8s_openapi::api::core::v1::ObjectReference;
use rustix::fs::{Mode, OFlags, SeekFrom};
use rustix::io::Errno;
use std::io::ErrorKind;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use tokio::net::unix::pipe::Receiver;
use tokio_util::sync::CancellationToken;

const KMSG: &str = "/dev/kmsg";
/// A record is never longer: linux kernel/printk/internal.h `PRINTK_MESSAGE_MAX` is 2048.
const RECORD_SIZE: usize = 8192;

/// Tells of kills on the Node.
pub struct OomWatcher {
    /// Where events go.
    pub events: Arc<dyn Recorder>,
    /// What they are about.
    pub node: ObjectReference,
}

impl OomWatcher {
    /// Until `shutdown`. What the kernel said before is not told: an agent that starts again
    /// would tell it again. A host that does not let its messages be read (a container, a user
    /// namespace) is a node all the same; that is logged once.
    pub async fn run(self, shutdown: CancellationToken) {
        let followed = tokio::select! {
            () = shutdown.cancelled() => return,
            followed = self.follow() => followed,
        };
        if let Err(why) = followed {
            tracing::warn!(%why, "{KMSG} is not read: SystemOOM is not told");
        }
    }

    async fn follow(&self) -> std::io::Result<()> {
        // No pipe, but epoll(7) tells of it in the same way.
        let kmsg = Receiver::from_owned_fd_unchecked(open()?)?;
        let mut parser = Parser::default();
        let mut record = vec![0; RECORD_SIZE];
        loop {
            kmsg.readable().await?;
            match kmsg.try_read(&mut record) {
                Ok(0) => return Ok(()),
                Ok(length) => {
                    let record = String::from_utf8_lossy(&record[..length]);
                    if let Some(kill) = message(&record).and_then(|m| parser.take(m)) {
                        self.tell(&kill);
                    }
                }
                // EPIPE: messages went faster than they were read; the next read goes on behind
                // them.
                Err(e) if passes(e.kind()) => {}
                Err(error) => return Err(error),
            }
        }
    }

    fn tell(&self, kill: &Kill) {
        let Kill { pid, process, .. } = kill;
        if let Some(cgroup) = &kill.cgroup {
            tracing::debug!(pid, process, cgroup, "OOM kill for a cgroup's limit");
            return;
        }
        tracing::warn!(
            pid,
            process,
            "the machine is out of memory: a process was killed"
        );
        let text = format!("System OOM encountered, victim process: {process}, pid: {pid}");
        self.events
            .record(&self.node, EventType::Warning, "SystemOOM", &text);
    }
}

/// At its end.
fn open() -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let kmsg = rustix::fs::open(KMSG, flags, Mode::empty())?;
    rustix::fs::seek(&kmsg, SeekFrom::End(0))?;
    Ok(kmsg)
}

/// There is more to come.
fn passes(kind: ErrorKind) -> bool {
    use ErrorKind::{BrokenPipe, Interrupted, WouldBlock};
    matches!(kind, BrokenPipe | Interrupted | WouldBlock)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;

    #[derive(Default)]
    struct Said(Mutex<Vec<String>>);

    impl Recorder for Said {
        fn record(&self, about: &ObjectReference, kind: EventType, reason: &str, text: &str) {
            let about = about.name.as_deref().unwrap_or_default();
            let said = format!("{about} {kind:?} {reason}: {text}");
            self.0.lock().unwrap().push(said);
        }
    }

    #[test]
    fn only_the_machines_own_want_of_memory_is_an_event() {
        let said = Arc::new(Said::default());
        let watcher = OomWatcher {
            events: said.clone(),
            node: crate::eviction::node("n"),
        };
        let kill = |cgroup: Option<&str>| Kill {
            pid: 7,
            process: "a".to_owned(),
            cgroup: cgroup.map(str::to_owned),
        };
        watcher.tell(&kill(Some("/kubepods")));
        watcher.tell(&kill(None));
        let want =
            "n Warning SystemOOM: System OOM encountered, victim process: a, pid: 7".to_owned();
        assert_eq!(*said.0.lock().unwrap(), [want]);
    }
}
