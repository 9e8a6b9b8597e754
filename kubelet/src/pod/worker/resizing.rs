//! A worker's part in a resize: what is granted, and when it is asked for again.

use super::Worker;
use crate::pod::lifecycle::Stage;
use crate::pod::resize::{self, Refusal};
use crate::pod::spec::uid;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Container;
use std::sync::Arc;
use std::time::Duration;

/// How often a resize is asked for again that others leave no room for.
const RETRY: Duration = Duration::from_secs(5);

impl Worker {
    /// What ran before this agent's time has what the API server says it has.
    pub(super) fn adopt_resources(&mut self) {
        if self.seen.sandbox().is_some() {
            self.seen.pod_applied = Some(self.granted.clone());
        }
        let granted = resize::with(&self.asked, &self.granted);
        for container in self.seen.containers.iter().filter(|c| c.running()) {
            if let Some(resources) = resize::given(&granted, &container.name) {
                let applied = &mut self.seen.applied;
                applied.insert(container.id.clone(), resources);
            }
        }
    }

    /// Grants what the newest object asks for, or has the pod keep what it has.
    pub(super) fn settle_resources(&mut self) {
        let ending = self.state.stage != Stage::Syncing;
        if ending || !resize::differs(&self.asked, &self.granted) {
            self.granted = resize::of(&self.asked);
            self.remember(ending);
            self.seen.pending = None;
            return self.want.pod = self.asked.clone();
        }
        let registry = self.registry.clone();
        let turn = registry.turn();
        let node = &self.executor.deps().node;
        let kinds = self.executor.deps().allocations.fixed_kinds();
        let swap = self.executor.deps().options.swap;
        let judged = resize::swappable(&self.asked, &self.want.pod, swap)
            .or_else(|| resize::fixed(&self.asked, &self.granted, &kinds))
            .or_else(|| resize::judge(&self.asked, &registry.all(), node));
        match judged {
            None => {
                registry.grant(uid(&self.asked), &self.asked);
                drop(turn);
                self.granted = resize::of(&self.asked);
                self.remember(false);
                self.seen.pending = None;
                self.want.pod = self.asked.clone();
                let message = resize::told("started", &self.asked, None);
                self.subject().normal("ResizeStarted", &message);
            }
            Some(pending) => {
                registry.kept.keep(uid(&self.asked), &self.granted);
                self.want.pod = Arc::new(resize::with(&self.asked, &self.granted));
                if self.seen.pending.as_ref() != Some(&pending) {
                    let name = pending.refusal.name();
                    let message = Some(pending.message.as_str());
                    let message = resize::told(name, &self.asked, message);
                    self.subject().warning(&format!("Resize{name}"), &message);
                }
                self.seen.pending = Some(pending);
            }
        }
    }

    /// The API server tells the next agent what runs, the sandbox what was granted before it was
    /// made. Of what was granted since, and does not run, somebody has to.
    fn remember(&self, ending: bool) {
        let made = self.seen.sandbox().map(|s| s.granted.as_str());
        let runs = |c: &Container| self.seen.newest(&c.name).is_some_and(|c| c.running());
        let told = made.is_none()
            || made == resize::record(&self.asked).as_deref()
            || resize::resizable(&self.asked).all(runs);
        let kept = &self.registry.kept;
        match ending || told {
            true => kept.forget(uid(&self.asked)),
            false => kept.keep(uid(&self.asked), &self.granted),
        }
    }

    /// Asks again for what had to wait for others; answers when next.
    pub(super) fn retry_resize(&mut self, now: Timestamp) -> Option<Timestamp> {
        let waits = |p: &resize::Pending| p.refusal == Refusal::Deferred;
        self.seen.pending.as_ref().filter(|p| waits(p))?;
        self.settle_resources();
        self.seen.pending.as_ref().filter(|p| waits(p))?;
        now.checked_add(RETRY).ok()
    }
}
