//! Ends every process of a cgroup.

use super::tree::{children, pids};
use super::{CgroupError, CgroupPath, Cgroups};
use rustix::process::{Pid, Signal};
use std::path::Path;
use std::time::Duration;

/// How long the kernel may take to end killed processes before the removal of
/// their cgroup gives up: those in uninterruptible sleep take as long as they like.
const PATIENCE: Duration = Duration::from_secs(10);

impl Cgroups {
    /// SIGKILL for every process in the cgroup and below.
    pub fn kill(&self, path: &CgroupPath) {
        let unified = self.unified().map(|h| self.dir(h, path));
        if let Some(dir) = &unified
            && std::fs::write(dir.join("cgroup.kill"), "1").is_ok()
        {
            return;
        }
        for pid in self.pids(path) {
            if let Some(pid) = Pid::from_raw(pid) {
                let _ = rustix::process::kill_process(pid, Signal::KILL);
            }
        }
    }

    /// Every process in the cgroup and below.
    #[must_use]
    pub fn pids(&self, path: &CgroupPath) -> Vec<i32> {
        let home = self.unified().or(self.hierarchies.first());
        let mut all = Vec::new();
        if let Some(home) = home {
            collect(&self.dir(home, path), &mut all);
        }
        all
    }

    /// Kills until nothing is left, then removes the cgroup.
    ///
    /// # Errors
    /// [`CgroupError::Busy`] when processes outlive SIGKILL for ten seconds.
    pub async fn kill_and_remove(&self, path: &CgroupPath) -> Result<(), CgroupError> {
        let started = tokio::time::Instant::now();
        let mut pause = Duration::from_micros(500);
        loop {
            match self.remove(path) {
                Err(CgroupError::Busy { .. }) if started.elapsed() < PATIENCE => self.kill(path),
                done => return done,
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(Duration::from_millis(100));
        }
    }
}

fn collect(dir: &Path, all: &mut Vec<i32>) {
    all.extend(pids(dir));
    for child in children(dir) {
        collect(&child, all);
    }
}
