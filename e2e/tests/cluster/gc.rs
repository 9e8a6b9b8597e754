//! What containers that are over leave on the node, as its runtime tells it.

use crate::kit::{Space, pod, restarts};
use anyhow::Result;
use e2e::{peer, progress};
use std::time::Duration;

crate::tests!(containers_of_earlier_attempts_go_but_for_the_last_and_all_go_with_the_pod);

/// The stock kubelet looks once a minute.
const LOOKS: Duration = Duration::from_secs(150);

pub fn crictl(t: &Space, args: &[&str]) -> Result<String> {
    let bed = &t.suite.bed;
    let name = format!("crictl-{}", t.name);
    if !t.node().path(&format!("/usr/local/bin/{name}")).exists() {
        let program = peer::path(&bed.cache, &bed.peers(), &peer::CRICTL)?;
        t.node().install(&program, &name)?;
    }
    let socket = format!("--runtime-endpoint=unix://{}", t.suite.kind().socket());
    t.node().run(&name, &[&[socket.as_str()], args].concat())
}

fn containers_of_earlier_attempts_go_but_for_the_last_and_all_go_with_the_pod(
    t: &Space,
) -> Result<()> {
    t.apply(&pod("again", "exit 1"))?;
    t.wait("again", "restarted twice", |p| restarts(p) >= 2)?;
    let uid = t.pod("again")?["metadata"]["uid"].clone();
    let label = format!("io.kubernetes.pod.uid={}", uid.as_str().unwrap_or_default());
    // The third, which waits for the fourth.
    progress::wait_for("end of the earlier attempts", LOOKS, || {
        std::thread::sleep(Duration::from_millis(300));
        let left = crictl(t, &["ps", "-aq", "--label", &label])?;
        Ok((left.lines().count() == 1).then_some(()))
    })?;
    t.kubectl(&["delete", "pod", "again", "--wait=false"])?;
    t.wait_gone("again")?;
    progress::wait_for("nothing of the pod", LOOKS, || {
        std::thread::sleep(Duration::from_millis(300));
        let containers = crictl(t, &["ps", "-aq", "--label", &label])?;
        let sandboxes = crictl(t, &["pods", "-q", "--label", &label])?;
        Ok((containers + &sandboxes).trim().is_empty().then_some(()))
    })
}
