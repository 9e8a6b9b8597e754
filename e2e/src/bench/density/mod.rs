//! A full node: what 110 pods cost while nothing happens, and how soon it sees what does.
//!
//! One node after the other, so that neither pays for its neighbour.

pub mod report;

use super::Options;
use super::api::{Api, Watch, is_ready};
use super::memory::{Sample, sample};
use crate::cgroup;
use crate::cluster::{Bed, Cluster, down};
use crate::node::{self, Kind};
use crate::progress::{self, step};
use anyhow::{Context, Result};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::Serialize;
use serde_json::{Value, json};
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// A kubelet's own limit (`maxPods`).
const PODS: usize = 110;
/// Several periods of the probes.
const CPU_WINDOW: Duration = Duration::from_secs(30);
/// A stock kubelet takes up to a minute and a half for each.
const SECRETS: usize = 3;
const EXITS: usize = 20;

/// What was measured on one node; times in milliseconds, CPU in parts of one core.
#[derive(Debug, Serialize)]
pub struct Figures {
    pub kind: Kind,
    pub pods: usize,
    /// First create to the last Ready.
    pub all_ready: f64,
    /// The whole machine's, with the cluster up and no pod.
    pub cpu_empty: f64,
    /// The same with all pods, each with an exec probe every ten seconds.
    pub cpu_full: f64,
    pub empty: Sample,
    pub full: Sample,
    /// A Secret written to the API until a container reads it in its volume.
    pub secret: Vec<f64>,
    /// The end of a container's process until a watcher of the API is told.
    pub exit: Vec<f64>,
    /// The kubelet, killed, started again: until it counts all containers as running.
    pub adopted: f64,
    /// Pods that a watcher saw not Ready from that kill until five seconds after the adoption.
    pub lost_ready: usize,
}

pub fn bench(bed: &Bed, options: &Options) -> Result<Vec<Figures>> {
    let mut all = Vec::new();
    for kind in &options.kinds {
        let mut cluster = super::cluster(bed, options, "bench-full", *kind)?;
        let machine = cluster.control_plane.clone();
        let figures = Api::proxied(&machine, |api| full(api, bed, &mut cluster));
        down::down(bed, &cluster.name)?;
        all.push(figures.with_context(|| format!("bench of a full {kind}"))?);
    }
    Ok(all)
}

fn full(api: &Api, bed: &Bed, cluster: &mut Cluster) -> Result<Figures> {
    let kind = cluster.nodes[0].kind;
    let group = cluster.nodes[0].machine.cgroup.clone();
    let names: Vec<String> = (0..PODS).map(|i| format!("full-{i}")).collect();
    let mut watch = api.watch()?;
    api.post("secrets", &secret(0))?;
    // Pulls the image.
    watch.ready(&["warm-up".into()], || api.create("warm-up"))?;
    watch.gone(&["warm-up".into()], || api.delete("warm-up"))?;
    std::thread::sleep(Duration::from_secs(5));
    let empty = sample(&group)?;
    let cpu_empty = step(&format!("{kind}: an empty node"), || cpu(CPU_WINDOW))?;
    let all_ready = step(&format!("{kind}: {PODS} pods"), || {
        watch.ready(&names, || {
            names.iter().try_for_each(|n| api.post("pods", &pod(n)))
        })
    })?;
    std::thread::sleep(Duration::from_secs(5));
    let cpu_full = step(&format!("{kind}: a full node"), || cpu(CPU_WINDOW))?;
    let full = sample(&group)?;
    let secret = step(&format!("{kind}: {SECRETS} changes of a Secret"), || {
        let inside = process_of(api, &group, &names[0])?;
        (1..=SECRETS).map(|n| secret_seen(api, inside, n)).collect()
    })?;
    let exit = step(&format!("{kind}: {EXITS} exits"), || {
        let killed = names[1..].iter().take(EXITS);
        killed.map(|name| exit_seen(api, &group, name)).collect()
    })?;
    // Those that were killed are Ready again.
    std::thread::sleep(Duration::from_secs(15));
    let (adopted, lost_ready) = step(&format!("{kind}: kill -9 and start"), || {
        adoption(api, bed, cluster)
    })?;
    Ok(Figures {
        kind,
        pods: PODS,
        all_ready,
        cpu_empty,
        cpu_full,
        empty,
        full,
        secret,
        exit,
        adopted,
        lost_ready,
    })
}

fn secret(number: usize) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": { "name": "changing" },
        "stringData": { "number": number.to_string() },
    })
}

fn pod(name: &str) -> Value {
    let mut pod = super::api::pod(name);
    let container = &mut pod["spec"]["containers"][0];
    container["readinessProbe"] = json!({ "exec": { "command": ["true"] }, "periodSeconds": 10 });
    container["volumeMounts"] = json!([{ "name": "changing", "mountPath": "/changing" }]);
    pod["spec"]["volumes"] =
        json!([{ "name": "changing", "secret": { "secretName": "changing" } }]);
    pod
}

/// How many cores the whole machine was busy with, on the average.
fn cpu(during: Duration) -> Result<f64> {
    let before = (Instant::now(), busy_ticks()?);
    std::thread::sleep(during);
    let ticks = busy_ticks()?.saturating_sub(before.1) as f64;
    // USER_HZ is 100 on every architecture that Kubernetes knows.
    Ok(ticks / 100.0 / before.0.elapsed().as_secs_f64())
}

fn busy_ticks() -> Result<u64> {
    let text = std::fs::read_to_string("/proc/stat")?;
    let line = text.lines().next().context("/proc/stat is empty")?;
    Ok(busy(line))
}

/// Of proc(5)'s `cpu` line: all but idle and iowait; guest time is in user time already.
fn busy(line: &str) -> u64 {
    let fields = line.split_whitespace().skip(1).take(8);
    let counted = fields.enumerate().filter(|(i, _)| ![3, 4].contains(i));
    counted.filter_map(|(_, f)| f.parse::<u64>().ok()).sum()
}

/// First process of a pod's container, as the host counts.
fn process_of(api: &Api, group: &str, name: &str) -> Result<i32> {
    let pod = api.get(&format!("/api/v1/namespaces/default/pods/{name}"))?;
    let id = pod["status"]["containerStatuses"][0]["containerID"]
        .as_str()
        .and_then(|id| id.rsplit('/').next())
        .context("no containerID")?;
    cgroup::first_process(group, id).with_context(|| format!("{name} has no process"))
}

fn secret_seen(api: &Api, inside: i32, number: usize) -> Result<f64> {
    let file = PathBuf::from(format!("/proc/{inside}/root/changing/number"));
    let start = Instant::now();
    api.put("secrets/changing", &secret(number))?;
    let wanted = number.to_string();
    let limit = Duration::from_secs(180);
    progress::wait_for("the Secret's new value", limit, || {
        Ok(std::fs::read_to_string(&file)
            .is_ok_and(|v| v == wanted)
            .then_some(()))
    })?;
    Ok(milliseconds(start))
}

fn exit_seen(api: &Api, group: &str, name: &str) -> Result<f64> {
    let process = process_of(api, group, name)?;
    // A watch of its own: the long one has thousands of events ahead.
    let mut watch = api.watch_of(name)?;
    let end = || Ok(kill(Pid::from_raw(process), Signal::SIGKILL)?);
    watch.clock(&[name.to_owned()], end, |event| {
        let status = &event["object"]["status"]["containerStatuses"][0];
        !status["state"]["terminated"].is_null() || status["restartCount"] != 0
    })
}

fn adoption(api: &Api, bed: &Bed, cluster: &mut Cluster) -> Result<(f64, usize)> {
    let (kind, machine) = (cluster.nodes[0].kind, cluster.nodes[0].machine.clone());
    let mut watch = api.watch()?;
    node::kill_kubelet(&Cluster::load(bed, &cluster.name)?, kind, &machine)?;
    let metrics = format!("/api/v1/nodes/{}/proxy/metrics", machine.name);
    let start = Instant::now();
    node::start_kubelet(cluster, kind, &machine)?;
    progress::wait_for("all containers adopted", Duration::from_secs(120), || {
        let running = api.text(&metrics).ok().and_then(|text| running(&text));
        Ok((running == Some(PODS)).then_some(()))
    })?;
    let adopted = milliseconds(start);
    std::thread::sleep(Duration::from_secs(5));
    let lost = not_ready(&mut watch, api)?;
    Ok((adopted, lost))
}

/// Of the kubelet's own metrics.
fn running(metrics: &str) -> Option<usize> {
    let series = "kubelet_running_containers{container_state=\"running\"} ";
    let line = metrics.lines().find_map(|l| l.strip_prefix(series))?;
    line.trim().parse().ok()
}

/// Pods that were not Ready in any event up to now; a last pod of our own ends the wait.
fn not_ready(watch: &mut Watch, api: &Api) -> Result<usize> {
    let mut lost = std::collections::HashSet::new();
    let last = "last".to_owned();
    let create = || api.post("pods", &unscheduled(&last));
    watch.clock(std::slice::from_ref(&last), create, |event| {
        let name = event["object"]["metadata"]["name"]
            .as_str()
            .unwrap_or_default();
        if name.starts_with("full-") && !is_ready(event) {
            lost.insert(name.to_owned());
        }
        name == last
    })?;
    Ok(lost.len())
}

/// No node takes it.
fn unscheduled(name: &str) -> Value {
    let mut pod = super::api::pod(name);
    pod["spec"]["nodeSelector"] = json!({ "no": "node" });
    pod
}

fn milliseconds(start: Instant) -> f64 {
    start.elapsed().as_secs_f64() * 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn busy_time_is_all_but_idle_and_waiting_for_disks() {
        assert_eq!(busy("cpu  1 2 4 1000 1000 8 16 32 64 128"), 63);
    }

    #[test]
    fn running_containers_are_read_from_the_metrics() {
        let text = "# HELP x\nkubelet_running_containers{container_state=\"exited\"} 3\n\
            kubelet_running_containers{container_state=\"running\"} 110\n";
        assert_eq!(running(text), Some(110));
        assert_eq!(running(""), None);
    }
}
