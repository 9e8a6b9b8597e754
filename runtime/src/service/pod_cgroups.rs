//! The cgroups that pods are below: several pods may share one, and levels above
//! it, so whoever comes first makes them and whoever goes last removes them.

use super::VerbError;
use crate::cgroup::{CgroupPath, Cgroups};
use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Who uses what.
#[derive(Debug, Default)]
pub(crate) struct PodCgroups(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    /// Topmost levels that we made.
    made: HashSet<CgroupPath>,
    /// Pods by id, with the cgroup they are directly below.
    pods: HashMap<String, CgroupPath>,
}

impl PodCgroups {
    /// Held while directories are made or removed: one who is being removed must not
    /// go between a parent and its child that are being made.
    fn lock(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes what is missing for a pod. `intend` is told of the topmost level that
    /// is ours, if any is, before the first one is made: whoever comes after a
    /// crash between the two has to know whose it is.
    pub(crate) fn make(
        &self,
        cgroups: &Cgroups,
        pod: &str,
        path: &CgroupPath,
        intend: impl FnOnce(Option<CgroupPath>) -> Result<(), VerbError>,
    ) -> Result<bool, VerbError> {
        let mut known = self.lock();
        known.add(pod, path, cgroups.missing(path));
        let top = known.top(path);
        let ours = top.is_some();
        intend(top)?;
        let made = cgroups.create(path)?;
        known.add(pod, path, made);
        Ok(ours)
    }

    /// A pod of an earlier agent, whose topmost level is known.
    pub(crate) fn adopt(&self, pod: &str, path: &CgroupPath, made: Option<CgroupPath>) {
        self.lock().add(pod, path, made);
    }

    /// A pod is no more; what is empty then and ours goes.
    pub(crate) fn leave(&self, cgroups: &Cgroups, pod: &str, path: &CgroupPath) {
        let mut known = self.lock();
        known.pods.remove(pod);
        if known.pods.values().any(|other| other == path) {
            return;
        }
        if let Some(top) = known.top(path) {
            cgroups.prune(path, &top);
            known.made.retain(|made| cgroups.exists(made));
        }
    }
}

impl Known {
    fn add(&mut self, pod: &str, path: &CgroupPath, made: Option<CgroupPath>) {
        self.pods.insert(pod.to_owned(), path.clone());
        self.made.extend(made);
    }

    fn top(&self, path: &CgroupPath) -> Option<CgroupPath> {
        let above = self.made.iter().filter(|made| path.is_within(made));
        above.min_by_key(|made| made.as_str().len()).cloned()
    }
}
