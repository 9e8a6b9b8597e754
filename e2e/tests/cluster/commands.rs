//! `lighter` commands on the node, beside its agent.

use crate::kit::{Background, FOREVER, Space, has, phase, pod, same, waiting, with_main};
use anyhow::{Result, ensure};
use e2e::image::catalog::PULLED;
use e2e::progress;
use serde_json::json;
use std::time::Duration;

crate::tests!(
    play_names_the_file_it_cannot_read: our_kubelet: our_runtime,
    a_full_image_store_is_told_and_works_again_with_space: our_runtime,
    ps_logs_and_exec_show_the_nodes_containers: our_runtime,
    waterfall_shows_where_a_pods_start_went: our_kubelet: our_runtime,
    image_is_pulled_and_removed_beside_a_running_agent: our_runtime,
    imported_image_is_run_without_a_restart_of_the_agent: our_runtime,
);

fn play_names_the_file_it_cannot_read(t: &Space) -> Result<()> {
    let cases = [
        ("not-there.yaml", None),
        (
            "broken.yaml",
            Some("apiVersion: v1\nkind: Pod\nmetadata: {name: [\n"),
        ),
        (
            "wrong.yaml",
            Some("apiVersion: v1\nkind: Pod\nmetadata: {name: x}\nspec: {containers: 7}\n"),
        ),
    ];
    for (name, content) in cases {
        let path = format!("/tmp/{}-{name}", t.name);
        if let Some(content) = content {
            t.node().write(&path, content)?;
        }
        let mut play = t.node().command("lighter");
        let output = e2e::command::output(play.args(["play", "--detach", &path]).args(own(t)))?;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(!output.status.success(), "{name} was played");
        let error = said.lines().last().unwrap_or_default();
        ensure!(
            error.contains(&path),
            "the error does not name {path}: {said:?}"
        );
    }
    Ok(())
}

/// Directories of a second runtime on the node, apart from the agent's.
fn own(t: &Space) -> [String; 4] {
    let of = |what: &str| format!("/tmp/{}/{what}", t.name);
    ["--root".into(), of("root"), "--state".into(), of("state")]
}

fn a_full_image_store_is_told_and_works_again_with_space(t: &Space) -> Result<()> {
    let dir = format!("/tmp/{}", t.name);
    let socket = format!("{dir}/cri.sock");
    let mount = format!("mkdir -p {dir} && mount -t tmpfs -o size=4m none {dir}");
    t.node().run("sh", &["-c", &mount])?;
    let mut runtime = t.node().command("lighter");
    runtime
        .arg("runtime")
        .args(own(t))
        .args(["--listen", &socket]);
    runtime.args(["--cgroup-root", &format!("/{}/second", t.node().cgroup)]);
    let runtime = Background::start(&mut runtime)?;
    progress::wait_for(
        "the second runtime's socket",
        Duration::from_secs(20),
        || Ok(t.node().path(&socket).exists().then_some(())),
    )
    .map_err(|e| anyhow::anyhow!("{e}: {}", runtime.text()))?;
    let pull = |image: &str| {
        let mut pull = t.node().command("lighter");
        e2e::command::output(pull.args(["image", "pull", "--socket", &socket, image]))
    };
    let output = pull("docker.io/library/nginx:1.26")?;
    ensure!(
        !output.status.success(),
        "an image larger than the disk was pulled"
    );
    has(
        &String::from_utf8_lossy(&output.stderr).to_lowercase(),
        "no space left",
    )?;
    t.node().run("mount", &["-o", "remount,size=300m", &dir])?;
    let output = pull("docker.io/library/nginx:1.26")?;
    ensure!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    drop(runtime);
    // What the second runtime left mounted goes with it, at the latest with the machine.
    let _ = t.node().run("umount", &["-l", &dir]);
    Ok(())
}

fn ps_logs_and_exec_show_the_nodes_containers(t: &Space) -> Result<()> {
    t.run(&pod("seen", "echo from-inside; while :; do sleep 1; done"))?;
    let id = t.pod("seen")?["status"]["containerStatuses"][0]["containerID"].clone();
    let id = id
        .as_str()
        .unwrap_or_default()
        .rsplit('/')
        .next()
        .unwrap_or_default()
        .to_owned();
    has(&t.node().run("lighter", &["ps"])?, "seen")?;
    has(&t.node().run("lighter", &["logs", &id])?, "from-inside")?;
    has(
        &t.node().run("lighter", &["exec", &id, "--", "hostname"])?,
        "seen",
    )
}

fn waterfall_shows_where_a_pods_start_went(t: &Space) -> Result<()> {
    t.run(&pod("drawn", "while :; do sleep 1; done"))?;
    let pod = format!("{}/drawn", t.name);
    // The write that says Ready is the last row, and may be under way still.
    progress::wait_for("the last row", Duration::from_secs(10), || {
        let drawn = t.node().run("lighter", &["waterfall", &pod])?;
        Ok(drawn.contains("patch_status").then_some(()))
    })?;
    let drawn = t.node().run("lighter", &["waterfall", &pod])?;
    for row in [
        "MountVolumes",
        "RunSandbox",
        "network",
        "namespaces made",
        "CreateContainer",
        "stage ready",
        "StartContainer",
        "executed",
    ] {
        has(&drawn, row)?;
    }
    has(&t.node().run("lighter", &["waterfall"])?, "drawn")
}

fn image_is_pulled_and_removed_beside_a_running_agent(t: &Space) -> Result<()> {
    let image = PULLED.names[0];
    let lighter = |args: &[&str]| {
        let mut command = t.node().command("lighter");
        e2e::command::output(command.arg("image").args(args))
    };
    let refused = |args: &[&str], why: &str| {
        let output = lighter(args)?;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(!output.status.success(), "{args:?} succeeded");
        has(&said, why)
    };
    let listed = || -> Result<bool> {
        let all = t.node().run("lighter", &["image", "ls"])?;
        Ok(all.lines().any(|l| l.starts_with(&format!("{image} "))))
    };
    ensure!(!listed()?, "{image} is there already");
    refused(&["rm", image], "no image")?;
    refused(&["pull", "docker.io/library/not-there:1"], "not-there")?;
    let pull = || t.node().run("lighter", &["image", "pull", image]);
    let id = pull()?;
    has(&id, "sha256:")?;
    ensure!(listed()?, "{image} was pulled and is not listed");
    // Twice is as good as once.
    same(pull()?, id.clone())?;
    let never = json!({ "image": image, "imagePullPolicy": "Never" });
    let pod = |name: &str| with_main(pod(name, FOREVER), never.clone());
    t.run(&pod("first"))?;
    has(&t.sh("first", "cat /etc/pulled")?, "by hand")?;
    let removed = t.node().run("lighter", &["image", "rm", image])?;
    has(&removed, image)?;
    ensure!(!listed()?, "{image} was removed and is listed");
    // Who runs keeps what he has; who comes finds nothing, until it is there again.
    has(&t.sh("first", "cat /etc/pulled")?, "by hand")?;
    t.apply(&pod("second"))?;
    t.wait("second", "ErrImageNeverPull", |pod| {
        waiting(pod) == "ErrImageNeverPull"
    })?;
    same(pull()?, id)?;
    t.wait_ready("second")?;
    t.kubectl(&["delete", "pod", "first", "second"])?;
    t.node().run("lighter", &["image", "rm", image]).map(drop)
}

fn imported_image_is_run_without_a_restart_of_the_agent(t: &Space) -> Result<()> {
    // An image of the one static program that is there for certain.
    let script = format!(
        r#"set -e; mkdir -p /tmp/{0}/root; cd /tmp/{0}
        cp "$(command -v lighter)" root/lighter && tar -C root -cf layer.tar lighter
        diff=$(sha256sum <layer.tar | cut -d' ' -f1)
        echo '{{"architecture":"amd64","os":"linux","rootfs":{{"type":"layers","diff_ids":["sha256:'$diff'"]}}}}' >config.json
        echo '[{{"Config":"config.json","RepoTags":["local/{0}:1"],"Layers":["layer.tar"]}}]' >manifest.json
        tar -cf image.tar manifest.json config.json layer.tar
        lighter image import image.tar
        lighter image import - <image.tar"#,
        t.name
    );
    let image = format!("docker.io/local/{}:1", t.name);
    has(&t.node().run("sh", &["-c", &script])?, &image)?;
    let container = json!({
        "name": "main", "image": image, "imagePullPolicy": "Never",
        "command": ["/lighter", "--version"],
    });
    let spec = json!({ "restartPolicy": "Never", "containers": [container] });
    t.apply(&json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": { "name": "imported" }, "spec": spec,
    }))?;
    t.wait("imported", "Succeeded", |pod| phase(pod) == "Succeeded")?;
    has(&t.logs("imported")?, "lighter ")?;
    // What is no archive is refused, and the reason is the agent's.
    let mut import = t.node().command("lighter");
    let output = e2e::command::output(import.args(["image", "import", "/proc/version"]))?;
    ensure!(!output.status.success(), "/proc/version was imported");
    Ok(())
}
