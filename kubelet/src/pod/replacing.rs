//! Containers that are exchanged in place because their definition changed. Pure.

use super::observed::Observed;
use jiff::{SignedDuration, Timestamp};
use std::collections::BTreeMap;

/// kubernetes v1.37 pkg/kubelet/pod_workers.go: one sync stops the old container and starts
/// the new one, and its status is told by the next, a second later at most.
const ONE_SYNC: SignedDuration = SignedDuration::from_secs(1);

/// Containers between their old and their new version.
#[derive(Debug, Default)]
pub struct Replacing(BTreeMap<String, Old>);

#[derive(Debug)]
struct Old {
    id: String,
    since: Timestamp,
}

impl Replacing {
    /// The old container is being stopped.
    pub fn begin(&mut self, container: &str, id: &str, now: Timestamp) {
        let old = || Old {
            id: id.to_owned(),
            since: now,
        };
        self.0.entry(container.to_owned()).or_insert_with(old);
    }

    /// Until when nobody is to be told of what is only in between; `None` when all is said.
    pub fn until(&mut self, seen: &Observed, now: Timestamp) -> Option<Timestamp> {
        self.0.retain(|name, old| {
            let newest = seen.newest(name);
            let replaced = newest.is_some_and(|c| c.id != old.id && c.running());
            !replaced && now < old.since + ONE_SYNC
        });
        self.0.values().map(|old| old.since + ONE_SYNC).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pod::observed::{ContainerSeen, Run};

    #[test]
    fn what_is_in_between_is_told_when_the_new_one_runs_or_a_second_has_passed() {
        let now = Timestamp::UNIX_EPOCH;
        let container = |id: &str, run: Run| ContainerSeen {
            id: id.into(),
            sandbox: "s".into(),
            name: "web".into(),
            attempt: 0,
            run,
            created: now,
            image: String::new(),
            image_id: String::new(),
            hash: String::new(),
            user: None,
            log_path: String::new(),
        };
        let mut seen = Observed::default();
        seen.see_container(container("old", Run::Running { started: now }));
        let mut replacing = Replacing::default();
        assert_eq!(replacing.until(&seen, now), None);
        replacing.begin("web", "old", now);
        let soon = now + SignedDuration::from_millis(10);
        assert_eq!(replacing.until(&seen, soon), Some(now + ONE_SYNC));
        let mut late = Replacing::default();
        late.begin("web", "old", now);
        assert_eq!(late.until(&seen, now + ONE_SYNC), None);
        seen.see_container(container("new", Run::Running { started: soon }));
        assert_eq!(replacing.until(&seen, soon), None);
    }
}
