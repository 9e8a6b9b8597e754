//! What a worker tells of its pod.

use super::Worker;
use crate::pod::lifecycle::Stage;
use crate::pod::registry::Entry;
use crate::pod::spec::uid;
use crate::status::{self, Look};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::PodStatus;
use std::collections::BTreeSet;
use std::sync::Arc;

impl Worker {
    /// Tells everyone how the pod stands. Once nothing runs any more the status
    /// stays as it is, whatever is cleaned up after.
    pub(super) fn publish(&mut self, now: Timestamp) {
        let over = matches!(
            self.state.stage,
            Stage::Terminated { .. } | Stage::Finished { .. }
        );
        let status = match &self.published {
            Some(status) if self.frozen => PodStatus {
                observed_generation: self.want.pod.metadata.generation,
                ..status.clone()
            },
            _ => {
                let mut status = status::build(&Look {
                    want: &self.want,
                    state: &self.state,
                    seen: &self.seen,
                    node: &self.executor.deps().node,
                    runtime: &self.runtime,
                    before: self.published.as_ref(),
                    now,
                });
                let allocations = &self.executor.deps().allocations;
                allocations.annotate(&self.want.pod, &mut status);
                status
            }
        };
        self.frozen |= over;
        self.registry
            .put(uid(&self.want.pod), self.entry(status.clone()));
        let finishes = matches!(self.state.stage, Stage::Finished { .. }) && !self.finished;
        let same_pod = self
            .told
            .as_ref()
            .is_some_and(|p| Arc::ptr_eq(p, &self.want.pod));
        if same_pod && !finishes && self.published.as_ref() == Some(&status) {
            return;
        }
        self.count(&status, now);
        self.told = Some(self.want.pod.clone());
        self.published = Some(status.clone());
        let sink = &self.executor.deps().status;
        match self.state.stage {
            Stage::Finished { .. } => {
                if !std::mem::replace(&mut self.finished, true) {
                    self.executor.sweep(&self.want.pod);
                }
                if !self.want.removed {
                    sink.finished(&self.want.pod, status);
                }
            }
            Stage::Syncing | Stage::Terminating { .. } | Stage::Terminated { .. } => {
                sink.publish(&self.want.pod, status);
            }
        }
    }

    fn entry(&self, status: PodStatus) -> Entry {
        let of = |previous: bool| {
            let names: BTreeSet<&str> = self
                .seen
                .containers
                .iter()
                .map(|c| c.name.as_str())
                .collect();
            let found = names.into_iter().filter_map(|name| {
                let seen = match previous {
                    true => self.seen.previous(name),
                    false => self.seen.newest(name),
                }?;
                Some((name.to_owned(), seen.id.clone()))
            });
            found.collect()
        };
        Entry {
            pod: self.want.pod.clone(),
            status,
            current: of(false),
            previous: of(true),
            sandbox: self.seen.ready_sandbox().map(|s| s.id.clone()),
            removed: self.want.removed,
        }
    }
}
