//! logs, exec, attach, cp, port-forward, debug: what kubectl streams.

use crate::kit::{FOREVER, Space, has, pod, same, with, with_main};
use anyhow::{Result, ensure};
use e2e::http::{self, Request};
use e2e::machine::network;
use e2e::progress;
use serde_json::json;
use std::path::{Path, PathBuf};
use std::time::Duration;

crate::tests!(
    exec_returns_the_commands_exit_code_and_keeps_streams_apart,
    exec_passes_stdin_to_its_end,
    exec_with_a_terminal_has_a_tty_of_that_size,
    exec_of_a_missing_program_says_so,
    logs_follow_until_the_container_ends,
    logs_previous_shows_the_last_run,
    logs_tail_and_since_cut,
    logs_carry_a_megabyte_whole,
    a_large_log_is_rotated_and_no_line_is_lost,
    attach_reads_and_writes_the_running_process,
    cp_copies_both_ways,
    port_forward_reaches_the_pods_port,
    debug_adds_a_container_that_sees_its_target,
);

fn exec_returns_the_commands_exit_code_and_keeps_streams_apart(t: &Space) -> Result<()> {
    t.run(&pod("b", FOREVER))?;
    let output = t.output(&[
        "exec",
        "b",
        "--",
        "sh",
        "-c",
        "echo out; echo err >&2; exit 7",
    ])?;
    same(output.status.code(), Some(7))?;
    same(String::from_utf8_lossy(&output.stdout).as_ref(), "out\n")?;
    has(&String::from_utf8_lossy(&output.stderr), "err\n")
}

fn exec_passes_stdin_to_its_end(t: &Space) -> Result<()> {
    t.run(&pod("b", FOREVER))?;
    let input = "0123456789abcdef\n".repeat(20_000);
    let count = t.kubectl_with_input(&["exec", "-i", "b", "--", "wc", "-c"], &input)?;
    same(count.trim(), input.len().to_string().as_str())
}

fn exec_with_a_terminal_has_a_tty_of_that_size(t: &Space) -> Result<()> {
    t.run(&pod("b", FOREVER))?;
    let exec = format!(
        "stty rows 41 cols 97; kubectl -n {} exec -it b -- sh -c 'tty; sleep 0.3; stty size'",
        t.name
    );
    let mut script = t.cluster().control_plane.command("script");
    let text = e2e::command::run(script.args(["-qec", &exec, "/dev/null"]))?;
    has(&text, "/dev/")?;
    has(&text, "41 97")
}

fn exec_of_a_missing_program_says_so(t: &Space) -> Result<()> {
    t.run(&pod("b", FOREVER))?;
    let output = t.output(&["exec", "b", "--", "/no/such/program"])?;
    ensure!(!output.status.success(), "exec of nothing succeeded");
    has(&String::from_utf8_lossy(&output.stderr), "no/such/program")
}

fn logs_follow_until_the_container_ends(t: &Space) -> Result<()> {
    let script = "for i in 1 2 3 4 5 6; do echo line-$i; sleep 0.5; done";
    t.apply(&with(pod("b", script), json!({ "restartPolicy": "Never" })))?;
    t.wait("b", "started", |p| {
        matches!(crate::kit::phase(p), "Running" | "Succeeded")
    })?;
    let mut follow = t.background(&["logs", "-f", "b"])?;
    same(follow.end()?, 0)?;
    let text = follow.text();
    let lines: Vec<&str> = text.lines().collect();
    same(
        lines,
        vec!["line-1", "line-2", "line-3", "line-4", "line-5", "line-6"],
    )
}

fn logs_previous_shows_the_last_run(t: &Space) -> Result<()> {
    let script =
        "if [ -e /d/once ]; then echo second; sleep 1000; fi; touch /d/once; echo first; exit 1";
    let volumes = json!({ "volumes": [{ "name": "d", "emptyDir": {} }] });
    let mounts = json!({ "volumeMounts": [{ "name": "d", "mountPath": "/d" }] });
    t.apply(&with_main(with(pod("b", script), volumes), mounts))?;
    t.wait_log("b", "second")?;
    same(t.kubectl(&["logs", "--previous", "b"])?.trim(), "first")
}

fn logs_tail_and_since_cut(t: &Space) -> Result<()> {
    t.run(&pod(
        "b",
        "for i in 1 2 3 4 5; do echo old-$i; done; sleep 8; echo new; sleep 1000",
    ))?;
    t.wait_log("b", "new")?;
    same(
        t.kubectl(&["logs", "--tail=2", "b"])?.as_str(),
        "old-5\nnew\n",
    )?;
    // kubectl may take seconds on a busy machine, but not as long as the container has slept.
    same(t.kubectl(&["logs", "--since=7s", "b"])?.as_str(), "new\n")?;
    let stamped = t.kubectl(&["logs", "--timestamps", "--tail=1", "b"])?;
    ensure!(
        stamped.starts_with("20") && stamped.ends_with(" new\n"),
        "{stamped:?}"
    );
    same(
        t.kubectl(&["logs", "--limit-bytes=5", "b"])?.as_str(),
        "old-1",
    )
}

fn logs_carry_a_megabyte_whole(t: &Space) -> Result<()> {
    let script = "seq 1 150000; sleep 1000";
    t.run(&pod("b", script))?;
    t.wait_log("b", "\n150000\n")?;
    let text = t.logs("b")?;
    let wrong = text
        .lines()
        .enumerate()
        .find(|(i, line)| (i + 1).to_string() != *line);
    ensure!(wrong.is_none(), "line {wrong:?}");
    same(text.lines().count(), 150_000)
}

fn a_large_log_is_rotated_and_no_line_is_lost(t: &Space) -> Result<()> {
    // With time and stream before each line some 16 MB; containerLogMaxSize is 10Mi.
    let script = "seq 1 300000; until [ -e /tmp/more ]; do sleep 0.1; done; \
        seq 300001 300100; sleep 1000";
    t.run(&pod("b", script))?;
    let uid = t.pod("b")?["metadata"]["uid"].clone();
    let uid = uid.as_str().unwrap_or_default();
    let dir = t
        .node()
        .path(&format!("/var/log/pods/{}_b_{uid}/main", t.name));
    // Kubelets look every ten seconds.
    progress::wait_for("a rotated log", Duration::from_secs(40), || {
        Ok((files_of(&dir)?.len() > 1).then_some(()))
    })?;
    t.sh("b", "touch /tmp/more")?;
    t.wait_log("b", "\n300100\n")?;
    let mut expected = 1;
    for path in files_of(&dir)? {
        for line in std::fs::read_to_string(&path)?.lines() {
            let text = line.rsplit(' ').next().unwrap_or_default();
            ensure!(
                text == expected.to_string(),
                "{text} for {expected} in {}",
                path.display()
            );
            expected += 1;
        }
    }
    same(expected, 300_101)
}

/// The logs of a container, the oldest first: the one being written has the shortest name.
fn files_of(dir: &Path) -> Result<Vec<PathBuf>> {
    let entries = std::fs::read_dir(dir)?.map(|e| Ok(e?.path()));
    let mut all = entries.collect::<Result<Vec<PathBuf>>>()?;
    all.sort();
    all.rotate_left(1);
    Ok(all)
}

fn attach_reads_and_writes_the_running_process(t: &Space) -> Result<()> {
    let echo = "while read line; do echo \"got $line\"; done; echo closed; sleep 1000";
    t.run(&with_main(
        pod("b", echo),
        json!({ "stdin": true, "stdinOnce": true }),
    ))?;
    let mut attach = t.background(&["attach", "-i", "b"])?;
    std::thread::sleep(Duration::from_millis(700));
    attach.send("one\n")?;
    attach.wait_text("got one")?;
    attach.send("two\n")?;
    attach.wait_text("got two")?;
    attach.close_stdin();
    t.wait_log("b", "closed")
}

fn cp_copies_both_ways(t: &Space) -> Result<()> {
    t.run(&pod("b", FOREVER))?;
    let machine = &t.cluster().control_plane;
    let (to, back) = (
        format!("/tmp/{}-to", t.name),
        format!("/tmp/{}-back", t.name),
    );
    machine.run("sh", &["-c", &format!("seq 1 200000 > {to}")])?;
    t.kubectl(&["cp", &to, "b:/tmp/file"])?;
    t.kubectl(&["cp", "b:/tmp/file", &back])?;
    machine.run("cmp", &[&to, &back])?;
    machine.run("rm", &[&to, &back]).map(drop)
}

fn port_forward_reaches_the_pods_port(t: &Space) -> Result<()> {
    let serve = "mkdir /www; echo page > /www/index.html; exec httpd -f -p 8080 -h /www";
    t.run(&pod("b", serve))?;
    let forward = t.background(&["port-forward", "pod/b", ":8080"])?;
    forward.wait_text("Forwarding from 127.0.0.1:")?;
    let text = forward.text();
    let (_, rest) = text.split_once("127.0.0.1:").unwrap_or_default();
    let address = format!("127.0.0.1:{}", rest.split(' ').next().unwrap_or_default());
    // Each request is a connection of its own: the second shows that the first left things whole.
    for _ in 0..3 {
        let answer = network::inside(&t.cluster().control_plane, || {
            http::send(&address, &Request::to("GET", "/index.html"))
        })?;
        same(answer.body.as_slice(), b"page\n")?;
    }
    Ok(())
}

fn debug_adds_a_container_that_sees_its_target(t: &Space) -> Result<()> {
    t.run(&pod("b", "exec sleep 7654"))?;
    let image = format!("--image={}", crate::kit::BUSYBOX);
    let script = "ps -o args | grep '[s]leep 7654' && echo seen; sleep 1000";
    t.kubectl(&[
        "debug",
        "b",
        &image,
        "--target=main",
        "-c",
        "look",
        "--profile=general",
        "--",
        "sh",
        "-c",
        script,
    ])?;
    let limit = Duration::from_secs(40);
    progress::wait_for("log of the ephemeral container", limit, || {
        Ok(t.kubectl(&["logs", "b", "-c", "look"])
            .is_ok_and(|l| l.contains("seen"))
            .then_some(()))
    })
}
