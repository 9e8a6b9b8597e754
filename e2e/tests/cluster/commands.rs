//! `lighter` commands on the node, beside its agent.

use crate::kit::{Background, Space, has};
use anyhow::{Result, ensure};
use e2e::progress;
use std::time::Duration;

crate::tests!(
    play_names_the_file_it_cannot_read: lighter_only,
    a_full_image_store_is_told_and_works_again_with_space: lighter_only,
    ps_logs_and_exec_show_the_nodes_containers: lighter_only,
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
    t.run(&crate::kit::pod(
        "seen",
        "echo from-inside; while :; do sleep 1; done",
    ))?;
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
