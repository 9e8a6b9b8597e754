//! Volumes: what is in them, on what, and that they follow their source.

use crate::kit::{FOREVER, Space, container, has, pod, same, with, with_main};
use anyhow::{Result, ensure};
use base64::Engine;
use serde_json::{Value, json};
use std::time::Duration;

crate::tests!(
    a_secret_lies_on_tmpfs_with_its_modes,
    config_map_and_secret_volumes_are_updated_live,
    a_sub_path_shows_one_file,
    downward_api_volume_tells_labels_and_follows_them,
    empty_dirs_are_shared_by_containers_and_gone_with_the_pod,
    a_memory_empty_dir_is_a_tmpfs_of_its_size,
    host_path_types_are_checked_and_made,
    a_projected_token_is_usable_and_bound_to_the_pod,
    mounts_propagate_as_asked,
    a_volume_is_made_ready_when_the_first_container_uses_it,
);

fn mounted(name: &str, script: &str, volume: Value) -> Value {
    let mut volume = volume;
    volume["name"] = json!("v");
    let pod = with(pod(name, script), json!({ "volumes": [volume] }));
    with_main(
        pod,
        json!({ "volumeMounts": [{ "name": "v", "mountPath": "/v" }] }),
    )
}

fn a_secret_lies_on_tmpfs_with_its_modes(t: &Space) -> Result<()> {
    t.make_secret("s", "key=hidden")?;
    let volume = json!({ "secret": { "secretName": "s", "defaultMode": 0o400, "items": [{ "key": "key", "path": "a/b" }] } });
    t.run(&mounted("b", FOREVER, volume))?;
    same(
        t.sh(
            "b",
            "stat -f -c %T /v; cat /v/a/b; echo; stat -Lc %a /v/a/b",
        )?
        .as_str(),
        "tmpfs\nhidden\n400\n",
    )
}

fn config_map_and_secret_volumes_are_updated_live(t: &Space) -> Result<()> {
    t.kubectl(&["create", "configmap", "c", "--from-literal=key=old"])?;
    t.kubectl(&["create", "secret", "generic", "s", "--from-literal=key=old"])?;
    let volume = json!({ "projected": { "sources": [
        { "configMap": { "name": "c", "items": [{ "key": "key", "path": "c" }] } },
        { "secret": { "name": "s", "items": [{ "key": "key", "path": "s" }] } },
    ]}});
    t.run(&mounted("b", FOREVER, volume))?;
    same(t.sh("b", "cat /v/c /v/s")?.as_str(), "oldold")?;
    t.kubectl(&["patch", "configmap", "c", "-p", r#"{"data":{"key":"new"}}"#])?;
    t.kubectl(&[
        "patch",
        "secret",
        "s",
        "-p",
        r#"{"stringData":{"key":"new"}}"#,
    ])?;
    // The stock kubelet looks once a minute, and a little later.
    e2e::progress::wait_for(
        "new content in the volume",
        Duration::from_secs(130),
        || {
            std::thread::sleep(Duration::from_millis(500));
            Ok((t.sh("b", "cat /v/c /v/s")? == "newnew").then_some(()))
        },
    )
}

fn a_sub_path_shows_one_file(t: &Space) -> Result<()> {
    t.kubectl(&[
        "create",
        "configmap",
        "c",
        "--from-literal=one=1",
        "--from-literal=two=2",
    ])?;
    let spec = json!({ "volumes": [{ "name": "v", "configMap": { "name": "c" } }] });
    let mounts =
        json!({ "volumeMounts": [{ "name": "v", "mountPath": "/etc/one", "subPath": "one" }] });
    t.run(&with_main(with(pod("b", FOREVER), spec), mounts))?;
    same(
        t.sh("b", "cat /etc/one; ls /etc/two 2>/dev/null | wc -l")?
            .as_str(),
        "10\n",
    )
}

fn downward_api_volume_tells_labels_and_follows_them(t: &Space) -> Result<()> {
    let volume = json!({ "downwardAPI": { "items": [
        { "path": "labels", "fieldRef": { "fieldPath": "metadata.labels" } },
        { "path": "cpu", "resourceFieldRef": { "containerName": "main", "resource": "limits.cpu", "divisor": "1m" } },
    ]}});
    let limits = json!({ "resources": { "limits": { "cpu": "300m" } } });
    t.run(&with_main(mounted("b", FOREVER, volume), limits))?;
    let text = t.sh("b", "cat /v/labels; echo; cat /v/cpu")?;
    has(&text, "app=\"b\"")?;
    has(&text, "300")?;
    t.kubectl(&["label", "pod", "b", "colour=blue"])?;
    e2e::progress::wait_for(
        "the new label in the volume",
        Duration::from_secs(130),
        || {
            std::thread::sleep(Duration::from_millis(500));
            Ok(t.sh("b", "cat /v/labels")?
                .contains("colour=\"blue\"")
                .then_some(()))
        },
    )
}

fn empty_dirs_are_shared_by_containers_and_gone_with_the_pod(t: &Space) -> Result<()> {
    let mut both = mounted(
        "b",
        "echo x > /v/file; sleep 1000",
        json!({ "emptyDir": {} }),
    );
    let mut other = container("other", FOREVER);
    other["volumeMounts"] = json!([{ "name": "v", "mountPath": "/other" }]);
    if let Some(containers) = both["spec"]["containers"].as_array_mut() {
        containers.push(other);
    }
    t.run(&both)?;
    same(
        t.kubectl(&["exec", "b", "-c", "other", "--", "cat", "/other/file"])?
            .trim(),
        "x",
    )?;
    let uid = t.pod("b")?["metadata"]["uid"]
        .as_str()
        .unwrap_or_default()
        .to_owned();
    let dir = t.node().path(&format!("/var/lib/kubelet/pods/{uid}"));
    ensure!(dir.exists(), "no pod directory");
    t.kubectl(&["delete", "pod", "b"])?;
    e2e::progress::wait_for(
        "removal of the pod's directory",
        Duration::from_secs(30),
        || Ok((!dir.exists()).then_some(())),
    )
}

fn a_memory_empty_dir_is_a_tmpfs_of_its_size(t: &Space) -> Result<()> {
    let volume = json!({ "emptyDir": { "medium": "Memory", "sizeLimit": "16Mi" } });
    t.run(&mounted("b", FOREVER, volume))?;
    let text = t.sh("b", "stat -f -c %T /v; df -k /v | tail -1")?;
    has(&text, "tmpfs\n")?;
    has(&text, "16384")
}

fn host_path_types_are_checked_and_made(t: &Space) -> Result<()> {
    let path = format!("/var/lib/{}", t.name);
    let made = json!({ "hostPath": { "path": path, "type": "DirectoryOrCreate" } });
    t.run(&mounted("b", "echo seen > /v/file; sleep 1000", made))?;
    let file = t.node().path(&format!("{path}/file"));
    e2e::progress::wait_for("the file on the node", Duration::from_secs(10), || {
        Ok(file.exists().then_some(()))
    })?;
    let missing = json!({ "hostPath": { "path": format!("{path}/no"), "type": "Directory" } });
    t.apply(&mounted("m", FOREVER, missing))?;
    t.wait_event("m", &["FailedMount", "hostPath type check failed"])
}

fn a_projected_token_is_usable_and_bound_to_the_pod(t: &Space) -> Result<()> {
    t.run(&pod("b", FOREVER))?;
    let dir = "/var/run/secrets/kubernetes.io/serviceaccount";
    let token = t.sh("b", &format!("cat {dir}/token"))?;
    same(
        t.sh("b", &format!("cat {dir}/namespace"))?.as_str(),
        t.name.as_str(),
    )?;
    has(
        &t.sh("b", &format!("cat {dir}/ca.crt"))?,
        "BEGIN CERTIFICATE",
    )?;
    let review = json!({ "apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": { "token": token } });
    let answer = t.kubectl_with_input(&["create", "-o", "json", "-f", "-"], &review.to_string())?;
    let answer: Value = serde_json::from_str(&answer)?;
    same(answer["status"]["authenticated"].as_bool(), Some(true))?;
    let user = answer["status"]["user"]["username"]
        .as_str()
        .unwrap_or_default();
    same(
        user,
        format!("system:serviceaccount:{}:default", t.name).as_str(),
    )?;
    let claims = token.split('.').nth(1).unwrap_or_default();
    let claims = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(claims)?;
    has(&String::from_utf8_lossy(&claims), "\"pod\":{\"name\":\"b\"")
}

fn mounts_propagate_as_asked(t: &Space) -> Result<()> {
    let path = format!("/var/lib/{}", t.name);
    t.node().run("mkdir", &["-p", &path])?;
    let volume = json!({ "volumes": [{ "name": "v", "hostPath": { "path": path } }] });
    let mount = |mode: &str| json!({ "volumeMounts": [{ "name": "v", "mountPath": "/v", "mountPropagation": mode }] });
    t.run(&with_main(
        with(pod("host", FOREVER), volume.clone()),
        mount("HostToContainer"),
    ))?;
    let both = with_main(with(pod("both", FOREVER), volume), mount("Bidirectional"));
    t.run(&with_main(
        both,
        json!({ "securityContext": { "privileged": true } }),
    ))?;
    t.sh(
        "both",
        "mkdir /v/m && mount -t tmpfs none /v/m && echo x > /v/m/file",
    )?;
    let seen = t.sh("host", "cat /v/m/file")?;
    t.sh("both", "umount /v/m")?;
    same(seen.trim(), "x")
}

fn a_volume_is_made_ready_when_the_first_container_uses_it(t: &Space) -> Result<()> {
    let volume = json!([{ "name": "v", "secret": { "secretName": "late" } }]);
    t.run(&with(pod("b", FOREVER), json!({ "volumes": volume })))?;
    t.make_secret("late", "key=hidden")?;
    let mut reads = container("reads", "cat /v/key; echo; sleep 1000");
    reads["volumeMounts"] = json!([{ "name": "v", "mountPath": "/v" }]);
    t.add_ephemeral("b", reads)?;
    let log = ["logs", "b", "-c", "reads"];
    e2e::progress::wait_for("what it read", Duration::from_secs(30), || {
        Ok((t.kubectl(&log)?.trim() == "hidden").then_some(()))
    })
}
