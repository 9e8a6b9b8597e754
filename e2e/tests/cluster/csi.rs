//! Volumes of a CSI driver of our own, over the real gRPC.

use crate::kit::{
    FOREVER, Running, Space, condition, has, phase, pod, restarts, same, with, with_main,
};
use crate::storage::{bound, delete, with_claim, with_volume};
use crate::survival::{kill_agent, start_agent};
use anyhow::{Result, anyhow, ensure};
use e2e::{peer, progress};
use serde_json::{Value, json};
use std::fs;
use std::time::Duration;

crate::tests!(
    a_driver_that_registers_is_told_so_and_named_in_the_api,
    a_volume_is_staged_once_published_to_each_pod_and_given_back,
    an_attached_volume_is_mounted_when_it_is_attached_and_in_use_until_it_is_not,
    an_inline_volume_is_told_of_its_pod_and_ends_with_it,
    a_volume_of_a_driver_can_be_a_device,
    a_driver_that_refuses_is_quoted_and_asked_again,
    a_volume_that_grew_is_grown_on_the_node_and_measured,
    a_pod_waits_for_its_driver,
    a_driver_that_knows_groups_is_told_the_pods,
    drivers_see_to_volumes_of_pods_that_run,
    volumes_of_drivers_outlive_the_agent_and_are_given_back_by_the_next: alone,
);

/// A driver on the node; it ends with the test.
struct Driver<'a> {
    t: &'a Space<'a>,
    child: Option<Running>,
    name: String,
    dir: String,
}

impl<'a> Driver<'a> {
    /// Named after the test's namespace; `about` is the CSIDriver's spec.
    fn start(t: &'a Space<'a>, capabilities: &[&str], about: Value) -> Result<Driver<'a>> {
        let mut driver = Driver::of(t, capabilities, about)?;
        driver.run()?;
        driver.wait_log("registered true", 1)?;
        Ok(driver)
    }

    /// Described, not running yet.
    fn of(t: &'a Space<'a>, capabilities: &[&str], about: Value) -> Result<Driver<'a>> {
        let bed = &t.suite.bed;
        let program = peer::path(&bed.cache, &bed.peers(), &peer::CSI_DRIVER)?;
        let name = format!("{}.example.com", t.name);
        t.node().install(&program, &format!("csi-{}", t.name))?;
        let dir = format!("/var/lib/{name}");
        let driver = Driver {
            t,
            child: None,
            name,
            dir,
        };
        driver.behave(json!({ "capabilities": capabilities, "size": 1_234_567 }))?;
        let about = json!({
            "apiVersion": "storage.k8s.io/v1", "kind": "CSIDriver",
            "metadata": { "name": driver.name }, "spec": about,
        });
        t.apply(&about)?;
        Ok(driver)
    }

    fn run(&mut self) -> Result<()> {
        let program = format!("csi-{}", self.t.name);
        let mut command = self.t.node().command(&program);
        let command = command.args([&self.name, &self.dir]);
        self.child = Some(Running::spawn(self.t, &program, command)?);
        Ok(())
    }

    fn stop(&mut self) {
        self.child = None;
    }

    fn behave(&self, how: Value) -> Result<()> {
        let file = format!("{}/behaviour.json", self.dir);
        self.t.node().write(&file, &how.to_string())
    }

    fn log(&self) -> String {
        let log = self.t.node().log(&format!("csi-{}", self.t.name));
        fs::read_to_string(log).unwrap_or_default()
    }

    /// Requests of one method.
    fn calls(&self, method: &str) -> Vec<Value> {
        let marker = format!(" {method} {{");
        let log = self.log();
        let lines = log.lines().filter(|l| l.contains(&marker));
        lines
            .filter_map(|l| serde_json::from_str(&l[l.find('{')?..]).ok())
            .collect()
    }

    fn wait_log(&self, text: &str, times: usize) -> Result<()> {
        progress::wait_for(
            &format!("{text:?} of the driver"),
            Duration::from_secs(60),
            || {
                std::thread::sleep(Duration::from_millis(50));
                Ok((self.log().matches(text).count() >= times).then_some(()))
            },
        )
        .map_err(|e| anyhow!("{e}; it said {}", self.log()))
    }

    fn source(&self, handle: &str, fields: Value) -> Value {
        let mut csi = json!({ "driver": self.name, "volumeHandle": handle });
        for (key, value) in fields.as_object().into_iter().flatten() {
            csi[key] = value.clone();
        }
        json!({ "csi": csi })
    }

    fn csinode(&self) -> Result<Value> {
        let node = self.get(&["csinode", &self.t.node().name])?;
        let drivers = node["spec"]["drivers"].as_array().cloned();
        let mut drivers = drivers.unwrap_or_default().into_iter();
        Ok(drivers
            .find(|d| d["name"] == self.name.as_str())
            .unwrap_or_default())
    }

    fn get(&self, what: &[&str]) -> Result<Value> {
        let args = [&["get", "-o", "json"], what].concat();
        Ok(serde_json::from_str(&self.t.kubectl(&args)?)?)
    }

    fn node(&self) -> Result<Value> {
        self.get(&["node", &self.t.node().name])
    }

    fn in_use(&self) -> Result<bool> {
        let node = self.node()?;
        Ok(node["status"]["volumesInUse"]
            .to_string()
            .contains(&self.name))
    }
}

impl Drop for Driver<'_> {
    fn drop(&mut self) {
        self.stop();
        let _ = self
            .t
            .kubectl(&["delete", "csidriver", &self.name, "--wait=false"]);
        let registry = format!("/var/lib/kubelet/plugins_registry/{}-reg.sock", self.name);
        let _ = self.t.node().run("rm", &["-f", &registry]);
        // Of a test that failed: a device outlives even the machine.
        let script = "for d in $(losetup -nO NAME,BACK-FILE | grep $0/ | cut -d' ' -f1); do \
            losetup -d $d; done";
        let _ = self.t.node().run("sh", &["-c", script, &self.dir]);
    }
}

const STAGE: &str = "STAGE_UNSTAGE_VOLUME";

fn a_driver_that_registers_is_told_so_and_named_in_the_api(t: &Space) -> Result<()> {
    let mut driver = Driver::start(t, &[], json!({ "attachRequired": false }))?;
    let zone = format!("{}/zone", driver.name);
    let entry = driver.csinode()?;
    let id = format!("id-of-{}", t.node().name);
    same(entry["nodeID"].as_str(), Some(id.as_str()))?;
    same(&entry["topologyKeys"], &json!([zone]))?;
    same(&entry["allocatable"]["count"], &json!(7))?;
    let node = driver.node()?;
    same(&node["metadata"]["labels"][&zone], &json!("here"))?;
    let ids = node["metadata"]["annotations"]["csi.volume.kubernetes.io/nodeid"].clone();
    has(
        ids.as_str().unwrap_or_default(),
        &format!("{:?}:{id:?}", driver.name),
    )?;
    driver.stop();
    let registry = format!("/var/lib/kubelet/plugins_registry/{}-reg.sock", driver.name);
    t.node().run("rm", &[&registry])?;
    progress::wait_for(
        "the driver gone from the CSINode",
        Duration::from_secs(60),
        || {
            std::thread::sleep(Duration::from_millis(200));
            Ok(driver.csinode()?.is_null().then_some(()))
        },
    )?;
    driver.run()?;
    driver.wait_log("registered true", 2)?;
    same(driver.csinode()?["nodeID"].as_str(), Some(id.as_str()))
}

fn a_volume_is_staged_once_published_to_each_pod_and_given_back(t: &Space) -> Result<()> {
    let about = json!({ "attachRequired": false, "podInfoOnMount": true, "fsGroupPolicy": "File" });
    let driver = Driver::start(t, &[STAGE], about)?;
    t.make_secret("s", "key=hidden")?;
    let secret = json!({ "namespace": t.name, "name": "s" });
    let mut source = driver.source(
        "one",
        json!({
        "volumeAttributes": { "colour": "blue" },
        "nodeStageSecretRef": secret, "nodePublishSecretRef": secret }),
    );
    source["mountOptions"] = json!(["noatime"]);
    bound(t, "c", source)?;
    let user = json!({ "securityContext": { "runAsUser": 1000, "fsGroup": 4242 } });
    t.run(&with(with_claim("a", "c"), user.clone()))?;
    t.sh(
        "a",
        "echo shared > /v/file && test $(stat -c %g /v/file) = 4242",
    )?;
    let mut reader = with(with_claim("b", "c"), user);
    reader["spec"]["volumes"][0]["persistentVolumeClaim"]["readOnly"] = json!(true);
    t.run(&reader)?;
    same(t.sh("b", "cat /v/file")?.as_str(), "shared\n")?;
    ensure!(
        t.sh("b", "echo x > /v/file").is_err(),
        "written to a read-only volume"
    );
    let (stages, publishes) = (
        driver.calls("NodeStageVolume"),
        driver.calls("NodePublishVolume"),
    );
    same((stages.len(), publishes.len()), (1, 2))?;
    same(&stages[0]["secrets"]["key"], &json!("hidden"))?;
    has(&stages[0]["volume_capability"].to_string(), "noatime")?;
    let publish = &publishes[1];
    same(&publish["readonly"], &json!(true))?;
    same(&publish["volume_context"]["colour"], &json!("blue"))?;
    same(
        &publish["volume_context"]["csi.storage.k8s.io/pod.name"],
        &json!("b"),
    )?;
    same(&publish["secrets"]["key"], &json!("hidden"))?;
    same(
        &publish["staging_target_path"],
        &stages[0]["staging_target_path"],
    )?;
    let target = publish["target_path"].as_str().unwrap_or_default();
    has(
        target,
        &format!("/volumes/kubernetes.io~csi/{}-c/mount", t.name),
    )?;
    let record = t
        .node()
        .run("cat", &[&target.replace("/mount", "/vol_data.json")])?;
    has(&record, "\"volumeHandle\":\"one\"")?;
    delete(t, "a")?;
    driver.wait_log(" NodeUnpublishVolume {", 1)?;
    same(t.sh("b", "cat /v/file")?.as_str(), "shared\n")?;
    same(driver.calls("NodeUnstageVolume").len(), 0)?;
    delete(t, "b")?;
    driver.wait_log(" NodeUnstageVolume {", 1)?;
    let staging = stages[0]["staging_target_path"]
        .as_str()
        .unwrap_or_default();
    let staging = t.node().path(staging.trim_end_matches("/globalmount"));
    progress::wait_for(
        "removal of the staging folder",
        Duration::from_secs(30),
        || Ok((!staging.exists()).then_some(())),
    )?;
    let kept = t
        .node()
        .run("cat", &[&format!("{}/volumes/one/file", driver.dir)])?;
    same(kept.as_str(), "shared\n")
}

fn an_attached_volume_is_mounted_when_it_is_attached_and_in_use_until_it_is_not(
    t: &Space,
) -> Result<()> {
    let driver = Driver::start(t, &[STAGE], json!({ "attachRequired": true }))?;
    bound(t, "c", driver.source("far", json!({})))?;
    t.apply(&with_claim("p", "c"))?;
    let mut attachment = String::new();
    progress::wait_for("the VolumeAttachment", Duration::from_secs(60), || {
        let all = driver.get(&["volumeattachment"])?;
        let all = all["items"].as_array().cloned().unwrap_or_default();
        let own = all
            .iter()
            .find(|a| a["spec"]["attacher"] == driver.name.as_str());
        attachment = own
            .map(|a| {
                a["metadata"]["name"]
                    .as_str()
                    .unwrap_or_default()
                    .to_owned()
            })
            .unwrap_or_default();
        std::thread::sleep(Duration::from_millis(200));
        Ok((!attachment.is_empty()).then_some(()))
    })?;
    progress::wait_for("the volume in use", Duration::from_secs(60), || {
        std::thread::sleep(Duration::from_millis(200));
        Ok(driver.in_use()?.then_some(()))
    })?;
    same(
        (phase(&t.pod("p")?), driver.calls("NodeStageVolume").len()),
        ("Pending", 0),
    )?;
    // What an attacher would do.
    let status = json!({ "status": { "attached": true, "attachmentMetadata": { "lun": "5" } } });
    t.kubectl(&[
        "patch",
        "volumeattachment",
        &attachment,
        "--subresource=status",
        "--type=merge",
        "-p",
        &status.to_string(),
    ])?;
    t.wait_ready("p")?;
    for method in ["NodeStageVolume", "NodePublishVolume"] {
        same(
            &driver.calls(method)[0]["publish_context"]["lun"],
            &json!("5"),
        )?;
    }
    delete(t, "p")?;
    progress::wait_for("the volume out of use", Duration::from_secs(60), || {
        std::thread::sleep(Duration::from_millis(200));
        Ok((!driver.in_use()?).then_some(()))
    })?;
    progress::wait_for("the attachment gone", Duration::from_secs(60), || {
        std::thread::sleep(Duration::from_millis(200));
        let args = [
            "get",
            "volumeattachment",
            &attachment,
            "--ignore-not-found",
            "-o",
            "name",
        ];
        Ok(t.kubectl(&args)?.trim().is_empty().then_some(()))
    })
}

fn an_inline_volume_is_told_of_its_pod_and_ends_with_it(t: &Space) -> Result<()> {
    let about = json!({ "volumeLifecycleModes": ["Ephemeral"], "podInfoOnMount": true,
        "attachRequired": false,
        "tokenRequests": [{ "audience": "vault", "expirationSeconds": 600 }] });
    let driver = Driver::start(t, &[STAGE], about)?;
    let inline = json!({ "csi": { "driver": driver.name, "volumeAttributes": { "size": "1" } } });
    t.run(&with_volume("p", FOREVER, inline))?;
    has(&t.sh("p", "grep ' /v ' /proc/mounts")?, "tmpfs")?;
    let publish = driver.calls("NodePublishVolume")[0].clone();
    let context = &publish["volume_context"];
    same(&context["csi.storage.k8s.io/ephemeral"], &json!("true"))?;
    same(&context["csi.storage.k8s.io/pod.namespace"], &json!(t.name))?;
    same(&context["size"], &json!("1"))?;
    let tokens = context["csi.storage.k8s.io/serviceAccount.tokens"].as_str();
    has(tokens.unwrap_or_default(), "{\"vault\":{\"")?;
    same(driver.calls("NodeStageVolume").len(), 0)?;
    delete(t, "p")?;
    driver.wait_log(" NodeUnpublishVolume {", 1)?;
    same(
        &driver.calls("NodeUnpublishVolume")[0]["volume_id"],
        &publish["volume_id"],
    )?;
    // The driver serves no other kind.
    bound(t, "c", driver.source("lasting", json!({})))?;
    t.apply(&with(
        with_claim("lasting", "c"),
        json!({ "nodeName": t.node().name }),
    ))?;
    t.wait_event("lasting", &["FailedMount", "not supported by driver"])
}

fn a_volume_of_a_driver_can_be_a_device(t: &Space) -> Result<()> {
    let driver = Driver::start(t, &[STAGE], json!({ "attachRequired": false }))?;
    let mut source = driver.source("disk", json!({}));
    source["volumeMode"] = json!("Block");
    bound(t, "c", source)?;
    let block = |name: &str| {
        let volume = json!({ "name": "v", "persistentVolumeClaim": { "claimName": "c" } });
        let block = with(pod(name, FOREVER), json!({ "volumes": [volume] }));
        let devices = json!({ "volumeDevices": [{ "name": "v", "devicePath": "/dev/disk" }] });
        with_main(block, devices)
    };
    t.run(&block("writer"))?;
    let script = "printf written | dd of=/dev/disk conv=fsync 2>/dev/null";
    t.sh("writer", script)?;
    delete(t, "writer")?;
    driver.wait_log(" NodeUnstageVolume {", 1)?;
    t.run(&block("reader"))?;
    same(
        t.sh("reader", "test -b /dev/disk && head -c 7 /dev/disk")?
            .as_str(),
        "written",
    )?;
    let publish = &driver.calls("NodePublishVolume")[0];
    has(&publish["volume_capability"].to_string(), "Block")?;
    let published = format!("volumeDevices/publish/{}-c/", t.name);
    has(
        publish["target_path"].as_str().unwrap_or_default(),
        &published,
    )?;
    delete(t, "reader")?;
    driver.wait_log(" NodeUnstageVolume {", 2)
}

fn a_driver_that_refuses_is_quoted_and_asked_again(t: &Space) -> Result<()> {
    let driver = Driver::start(t, &[STAGE], json!({ "attachRequired": false }))?;
    driver.behave(json!({ "capabilities": [STAGE], "refuse": ["NodePublishVolume"] }))?;
    bound(t, "c", driver.source("one", json!({})))?;
    t.apply(&with_claim("p", "c"))?;
    t.wait_event(
        "p",
        &[
            "FailedMount",
            "code = Internal",
            "NodePublishVolume is refused today",
        ],
    )?;
    driver.behave(json!({ "capabilities": [STAGE] }))?;
    t.wait_ready("p")?;
    // A pod that never got its volume ends all the same.
    driver.behave(json!({ "capabilities": [STAGE], "refuse": ["NodePublishVolume"] }))?;
    t.apply(&with_claim("q", "c"))?;
    t.wait_event("q", &["FailedMount", "refused today"])?;
    delete(t, "q")?;
    delete(t, "p")?;
    driver.wait_log(" NodeUnstageVolume {", 1)
}

fn a_volume_that_grew_is_grown_on_the_node_and_measured(t: &Space) -> Result<()> {
    let can = [STAGE, "EXPAND_VOLUME", "GET_VOLUME_STATS"];
    let driver = Driver::start(t, &can, json!({ "attachRequired": false }))?;
    bound(t, "c", driver.source("one", json!({})))?;
    let volume = format!("{}-c", t.name);
    let larger = json!({ "spec": { "capacity": { "storage": "16Mi" } } }).to_string();
    t.kubectl(&["patch", "pv", &volume, "-p", &larger])?;
    t.run(&with_claim("p", "c"))?;
    driver.wait_log(" NodeExpandVolume {", 1)?;
    let wanted = driver.calls("NodeExpandVolume")[0]["capacity_range"]["required_bytes"].clone();
    same(wanted.as_i64(), Some(16 << 20))?;
    progress::wait_for("the claim's new size", Duration::from_secs(30), || {
        let size = t.kubectl(&[
            "get",
            "pvc",
            "c",
            "-o",
            "jsonpath={.status.capacity.storage}",
        ])?;
        Ok((size == "16Mi").then_some(()))
    })?;
    let path = format!("/api/v1/nodes/{}/proxy/stats/summary", t.node().name);
    progress::wait_for(
        "the volume in the summary",
        Duration::from_secs(150),
        || {
            std::thread::sleep(Duration::from_millis(500));
            let summary: Value = serde_json::from_str(&t.kubectl(&["get", "--raw", &path])?)?;
            let pods = summary["pods"].as_array().cloned().unwrap_or_default();
            let own = pods
                .iter()
                .find(|p| p["podRef"]["namespace"] == t.name.as_str());
            let all = own
                .and_then(|p| p["volume"].as_array().cloned())
                .unwrap_or_default();
            let seen = all
                .iter()
                .find(|v| v["name"] == "v")
                .cloned()
                .unwrap_or_default();
            let figures = seen["capacityBytes"] == 1_234_567 && seen["inodesFree"] == 7;
            Ok((figures && seen["pvcRef"]["name"] == "c").then_some(()))
        },
    )?;
    let path = format!("/api/v1/nodes/{}/proxy/metrics", t.node().name);
    let labels = format!("{{namespace=\"{}\",persistentvolumeclaim=\"c\"}}", t.name);
    let metrics = t.kubectl(&["get", "--raw", &path])?;
    has(
        &metrics,
        &format!("kubelet_volume_stats_capacity_bytes{labels} 1.234567e+06"),
    )
    .or_else(|_| {
        has(
            &metrics,
            &format!("kubelet_volume_stats_capacity_bytes{labels} 1234567"),
        )
    })
}

fn a_pod_waits_for_its_driver(t: &Space) -> Result<()> {
    let mut driver = Driver::of(t, &[], json!({ "attachRequired": false }))?;
    bound(t, "c", driver.source("one", json!({})))?;
    t.apply(&with(
        with_claim("p", "c"),
        json!({ "nodeName": t.node().name }),
    ))?;
    t.wait_event(
        "p",
        &[
            "FailedMount",
            "not found in the list of registered CSI drivers",
        ],
    )?;
    driver.run()?;
    t.wait_for("p", "Ready", 150, |p| condition(p, "Ready") == Some("True"))
}

fn a_driver_that_knows_groups_is_told_the_pods(t: &Space) -> Result<()> {
    let about = json!({ "attachRequired": false, "fsGroupPolicy": "File" });
    let driver = Driver::start(t, &[STAGE, "VOLUME_MOUNT_GROUP"], about)?;
    bound(t, "c", driver.source("one", json!({})))?;
    let group = json!({ "securityContext": { "fsGroup": 4242 } });
    t.run(&with(with_claim("p", "c"), group))?;
    let publish = &driver.calls("NodePublishVolume")[0];
    has(
        &publish["volume_capability"].to_string(),
        "\"volume_mount_group\":\"4242\"",
    )?;
    // And nobody else gives it to the group.
    same(t.sh("p", "stat -c %g /v")?.as_str(), "0\n")
}

/// A look a minute is enough, and more than the stock kubelet takes at times.
fn drivers_see_to_volumes_of_pods_that_run(t: &Space) -> Result<()> {
    let about = json!({ "attachRequired": false, "requiresRepublish": true });
    let driver = Driver::start(t, &["EXPAND_VOLUME"], about)?;
    bound(t, "c", driver.source("one", json!({})))?;
    t.run(&with_claim("p", "c"))?;
    let before = driver.calls("NodePublishVolume").len();
    let larger = json!({ "spec": { "capacity": { "storage": "16Mi" } } }).to_string();
    t.kubectl(&["patch", "pv", &format!("{}-c", t.name), "-p", &larger])?;
    progress::wait_for(
        "a volume published again and grown",
        Duration::from_secs(240),
        || {
            std::thread::sleep(Duration::from_millis(500));
            let again = driver.calls("NodePublishVolume").len() > before;
            Ok((again && !driver.calls("NodeExpandVolume").is_empty()).then_some(()))
        },
    )?;
    same(restarts(&t.pod("p")?), 0)
}

fn volumes_of_drivers_outlive_the_agent_and_are_given_back_by_the_next(t: &Space) -> Result<()> {
    let mut driver = Driver::start(t, &[STAGE], json!({ "attachRequired": false }))?;
    for claim in ["stays", "goes"] {
        bound(t, claim, driver.source(claim, json!({})))?;
        t.run(&with_claim(claim, claim))?;
    }
    t.sh("stays", "echo kept > /v/file")?;
    kill_agent(t)?;
    driver.stop();
    // One pod goes while nobody looks; its driver is not there either when the agent is.
    t.kubectl(&["delete", "pod", "goes", "--force", "--grace-period=0"])?;
    start_agent(t)?;
    progress::wait_for("exec after the restart", Duration::from_secs(60), || {
        Ok(t.sh("stays", "cat /v/file")
            .is_ok_and(|f| f == "kept\n")
            .then_some(()))
    })?;
    driver.run()?;
    driver.wait_log(" NodeUnstageVolume {", 1)?;
    same(
        &driver.calls("NodeUnstageVolume")[0]["volume_id"],
        &json!("goes"),
    )?;
    same(restarts(&t.pod("stays")?), 0)?;
    delete(t, "stays")?;
    driver.wait_log(" NodeUnstageVolume {", 2)?;
    let kept = t
        .node()
        .run("cat", &[&format!("{}/volumes/stays/file", driver.dir)])?;
    same(kept.as_str(), "kept\n")
}
