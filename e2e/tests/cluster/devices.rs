//! Device plugins: what they offer, who gets it, and who still has it after a restart.

use crate::kit::{
    FOREVER, Running, Space, container, has, phase, pod, restarts, same, status, with, with_main,
};
use crate::survival::{kill_agent, start_agent};
use anyhow::{Result, anyhow, ensure};
use e2e::{peer, progress};
use serde_json::{Value, json};
use std::fs;
use std::time::Duration;

crate::tests!(
    a_containers_device_comes_with_all_that_its_plugin_gives,
    a_device_that_fails_is_seen_on_the_node_and_in_its_pod,
    a_pod_that_asks_for_more_devices_than_there_are_is_refused,
    an_app_container_has_the_devices_of_an_init_container_and_not_of_a_sidecar,
    devices_stay_with_their_pod_when_agent_and_plugin_are_killed: alone,
);

/// A plugin on the node; it ends with the test.
pub struct Plugin<'a> {
    t: &'a Space<'a>,
    child: Option<Running>,
    pub resource: String,
    file: String,
    log: String,
}

impl<'a> Plugin<'a> {
    /// Its resource is named after the test's namespace.
    pub fn start(t: &'a Space<'a>, devices: &str) -> Result<Plugin<'a>> {
        let bed = &t.suite.bed;
        let program = peer::path(&bed.cache, &bed.peers(), &peer::DEVICE_PLUGIN)?;
        let name = format!("device-plugin-{}", t.name);
        t.node().install(&program, &name)?;
        let file = format!("/var/lib/{name}");
        t.node().write(&file, devices)?;
        let resource = format!("example.com/{}", t.name);
        let mut command = t.node().command(&name);
        let child = Running::spawn(t, &name, command.args([&resource, &file]))?;
        Ok(Plugin {
            t,
            child: Some(child),
            resource,
            file,
            log: name,
        })
    }

    pub fn set(&self, devices: &str) -> Result<()> {
        self.t.node().write(&self.file, devices)
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.t.node().log(&self.log)).unwrap_or_default()
    }

    pub fn stop(&mut self) {
        self.child = None;
    }

    /// Waits until the Node says so many of them: capacity, allocatable.
    pub fn wait_counts(&self, capacity: &str, allocatable: &str) -> Result<()> {
        let mut last = Value::Null;
        let of = |node: &Value, list: &str| node["status"][list][&self.resource].clone();
        progress::wait_for(&self.resource, Duration::from_secs(60), || {
            let node = self
                .t
                .kubectl(&["get", "node", &self.t.node().name, "-o", "json"])?;
            let node: Value = serde_json::from_str(&node)?;
            last = json!([of(&node, "capacity"), of(&node, "allocatable")]);
            std::thread::sleep(Duration::from_millis(100));
            Ok((last == json!([capacity, allocatable])).then_some(()))
        })
        .map_err(|e| anyhow!("{e}: {last}, not {capacity} and {allocatable}"))
    }

    pub fn asks(&self, count: u32) -> Value {
        json!({ "resources": { "limits": { &self.resource: count.to_string() } } })
    }

    /// The devices that a container of a pod was told it has.
    pub fn of(&self, pod: &str, container: &str) -> Result<String> {
        let args = [
            "exec",
            pod,
            "-c",
            container,
            "--",
            "sh",
            "-c",
            "echo $EXAMPLE_DEVICES",
        ];
        Ok(self.t.kubectl(&args)?.trim().to_owned())
    }
}

impl Drop for Plugin<'_> {
    fn drop(&mut self) {
        self.stop();
    }
}

const CDI: &str = r#"{"cdiVersion": "0.6.0", "kind": "example.com/class", "devices": [
    {"name": "one", "containerEdits": {"env": ["CDI_SAYS=hello"]}}]}"#;

fn a_containers_device_comes_with_all_that_its_plugin_gives(t: &Space) -> Result<()> {
    t.node().write("/run/cdi/example.com.json", CDI)?;
    let plugin = Plugin::start(t, "a Healthy\nb Healthy\nc Unhealthy\n")?;
    plugin.wait_counts("3", "2")?;
    t.run(&with_main(pod("p", FOREVER), plugin.asks(1)))?;
    // The plugin would rather give the last one.
    same(plugin.of("p", "main")?.as_str(), "b")?;
    let said = t.sh(
        "p",
        "cat /example/devices; echo $CDI_SAYS; : </dev/example && echo read",
    )?;
    has(&said, "c Unhealthy")?;
    has(&said, "hello\nread")?;
    let written = t.sh("p", ": >/dev/example");
    ensure!(written.is_err(), "written to a device it may only read");
    has(&plugin.log(), "PreStartContainer b")?;
    let health = json!([{ "name": plugin.resource, "resources": [
        { "resourceID": "b", "health": "Healthy" }] }]);
    same(&status(&t.pod("p")?)["allocatedResourcesStatus"], &health)
}

fn a_device_that_fails_is_seen_on_the_node_and_in_its_pod(t: &Space) -> Result<()> {
    let mut plugin = Plugin::start(t, "a Healthy\nb Healthy\n")?;
    plugin.wait_counts("2", "2")?;
    t.run(&with_main(pod("p", FOREVER), plugin.asks(1)))?;
    plugin.set("a Healthy\nb Unhealthy\n")?;
    plugin.wait_counts("2", "1")?;
    let health =
        |p: &Value| status(p)["allocatedResourcesStatus"][0]["resources"][0]["health"].clone();
    t.wait("p", "Unhealthy device", |p| health(p) == "Unhealthy")?;
    plugin.set("a Healthy\nb Healthy\n")?;
    t.wait("p", "Healthy device", |p| health(p) == "Healthy")?;
    plugin.stop();
    plugin.wait_counts("2", "0")?;
    same(restarts(&t.pod("p")?), 0)
}

fn a_pod_that_asks_for_more_devices_than_there_are_is_refused(t: &Space) -> Result<()> {
    let plugin = Plugin::start(t, "a Healthy\nb Healthy\n")?;
    plugin.wait_counts("2", "2")?;
    t.run(&with_main(pod("first", FOREVER), plugin.asks(1)))?;
    // Past the scheduler, which would not send it here.
    let late = |name, count| {
        let placed = with(pod(name, FOREVER), json!({ "nodeName": t.node().name }));
        with_main(placed, plugin.asks(count))
    };
    t.apply(&late("late", 2))?;
    t.wait("late", "Failed", |p| phase(p) == "Failed")?;
    let refused = t.pod("late")?;
    same(
        refused["status"]["reason"].as_str(),
        Some("UnexpectedAdmissionError"),
    )?;
    let said = refused["status"]["message"].as_str().unwrap_or_default();
    let why = format!(
        "Pod was rejected: Allocate failed due to requested number of devices unavailable for {}. \
         Requested: 2, Available: 1, which is unexpected",
        plugin.resource
    );
    same(said, why.as_str())?;
    t.wait_event(
        "late",
        &["UnexpectedAdmissionError", "Requested: 2, Available: 1"],
    )?;
    // What the first one had is free again when it has gone.
    t.kubectl(&["delete", "pod", "first", "--now"])?;
    t.wait_gone("first")?;
    t.apply(&late("later", 2))?;
    t.wait_ready("later")?;
    same(plugin.of("later", "main")?.as_str(), "a,b")?;
    // A device that the plugin won't hand out.
    plugin.set("refused Healthy\na Healthy\nb Healthy\n")?;
    plugin.wait_counts("3", "3")?;
    t.apply(&late("no", 1))?;
    t.wait_event("no", &["UnexpectedAdmissionError", "is not to be had"])
}

fn an_app_container_has_the_devices_of_an_init_container_and_not_of_a_sidecar(
    t: &Space,
) -> Result<()> {
    let plugin = Plugin::start(t, "a Healthy\nb Healthy\nc Healthy\n")?;
    plugin.wait_counts("3", "3")?;
    let one = |name: &str, script: &str| {
        let mut one = container(name, script);
        one["resources"] = plugin.asks(1)["resources"].clone();
        one
    };
    let mut sidecar = one("side", FOREVER);
    sidecar["restartPolicy"] = json!("Always");
    let init = [one("setup", "echo $EXAMPLE_DEVICES"), sidecar];
    let whole = with(pod("p", FOREVER), json!({ "initContainers": init }));
    t.run(&with_main(whole, plugin.asks(2)))?;
    let setup = t.kubectl(&["logs", "p", "-c", "setup"])?;
    same((setup.trim(), plugin.of("p", "side")?.as_str()), ("c", "c"))?;
    same(plugin.of("p", "main")?.as_str(), "a,b")
}

fn devices_stay_with_their_pod_when_agent_and_plugin_are_killed(t: &Space) -> Result<()> {
    let mut plugin = Plugin::start(t, "a Healthy\nb Healthy\n")?;
    plugin.wait_counts("2", "2")?;
    t.run(&with_main(pod("p", FOREVER), plugin.asks(1)))?;
    kill_agent(t)?;
    plugin.stop();
    start_agent(t)?;
    // Nobody offers them any more.
    plugin.wait_counts("0", "0")?;
    let plugin = Plugin::start(t, "a Healthy\nb Healthy\n")?;
    plugin.wait_counts("2", "2")?;
    t.run(&with_main(pod("q", FOREVER), plugin.asks(1)))?;
    same(plugin.of("q", "main")?.as_str(), "a")?;
    t.sh("p", "kill 1")?;
    t.wait("p", "a second start", |p| {
        restarts(p) == 1 && status(p)["ready"] == true
    })?;
    same(plugin.of("p", "main")?.as_str(), "b")?;
    has(&plugin.log(), "PreStartContainer b")
}
