//! The managers of CPUs, memory and topology: each test starts the kubelet with other settings.

use crate::devices::Plugin;
use crate::eviction::{CONFIG, restart_with, set};
use crate::kit::{FOREVER, Space, container, has, phase, pod, same, with, with_main};
use crate::pod_resources::{ask, told};
use crate::survival::{agent_lives, kill_agent, start_agent};
use anyhow::{Context as _, Result, anyhow, ensure};
use e2e::node::kubelet_service;
use e2e::progress;
use serde_json::{Value, json};
use std::fs;
use std::time::Duration;

crate::tests!(
    whole_cpus_of_a_guaranteed_pod_are_its_own_and_nobody_elses: alone,
    memory_of_a_guaranteed_pod_is_taken_from_a_numa_node: alone,
    a_pod_whose_devices_are_on_two_numa_nodes_is_refused_by_a_strict_policy: alone,
);

const MEMORY_STATE: &str = "/var/lib/kubelet/memory_manager_state";
const CPU_STATE: &str = "/var/lib/kubelet/cpu_manager_state";

/// The kubelet's settings and state as they were, when the test is over.
pub struct Settings<'a> {
    t: &'a Space<'a>,
    before: String,
}

impl<'a> Settings<'a> {
    fn of(t: &'a Space<'a>) -> Result<Settings<'a>> {
        let before = fs::read_to_string(t.node().path(CONFIG))?;
        Ok(Settings { t, before })
    }

    /// Starts the kubelet with these added. State of other policies goes first, as the
    /// kubelet itself demands.
    pub fn add(&self, lines: &str) -> Result<()> {
        self.stop()?;
        self.forget()?;
        restart_with(self.t, &set(&self.before, lines))
    }

    fn stop(&self) -> Result<()> {
        match agent_lives(self.t)? {
            true => kill_agent(self.t),
            false => Ok(()),
        }
    }

    fn forget(&self) -> Result<()> {
        let state = [CPU_STATE, MEMORY_STATE];
        self.t
            .node()
            .run("rm", &[&["-f"][..], &state].concat())
            .map(drop)
    }

    fn restore(self) -> Result<()> {
        self.stop()?;
        self.forget()?;
        restart_with(self.t, &self.before)?;
        wait_allocatable(self.t, "2")
    }
}

/// Does what `test` does and puts the settings back, whatever has happened.
pub fn with_settings(t: &Space, test: impl Fn(&Space, &Settings) -> Result<()>) -> Result<()> {
    let settings = Settings::of(t)?;
    let result = test(t, &settings);
    if result.is_err() {
        // Before the log's end is that of another kubelet.
        println!("    {}", t.node().last_words(kubelet_log(t)));
    }
    let restored = settings.restore();
    result.and(restored)
}

/// The program that the kubelet's log is named after.
pub fn kubelet_log(t: &Space) -> &'static str {
    match kubelet_service(t.suite.kind()) {
        "agent" => "lighter",
        other => other,
    }
}

pub fn wait_allocatable(t: &Space, cpu: &str) -> Result<()> {
    let mut last = Value::Null;
    let what = format!("allocatable cpu {cpu}");
    progress::wait_for(&what, Duration::from_secs(60), || {
        std::thread::sleep(Duration::from_millis(200));
        let node = t.kubectl(&["get", "node", &t.node().name, "-o", "json"]);
        let node: Value = serde_json::from_str(&node.unwrap_or_default()).unwrap_or_default();
        last = node["status"]["allocatable"]["cpu"].clone();
        let ready = crate::kit::condition(&node, "Ready") == Some("True");
        Ok((last == cpu && ready).then_some(()))
    })
    .map_err(|e| anyhow!("{e}: {last}"))
}

/// CPUs that a container may run on, as the kernel says inside.
fn cpus_of(t: &Space, pod: &str, container: &str) -> Result<String> {
    let script = "grep Cpus_allowed_list /proc/self/status";
    let words = ["exec", pod, "-c", container, "--", "sh", "-c", script];
    let said = t.kubectl(&words)?;
    Ok(said
        .split_whitespace()
        .nth(1)
        .unwrap_or_default()
        .to_owned())
}

/// The stock kubelet looks every ten seconds.
pub fn wait_cpus(t: &Space, pod: &str, cpus: &str) -> Result<()> {
    let mut last = String::new();
    let what = format!("{pod} on CPUs {cpus}");
    progress::wait_for(&what, Duration::from_secs(40), || {
        last = cpus_of(t, pod, "main").unwrap_or_default();
        std::thread::sleep(Duration::from_millis(100));
        Ok((last == cpus).then_some(()))
    })
    .map_err(|e| anyhow!("{e}: it is on {last:?}"))
}

/// Asks for so much, and no more.
fn guaranteed(cpu: &str) -> Value {
    let list = json!({ "cpu": cpu, "memory": "64Mi" });
    json!({ "resources": { "requests": list, "limits": list } })
}

fn whole_cpus_of_a_guaranteed_pod_are_its_own_and_nobody_elses(t: &Space) -> Result<()> {
    t.run(&pod("before", FOREVER))?;
    same(cpus_of(t, "before", "main")?.as_str(), "0-1")?;
    with_settings(t, exclusive_cpus)
}

fn exclusive_cpus(t: &Space, settings: &Settings) -> Result<()> {
    settings.add("cpuManagerPolicy: static\nkubeReserved: {cpu: 500m}\n")?;
    wait_allocatable(t, "1500m")?;
    // The init container has the CPU first.
    let mut init = container("setup", "grep Cpus_allowed_list /proc/self/status");
    init["resources"] = guaranteed("1")["resources"].clone();
    let own = with(pod("own", FOREVER), json!({ "initContainers": [init] }));
    t.run(&with_main(own, guaranteed("1")))?;
    same(cpus_of(t, "own", "main")?.as_str(), "1")?;
    has(&t.kubectl(&["logs", "own", "-c", "setup"])?, "\t1\n")?;
    // Nobody else is on it: not who ran before, not who comes after.
    wait_cpus(t, "before", "0")?;
    t.run(&pod("after", FOREVER))?;
    same(cpus_of(t, "after", "main")?.as_str(), "0")?;
    // Who has a CPU to himself is not throttled on it.
    let quota = "cat /sys/fs/cgroup/cpu/cpu.cfs_quota_us";
    same(t.sh("own", quota)?.trim(), "-1")?;
    // Half a CPU is shared.
    t.run(&with_main(pod("half", FOREVER), guaranteed("300m")))?;
    same(cpus_of(t, "half", "main")?.as_str(), "0")?;

    same(&told(t, "own", "main")?["cpu_ids"], &json!([1]))?;
    same(&told(t, "after", "main")?["cpu_ids"], &Value::Null)?;
    same(&ask(t, &["allocatable"])?["cpu_ids"], &json!([1]))?;
    metrics_tell(t)?;
    resize_is_refused(t)?;
    cpus_outlive_the_kubelet(t)?;
    settings_that_do_not_fit_are_refused(t, settings)?;

    t.kubectl(&["delete", "pod", "own", "--now"])?;
    wait_cpus(t, "before", "0-1")
}

/// One series of the kubelet's metrics.
fn metric(t: &Space, series: &str) -> Result<f64> {
    let url = format!("/api/v1/nodes/{}/proxy/metrics", t.node().name);
    let said = t.kubectl(&["get", "--raw", &url])?;
    let mut lines = said.lines().filter_map(|l| l.strip_prefix(series));
    let value = lines.find_map(|rest| rest.strip_prefix(' ')?.parse().ok());
    value.with_context(|| format!("no {series}"))
}

fn metrics_tell(t: &Space) -> Result<()> {
    // The stock kubelet counts a CPU twice that an init container had before.
    let exclusive = metric(t, "kubelet_cpu_manager_exclusive_cpu_allocation_count")?;
    ensure!(exclusive >= 1.0, "{exclusive} exclusive CPUs");
    metric(t, "kubelet_cpu_manager_shared_pool_size_millicores")?;
    for (series, value) in [
        ("pinning_errors_total", 0.0),
        ("pinning_requests_total", 2.0),
        ("allocation_per_numa{numa_node=\"0\"}", 1.0),
    ] {
        same(metric(t, &format!("kubelet_cpu_manager_{series}"))?, value)?;
    }
    let url = format!("/api/v1/nodes/{}/proxy/configz", t.node().name);
    let config: Value = serde_json::from_str(&t.kubectl(&["get", "--raw", &url])?)?;
    same(
        &config["kubeletconfig"]["cpuManagerPolicy"],
        &json!("static"),
    )
}

fn resize_is_refused(t: &Space) -> Result<()> {
    let list = json!({ "cpu": "900m", "memory": "64Mi" });
    let main = json!({ "name": "main", "resources": { "requests": list, "limits": list } });
    let patch = json!({ "spec": { "containers": [main] } }).to_string();
    let resize = |patch: &str| {
        let what = ["patch", "pod", "own", "--subresource=resize", "--patch"];
        t.kubectl(&[&what[..], &[patch]].concat()).map(drop)
    };
    resize(&patch)?;
    t.wait("own", "an infeasible resize", |p| {
        let said = p["status"]["conditions"].to_string();
        said.contains("Infeasible") && said.contains("alongside CPU Manager policy")
    })?;
    resize(&patch.replace("900m", "1"))
}

fn cpus_outlive_the_kubelet(t: &Space) -> Result<()> {
    kill_agent(t)?;
    let state = fs::read_to_string(t.node().path(CPU_STATE))?;
    let state: Value = serde_json::from_str(&state)?;
    let uid = t.pod("own")?["metadata"]["uid"].clone();
    let uid = uid.as_str().context("no uid")?;
    same(&state["policyName"], &json!("static"))?;
    same(&state["defaultCpuSet"], &json!("0"))?;
    same(&state["entries"][uid]["main"], &json!("1"))?;
    start_agent(t)?;
    wait_allocatable(t, "1500m")?;
    // The kubelet has to have seen its pods again.
    wait_cpus(t, "own", "1")?;
    t.sh("own", "kill 1")?;
    t.wait("own", "a second start", |p| {
        crate::kit::restarts(p) == 1 && crate::kit::status(p)["ready"] == true
    })?;
    same(cpus_of(t, "own", "main")?.as_str(), "1")?;
    wait_cpus(t, "before", "0")
}

/// With a pod on CPU 1, CPU 1 can't be the system's.
fn settings_that_do_not_fit_are_refused(t: &Space, settings: &Settings) -> Result<()> {
    let good = fs::read_to_string(t.node().path(CONFIG))?;
    for (lines, why) in [
        ("reservedSystemCPUs: '1'", "not all reserved cpus"),
        ("cpuManagerPolicyOptions: {nonsense: 'true'}", "nonsense"),
    ] {
        restart_with(t, &format!("{good}{lines}\n"))?;
        progress::wait_for("the kubelet's end", Duration::from_secs(30), || {
            Ok((!agent_lives(t)?).then_some(()))
        })?;
        let log = fs::read_to_string(t.node().log(kubelet_log(t)))?;
        has(&log, why)?;
    }
    // Another policy than the one that wrote the file.
    restart_with(t, &settings.before)?;
    progress::wait_for("the kubelet's end", Duration::from_secs(30), || {
        Ok((!agent_lives(t)?).then_some(()))
    })?;
    restart_with(t, &good)?;
    wait_allocatable(t, "1500m")?;
    wait_cpus(t, "own", "1")
}

/// Beside what evictionHard keeps: the bed's 100Mi.
const KEPT: &str = "memoryManagerPolicy: Static\nkubeReserved: {memory: 100Mi}\n";

fn memory_of_a_guaranteed_pod_is_taken_from_a_numa_node(t: &Space) -> Result<()> {
    with_settings(t, |t, settings| {
        let reserved = |mi: u64| {
            format!("{KEPT}reservedMemory: [{{numaNode: 0, limits: {{memory: {mi}Mi}}}}]\n")
        };
        // Not what the node keeps from pods in all.
        settings.add(&reserved(7))?;
        progress::wait_for("the kubelet's end", Duration::from_secs(30), || {
            Ok((!agent_lives(t)?).then_some(()))
        })?;
        settings.add(&reserved(200))?;
        wait_allocatable(t, "2")?;
        t.run(&with_main(pod("own", FOREVER), guaranteed("100m")))?;
        t.run(&pod("other", FOREVER))?;
        pinned_memory(t)?;
        kill_agent(t)?;
        let state = fs::read_to_string(t.node().path(MEMORY_STATE))?;
        let state: Value = serde_json::from_str(&state)?;
        same(&state["policyName"], &json!("Static"))?;
        let uid = t.pod("own")?["metadata"]["uid"].clone();
        let block = json!({ "numaAffinity": [0], "type": "memory", "size": 64 << 20 });
        let entry = &state["entries"][uid.as_str().unwrap_or_default()];
        same(entry, &json!({ "main": [block] }))?;
        start_agent(t)?;
        wait_allocatable(t, "2")?;
        let seen = || Ok(told(t, "own", "main").is_ok().then_some(()));
        progress::wait_for("the pod", Duration::from_secs(30), seen)?;
        pinned_memory(t)?;
        let pinned = metric(t, "kubelet_memory_manager_pinning_errors_total")?;
        same(pinned, 0.0)
    })
}

fn pinned_memory(t: &Space) -> Result<()> {
    let block = json!({
        "memory_type": "memory", "size": 64 << 20, "topology": { "nodes": [{}] }
    });
    same(&told(t, "own", "main")?["memory"], &json!([block]))?;
    same(&told(t, "other", "main")?["memory"], &Value::Null)?;
    let all = ask(t, &["allocatable"])?["memory"].to_string();
    has(&all, "\"memory_type\":\"memory\"")?;
    let allowed = t.sh("own", "grep Mems_allowed_list /proc/self/status")?;
    same(allowed.split_whitespace().nth(1), Some("0"))
}

fn a_pod_whose_devices_are_on_two_numa_nodes_is_refused_by_a_strict_policy(
    t: &Space,
) -> Result<()> {
    with_settings(t, |t, settings| {
        restricted(t, settings)?;
        single_numa_node(t, settings)
    })
}

/// The machine has one NUMA node; the plugin speaks of two.
fn restricted(t: &Space, settings: &Settings) -> Result<()> {
    settings.add("topologyManagerPolicy: restricted\n")?;
    wait_allocatable(t, "2")?;
    let plugin = Plugin::start(t, "a Healthy 0\nb Healthy 0\nc Healthy 1\nd Healthy 1\n")?;
    plugin.wait_counts("4", "4")?;
    // Where the machine is, though the plugin would rather give the last ones.
    t.run(&with_main(pod("near", FOREVER), plugin.asks(2)))?;
    same(plugin.of("near", "main")?.as_str(), "a,b")?;
    t.kubectl(&["delete", "pod", "near", "--now"])?;
    t.wait_gone("near")?;
    t.run(&with_main(pod("one", FOREVER), plugin.asks(1)))?;
    same(plugin.of("one", "main")?.as_str(), "b")?;
    // One is left on node 0, where two would have been.
    t.apply(&with_main(pod("apart", FOREVER), plugin.asks(2)))?;
    refused(t, "apart")?;
    let errors = metric(t, "kubelet_topology_manager_admission_errors_total")?;
    ensure!(errors >= 1.0, "{errors} errors");
    t.kubectl(&["delete", "pod", "one", "--now"])?;
    t.wait_gone("one")
}

fn single_numa_node(t: &Space, settings: &Settings) -> Result<()> {
    settings.add("topologyManagerPolicy: single-numa-node\ntopologyManagerScope: pod\n")?;
    wait_allocatable(t, "2")?;
    let plugin = Plugin::start(t, "a Healthy 0\nb Healthy 0\nc Healthy 1\n")?;
    plugin.wait_counts("3", "3")?;
    // Each of them fits on a node, together they don't.
    let mut both = with_main(pod("both", FOREVER), plugin.asks(2));
    let mut second = container("second", FOREVER);
    second["resources"] = plugin.asks(1)["resources"].clone();
    if let Some(containers) = both["spec"]["containers"].as_array_mut() {
        containers.push(second);
    }
    t.apply(&both)?;
    refused(t, "both")?;
    t.run(&with_main(pod("fits", FOREVER), plugin.asks(2)))
}

fn refused(t: &Space, name: &str) -> Result<()> {
    t.wait(name, "Failed", |p| phase(p) == "Failed")?;
    let refused = t.pod(name)?;
    let reason = refused["status"]["reason"].as_str();
    same(reason, Some("TopologyAffinityError"))?;
    let message = refused["status"]["message"].as_str().unwrap_or_default();
    has(
        message,
        "Resources cannot be allocated with Topology locality",
    )?;
    t.wait_event(name, &["TopologyAffinityError", "Topology locality"])
}
