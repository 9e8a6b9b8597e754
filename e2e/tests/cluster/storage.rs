//! Claims and the volumes behind them.

use crate::kit::{FOREVER, Space, container, has, phase, pod, same, with, with_main};
use anyhow::{Result, ensure};
use e2e::{command, progress};
use serde_json::{Value, json};
use std::fs;
use std::process::Command;
use std::time::Duration;

crate::tests!(
    a_claims_files_outlive_the_pod,
    a_local_volume_is_bound_as_it_says_and_never_emptied,
    a_local_volume_of_another_node_is_not_mounted,
    a_pod_waits_for_its_claim_and_says_so,
    a_claim_on_its_way_out_takes_no_new_pod,
    an_ephemeral_volume_has_a_claim_of_the_pods_own,
    a_block_volume_is_a_device,
    a_local_device_gets_a_file_system_that_pods_share,
);

/// A PersistentVolume held for the claim of the same name in the test's namespace, and that claim.
pub fn bound(t: &Space, name: &str, source: Value) -> Result<()> {
    let of = |claim: &str| format!("{}-{claim}", t.name);
    let mut volume = json!({
        "apiVersion": "v1", "kind": "PersistentVolume", "metadata": { "name": of(name) },
        "spec": {
            "capacity": { "storage": "8Mi" }, "accessModes": ["ReadWriteOnce"],
            "persistentVolumeReclaimPolicy": "Retain", "storageClassName": "",
            "claimRef": { "namespace": t.name, "name": name },
        },
    });
    let mut claim = claim(name, &of(name));
    for (key, value) in source.as_object().into_iter().flatten() {
        volume["spec"][key] = value.clone();
        if key == "volumeMode" || key == "accessModes" {
            claim["spec"][key] = value.clone();
        }
    }
    t.apply(&volume)?;
    t.apply(&claim)?;
    wait_bound(t, name)
}

fn claim(name: &str, volume: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": { "name": name },
        "spec": {
            "accessModes": ["ReadWriteOnce"], "storageClassName": "", "volumeName": volume,
            "resources": { "requests": { "storage": "1Mi" } },
        },
    })
}

fn wait_bound(t: &Space, claim: &str) -> Result<()> {
    progress::wait_for(
        &format!("claim {claim} bound"),
        Duration::from_secs(60),
        || {
            let phase = t.kubectl(&["get", "pvc", claim, "-o", "jsonpath={.status.phase}"])?;
            Ok((phase == "Bound").then_some(()))
        },
    )
}

/// A pod with a volume `v` at /v.
pub fn with_volume(name: &str, script: &str, mut volume: Value) -> Value {
    volume["name"] = json!("v");
    let pod = with(pod(name, script), json!({ "volumes": [volume] }));
    let mounts = json!({ "volumeMounts": [{ "name": "v", "mountPath": "/v" }] });
    with_main(pod, mounts)
}

pub fn with_claim(name: &str, claim: &str) -> Value {
    let volume = json!({ "persistentVolumeClaim": { "claimName": claim } });
    with_volume(name, FOREVER, volume)
}

/// Past the scheduler, which waits for claims itself.
fn placed(t: &Space, pod: Value) -> Value {
    with(pod, json!({ "nodeName": t.node().name }))
}

pub fn delete(t: &Space, pod: &str) -> Result<()> {
    t.kubectl(&["delete", "pod", pod, "--wait=false"])?;
    t.wait_gone(pod)
}

fn here(t: &Space) -> Value {
    on(&t.node().name)
}

fn on(node: &str) -> Value {
    json!({ "required": { "nodeSelectorTerms": [{ "matchExpressions": [
        { "key": "kubernetes.io/hostname", "operator": "In", "values": [node] }] }] } })
}

fn a_claims_files_outlive_the_pod(t: &Space) -> Result<()> {
    let path = format!("/var/lib/{}", t.name);
    let source = json!({ "hostPath": { "path": path, "type": "DirectoryOrCreate" } });
    bound(t, "c", source)?;
    t.run(&with_claim("first", "c"))?;
    t.sh("first", "echo kept > /v/file")?;
    delete(t, "first")?;
    let mut reader = with_claim("second", "c");
    reader["spec"]["volumes"][0]["persistentVolumeClaim"]["readOnly"] = json!(true);
    t.run(&reader)?;
    same(t.sh("second", "cat /v/file")?.as_str(), "kept\n")?;
    ensure!(
        t.sh("second", "echo x > /v/new").is_err(),
        "written to a read-only claim"
    );
    Ok(())
}

fn a_local_volume_is_bound_as_it_says_and_never_emptied(t: &Space) -> Result<()> {
    let disk = format!("/var/lib/{}", t.name);
    t.node().write(&format!("{disk}/dir/precious"), "kept")?;
    t.node()
        .run("chmod", &["600", &format!("{disk}/dir/precious")])?;
    let source = json!({
        "local": { "path": disk }, "nodeAffinity": here(t), "mountOptions": ["noexec"] });
    bound(t, "c", source)?;
    let user = json!({ "securityContext": { "runAsUser": 1000, "fsGroup": 4242 } });
    let mut user_pod = with(with_claim("p", "c"), user);
    user_pod["spec"]["containers"][0]["volumeMounts"] = json!([
        { "name": "v", "mountPath": "/v" },
        { "name": "v", "mountPath": "/sub", "subPath": "dir" }]);
    t.run(&user_pod)?;
    let script = "cat /v/dir/precious /sub/precious; echo; stat -c '%g %a' /v/dir/precious; \
        echo x > /v/mine && stat -c %g /v/mine";
    same(t.sh("p", script)?.as_str(), "keptkept\n4242 660\n4242\n")?;
    let uid = t.pod("p")?["metadata"]["uid"]
        .as_str()
        .unwrap_or_default()
        .to_owned();
    let dir = format!(
        "/var/lib/kubelet/pods/{uid}/volumes/kubernetes.io~local-volume/{}-c",
        t.name
    );
    // What the container sees of them is the runtime's affair: runc takes noexec away.
    has(
        &t.node().run("findmnt", &["-no", "OPTIONS", &dir])?,
        "noexec",
    )?;
    delete(t, "p")?;
    let gone = t.node().path(&format!("/var/lib/kubelet/pods/{uid}"));
    progress::wait_for(
        "removal of the pod's folder",
        Duration::from_secs(60),
        || Ok((!gone.exists()).then_some(())),
    )?;
    same(
        t.node()
            .run("cat", &[&format!("{disk}/dir/precious")])?
            .as_str(),
        "kept",
    )
}

fn a_local_volume_of_another_node_is_not_mounted(t: &Space) -> Result<()> {
    let disk = format!("/var/lib/{}", t.name);
    t.node().run("mkdir", &["-p", &disk])?;
    bound(
        t,
        "c",
        json!({ "local": { "path": disk }, "nodeAffinity": on("elsewhere") }),
    )?;
    t.apply(&placed(t, with_claim("p", "c")))?;
    t.wait_event("p", &["FailedMount", "NodeAffinity check failed"])?;
    same(phase(&t.pod("p")?), "Pending")
}

fn a_pod_waits_for_its_claim_and_says_so(t: &Space) -> Result<()> {
    let path = format!("/var/lib/{}", t.name);
    t.apply(&claim("c", &format!("{}-c", t.name)))?;
    t.apply(&placed(t, with_claim("p", "c")))?;
    t.wait_for("p", "an event", 200, |_| {
        let events = t.events("p").unwrap_or_default();
        events
            .lines()
            .any(|l| l.contains("FailedMount") && l.contains("bound"))
    })?;
    same(phase(&t.pod("p")?), "Pending")?;
    bound(
        t,
        "c",
        json!({ "hostPath": { "path": path, "type": "DirectoryOrCreate" } }),
    )?;
    t.wait_ready("p")
}

fn a_claim_on_its_way_out_takes_no_new_pod(t: &Space) -> Result<()> {
    let path = format!("/var/lib/{}", t.name);
    bound(
        t,
        "c",
        json!({ "hostPath": { "path": path, "type": "DirectoryOrCreate" } }),
    )?;
    t.run(&with_claim("first", "c"))?;
    // Protected, it would stay as long as the pod does, and take others too.
    let finalizers = |all: &[&str]| {
        let patch = json!({ "metadata": { "finalizers": all } }).to_string();
        t.kubectl(&["patch", "pvc", "c", "--type=merge", "-p", &patch])
    };
    finalizers(&["kubernetes.io/pvc-protection", "example.com/hold"])?;
    t.kubectl(&["delete", "pvc", "c", "--wait=false"])?;
    finalizers(&["example.com/hold"])?;
    t.apply(&placed(t, with_claim("late", "c")))?;
    t.wait_event("late", &["FailedMount", "PVC is being deleted"])?;
    same(t.sh("first", "echo here")?.as_str(), "here\n")?;
    finalizers(&[]).map(drop)
}

fn an_ephemeral_volume_has_a_claim_of_the_pods_own(t: &Space) -> Result<()> {
    let path = format!("/var/lib/{}", t.name);
    let template = |volume: &str| {
        let claim = claim("", &format!("{}-{volume}", t.name));
        let volume = json!({ "ephemeral": { "volumeClaimTemplate": { "spec": claim["spec"] } } });
        with_volume("p", FOREVER, volume)
    };
    let volume = json!({
        "apiVersion": "v1", "kind": "PersistentVolume",
        "metadata": { "name": format!("{}-own", t.name) },
        "spec": {
            "capacity": { "storage": "8Mi" }, "accessModes": ["ReadWriteOnce"],
            "storageClassName": "", "hostPath": { "path": path, "type": "DirectoryOrCreate" },
        },
    });
    t.apply(&volume)?;
    t.run(&template("own"))?;
    t.sh("p", "echo x > /v/file")?;
    wait_bound(t, "p-v")?;
    delete(t, "p")?;
    progress::wait_for("removal of the claim", Duration::from_secs(60), || {
        let left = t.kubectl(&["get", "pvc", "p-v", "--ignore-not-found", "-o", "name"])?;
        Ok(left.trim().is_empty().then_some(()))
    })?;
    // Somebody else's claim of that name is not taken.
    bound(
        t,
        "p-v",
        json!({ "hostPath": { "path": path, "type": "DirectoryOrCreate" } }),
    )?;
    t.apply(&placed(t, template("p-v")))?;
    t.wait_event("p", &["FailedMount", "pod is not owner"])
}

/// A loop device over a file; gone with the test.
struct Loop(String);

impl Loop {
    fn over(file: &std::path::Path) -> Result<Loop> {
        fs::File::create(file)?.set_len(8 << 20)?;
        let mut losetup = Command::new("losetup");
        let name = command::run(losetup.args(["-f", "--show"]).arg(file))?;
        Ok(Loop(name.trim().to_owned()))
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        let _ = command::run(Command::new("losetup").args(["-d", &self.0]));
    }
}

fn a_block_volume_is_a_device(t: &Space) -> Result<()> {
    let file = t.node().path(&format!("/var/lib/{}.img", t.name));
    let device = Loop::over(&file)?;
    let source = json!({
        "local": { "path": device.0 }, "nodeAffinity": here(t), "volumeMode": "Block" });
    bound(t, "c", source)?;
    let volume = json!({ "name": "v", "persistentVolumeClaim": { "claimName": "c" } });
    let block = with(pod("p", FOREVER), json!({ "volumes": [volume] }));
    let devices = json!({ "volumeDevices": [{ "name": "v", "devicePath": "/dev/disk" }] });
    t.run(&with_main(block, devices.clone()))?;
    let script = "test -b /dev/disk && printf written | dd of=/dev/disk conv=fsync 2>/dev/null; \
        head -c 7 /dev/disk";
    same(t.sh("p", script)?.as_str(), "written")?;
    let mut looks = container("looks", FOREVER);
    looks["volumeDevices"] = devices["volumeDevices"].clone();
    t.add_ephemeral("p", looks)?;
    let head = [
        "exec",
        "p",
        "-c",
        "looks",
        "--",
        "head",
        "-c",
        "7",
        "/dev/disk",
    ];
    same(t.kubectl(&head)?.as_str(), "written")?;
    // A container that would mount it is told why it can't.
    t.apply(&placed(t, with_claim("mounts", "c")))?;
    t.wait_event("mounts", &["FailedMount", "volumeMode"])?;
    delete(t, "p")
}

fn a_local_device_gets_a_file_system_that_pods_share(t: &Space) -> Result<()> {
    let file = t.node().path(&format!("/var/lib/{}.img", t.name));
    let device = Loop::over(&file)?;
    let source = json!({ "local": { "path": device.0 }, "nodeAffinity": here(t) });
    bound(t, "c", source)?;
    t.run(&with_claim("a", "c"))?;
    t.sh("a", "echo kept > /v/file && sync /v/file")?;
    has(&t.sh("a", "grep ' /v ' /proc/mounts")?, "ext4")?;
    t.run(&with_claim("b", "c"))?;
    delete(t, "a")?;
    same(t.sh("b", "cat /v/file")?.as_str(), "kept\n")?;
    delete(t, "b")?;
    // Nobody has it any more: it can be taken away, and comes back with what is on it.
    progress::wait_for("the device free", Duration::from_secs(60), || {
        let mounted = t.node().run(
            "sh",
            &["-c", &format!("grep -c ^{} /proc/mounts || true", device.0)],
        )?;
        Ok((mounted.trim() == "0").then_some(()))
    })?;
    t.run(&with_claim("again", "c"))?;
    same(t.sh("again", "cat /v/file")?.as_str(), "kept\n")?;
    delete(t, "again")
}
