//! Pods as a whole are held to what the node has for them, and the machine's own want of memory
//! is told.

use crate::kit::{FOREVER, Space, pod, same, status, with_main};
use crate::managers::{Settings, kubelet_log, with_settings};
use crate::survival::agent_lives;
use anyhow::{Context as _, Result, anyhow, bail, ensure};
use e2e::node::Kind;
use e2e::{cgroup, progress};
use serde_json::{Value, json};
use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

crate::tests!(
    pods_as_a_whole_get_what_is_not_reserved: alone,
    a_reserved_cgroup_is_limited_and_must_exist: alone,
    more_than_the_node_has_is_not_reserved: alone,
    system_oom_is_an_event_of_the_node_and_a_containers_is_not: alone,
);

const ENFORCED: &str = "NodeAllocatableEnforced";

/// A file of a cgroup of the node's: by its name on v1 and on v2.
fn limit(path: &str, (controller, v1): (&str, &str), v2: &str) -> Result<u64> {
    let mount = PathBuf::from("/sys/fs/cgroup");
    let file = match cgroup::unified() {
        true => mount.join(path).join(v2),
        false => mount.join(controller).join(path).join(v1),
    };
    let text = fs::read_to_string(&file).with_context(|| format!("read {}", file.display()))?;
    let number = text.trim().parse::<u64>();
    number.with_context(|| format!("{}: {text:?}", file.display()))
}

fn memory(path: &str) -> Result<u64> {
    limit(path, ("memory", "memory.limit_in_bytes"), "memory.max")
}

fn cpu(path: &str) -> Result<u64> {
    limit(path, ("cpu", "cpu.shares"), "cpu.weight")
}

fn pids(path: &str) -> Result<u64> {
    limit(path, ("pids", "pids.max"), "pids.max")
}

/// The value of `cpu.shares`, or what v2 has for it: the stock kubelet spreads its weights evenly
/// over their range, where runtimes keep 1024 at 100; all of ours are as runtimes'.
fn shares(t: &Space, milli: u64) -> u64 {
    let shares = (milli * 1024 / 1000).max(2);
    if !cgroup::unified() {
        return shares;
    }
    if matches!(t.suite.kind(), Kind::Stock | Kind::KubeletLighter) {
        return 1 + (shares - 2) * 9999 / 262_142;
    }
    // opencontainers/cgroups utils.go `ConvertCPUSharesToCgroupV2Value`.
    let log = (shares as f64).log2();
    let exponent = (log * log + 125.0 * log) / 612.0 - 7.0 / 34.0;
    if shares <= 2 {
        1
    } else {
        10_f64.powf(exponent).ceil() as u64
    }
}

/// Until both are the same; the stock kubelet writes in the background.
pub fn becomes(what: &str, want: u64, got: impl Fn() -> Result<u64>) -> Result<()> {
    let mut last = None;
    progress::wait_for(what, Duration::from_secs(90), || {
        last = got().ok();
        std::thread::sleep(Duration::from_millis(200));
        Ok((last == Some(want)).then_some(()))
    })
    .map_err(|e| anyhow!("{e}: {last:?}, expected {want}"))
}

fn pods_as_a_whole_get_what_is_not_reserved(t: &Space) -> Result<()> {
    with_settings(t, |t, settings| {
        settings
            .add("kubeReserved: {cpu: 500m, memory: 300Mi}\nsystemReserved: {pid: '1000'}\n")?;
        let (all, machine) = (format!("{}/kubepods", t.node().cgroup), machine()?);
        becomes("memory of pods", machine.memory - (300 << 20), || {
            memory(&all)
        })?;
        let cpus = machine.cpus * 1000 - 500;
        becomes("CPU shares of pods", shares(t, cpus), || cpu(&all))?;
        becomes("process ids of pods", machine.pids - 1000, || pids(&all))?;
        told(t, &[ENFORCED, "Updated Node Allocatable limit across pods"])?;
        classes(t, &all)?;
        left(t, machine.memory)
    })?;
    // Nothing is reserved any more.
    let all = format!("{}/kubepods", t.node().cgroup);
    becomes("memory of pods", machine()?.memory, || memory(&all))
}

/// Burstable pods weigh what they ask for together.
fn classes(t: &Space, all: &str) -> Result<()> {
    let (burstable, best_effort) = (format!("{all}/burstable"), format!("{all}/besteffort"));
    becomes("shares of BestEffort", shares(t, 0), || cpu(&best_effort))?;
    let before = asked(t)?;
    becomes("shares of Burstable", shares(t, before), || cpu(&burstable))?;
    let asks = json!({ "resources": { "requests": { "cpu": "300m" } } });
    t.run(&with_main(pod("burstable", FOREVER), asks))?;
    becomes("shares with another pod", shares(t, before + 300), || {
        cpu(&burstable)
    })?;
    t.kubectl(&["delete", "pod", "burstable"])?;
    becomes("shares without it", shares(t, before), || cpu(&burstable))
}

/// Thousandths of a CPU that Burstable pods of the node ask for.
fn asked(t: &Space) -> Result<u64> {
    let pods = t.cluster().kubectl(&["get", "pods", "-A", "-o", "json"])?;
    let pods: Value = serde_json::from_str(&pods)?;
    let lives = |p: &&Value| {
        p["spec"]["nodeName"] == t.node().name.as_str()
            && p["status"]["qosClass"] == "Burstable"
            && !["Succeeded", "Failed"].contains(&crate::kit::phase(p))
    };
    let pods = pods["items"].as_array().into_iter().flatten().filter(lives);
    let containers = pods.flat_map(|p| p["spec"]["containers"].as_array().into_iter().flatten());
    let cpus = containers.filter_map(|c| c["resources"]["requests"]["cpu"].as_str());
    cpus.map(|cpu| match cpu.strip_suffix('m') {
        Some(milli) => Ok(milli.parse()?),
        None => Ok(cpu.parse::<u64>()? * 1000),
    })
    .sum()
}

/// The summary tells what is left of the limit.
fn left(t: &Space, capacity: u64) -> Result<()> {
    let url = format!("/api/v1/nodes/{}/proxy/stats/summary", t.node().name);
    let limit = Duration::from_secs(60);
    let left = progress::wait_for("availableBytes of pods", limit, || {
        std::thread::sleep(Duration::from_millis(500));
        let summary: Value = serde_json::from_str(&t.kubectl(&["get", "--raw", &url])?)?;
        let mut all = summary["node"]["systemContainers"]
            .as_array()
            .into_iter()
            .flatten();
        let pods = all.find(|c| c["name"] == "pods");
        Ok(pods.and_then(|p| p["memory"]["availableBytes"].as_u64()))
    })?;
    ensure!(
        (1..=capacity - (300 << 20)).contains(&left),
        "{left} bytes are left to pods"
    );
    Ok(())
}

fn a_reserved_cgroup_is_limited_and_must_exist(t: &Space) -> Result<()> {
    let name = format!("{}/system", t.node().cgroup);
    let lines = format!(
        "enforceNodeAllocatable: [pods, system-reserved]\nsystemReservedCgroup: /{name}\n\
         systemReserved: {{cpu: 200m, memory: 300Mi, pid: '500'}}\n"
    );
    cgroup::create(&name)?;
    let result = with_settings(t, |t, settings| {
        settings.add(&lines)?;
        becomes("memory of the system", 300 << 20, || memory(&name))?;
        same(cpu(&name)?, shares(t, 200))?;
        same(pids(&name)?, 500)?;
        told(t, &[ENFORCED, "system reserved cgroup", &name])?;
        cgroup::remove(&name)?;
        refused(t, settings, &lines, ["does not exist", "missing paths"])
    });
    cgroup::remove(&name)?;
    result
}

fn more_than_the_node_has_is_not_reserved(t: &Space) -> Result<()> {
    let has = machine()?;
    // As it stands in the log of the stock kubelet, within quotes.
    let stock = |resource: &str| format!(r#"Resource \"{resource}\" has a reservation of"#);
    let whole = format!("kubeReserved: {{memory: '{}'}}\n", has.memory);
    with_settings(t, |t, settings| {
        // Eviction keeps another 100Mi.
        let ours = format!("memory {}Ki of", (has.memory >> 10) + (100 << 10));
        refused(t, settings, &whole, [&ours, &stock("memory")])?;
        let disk = "kubeReserved: {ephemeral-storage: 100Ti}\n";
        let ours = "ephemeral-storage 100Ti of";
        refused(t, settings, disk, [ours, &stock("ephemeral-storage")])?;
        let cpus = format!("systemReserved: {{cpu: {}m}}\n", has.cpus * 1000 + 1);
        let ours = format!("cpu {}m of {};", has.cpus * 1000 + 1, has.cpus);
        refused(t, settings, &cpus, [&ours, &stock("cpu")])
    })
}

/// Does not start, and says why: in the words of ours or of the stock kubelet.
pub fn refused(t: &Space, settings: &Settings, lines: &str, why: [&str; 2]) -> Result<()> {
    let said = || fs::read_to_string(t.node().log(kubelet_log(t)));
    let before = said()?.len();
    settings.add(lines)?;
    progress::wait_for("end of the kubelet", Duration::from_secs(60), || {
        std::thread::sleep(Duration::from_millis(200));
        Ok((!agent_lives(t)?).then_some(()))
    })?;
    let said = said()?;
    let last = said.get(before..).unwrap_or(&said);
    ensure!(
        why.iter().any(|why| last.contains(why)),
        "it did not start, and not for {why:?}: {last}"
    );
    Ok(())
}

/// An event of the Node that says all of `words`.
fn told(t: &Space, words: &[&str]) -> Result<()> {
    let mut last = String::new();
    let limit = Duration::from_secs(60);
    progress::wait_for(&format!("an event that says {words:?}"), limit, || {
        std::thread::sleep(Duration::from_millis(200));
        last = events(t).unwrap_or_default();
        let said = last.lines().any(|l| words.iter().all(|w| l.contains(w)));
        Ok(said.then_some(()))
    })
    .map_err(|e| anyhow!("{e}: {last}"))
}

fn events(t: &Space) -> Result<String> {
    let field = format!("involvedObject.name={}", t.node().name);
    let columns = "custom-columns=R:.reason,M:.message";
    let words = ["get", "events", "-A", "--no-headers", "--field-selector"];
    t.cluster()
        .kubectl(&[&words[..], &[&field, "-o", columns]].concat())
}

struct Host {
    cpus: u64,
    memory: u64,
    pids: u64,
}

fn machine() -> Result<Host> {
    let number = |path: &str| Ok::<u64, anyhow::Error>(fs::read_to_string(path)?.trim().parse()?);
    let meminfo = fs::read_to_string("/proc/meminfo")?;
    let total = meminfo.split_whitespace().nth(1).context("MemTotal")?;
    let (pid_max, threads) = ("/proc/sys/kernel/pid_max", "/proc/sys/kernel/threads-max");
    Ok(Host {
        cpus: std::thread::available_parallelism()?.get() as u64,
        memory: total.parse::<u64>()? * 1024,
        pids: number(pid_max)?.min(number(threads)?),
    })
}

/// The container's kill is a real one, and so is the machine's where the kernel can be asked for
/// one (sysrq). Elsewhere what it would say is written to its log, in the words of mm/oom_kill.c.
fn system_oom_is_an_event_of_the_node_and_a_containers_is_not(t: &Space) -> Result<()> {
    let eats = "sleep 1; tail /dev/zero";
    let limit = json!({ "resources": { "limits": { "memory": "16Mi" } } });
    let mut eater = with_main(pod("eater", eats), limit);
    eater["spec"]["restartPolicy"] = "Never".into();
    t.apply(&eater)?;
    t.wait("eater", "OOMKilled", |p| {
        status(p)["state"]["terminated"]["reason"] == "OOMKilled"
    })?;
    let (name, pid) = match fs::exists(SYSRQ)? {
        true => ("dd".to_owned(), killed_for_the_machine()?),
        false => said_to_be_killed(&format!("eats-{}", t.name))?,
    };
    let victim = format!("System OOM encountered, victim process: {name}, pid: {pid}");
    told(t, &["SystemOOM", &victim])?;
    let others = events(t)?;
    let others = others.lines().filter(|l| l.contains("SystemOOM"));
    let others: Vec<&str> = others.filter(|l| l.contains("process: tail")).collect();
    ensure!(others.is_empty(), "a container's kill was told: {others:?}");
    Ok(())
}

const SYSRQ: &str = "/proc/sysrq-trigger";

/// Has the kernel kill the process that it would kill first, were the machine out of memory:
/// one of ours, or nobody.
fn killed_for_the_machine() -> Result<u32> {
    let mut victim = Command::new("dd");
    let mut victim = victim
        .args(["if=/dev/zero", "of=/dev/null", "bs=256M"])
        .spawn()?;
    let pid = victim.id();
    let kill = || -> Result<()> {
        fs::write(format!("/proc/{pid}/oom_score_adj"), "1000")?;
        std::thread::sleep(Duration::from_secs(2));
        let own = score(pid).context("dd has ended")?;
        let all = fs::read_dir("/proc")?.flatten();
        let pids = all.filter_map(|e| e.file_name().to_str()?.parse().ok());
        let mut before = pids.filter(|other| *other != pid && score(*other) >= Some(own));
        if let Some(other) = before.next() {
            bail!("process {other} would be killed before ours");
        }
        fs::write(SYSRQ, "f")?;
        progress::wait_for("end of dd", Duration::from_secs(30), || {
            std::thread::sleep(Duration::from_millis(200));
            Ok(score(pid).is_none().then_some(()))
        })
    };
    let result = kill();
    let _ = victim.kill();
    victim.wait()?;
    result.map(|()| pid)
}

/// How soon the kernel would kill it; nothing when it is dead.
fn score(pid: u32) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let lives = !text.lines().any(|l| l.starts_with("State:\tZ"));
    let score = fs::read_to_string(format!("/proc/{pid}/oom_score")).ok()?;
    score.trim().parse().ok().filter(|_| lives)
}

fn said_to_be_killed(name: &str) -> Result<(String, u32)> {
    let pid = std::process::id();
    for line in [
        format!("{name} invoked oom-killer: gfp_mask=0xcc0(GFP_KERNEL), order=0, oom_score_adj=0"),
        format!(
            "oom-kill:constraint=CONSTRAINT_NONE,nodemask=(null),cpuset=/,mems_allowed=0,\
             global_oom,task_memcg=/,task={name},pid={pid},uid=0"
        ),
        format!("Out of memory: Killed process {pid} ({name}) total-vm:1kB, anon-rss:1kB, UID:0"),
    ] {
        // One write is one record, which others see once its line has ended.
        fs::write("/dev/kmsg", format!("{line}\n"))?;
    }
    Ok((name.to_owned(), pid))
}
