//! What it costs to write the logs of busy containers.

use crate::cgroup;
use crate::cri::Stand;
use crate::cri::pods::{Pod, Pods};
use anyhow::{Result, bail};
use std::fs;
use std::time::{Duration, Instant};

const WRITERS: usize = 30;
/// Payload of each, bytes.
const EACH: u64 = 20_000_000;
const LONGEST: Duration = Duration::from_secs(180);

/// CPU seconds, user and system, that everything but the containers spends on 1 GB of payload in
/// lines of 100 bytes.
pub async fn cpu_of_a_gigabyte(stand: &Stand, pods: &Pods) -> Result<f64> {
    println!("  {}: {WRITERS} busy log writers", stand.kind);
    let line = "x".repeat(99);
    // Waits for a file, so that all begin together, when the clock is read.
    let script = format!(
        "until [ -e /tmp/go ]; do sleep 0.1; done; yes {line} | head -c {EACH}; exec sleep 86399"
    );
    let names: Vec<String> = (0..WRITERS).map(|i| format!("log-{i}")).collect();
    let words = ["sh", "-c", script.as_str()];
    let start = |name| pods.start_with(name, &words);
    let writers = futures::future::try_join_all(names.iter().map(|n| start(n))).await?;
    let before = ticks(stand);
    for pod in &writers {
        pods.exec(pod, &["touch", "/tmp/go"]).await?;
    }
    let written = wait_written(stand, pods, &writers).await;
    let spent = ticks(stand).saturating_sub(before);
    for pod in &writers {
        pods.tear_down(pod).await?;
    }
    written?;
    // USER_HZ, 100 on every architecture that Kubernetes runs on.
    let seconds = spent as f64 / 100.0;
    Ok(seconds / (WRITERS as f64 * EACH as f64 / 1e9))
}

async fn wait_written(stand: &Stand, pods: &Pods, writers: &[Pod]) -> Result<()> {
    let mut left = Vec::new();
    for pod in writers {
        left.push(stand.machine.path(&pods.log_of(pod).await?));
    }
    let end = Instant::now() + LONGEST;
    while !left.is_empty() {
        // A log has the payload and, a line, a time stamp and a stream beside it.
        left.retain(|path| fs::metadata(path).map_or(true, |m| m.len() < EACH / 100 * 139));
        if Instant::now() > end {
            bail!("{} logs are not whole after {LONGEST:?}", left.len());
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}

/// CPU time of everything on the machine that is not in a pod.
fn ticks(stand: &Stand) -> u64 {
    let of_pods = cgroup::members(&format!("{}/bench", stand.machine.cgroup));
    let all = cgroup::members(&stand.machine.cgroup).into_iter();
    all.filter(|pid| !of_pods.contains(pid))
        .filter_map(|pid| {
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
            let (_, fields) = stat.rsplit_once(')')?;
            let mut times = fields.split_whitespace().skip(11);
            let user: u64 = times.next()?.parse().ok()?;
            let system: u64 = times.next()?.parse().ok()?;
            Some(user + system)
        })
        .sum()
}
