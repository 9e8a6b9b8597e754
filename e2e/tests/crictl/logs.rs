//! logs: whole, from the end, by stream and time, followed, reopened, of the one before.

use crate::cases;
use crate::kit::Kit;
use anyhow::{Context, Result, ensure};
use serde_json::json;

cases![
    logs_are_cut_to_what_was_asked_for,
    logs_are_followed_to_the_end,
    logs_of_the_container_before,
    logs_are_reopened,
];

fn logs_are_cut_to_what_was_asked_for(kit: &Kit) -> Result<()> {
    let pod = kit.pod()?;
    let id = pod.start(&[
        "sh",
        "-c",
        "for i in 1 2 3; do echo line $i; done; sleep 0.3; echo bad >&2",
    ])?;
    pod.wait_exited(&id)?;
    let out = kit.output(&["logs", &id])?;
    ensure!(out.stdout == b"line 1\nline 2\nline 3\n", "{out:?}");
    ensure!(out.stderr == b"bad\n", "{out:?}");
    let out = kit.output(&["logs", "--tail=2", &id])?;
    ensure!(
        out.stdout
            == b"line 3
" && out.stderr
            == b"bad
",
        "{out:?}"
    );
    let out = kit.output(&["logs", "--stream=stderr", &id])?;
    ensure!(out.stdout.is_empty() && out.stderr == b"bad\n", "{out:?}");
    let stamped = kit.ok(&["logs", "--timestamps", &id])?;
    let (stamp, text) = stamped
        .lines()
        .next()
        .and_then(|l| l.split_once(' '))
        .context("empty")?;
    ensure!(
        text == "line 1" && stamp.contains('T') && stamp.len() > 20,
        "{stamped}"
    );
    ensure!(
        kit.ok(&["logs", "--since=2100-01-01T00:00:00Z", &id])?
            .is_empty()
    );
    ensure!(
        kit.ok(&["logs", "--since=10m", &id])?
            .starts_with("line 1\n")
    );
    ensure!(kit.ok(&["logs", "--limit-bytes=6", &id])? == "line 1");
    Ok(())
}

fn logs_are_followed_to_the_end(kit: &Kit) -> Result<()> {
    let pod = kit.pod()?;
    let id = pod.start(&[
        "sh",
        "-c",
        "echo first; while ! [ -e /go ]; do sleep 0.1; done; echo last",
    ])?;
    let follow = kit.background(&["logs", "--follow", &id])?;
    follow.wait_for("first\n")?;
    kit.ok(&["exec", &id, "touch", "/go"])?;
    ensure!(follow.ended()? == "first\nlast\n");
    Ok(())
}

fn logs_of_the_container_before(kit: &Kit) -> Result<()> {
    let pod = kit.pod()?;
    let attempt = |n: u32| {
        json!({"metadata": {"name": "same", "attempt": n}, "log_path": format!("same/{n}.log"),
               "labels": {"io.kubernetes.container.name": "same",
                          "io.kubernetes.pod.uid": pod.name}})
    };
    let first = pod.start_with(&["echo", "the first"], attempt(0))?;
    pod.wait_exited(&first)?;
    let second = pod.start_with(&["echo", "the second"], attempt(1))?;
    pod.wait_exited(&second)?;
    ensure!(kit.ok(&["logs", &second])? == "the second\n");
    ensure!(kit.ok(&["logs", "--previous", &second])? == "the first\n");
    Ok(())
}

fn logs_are_reopened(kit: &Kit) -> Result<()> {
    let pod = kit.pod()?;
    let id = pod.start(&["sh", "-c", "while :; do echo tick; sleep 0.1; done"])?;
    let status = kit.json(&["inspect", &id])?;
    let path = status["status"]["logPath"].as_str().context("no logPath")?;
    kit.run("mv", &[path, &format!("{path}.1")])?;
    kit.ok(&["logs", "--reopen", &id])?;
    ensure!(kit.stand.machine.path(path).exists(), "no new {path}");
    Ok(())
}
