//! The agent is killed before each step of each verb; the next one is asked for
//! the same, and must do it. Nothing may stay.

use super::{HANGS, churn, serving, trace};
use crate::cri::Stand;
use crate::cri::gone::{AHEAD, Traces};
use crate::cri::pods::{Pods, SLEEP};
use crate::image::catalog;
use anyhow::{Context, Result, ensure};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Child;
use std::time::{Duration, Instant};

/// After so many steps that fail no more are tried.
const MOST_FAILURES: usize = 8;
/// The names of the pods.
const NAME: &str = "step-";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verb {
    RunPodSandbox,
    CreateContainer,
    StartContainer,
    ExecSync,
    StopContainer,
    RemoveContainer,
    StopPodSandbox,
    RemovePodSandbox,
    PullImage,
    RemoveImage,
}

const VERBS: [Verb; 10] = [
    Verb::RunPodSandbox,
    Verb::CreateContainer,
    Verb::StartContainer,
    Verb::ExecSync,
    Verb::StopContainer,
    Verb::RemoveContainer,
    Verb::StopPodSandbox,
    Verb::RemovePodSandbox,
    Verb::PullImage,
    Verb::RemoveImage,
];

/// Kills before at most so many steps of each verb, evenly spread; answers before
/// how many it was.
pub async fn steps(stand: &Stand, most: usize) -> Result<usize> {
    println!("  the agent killed before the steps of every verb");
    let pods = Pods::connect(stand).await?;
    let mut all = 0;
    let mut failures = Vec::new();
    pods.pull(catalog::BUSYBOX_IMAGE.names[0]).await?;
    // The first pod makes the bridge, which stays.
    let first = pods.start(NAME).await?;
    pods.tear_down(&first).await?;
    let mut trial = Trial {
        stand,
        agent: None,
        number: 0,
        traces: Traces::of(stand)?,
        files: BTreeSet::new(),
    };
    // What is made once is made here.
    for verb in VERBS {
        trial.run(verb, 0).await?;
    }
    trial.files = trial.files();
    for verb in VERBS {
        let begun = Instant::now();
        let (steps, _) = trial.run(verb, 0).await?;
        let mut killed = 0;
        let mut calls = BTreeSet::new();
        for at in chosen(steps, most) {
            match trial.run(verb, at).await {
                Ok((_, call)) => {
                    killed += usize::from(call.is_some());
                    calls.extend(call);
                }
                // The others are tried too, unless something is quite broken.
                Err(error) => {
                    println!("    FAILED: {error:#}");
                    failures.push(error);
                    ensure!(failures.len() < MOST_FAILURES, "and no more is tried");
                    trial.traces = Traces::of(stand)?;
                    trial.files = trial.files();
                }
            }
        }
        all += killed;
        let (spent, calls) = (begun.elapsed().as_secs(), calls.len());
        println!(
            "    {verb:?}: {steps} steps, killed before {killed} ({calls} kinds of call), {spent} s"
        );
    }
    failures.into_iter().try_for_each(Err)?;
    Ok(all)
}

/// Numbers from 1 to `steps`, at most so many, evenly spread.
fn chosen(steps: usize, most: usize) -> Vec<usize> {
    let count = most.min(steps);
    (0..count).map(|n| n * steps / count + 1).collect()
}

struct Trial<'a> {
    stand: &'a Stand,
    agent: Option<Child>,
    number: usize,
    traces: Traces,
    files: BTreeSet<PathBuf>,
}

/// Whom the verb is about.
#[derive(Default)]
struct Subject {
    name: String,
    sandbox: String,
    container: String,
}

impl Trial<'_> {
    /// Has the verb done with the agent killed before a step (0 = never), then
    /// again, and looks for what stays. Answers how many steps it took and the
    /// call before which the agent was killed.
    async fn run(&mut self, verb: Verb, kill_at: usize) -> Result<(usize, Option<&'static str>)> {
        self.number += 1;
        let about = format!("{verb:?}, the agent killed before step {kill_at}");
        let mut pods = Pods::connect(self.stand).await?;
        let mut subject = Subject {
            name: format!("{NAME}{}", self.number),
            ..Subject::default()
        };
        prepare(verb, &pods, &mut subject)
            .await
            .context("prepare")?;
        let watched = trace::watch(self.pid()?, kill_at)?;
        let done = in_time(act(verb, &pods, &mut subject)).await;
        let seen = watched.end()?;
        if let Some(call) = seen.killed {
            self.start_again().await?;
            pods = Pods::connect(self.stand).await?;
            let again = in_time(act(verb, &pods, &mut subject)).await;
            again.with_context(|| format!("{about} ({call})"))?;
        } else {
            done.with_context(|| format!("{verb:?}, with nothing killed"))?;
        }
        let gone = self.clear(&pods, verb).await;
        gone.with_context(|| format!("after {about} ({:?})", seen.killed))?;
        Ok((seen.steps, seen.killed))
    }

    async fn clear(&self, pods: &Pods, verb: Verb) -> Result<()> {
        pods.remove_all(NAME).await?;
        if matches!(verb, Verb::PullImage | Verb::RemoveImage) {
            pods.remove_image(catalog::PAUSE.names[0]).await?;
        }
        self.traces.wait_gone().await?;
        // What is thrown away is deleted in the background.
        let end = Instant::now() + Duration::from_secs(10);
        while !self.files.is_empty() {
            let now = self.files();
            let left: Vec<_> = now.difference(&self.files).take(5).collect();
            if left.is_empty() {
                break;
            }
            ensure!(Instant::now() < end, "files are left: {left:?}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Ok(())
    }

    fn files(&self) -> BTreeSet<PathBuf> {
        let mut all = BTreeSet::new();
        for dir in ["/var/lib/lighter", "/run/lighter"] {
            churn::paths(&self.stand.machine.path(dir), &mut all);
        }
        // Sandboxes that wait for pods are other ones each time. Of their networks traces take
        // count; their monitors' folders and their first containers' layers are left out here,
        // unless there are too many.
        let network = self.stand.machine.path("/run/lighter/network");
        all.retain(|path| !path.starts_with(&network));
        let sandboxes = self.stand.machine.path("/run/lighter/sandboxes");
        let monitors = self.stand.machine.path("/run/lighter/engine/sandboxes");
        leave_out(&mut all, &monitors, |id| sandboxes.join(id).exists());
        let records = all.clone();
        let layers = self.stand.machine.path("/var/lib/lighter/containers");
        let of_a_container = |id: &Path| {
            let mut records = records.iter().filter(|path| path.starts_with(&sandboxes));
            records.any(|path| path.ends_with(id))
        };
        leave_out(&mut all, &layers, of_a_container);
        all
    }

    fn pid(&self) -> Result<i32> {
        let lock = self.stand.machine.path("/run/lighter/agent.lock");
        let text = std::fs::read_to_string(lock)?;
        text.trim().parse().context("the agent's lock has no pid")
    }

    /// The agent was killed: the next one.
    async fn start_again(&mut self) -> Result<()> {
        if let Some(child) = &mut self.agent {
            // The tracer may have taken its end already.
            let _ = child.wait();
        }
        self.agent = Some(self.stand.start_again()?);
        serving(self.stand).await
    }
}

/// Takes out what is below `dir` under names that are `known` to nobody: so many as may wait.
fn leave_out(all: &mut BTreeSet<PathBuf>, dir: &Path, known: impl Fn(&Path) -> bool) {
    let waits = |path: &&PathBuf| {
        let name = path.strip_prefix(dir);
        name.is_ok_and(|name| name.components().count() == 1 && !known(name))
    };
    let waiting: Vec<_> = all.iter().filter(waits).cloned().collect();
    if waiting.len() <= AHEAD {
        all.retain(|path| !waiting.iter().any(|dir| path.starts_with(dir)));
    }
}

async fn in_time(verb: impl Future<Output = Result<()>>) -> Result<()> {
    let answer = tokio::time::timeout(HANGS, verb).await;
    answer.with_context(|| format!("no answer after {HANGS:?}"))?
}

/// What must be there for the verb.
async fn prepare(verb: Verb, pods: &Pods, subject: &mut Subject) -> Result<()> {
    match verb {
        Verb::RunPodSandbox | Verb::PullImage => return Ok(()),
        Verb::RemoveImage => return pods.pull(catalog::PAUSE.names[0]).await.map(drop),
        _ => {}
    }
    subject.sandbox = pods.run_sandbox(&subject.name).await?;
    if verb == Verb::CreateContainer {
        return Ok(());
    }
    let (name, sandbox) = (&subject.name, &subject.sandbox);
    subject.container = pods.create(name, sandbox, &SLEEP).await?;
    if verb == Verb::StartContainer {
        return Ok(());
    }
    pods.start_container(&subject.container).await?;
    match verb {
        Verb::RemoveContainer => pods.stop_container(&subject.container).await,
        Verb::RemovePodSandbox => pods.stop_sandbox(&subject.sandbox).await,
        _ => Ok(()),
    }
}

async fn act(verb: Verb, pods: &Pods, subject: &mut Subject) -> Result<()> {
    let (name, sandbox) = (subject.name.as_str(), subject.sandbox.as_str());
    let container = subject.container.as_str();
    match verb {
        Verb::RunPodSandbox => pods.run_sandbox(name).await.map(drop),
        Verb::CreateContainer => pods.create(name, sandbox, &SLEEP).await.map(drop),
        Verb::StartContainer => pods.start_container(container).await,
        Verb::ExecSync => pods.exec_in(container, &["true"]).await,
        Verb::StopContainer => pods.stop_container(container).await,
        Verb::RemoveContainer => pods.remove_container(container).await,
        Verb::StopPodSandbox => pods.stop_sandbox(sandbox).await,
        Verb::RemovePodSandbox => pods.remove_sandbox(sandbox).await,
        Verb::PullImage => pods.pull(catalog::PAUSE.names[0]).await.map(drop),
        Verb::RemoveImage => pods.remove_image(catalog::PAUSE.names[0]).await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_spread_evenly_and_none_comes_twice() {
        assert_eq!(chosen(4, 99), [1, 2, 3, 4]);
        assert_eq!(chosen(10, 4), [1, 3, 6, 8]);
        assert_eq!(chosen(2, 9), [1, 2]);
        assert!(chosen(0, 9).is_empty());
    }
}
