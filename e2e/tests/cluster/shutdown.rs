//! The machine goes down, and what systemd is told of the agent.

use crate::kit::{FOREVER, Space, condition, has, phase, pod, same, with, with_main};
use crate::logind::Logind;
use crate::survival::{start_agent, start_agent_as, with_agent_down};
use anyhow::{Context, Result, ensure};
use e2e::progress;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use std::os::unix::net::UnixDatagram;
use std::time::{Duration, Instant};

crate::tests!(
    pods_end_in_order_before_the_machine_goes_down: alone: our_kubelet,
    the_machine_waits_for_the_last_status_of_its_pods: alone: our_kubelet,
    systemd_hears_that_the_agent_is_ready_and_lives: alone: our_kubelet,
);

const CONFIG: &str = "shutdownGracePeriod: 9s
shutdownGracePeriodCriticalPods: 3s
";

fn pods_end_in_order_before_the_machine_goes_down(t: &Space) -> Result<()> {
    with_logind(t, going_down)
}

/// Pods of the cluster end with the others.
fn with_logind(t: &Space, test: impl FnOnce(&Space, Logind) -> Result<()>) -> Result<()> {
    let logind = Logind::start(t.node())?;
    let result = with_agent_down(t, |t| test(t, logind));
    t.cluster().kubectl(&[
        "-n",
        "kube-system",
        "rollout",
        "status",
        "daemonset/kube-proxy",
        "--timeout=60s",
    ])?;
    result
}

/// On SIGTERM writes down when, takes its time, and writes down when that was over.
fn slow(t: &Space, name: &str, seconds: u32) -> Value {
    let file = format!("/ends/{name}");
    let script = format!(
        "now() {{ cut -d' ' -f1 /proc/uptime | tr -d .; }}; \
         trap 'now >{file}; sleep {seconds}; now >>{file}; exit 0' TERM; \
         while :; do sleep 0.1; done"
    );
    let path = format!("/tmp/{}-ends", t.name);
    let slow = with(
        pod(name, &script),
        json!({
            "terminationGracePeriodSeconds": 60,
            "volumes": [{"name": "ends", "hostPath": {"path": path, "type": "DirectoryOrCreate"}}],
        }),
    );
    with_main(
        slow,
        json!({"volumeMounts": [{"name": "ends", "mountPath": "/ends"}]}),
    )
}

/// When a pod was told to end, and when it did, in hundredths of seconds.
fn ends(t: &Space, name: &str) -> Result<(u64, u64)> {
    let text = t
        .node()
        .run("cat", &[&format!("/tmp/{}-ends/{name}", t.name)])?;
    let mut times = text.lines().map(str::parse::<u64>);
    let mut next = || times.next().unwrap_or(Ok(0));
    Ok((next()?, next()?))
}

fn start_patient_agent(t: &Space, logind: &Logind) -> Result<()> {
    let file = "/var/lib/kubelet/config.yaml";
    // kubeadm writes every field, with zeros.
    let config = format!("sed -i /^shutdownGracePeriod/d {file}; echo '{CONFIG}' >>{file}");
    t.node().run("sh", &["-c", &config])?;
    start_agent(t)?;
    logind.wait_locks(1)
}

fn going_down(t: &Space, logind: Logind) -> Result<()> {
    start_patient_agent(t, &logind)?;
    let why = "Kubelet needs time to handle node shutdown";
    same(
        &logind.locks()[0],
        &["shutdown", "kubelet", why, "delay"].map(str::to_owned),
    )?;
    same(logind.delay(), Duration::from_secs(9))?;
    t.run(&slow(t, "plain", 2))?;
    t.run(&with(
        slow(t, "critical", 1),
        json!({"priorityClassName": "system-node-critical"}),
    ))?;
    t.run(&with(
        pod("deaf", "trap '' TERM; while :; do sleep 1; done"),
        json!({"terminationGracePeriodSeconds": 60}),
    ))?;
    let begin = Instant::now();
    logind.shut_down(true)?;
    wait_node(t, "False", "node is shutting down")?;
    ensure!(
        logind.locks().len() == 1,
        "the lock was given back with pods running"
    );
    let nodes_own = json!({"nodeName": t.node().name});
    t.apply(&with(pod("late", FOREVER), nodes_own.clone()))?;
    t.wait("late", "refused", |p| {
        p["status"]["reason"] == "NodeShutdown"
    })?;
    logind.wait_locks(0)?;
    let took = begin.elapsed().as_secs();
    // The deaf one takes all of its group's six seconds; the critical one does not.
    ensure!((6..=9).contains(&took), "{took} s");
    for name in ["plain", "critical", "deaf"] {
        t.wait(name, "ended by the shutdown", |p| {
            phase(p) == "Failed"
                && p["status"]["reason"] == "Terminated"
                && p["status"]["message"]
                    == "Pod was terminated in response to imminent node shutdown."
                && condition(p, "DisruptionTarget") == Some("True")
        })?;
    }
    let (plain, critical) = (ends(t, "plain")?, ends(t, "critical")?);
    ensure!(
        plain.0 > 0 && plain.1 >= plain.0 + 200,
        "it was cut short: {plain:?}"
    );
    ensure!(
        critical.0 >= plain.0 + 500,
        "{critical:?} did not wait for {plain:?}"
    );
    ensure!(critical.1 > critical.0, "it was cut short: {critical:?}");
    let state = std::fs::read_to_string(
        t.node()
            .path("/var/lib/kubelet/graceful_node_shutdown_state"),
    )?;
    let state: Value = serde_json::from_str(&state)?;
    let text = |field: &str| state[field].as_str().unwrap_or_default().to_owned();
    ensure!(
        text("startTime") < text("endTime") && text("startTime").starts_with("20"),
        "{state}"
    );
    let metrics = t.kubectl(&[
        "get",
        "--raw",
        &format!("/api/v1/nodes/{}/proxy/metrics", t.node().name),
    ])?;
    for name in [
        "kubelet_graceful_shutdown_start_time_seconds 1",
        "kubelet_graceful_shutdown_end_time_seconds 1",
    ] {
        has(&metrics, name)?;
    }
    called_off(t, logind)
}

fn the_machine_waits_for_the_last_status_of_its_pods(t: &Space) -> Result<()> {
    with_logind(t, |t, logind| {
        start_patient_agent(t, &logind)?;
        told_late(t, &logind)?;
        logind.shut_down(false)?;
        logind.wait_locks(1)?;
        wait_node(t, "True", "kubelet is posting ready status")?;
        never_told(t, &logind)
    })
}

/// An API server that answers nobody until this is dropped.
struct Frozen(Pid);

impl Frozen {
    fn freeze(t: &Space) -> Result<Frozen> {
        let cluster = t.cluster();
        let server = cluster.service(&cluster.control_plane.name, "kube-apiserver");
        let pid = Pid::from_raw(server.context("no API server")?.pid);
        kill(pid, Signal::SIGSTOP)?;
        Ok(Frozen(pid))
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        let _ = kill(self.0, Signal::SIGCONT);
    }
}

/// Waits until its process is gone.
fn wait_end(t: &Space, name: &str) -> Result<()> {
    let file = t.node().path(&format!("/tmp/{}-ends/{name}", t.name));
    progress::wait_for(name, Duration::from_secs(10), || {
        std::thread::sleep(Duration::from_millis(20));
        let text = std::fs::read_to_string(&file).unwrap_or_default();
        Ok((text.lines().count() == 2).then_some(()))
    })
}

/// Ends when most of its group's three seconds are over, and no other pod after it.
fn last(t: &Space, name: &str) -> Value {
    with(
        slow(t, name, 2),
        json!({"priorityClassName": "system-node-critical"}),
    )
}

fn told_late(t: &Space, logind: &Logind) -> Result<()> {
    t.run(&last(t, "told"))?;
    let frozen = Frozen::freeze(t)?;
    logind.shut_down(true)?;
    wait_end(t, "told")?;
    // Its group's time is over by then.
    std::thread::sleep(Duration::from_millis(1200));
    ensure!(logind.locks().len() == 1, "nobody waits for its status");
    drop(frozen);
    logind.wait_locks(0)?;
    let pod = t.pod("told")?;
    same(&pod["status"]["reason"], &json!("Terminated"))?;
    same(phase(&pod), "Failed")
}

/// An API server that is gone holds nobody up for long.
fn never_told(t: &Space, logind: &Logind) -> Result<()> {
    t.run(&last(t, "untold"))?;
    let frozen = Frozen::freeze(t)?;
    logind.shut_down(true)?;
    wait_end(t, "untold")?;
    let begin = Instant::now();
    logind.wait_locks(0)?;
    let took = begin.elapsed();
    ensure!(took < Duration::from_secs(7), "{took:?}");
    drop(frozen);
    t.wait("untold", "told after all", |p| phase(p) == "Failed")
}

/// The shutdown was none, and later the bus is another.
fn called_off(t: &Space, logind: Logind) -> Result<()> {
    logind.shut_down(false)?;
    logind.wait_locks(1)?;
    wait_node(t, "True", "kubelet is posting ready status")?;
    t.run(&with(
        pod("next", FOREVER),
        json!({"nodeName": t.node().name}),
    ))?;
    drop(logind);
    let logind = Logind::start(t.node())?;
    logind.wait_locks(1)
}

fn wait_node(t: &Space, status: &str, message: &str) -> Result<()> {
    progress::wait_for(
        &format!("Ready {status}: {message}"),
        Duration::from_secs(20),
        || {
            std::thread::sleep(Duration::from_millis(100));
            let node = t.kubectl(&["get", "node", &t.node().name, "-o", "json"])?;
            let node: Value = serde_json::from_str(&node)?;
            let conditions = node["status"]["conditions"].as_array();
            let ready = conditions.and_then(|c| c.iter().find(|c| c["type"] == "Ready"));
            Ok(ready
                .is_some_and(|c| c["status"] == status && c["message"] == message)
                .then_some(()))
        },
    )
}

fn systemd_hears_that_the_agent_is_ready_and_lives(t: &Space) -> Result<()> {
    with_agent_down(t, |t| {
        let socket = t.node().path("/tmp/notify.sock");
        let _ = std::fs::remove_file(&socket);
        let notified = UnixDatagram::bind(&socket)?;
        notified.set_read_timeout(Some(Duration::from_secs(30)))?;
        let flags = [
            "NOTIFY_SOCKET=/tmp/notify.sock".to_owned(),
            "WATCHDOG_USEC=2000000".into(),
            "lighter".into(),
            "agent".into(),
            format!("--hostname-override={}", t.node().name),
            format!("--node-ip={}", t.node().ip),
            format!("--cgroup-root=/{}", t.node().cgroup),
        ];
        let runtime = crate::certificates::foreign(t);
        let flags: Vec<String> = flags.into_iter().chain(runtime).collect();
        start_agent_as(t, "env", &flags)?;
        same(heard(&notified)?.as_str(), "READY=1\n")?;
        let mut last = Instant::now();
        for _ in 0..4 {
            same(heard(&notified)?.as_str(), "WATCHDOG=1\n")?;
            let pause = std::mem::replace(&mut last, Instant::now()).elapsed();
            ensure!(pause < Duration::from_secs(2), "silent for {pause:?}");
        }
        Ok(())
    })
}

fn heard(socket: &UnixDatagram) -> Result<String> {
    let mut message = [0; 256];
    let length = socket.recv(&mut message)?;
    Ok(String::from_utf8_lossy(&message[..length]).into_owned())
}
