//! exec and attach, over both transports, with and without a terminal.

use crate::cases;
use crate::kit::Kit;
use anyhow::{Result, ensure};
use e2e::command;
use serde_json::json;
use std::io::Write;

cases![
    exec_sync_returns_output_and_exit_code,
    exec_streams_both_ways_over_each_transport,
    exec_tells_the_exit_code,
    exec_finds_containers_by_filter,
    exec_has_a_terminal_of_the_right_size,
    attach_streams_until_stdin_ends,
    attach_has_a_terminal,
    lighter_exec_streams_and_has_a_terminal,
];

const TRANSPORTS: [&str; 2] = ["--transport=spdy", "--transport=websocket"];

fn exec_sync_returns_output_and_exit_code(kit: &Kit) -> Result<()> {
    let pod = kit.pod()?;
    let id = pod.start(&["sleep", "600"])?;
    let said = kit.ok(&["exec", "--sync", &id, "sh", "-c", "echo out; echo err >&2"])?;
    ensure!(said == "out\n\nerr\n\n", "{said:?}");
    let said = kit.fails(&["exec", "--sync", &id, "sh", "-c", "exit 3"])?;
    ensure!(said.contains('3'), "{said}");
    let said = kit.fails(&["exec", "--sync", "--timeout=1", &id, "sleep", "60"])?;
    ensure!(
        said.contains("DeadlineExceeded") || said.contains("timed out"),
        "{said}"
    );
    Ok(())
}

fn exec_streams_both_ways_over_each_transport(kit: &Kit) -> Result<()> {
    let pod = kit.pod()?;
    let id = pod.start(&["sleep", "600"])?;
    let data: String = (0..20_000).map(|n| format!("line {n}\n")).collect();
    for transport in TRANSPORTS {
        let mut exec = kit.crictl(&["exec", "--interactive", transport, &id, "cat"]);
        let back = command::run_with_input(&mut exec, data.as_bytes())?;
        ensure!(
            back == data,
            "{transport}: {} of {} bytes",
            back.len(),
            data.len()
        );
        let out = kit.output(&["exec", transport, &id, "sh", "-c", "echo out; echo err >&2"])?;
        ensure!(out.stdout == b"out\n" && out.stderr == b"err\n", "{out:?}");
    }
    Ok(())
}

fn exec_tells_the_exit_code(kit: &Kit) -> Result<()> {
    let pod = kit.pod()?;
    let id = pod.start(&["sleep", "600"])?;
    for transport in TRANSPORTS {
        let said = kit.fails(&["exec", transport, &id, "sh", "-c", "exit 5"])?;
        ensure!(said.contains("exit code 5"), "{transport}: {said}");
        let said = kit.fails(&["exec", transport, &id, "no-such-program"])?;
        ensure!(said.contains("no-such-program"), "{transport}: {said}");
    }
    kit.ok(&["stop", "--timeout=0", &id])?;
    let said = kit.fails(&["exec", &id, "true"])?;
    ensure!(said.contains("running"), "{said}");
    Ok(())
}

fn exec_finds_containers_by_filter(kit: &Kit) -> Result<()> {
    let pod = kit.pod()?;
    let first = pod.start_with(&["sleep", "600"], json!({"labels": {"which": "first"}}))?;
    pod.start(&["sleep", "600"])?;
    let said = kit.ok(&[
        "exec",
        "--pod",
        &pod.id,
        "--label",
        "which=first",
        "echo",
        "hello",
    ])?;
    ensure!(said == format!("{first}:\nhello\n"), "{said}");
    Ok(())
}

/// script(1) gives a command a terminal, as a person's shell does.
fn in_terminal(kit: &Kit, crictl: &str, input: &str) -> Result<String> {
    line_in_terminal(kit, &format!("crictl --timeout=30s {crictl}"), input)
}

fn line_in_terminal(kit: &Kit, line: &str, input: &str) -> Result<String> {
    let line = format!("stty rows 33 cols 99; {line}");
    let mut script = kit.stand.machine.command("script");
    script.args(["-q", "-e", "-c", &line, "/dev/null"]);
    command::run_with_input(&mut script, input.as_bytes())
}

fn exec_has_a_terminal_of_the_right_size(kit: &Kit) -> Result<()> {
    let pod = kit.pod()?;
    let id = pod.start(&["sleep", "600"])?;
    for transport in TRANSPORTS {
        // The size follows the start of the program: it is there soon, not at once.
        let ask = "n=0; until [ \"$(stty size)\" = '33 99' ] || [ $n = 50 ]; \
                   do n=$((n+1)); sleep 0.1; done; stty size; tty";
        let ask = format!(
            "exec {transport} -it {id} sh -c '{}'",
            ask.replace('\'', "'\\''")
        );
        let said = in_terminal(kit, &ask, "")?;
        ensure!(said.contains("33 99"), "{transport}: {said}");
        ensure!(said.contains("/dev/pts/"), "{transport}: {said}");
        let shell = format!("exec {transport} -it {id} sh");
        let said = in_terminal(kit, &shell, "echo typed-$((40+2))\nexit\n")?;
        ensure!(said.contains("typed-42"), "{transport}: {said}");
    }
    Ok(())
}

fn attach_streams_until_stdin_ends(kit: &Kit) -> Result<()> {
    let pod = kit.pod()?;
    for transport in TRANSPORTS {
        let more = json!({"stdin": true, "stdin_once": true});
        let id = pod.start_with(
            &["sh", "-c", "while read l; do echo got $l; done; echo over"],
            more,
        )?;
        let mut attach = kit.background(&["attach", "--stdin", transport, &id])?;
        let mut stdin = attach.child.stdin.take().expect("stdin was asked for");
        stdin.write_all(b"one\n")?;
        attach.wait_for("got one\n")?;
        stdin.write_all(b"two\n")?;
        attach.wait_for("got two\n")?;
        drop(stdin);
        let all = attach.ended()?;
        ensure!(all == "got one\ngot two\nover\n", "{transport}: {all:?}");
        let status = pod.wait_exited(&id)?;
        ensure!(status["status"]["exitCode"] == 0, "{status}");
    }
    Ok(())
}

fn attach_has_a_terminal(kit: &Kit) -> Result<()> {
    let pod = kit.pod()?;
    let more = json!({"stdin": true, "tty": true});
    let id = pod.start_with(&["sh"], more)?;
    let attach = format!("attach --stdin --tty {id}");
    let said = in_terminal(kit, &attach, "echo typed-$((40+2))\nexit\n")?;
    ensure!(said.contains("typed-42"), "{said}");
    pod.wait_exited(&id)?;
    Ok(())
}

/// What crictl does, from our own command line.
fn lighter_exec_streams_and_has_a_terminal(kit: &Kit) -> Result<()> {
    if !kit.is_lighter() {
        return Ok(());
    }
    let pod = kit.pod()?;
    let id = pod.start(&["sleep", "600"])?;
    let lighter = |args: &[&str]| {
        let mut exec = kit.stand.machine.command("lighter");
        exec.arg("exec").args(args);
        exec
    };
    let data: String = (0..20_000).map(|n| format!("line {n}\n")).collect();
    let mut cat = lighter(&["-i", &id, "cat"]);
    let back = command::run_with_input(&mut cat, data.as_bytes())?;
    ensure!(back == data, "{} of {} bytes", back.len(), data.len());
    let out = lighter(&["-i", &id, "sh", "-c", "echo err >&2; exit 5"]).output()?;
    ensure!(
        out.status.code() == Some(5) && out.stderr == b"err\n",
        "{out:?}"
    );
    let shell = format!("lighter exec -it {id} sh");
    let said = line_in_terminal(kit, &shell, "echo typed-$((40+2)) $(stty size)\nexit\n")?;
    ensure!(said.contains("typed-42 33 99"), "{said}");
    Ok(())
}
