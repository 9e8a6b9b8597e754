//! Three versions of the binary, one after another, while pods come and go and
//! others run on. A version is the same program with another stamp at its end.

use super::kills::Load;
use super::serving;
use super::witness::Witness;
use crate::cgroup;
use crate::cri::Stand;
use crate::cri::gone::Traces;
use crate::cri::pods::{Pod, Pods};
use crate::image::catalog;
use crate::machine::Process;
use anyhow::{Context, Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::PermissionsExt;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

const VERSIONS: usize = 3;
const WORKERS: usize = 2;
/// How long a version serves.
const SERVES: Duration = Duration::from_secs(1);
/// How long an agent may take to end when it is asked to.
const PATIENCE: Duration = Duration::from_secs(20);

pub async fn upgrade(stand: &Stand) -> Result<()> {
    println!("  {VERSIONS} versions of the binary under load");
    let pods = Pods::connect(stand).await?;
    pods.pull(catalog::BUSYBOX_IMAGE.names[0]).await?;
    let witness = Witness::start(stand, &pods, "upgraded").await?;
    let old = pods.start("old").await?;
    let traces = Traces::of(stand)?;
    let load = Load::default();
    let upgrading = async {
        let done = versions(stand, &old).await;
        load.over.store(true, Ordering::Relaxed);
        done
    };
    let work = futures::future::join_all((0..WORKERS).map(|n| load.work(stand, n)));
    let (upgraded, worked) = tokio::join!(upgrading, work);
    println!("    {}", load.summary());
    upgraded?;
    worked.into_iter().collect::<Result<()>>()?;
    let pods = Pods::connect(stand).await?;
    pods.remove_all(super::kills::LOAD).await?;
    witness.check(stand, &pods).await?;
    traces.wait_gone().await.context("after the upgrades")?;
    pods.tear_down(&old).await?;
    witness.end(&pods).await
}

async fn versions(stand: &Stand, old: &Pod) -> Result<()> {
    let program = stand.machine.path("/usr/local/bin/lighter");
    let plain = fs::read(&program).context("the installed program")?;
    for version in 1..=VERSIONS {
        let stamp = format!("lighter version {version}");
        let new = program.with_extension("new");
        fs::write(&new, [&plain, stamp.as_bytes()].concat())?;
        fs::set_permissions(&new, fs::Permissions::from_mode(0o755))?;
        fs::rename(&new, &program)?;
        let begun = Instant::now();
        let agent = replace(stand).await?;
        let down = begun.elapsed().as_millis();
        is_of(agent, &stamp).context("the agent")?;
        let pods = Pods::connect(stand).await?;
        // A pod of this version: its monitor is one of the spawner's.
        let name = format!("of-{version}");
        let pod = pods.start(&name).await?;
        is_of(monitor(stand, &pod)?, &stamp).context("the monitor of a new pod")?;
        pods.exec(&pod, &["true"]).await?;
        pods.tear_down(&pod).await?;
        // The oldest pod takes execs and containers of every version, set up by its code.
        pods.exec(old, &["true"]).await.context("in the old pod")?;
        let extra = pods.add("old", &old.sandbox, &name).await?;
        pods.start_container(&extra).await?;
        is_of(monitor(stand, old)?, &stamp).context("the old pod's monitor")?;
        pods.exec_in(&extra, &["true"]).await?;
        pods.stop_container(&extra).await?;
        pods.remove_container(&extra).await?;
        println!("    version {version}: served again after {down} ms");
        tokio::time::sleep(SERVES).await;
    }
    fs::write(program.with_extension("new"), &plain)?;
    let new = program.with_extension("new");
    fs::set_permissions(&new, fs::Permissions::from_mode(0o755))?;
    fs::rename(&new, &program)?;
    Ok(())
}

/// As a service manager does; answers the new agent's pid.
async fn replace(stand: &Stand) -> Result<i32> {
    let lock = stand.machine.path("/run/lighter/agent.lock");
    let pid = || -> Result<i32> { Ok(fs::read_to_string(&lock)?.trim().parse()?) };
    let old = Process::of(pid()?).context("no agent")?;
    kill(Pid::from_raw(old.pid), Signal::SIGTERM)?;
    let end = Instant::now() + PATIENCE;
    while old.is_alive() {
        ensure!(Instant::now() < end, "the agent does not end");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    // It ends with its machine.
    drop(stand.start_again()?);
    serving(stand).await?;
    pid()
}

/// The process that executes a program of this version.
fn is_of(pid: i32, stamp: &str) -> Result<()> {
    let mut program = File::open(format!("/proc/{pid}/exe"))?;
    let length = i64::try_from(stamp.len())?;
    program.seek(SeekFrom::End(-length))?;
    let mut end = String::new();
    program.read_to_string(&mut end)?;
    ensure!(end == stamp, "it is not of {stamp:?}");
    Ok(())
}

fn monitor(stand: &Stand, pod: &Pod) -> Result<i32> {
    let name = format!("lighter-{}\n", &pod.sandbox[..7]);
    let is = |pid: &i32| fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|c| c == name);
    let found = cgroup::members(&stand.machine.cgroup).into_iter().find(is);
    found.with_context(|| format!("no monitor of {}", pod.sandbox))
}
