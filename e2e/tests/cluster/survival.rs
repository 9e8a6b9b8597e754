//! What is killed, and who notices.

use crate::kit::{Space, condition, pod, restarts, same, status};
use anyhow::{Context, Result, ensure};
use e2e::http::{self, Request};
use e2e::machine::{Process, network};
use e2e::node::{self, Kind};
use e2e::{cluster::Cluster, progress};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use std::fs;
use std::time::{Duration, Instant};

crate::tests!(
    a_killed_agent_loses_no_line_and_no_readiness: alone,
    a_killed_spawner_is_not_noticed: alone: our_runtime,
    a_killed_monitor_restarts_its_pod_alone: alone: our_runtime,
    join_refuses_bad_tokens_and_pins_in_one_line: our_kubelet,
);

/// Counts as fast as a busy server logs.
const COUNT: &str =
    "i=0; while :; do echo $i; i=$((i+1)); usleep 2000 2>/dev/null || sleep 0.002; done";

fn a_killed_agent_loses_no_line_and_no_readiness(t: &Space) -> Result<()> {
    t.run(&pod("b", COUNT))?;
    t.run(&pod(
        "web",
        "echo served >/tmp/index.html; exec httpd -f -p 8080 -h /tmp",
    ))?;
    let before = (Mark::of(t, "b")?, Mark::of(t, "web")?);
    for _ in 0..2 {
        kill_agent(t)?;
        serves(t, "web", Duration::from_secs(2))?;
        start_agent(t)?;
        serves(t, "web", Duration::from_secs(3))?;
    }
    progress::wait_for("exec after the restart", Duration::from_secs(30), || {
        Ok(t.sh("b", "true").is_ok().then_some(()))
    })?;
    same((Mark::of(t, "b")?, Mark::of(t, "web")?), before)?;
    whole(&t.logs("b")?)
}

/// Answers every request, from the node's own network, for so long.
fn serves(t: &Space, name: &str, during: Duration) -> Result<()> {
    let ip = t.pod(name)?["status"]["podIP"].clone();
    let address = format!("{}:8080", ip.as_str().unwrap_or_default());
    let end = Instant::now() + during;
    let mut answered = 0;
    while Instant::now() < end {
        let request = Request::to("GET", "/index.html");
        let answer = network::inside(t.node(), || http::send(&address, &request));
        let answer = answer.with_context(|| format!("after {answered} answers"))?;
        same(answer.status, 200)?;
        answered += 1;
        std::thread::sleep(Duration::from_millis(20));
    }
    ensure!(answered > 10, "{answered} answers only");
    Ok(())
}

fn a_killed_spawner_is_not_noticed(t: &Space) -> Result<()> {
    t.run(&pod("b", COUNT))?;
    let before = Mark::of(t, "b")?;
    let runtime = node::runtime_service(t.suite.kind());
    let spawner = children(service(t, runtime)?.pid)
        .into_iter()
        .next()
        .context("the runtime has no spawner")?;
    kill(Pid::from_raw(spawner), Signal::SIGKILL)?;
    t.run(&pod("next", crate::kit::FOREVER))?;
    same(Mark::of(t, "b")?, before)?;
    whole(&t.logs("b")?)
}

fn a_killed_monitor_restarts_its_pod_alone(t: &Space) -> Result<()> {
    t.run(&pod("victim", "echo started; exec sleep 9871"))?;
    t.run(&pod("neighbour", COUNT))?;
    let (victim, neighbour) = (Mark::of(t, "victim")?, Mark::of(t, "neighbour")?);
    let container = processes_of(t, "sleep\09871\0")
        .into_iter()
        .next()
        .context("no container process")?;
    let monitor = parent(container).context("no parent")?;
    kill(Pid::from_raw(monitor), Signal::SIGKILL)?;
    t.wait("victim", "a new container", |p| {
        condition(p, "Ready") == Some("True")
            && status(p)["containerID"] != victim.container.as_str()
    })?;
    t.wait_event("victim", &["SandboxChanged"])?;
    same(Mark::of(t, "neighbour")?, neighbour)?;
    whole(&t.logs("neighbour")?)?;
    let left = processes_of(t, "sleep\09871\0");
    ensure!(
        left.len() == 1,
        "processes of the old container are left: {left:?}"
    );
    Ok(())
}

fn join_refuses_bad_tokens_and_pins_in_one_line(t: &Space) -> Result<()> {
    let words = &t.cluster().join;
    let flag = |name: &str| {
        let at = words.iter().position(|w| w == name).map(|i| i + 1);
        at.and_then(|i| words.get(i)).cloned().unwrap_or_default()
    };
    let (server, token) = (words[0].clone(), flag("--token"));
    let pin = flag("--discovery-token-ca-cert-hash");
    let wrong_pin = format!("sha256:{}", "0".repeat(64));
    let unknown = "abcdef.0123456789abcdef";
    let wrong_secret = format!(
        "{}.0123456789abcdef",
        token.split('.').next().unwrap_or_default()
    );
    let node = t.node().name.clone();
    let cases: [(&str, &str, &str, &str); 5] = [
        ("nonsense", &pin, "other", "token"),
        (unknown, &pin, "other", "abcdef"),
        (&wrong_secret, &pin, "other", "token"),
        (&token, &wrong_pin, "other", "sha256:"),
        (&token, &pin, &node, &node),
    ];
    for (token, pin, name, word) in cases {
        let mut join = t.node().command("lighter");
        join.args([
            "join",
            &server,
            "--token",
            token,
            "--discovery-token-ca-cert-hash",
            pin,
        ]);
        join.args([
            "--node-name",
            name,
            "--kubernetes-dir",
            "/tmp/join/k",
            "--root-dir",
            "/tmp/join/r",
        ]);
        let output = e2e::command::output(&mut join)?;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(!output.status.success(), "joined with {token} {pin} {name}");
        ensure!(said.contains(word), "{said:?} does not name {word:?}");
        // Progress lines go before it; the error itself is one.
        let errors = said.lines().filter(|l| !l.starts_with("[join]")).count();
        ensure!(errors == 1, "not one line: {said:?}");
    }
    Ok(())
}

/// What must not change while something else dies.
#[derive(Debug, PartialEq)]
struct Mark {
    container: String,
    /// Its first process, as the host counts.
    pid: i32,
    restarts: u64,
    started: String,
    ready_since: String,
    node_ready_since: String,
}

impl Mark {
    fn of(t: &Space, name: &str) -> Result<Mark> {
        let pod = t.pod(name)?;
        let node: Value =
            serde_json::from_str(&t.kubectl(&["get", "node", &t.node().name, "-o", "json"])?)?;
        let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
        let container = text(&status(&pod)["containerID"]);
        Ok(Mark {
            pid: first_process(t, &container)?,
            container,
            restarts: restarts(&pod),
            started: text(&status(&pod)["state"]["running"]["startedAt"]),
            ready_since: text(&ready(&pod)["lastTransitionTime"]),
            node_ready_since: text(&ready(&node)["lastTransitionTime"]),
        })
    }
}

/// The oldest process in the cgroup of a container.
fn first_process(t: &Space, container: &str) -> Result<i32> {
    let id = container.rsplit('/').next().unwrap_or_default();
    ensure!(!id.is_empty(), "no container id");
    let first = e2e::cgroup::first_process(&t.node().cgroup, id);
    first.with_context(|| format!("container {id} has no process"))
}

fn ready(object: &Value) -> &Value {
    let conditions = object["status"]["conditions"].as_array();
    conditions
        .and_then(|c| c.iter().find(|c| c["type"] == "Ready"))
        .unwrap_or(&Value::Null)
}

/// Numbers from 0 without a gap.
fn whole(log: &str) -> Result<()> {
    let wrong = log
        .lines()
        .enumerate()
        .find(|(i, line)| i.to_string() != *line);
    ensure!(wrong.is_none(), "a line is lost at {wrong:?}");
    ensure!(log.lines().count() > 10, "nothing was logged");
    Ok(())
}

/// The bed's state file follows restarts; the suite's own copy does not.
/// The agent by another of its names, with flags of its own.
pub fn start_agent_as(t: &Space, program: &str, flags: &[String]) -> Result<()> {
    let process = t.node().start(program, flags)?;
    let service = node::kubelet_service(t.suite.kind());
    reload(t)?.record(&t.node().name, service, process)
}

fn reload(t: &Space) -> Result<Cluster> {
    Cluster::load(&t.suite.bed, &t.cluster().name)
}

fn agent(t: &Space) -> Result<Process> {
    service(t, node::kubelet_service(t.suite.kind()))
}

fn service(t: &Space, name: &str) -> Result<Process> {
    let found = reload(t)?.service(&t.node().name, name);
    found.with_context(|| format!("{name} was never started"))
}

pub fn agent_lives(t: &Space) -> Result<bool> {
    Ok(agent(t)?.is_alive())
}

pub fn kill_agent(t: &Space) -> Result<()> {
    kill_kubelet(t, t.suite.kind())
}

/// The kubelet of a node of this kind.
pub fn kill_kubelet(t: &Space, kind: Kind) -> Result<()> {
    node::kill_kubelet(&reload(t)?, kind, t.node())
}

/// Keeps what a test replaces, and puts it back.
const KEEP: &str = "rm -rf /tmp/kept; mkdir /tmp/kept; cp -a /etc/kubernetes/kubelet.conf \
                    /var/lib/kubelet/config.yaml /var/lib/kubelet/pki /tmp/kept";
const RESTORE: &str = "rm -rf /var/lib/kubelet/pki /etc/kubernetes/bootstrap-kubelet.conf; \
                       cp -a /tmp/kept/kubelet.conf /etc/kubernetes; \
                       cp -a /tmp/kept/config.yaml /tmp/kept/pki /var/lib/kubelet";

/// Stops the agent, runs `test`, and starts the agent again as it was, with the files it had.
pub fn with_agent_down(t: &Space, test: impl FnOnce(&Space) -> Result<()>) -> Result<()> {
    t.node().run("sh", &["-c", KEEP])?;
    kill_agent(t)?;
    let result = test(t);
    if agent_lives(t)? {
        kill_agent(t)?;
    }
    t.node().run("sh", &["-c", RESTORE])?;
    start_agent(t)?;
    result.and(t.run(&pod("afterwards", crate::kit::FOREVER)))
}

pub fn start_agent(t: &Space) -> Result<()> {
    start_kubelet(t, t.suite.kind())
}

/// That of a node of this kind.
pub fn start_kubelet(t: &Space, kind: Kind) -> Result<()> {
    node::start_kubelet(&mut reload(t)?, kind, t.node())
}

fn children(pid: i32) -> Vec<i32> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task"))
        .into_iter()
        .flatten()
        .flatten();
    let lists = tasks.filter_map(|t| fs::read_to_string(t.path().join("children")).ok());
    lists
        .flat_map(|l| {
            l.split_whitespace()
                .filter_map(|p| p.parse().ok())
                .collect::<Vec<_>>()
        })
        .collect()
}

fn parent(pid: i32) -> Option<i32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(')')?
        .1
        .split_whitespace()
        .nth(1)?
        .parse()
        .ok()
}

/// Processes of the node with exactly this command line.
fn processes_of(t: &Space, command_line: &str) -> Vec<i32> {
    let all = e2e::cgroup::members(&t.node().cgroup).into_iter();
    all.filter(|pid| {
        fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|c| c == command_line.as_bytes())
    })
    .collect()
}
