//! kill -9 at random moments under a load of creates and deletes.

use super::HANGS;
use super::witness::Witness;
use crate::cgroup;
use crate::cri::Stand;
use crate::cri::gone::{AHEAD, Traces};
use crate::cri::pods::Pods;
use crate::image::catalog;
use crate::machine::Process;
use anyhow::{Context, Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::collections::BTreeMap;
use std::fs;
use std::process::Child;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Pods under way at once.
const WORKERS: usize = 4;
const WITNESSES: usize = 3;
/// The names of the load's pods.
pub const LOAD: &str = "load-";

pub async fn kills(stand: &Stand, kills: usize, seed: u64) -> Result<()> {
    println!("  {kills} kills, seed {seed}");
    let pods = Pods::connect(stand).await?;
    pods.pull(catalog::BUSYBOX_IMAGE.names[0]).await?;
    let mut witnesses = Vec::new();
    for number in 0..WITNESSES {
        witnesses.push(Witness::start(stand, &pods, &format!("witness-{number}")).await?);
    }
    let traces = Traces::of(stand)?;
    let load = Load::default();
    let work = futures::future::join_all((0..WORKERS).map(|n| load.work(stand, n)));
    let killing = async {
        let killed = Killer::new(stand, &witnesses, seed).run(kills, &load).await;
        load.over.store(true, Ordering::Relaxed);
        killed
    };
    let (killer, worked) = tokio::join!(killing, work);
    println!("    {}", load.summary());
    let mut killer = killer?;
    worked.into_iter().collect::<Result<()>>()?;
    let pods = Pods::connect(stand).await?;
    pods.remove_all(LOAD).await?;
    for witness in &witnesses {
        witness.check(stand, &pods).await?;
    }
    traces
        .wait_gone()
        .await
        .context("after all pods of the load were removed")?;
    for witness in &witnesses {
        witness.end(&pods).await?;
    }
    killer.processes_left(stand)
}

/// The pods that come and go, and what their verbs said.
#[derive(Default)]
pub struct Load {
    /// Set when no more pods are to be started.
    pub over: AtomicBool,
    done: AtomicUsize,
    errors: Mutex<BTreeMap<String, usize>>,
}

impl Load {
    pub async fn work(&self, stand: &Stand, worker: usize) -> Result<()> {
        let prefix = format!("{LOAD}{worker}-");
        let mut number = 0;
        while !self.over.load(Ordering::Relaxed) {
            // Nobody may serve just now.
            let Ok(pods) = Pods::connect(stand).await else {
                tokio::time::sleep(Duration::from_millis(20)).await;
                continue;
            };
            while !self.over.load(Ordering::Relaxed) {
                number += 1;
                let life = life(&pods, &prefix, number);
                match life.await {
                    Ok(()) => drop(self.done.fetch_add(1, Ordering::Relaxed)),
                    Err(error) if error.is::<Hangs>() => return Err(error),
                    Err(error) => {
                        self.note(&error);
                        break;
                    }
                }
            }
        }
        Ok(())
    }

    /// Errors by their last words: ids and pids differ.
    fn note(&self, error: &anyhow::Error) {
        let text = format!("{error:#}").replace(|c: char| c.is_ascii_hexdigit(), "");
        let text = text.chars().take(120).collect();
        let mut errors = self.errors.lock().unwrap_or_else(PoisonError::into_inner);
        *errors.entry(text).or_default() += 1;
    }

    pub fn summary(&self) -> String {
        let errors = self.errors.lock().unwrap_or_else(PoisonError::into_inner);
        let broken: usize = errors.values().sum();
        let done = self.done.load(Ordering::Relaxed);
        format!("{done} pods lived whole lives, {broken} were cut short")
    }
}

/// One pod's whole life; first what an earlier one of this worker has left.
async fn life(pods: &Pods, prefix: &str, number: usize) -> Result<()> {
    in_time("removing an earlier pod", pods.remove_all(prefix)).await?;
    let name = format!("{prefix}{number}");
    let pod = in_time("starting a pod", pods.start(&name)).await?;
    in_time("exec", pods.exec(&pod, &["true"])).await?;
    in_time("removing a pod", pods.tear_down(&pod)).await
}

/// A verb that never answers: the one error that ends the load.
#[derive(Debug)]
struct Hangs(&'static str);

impl std::error::Error for Hangs {}

impl std::fmt::Display for Hangs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} has no answer after {HANGS:?}", self.0)
    }
}

async fn in_time<T>(what: &'static str, verb: impl Future<Output = Result<T>>) -> Result<T> {
    match tokio::time::timeout(HANGS, verb).await {
        Ok(answer) => answer,
        Err(_) => Err(Hangs(what).into()),
    }
}

struct Killer<'a> {
    stand: &'a Stand,
    /// Monitors of the witnesses.
    spared: Vec<i32>,
    random: u64,
    agent: Option<Child>,
    counts: BTreeMap<&'static str, usize>,
}

impl<'a> Killer<'a> {
    fn new(stand: &'a Stand, witnesses: &[Witness], seed: u64) -> Self {
        Self {
            stand,
            spared: witnesses.iter().map(|w| w.monitor).collect(),
            random: seed.max(1),
            agent: None,
            counts: BTreeMap::new(),
        }
    }

    async fn run(mut self, kills: usize, load: &Load) -> Result<Self> {
        let begun = Instant::now();
        for number in 1..=kills {
            let pause = 5 + self.below(250);
            tokio::time::sleep(Duration::from_millis(pause)).await;
            match self.below(10) {
                0 | 1 => self.spawner()?,
                2 | 3 => self.monitor()?,
                _ => self.agent().await?,
            }
            if number % (kills / 10).max(1) == 0 {
                let (spent, done) = (begun.elapsed().as_secs(), load.done.load(Ordering::Relaxed));
                println!("    {number}/{kills} kills, {done} whole lives, {spent} s");
            }
        }
        super::serving(self.stand).await?;
        println!("    killed: {:?}", self.counts);
        Ok(self)
    }

    /// xorshift64: Marsaglia, "Xorshift RNGs", 2003.
    fn below(&mut self, limit: u64) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random % limit
    }

    fn count(&mut self, what: &'static str) {
        *self.counts.entry(what).or_default() += 1;
    }

    /// The next one is started at once, in whatever state the last one left things.
    async fn agent(&mut self) -> Result<()> {
        let lock = self.stand.machine.path("/run/lighter/agent.lock");
        let pid = fs::read_to_string(&lock)?.trim().parse::<i32>();
        // Killed before it had written its pid.
        let agent = pid.ok().and_then(Process::of);
        if let Some(child) = &mut self.agent {
            child.kill()?;
            child.wait()?;
        } else if let Some(agent) = agent {
            kill(Pid::from_raw(agent.pid), Signal::SIGKILL)?;
            while agent.is_alive() {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        }
        self.agent = Some(self.stand.start_again()?);
        self.count("agent");
        Ok(())
    }

    fn spawner(&mut self) -> Result<()> {
        self.one_of("spawner", |name| name == "lighter-spawner")
    }

    /// Of the load, the witnesses' must live; or one that waits for a pod.
    fn monitor(&mut self) -> Result<()> {
        let is_id = |id: &str| id.bytes().all(|b| b.is_ascii_hexdigit());
        self.one_of("monitor", |name| {
            name.strip_prefix("lighter-")
                .is_some_and(|id| id == "ahead" || is_id(id))
        })
    }

    fn one_of(&mut self, what: &'static str, is: impl Fn(&str) -> bool) -> Result<()> {
        let name = |pid: i32| fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        let mut found = cgroup::members(&self.stand.machine.cgroup);
        found.retain(|pid| is(name(*pid).trim()) && !self.spared.contains(pid));
        let Some(last) = found.len().checked_sub(1) else {
            return Ok(());
        };
        let at = usize::try_from(self.below(last as u64 + 1))?;
        let victim = found[at];
        // It may have ended by itself meanwhile.
        let _ = kill(Pid::from_raw(victim), Signal::SIGKILL);
        self.count(what);
        Ok(())
    }

    /// Only the agent, one spawner and the monitors that wait for pods may be there when no
    /// pod is.
    fn processes_left(&mut self, stand: &Stand) -> Result<()> {
        let name = |pid: i32| fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        let end = Instant::now() + Duration::from_secs(10);
        loop {
            let names = cgroup::members(&stand.machine.cgroup).into_iter().map(name);
            let mut ours: Vec<String> = names.filter(|n| n.starts_with("lighter")).collect();
            ours.sort();
            let ahead = ours.iter().filter(|n| *n == "lighter-ahead\n").count();
            if ahead <= AHEAD {
                ours.retain(|n| n != "lighter-ahead\n");
            }
            if ours == ["lighter\n", "lighter-spawner\n"] {
                return Ok(());
            }
            ensure!(Instant::now() < end, "processes are left: {ours:?}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

impl Drop for Killer<'_> {
    fn drop(&mut self) {
        // It ends with its machine; here only its exit is taken.
        if let Some(child) = &mut self.agent {
            let _ = child.try_wait();
        }
    }
}
