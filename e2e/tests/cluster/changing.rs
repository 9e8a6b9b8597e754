//! A node that goes from the stock kubelet to ours and back, or from ours to the stock one and back:
//! what pods were given stays theirs.

use crate::dra::{Driver, devices_in, from_template};
use crate::kit::{Space, restarts, same, status, with_main};
use crate::managers::{Settings, wait_allocatable, wait_cpus, with_settings};
use crate::pod_resources::told;
use crate::survival::{kill_kubelet, start_kubelet};
use anyhow::Result;
use e2e::node::{Kind, lighter};
use e2e::{peer, progress};
use serde_json::{Value, json};
use std::fs;
use std::time::Duration;

crate::tests!(
    what_pods_were_given_stays_theirs_from_one_kubelet_to_the_other_and_back: alone: containerd,
);

/// Every manager has something to write down.
const SETTINGS: &str = "cpuManagerPolicy: static
memoryManagerPolicy: Static
kubeReserved: {cpu: 500m, memory: 100Mi}
reservedMemory: [{numaNode: 0, limits: {memory: 200Mi}}]
";
const STATE: [&str; 3] = [
    "cpu_manager_state",
    "memory_manager_state",
    "dra_manager_state",
];

fn what_pods_were_given_stays_theirs_from_one_kubelet_to_the_other_and_back(
    t: &Space,
) -> Result<()> {
    let other = install_other(t)?;
    with_settings(t, |t, settings: &Settings| {
        settings.add(SETTINGS)?;
        wait_allocatable(t, "1500m")?;
        let driver = Driver::start(t, "a\n")?;
        let mut own = from_template("p");
        let list = json!({ "cpu": "1", "memory": "64Mi" });
        let claims = json!([{ "name": "device" }]);
        let resources = json!({ "requests": list, "limits": list, "claims": claims });
        own = with_main(own, json!({ "resources": resources }));
        t.run(&own)?;
        let (given, id) = (told(t, "p", "main")?, container_id(t)?);
        let written = states(t)?;

        let back = other_takes_over(t, other, (&given, &id), &written);
        kill_kubelet(t, other)?;
        back?;
        start_kubelet(t, t.suite.kind())?;
        wait_told(t, &given)?;
        wait_cpus(t, "p", "1")?;
        t.kubectl(&["delete", "pod", "p", "--now"])?;
        t.wait_gone("p")?;
        driver.wait_log("unprepare", 1)
    })
}

/// The node's kind with its other kubelet.
fn install_other(t: &Space) -> Result<Kind> {
    let (bed, node) = (&t.suite.bed, t.node());
    if t.suite.kind() == Kind::Stock {
        node.install(&lighter::program_path(bed, None)?, "lighter")?;
        return Ok(Kind::LighterContainerd);
    }
    node.install(&peer::path(&bed.cache, &bed.peers(), &peer::KUBE)?, "kube")?;
    node.link("kube", "kubelet")?;
    Ok(Kind::Stock)
}

fn other_takes_over(
    t: &Space,
    other: Kind,
    (given, id): (&Value, &str),
    written: &[Value],
) -> Result<()> {
    kill_kubelet(t, t.suite.kind())?;
    start_kubelet(t, other)?;
    wait_told(t, given)?;
    wait_allocatable(t, "1500m")?;
    same(container_id(t)?.as_str(), id)?;
    same(states(t)?.as_slice(), written)?;
    wait_cpus(t, "p", "1")?;
    // A container that it starts has the same.
    t.sh("p", "kill 1")?;
    t.wait("p", "a second start", |p| {
        restarts(p) == 1 && status(p)["ready"] == true
    })?;
    wait_cpus(t, "p", "1")?;
    same(devices_in(t, "p", "main")?.as_str(), "DRA_A=yes\n")
}

fn container_id(t: &Space) -> Result<String> {
    Ok(status(&t.pod("p")?)["containerID"].to_string())
}

fn wait_told(t: &Space, given: &Value) -> Result<()> {
    let same = || {
        Ok(told(t, "p", "main")
            .is_ok_and(|now| now == *given)
            .then_some(()))
    };
    progress::wait_for("what the pod was given", Duration::from_secs(60), same)
}

/// What is written down in each file.
fn states(t: &Space) -> Result<Vec<Value>> {
    let read = |name: &&str| {
        let text = fs::read_to_string(t.node().path(&format!("/var/lib/kubelet/{name}")))?;
        Ok(serde_json::from_str(&text)?)
    };
    STATE.iter().map(read).collect()
}
