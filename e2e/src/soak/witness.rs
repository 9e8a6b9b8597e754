//! A pod that runs through it all and must not notice.

use crate::cgroup;
use crate::cri::Stand;
use crate::cri::pods::{Pod, Pods};
use anyhow::{Context, Result, ensure};
use cri_proto::v1::ContainerState;
use std::fs;

pub struct Witness {
    pod: Pod,
    pid: i32,
    /// Its monitor, which must live as well.
    pub monitor: i32,
    log: String,
}

impl Witness {
    /// Counts aloud.
    pub async fn start(stand: &Stand, pods: &Pods, name: &str) -> Result<Self> {
        let script = format!(": {name}; i=0; while :; do echo $i; i=$((i+1)); usleep 20000; done");
        let pod = pods.start_with(name, &["sh", "-c", &script]).await?;
        let pid = process(stand, &script).with_context(|| format!("no process of {name}"))?;
        Ok(Self {
            pid,
            monitor: parent(pid).with_context(|| format!("no monitor of {name}"))?,
            log: pods.log_of(&pod).await?,
            pod,
        })
    }

    /// The same process, and every number once.
    pub async fn check(&self, stand: &Stand, pods: &Pods) -> Result<()> {
        let lives = |pid: i32| fs::exists(format!("/proc/{pid}"));
        ensure!(lives(self.pid)?, "the process of a witness has ended");
        ensure!(lives(self.monitor)?, "the monitor of a witness has ended");
        let status = pods.status_of(&self.pod).await?;
        ensure!(
            status.state() == ContainerState::ContainerRunning,
            "a witness is not said to run any more: {status:?}"
        );
        let text = fs::read_to_string(stand.machine.path(&self.log))?;
        let numbers = text
            .lines()
            .map(|line| line.rsplit(' ').next().unwrap_or_default());
        let wrong = numbers
            .enumerate()
            .find(|(i, number)| i.to_string() != **number);
        ensure!(
            wrong.is_none(),
            "the log of a witness has a gap at {wrong:?}"
        );
        ensure!(text.lines().count() > 1, "a witness did not log");
        Ok(())
    }

    pub async fn end(&self, pods: &Pods) -> Result<()> {
        pods.tear_down(&self.pod).await
    }
}

fn parent(pid: i32) -> Option<i32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, fields) = stat.rsplit_once(')')?;
    fields.split_whitespace().nth(1)?.parse().ok()
}

fn process(stand: &Stand, script: &str) -> Option<i32> {
    let wanted = format!("sh\0-c\0{script}\0");
    let is = |pid: &i32| {
        fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|words| words == wanted.as_bytes())
    };
    cgroup::members(&stand.machine.cgroup).into_iter().find(is)
}
