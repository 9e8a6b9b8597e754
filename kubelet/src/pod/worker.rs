//! One pod's task: decides, runs effects, publishes.

mod counting;
mod publishing;
mod removed;
mod resizing;
mod start_time;

use super::executor::{ABANDONED, Context, Executor, Failed, PANICKED, Report};
use super::lifecycle::{
    self, Decision, Desired, ERR_IMAGE_PULL, Effect, Limits, Memory, Stage, StopReason, Work,
    WorkerState, back_off_message, decide,
};
use super::observe::PodSeen;
use super::observed::{ContainerSeen, Failure, Observed, Verdicts};
use super::prober::{Prober, Verdict};
use super::registry::Registry;
use super::replacing::Replacing;
use super::resize::{self, Granted};
use super::spec::{self, uid};
use super::subject::Subject;
use crate::dra;
use crate::event::EventType;
use crate::volume::{self, PodVolumes};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, PodStatus};
use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

/// What a worker is told.
#[derive(Debug)]
pub enum Mail {
    /// Wanted so from now on.
    Want(Desired),
    /// The runtime says so: an event.
    Seen(PodSeen),
    /// The runtime was asked at this moment and knows this and no more.
    Listed(PodSeen, Instant),
    /// The runtime removed a container.
    Removed(String),
    /// Something the pod refers to changed.
    Nudge,
    /// The node can't keep it.
    End(lifecycle::Verdict),
}

/// A worker before it runs.
pub struct Worker {
    executor: Arc<Executor>,
    registry: Arc<Registry>,
    runtime: Arc<str>,
    /// Asks for what was granted, whatever the newest object asks for.
    want: Desired,
    asked: Arc<Pod>,
    granted: Granted,
    /// What containers are being made with, by name.
    making: Granted,
    state: WorkerState,
    seen: Observed,
    born: HashMap<String, Instant>,
    removed: removed::Removed,
    volumes: Arc<PodVolumes>,
    /// What is being mounted is for an object that has changed since.
    mount_again: bool,
    pre_stopped: Arc<Mutex<BTreeSet<String>>>,
    abandon: CancellationToken,
    tasks: JoinSet<(Effect, Result<Report, Failed>, Duration)>,
    progress: UnboundedSender<PodSeen>,
    probes: Prober,
    replacing: Replacing,
    published: Option<PodStatus>,
    /// The object that was published with it.
    told: Option<Arc<Pod>>,
    frozen: bool,
    finished: bool,
    counted: counting::Counted,
}

/// Where a worker's news come from.
struct Inbox {
    mail: UnboundedReceiver<Mail>,
    progress: UnboundedReceiver<PodSeen>,
    verdicts: UnboundedReceiver<Verdict>,
}

impl Worker {
    /// For a pod as it is wanted and as the runtime has it now.
    pub fn spawn(
        executor: Arc<Executor>,
        registry: Arc<Registry>,
        runtime: Arc<str>,
        want: Desired,
        seen: PodSeen,
    ) -> UnboundedSender<Mail> {
        let (sender, mail) = unbounded_channel();
        let (progress, arriving) = unbounded_channel();
        let (verdict, verdicts) = unbounded_channel();
        let inbox = Inbox {
            mail,
            progress: arriving,
            verdicts,
        };
        let mut worker = Self {
            counted: counting::Counted::new(&want),
            state: begin(&want),
            asked: want.pod.clone(),
            granted: registry.granted(&want.pod, &seen),
            making: Granted::new(),
            executor,
            registry,
            runtime,
            want,
            seen: Observed::default(),
            born: HashMap::new(),
            removed: removed::Removed::default(),
            volumes: Arc::default(),
            mount_again: false,
            pre_stopped: Arc::default(),
            abandon: CancellationToken::new(),
            tasks: JoinSet::new(),
            progress,
            probes: Prober::new(verdict),
            replacing: Replacing::default(),
            published: None,
            told: None,
            frozen: false,
            finished: false,
        };
        worker.take_in(seen);
        worker.adopt_resources();
        worker.settle_resources();
        // What runs has what it wants.
        worker.seen.unallocated = worker.seen.sandboxes.is_empty()
            && worker
                .executor
                .deps()
                .allocations
                .concerns(&worker.want.pod);
        worker.seen.unprepared = dra::claim::any(&worker.want.pod);
        worker.adopt_readiness();
        let pod = &worker.want.pod;
        let (namespace, name) = (spec::namespace(pod), spec::name(pod));
        let span = tracing::info_span!("pod", uid = uid(pod), namespace, name);
        tokio::spawn(worker.run(inbox).instrument(span));
        sender
    }

    async fn run(mut self, mut inbox: Inbox) {
        self.executor.deps().objects.register(&self.want.pod);
        let mut open = true;
        loop {
            let wake_at = self.step();
            if self.finished && self.want.removed {
                break;
            }
            tokio::select! {
                mail = inbox.mail.recv(), if open => match mail {
                    Some(mail) => self.read(mail),
                    // Nobody has more to say of this pod: see it off.
                    None if self.want.removed => open = false,
                    // The engine ends; the pod goes on.
                    None => return,
                },
                Some(seen) = inbox.progress.recv() => self.take_in(seen),
                Some(verdict) = inbox.verdicts.recv() => self.judge(verdict),
                Some(done) = self.tasks.join_next() => self.settle(done.ok()),
                () = until(wake_at) => {}
            }
            self.drain(&mut inbox);
        }
        let pod = self.want.pod.clone();
        self.executor.deps().objects.unregister(uid(&pod));
        self.executor.deps().status.forget(&pod);
        self.registry.remove(uid(&pod));
    }

    /// Takes what else has arrived, so that one decision answers all of it.
    fn drain(&mut self, inbox: &mut Inbox) {
        while let Ok(mail) = inbox.mail.try_recv() {
            self.read(mail);
        }
        while let Ok(seen) = inbox.progress.try_recv() {
            self.take_in(seen);
        }
        while let Ok(verdict) = inbox.verdicts.try_recv() {
            self.judge(verdict);
        }
        while let Some(done) = self.tasks.try_join_next() {
            self.settle(done.ok());
        }
    }

    fn limits(&self) -> Limits {
        let options = &self.executor.deps().options;
        Limits {
            crash_loop_max: options.crash_loop_max,
            dead_containers_kept: options.dead_containers_kept,
        }
    }

    /// Decides, begins what was decided, and publishes how it stands.
    fn step(&mut self) -> Option<Timestamp> {
        let now = Timestamp::now();
        let again = self.retry_resize(now);
        let Decision {
            next,
            effects,
            wake_at,
        } = decide(
            self.state.clone(),
            &self.want,
            &self.seen,
            self.limits(),
            now,
        );
        self.state = next;
        for effect in effects {
            self.begin(effect, now);
        }
        let ending = self.state.stage != Stage::Syncing;
        self.probes
            .follow(&self.executor, &self.want, &self.seen, ending);
        let held = self.replacing.until(&self.seen, now).filter(|_| !ending);
        if held.is_none() {
            self.publish(now);
        }
        held.into_iter().chain(wake_at).chain(again).min()
    }

    fn begin(&mut self, effect: Effect, now: Timestamp) {
        match &effect {
            Effect::StopContainer {
                container,
                id,
                reason: StopReason::DefinitionChanged,
                ..
            } => self.replacing.begin(container, id, now),
            Effect::RunSandbox { .. } => self.seen.pod_applied = Some(self.granted.clone()),
            Effect::CreateContainer { container, .. } => {
                if let Some(resources) = resize::given(&self.want.pod, container) {
                    self.making.insert(container.clone(), resources);
                }
            }
            Effect::Abandon => return self.abandon.cancel(),
            Effect::ReportBackOff { container, .. } => return self.report_back_off(container),
            Effect::ReportPullBackOff { container } => return self.report_pull(container),
            _ => {}
        }
        if let Some(work) = effect.work() {
            self.seen.busy.insert(work);
        }
        let executor = self.executor.clone();
        let context = self.context();
        let span = tracing::debug_span!("effect", what = %effect);
        let tracer = executor.deps().options.tracer.clone();
        let pod = self.want.pod.clone();
        let run = async move {
            let start = Instant::now();
            let work = executor.run(&effect, &context);
            let result = tracer.sync_pod(&pod, &effect, work).await;
            (effect, result, start.elapsed())
        };
        self.tasks.spawn(run.instrument(span));
    }

    fn context(&self) -> Context {
        Context {
            pod: self.want.pod.clone(),
            volumes: self.volumes.clone(),
            seen: Arc::new(self.seen.clone()),
            pre_stopped: self.pre_stopped.clone(),
            progress: self.progress.clone(),
            abandon: self.abandon.clone(),
        }
    }

    fn read(&mut self, mail: Mail) {
        match mail {
            Mail::Want(want) => self.want_now(want),
            Mail::Seen(seen) => self.take_in(seen),
            Mail::Listed(seen, asked) => self.reconcile(seen, asked),
            Mail::Removed(id) => self.remove(&id),
            Mail::Nudge => self.retry_soon(),
            Mail::End(verdict) => drop(self.want.verdict.get_or_insert(verdict)),
        }
    }

    fn want_now(&mut self, want: Desired) {
        let changed = self.want.pod.metadata.generation != want.pod.metadata.generation;
        let marks = |d: &Desired| {
            (
                d.pod.metadata.labels.clone(),
                d.pod.metadata.annotations.clone(),
            )
        };
        let remount = marks(&self.want) != marks(&want);
        let uses_more = changed && volume::used(&self.want.pod) != volume::used(&want.pod);
        let removed = self.want.removed || want.removed;
        let verdict = want.verdict.clone().or_else(|| self.want.verdict.take());
        self.want = Desired {
            removed,
            verdict,
            ..want
        };
        self.asked = self.want.pod.clone();
        if changed || remount {
            self.retry_soon();
        }
        self.settle_resources();
        // What ends needs nothing new, and has given back what it needed.
        if self.state.stage != Stage::Syncing {
            return;
        }
        if changed || remount {
            self.executor.deps().objects.register(&self.want.pod);
        }
        let idle = !self.seen.busy.contains(&Work::Volumes);
        self.mount_again |= (remount || uses_more) && !idle;
        // What needs them waits for the decision that mounts them.
        self.seen.volumes &= !uses_more;
        if remount && idle && self.seen.volumes {
            self.begin(Effect::MountVolumes, Timestamp::now());
        }
    }

    /// Failures that a change elsewhere may have mended are tried again at once.
    fn retry_soon(&mut self) {
        self.seen.failed.retain(|work, failure| match work {
            Work::Volumes | Work::Sandbox | Work::Resize => false,
            Work::Create(_) => failure.reason != "CreateContainerConfigError",
            _ => true,
        });
    }

    fn take_in(&mut self, pod: PodSeen) {
        for sandbox in pod.sandboxes {
            self.born
                .entry(sandbox.id.clone())
                .or_insert_with(Instant::now);
            self.seen.see_sandbox(sandbox);
        }
        for container in pod.containers {
            self.see(container);
        }
    }

    fn remove(&mut self, id: &str) {
        self.removed.add(id);
        self.seen.forget_container(id);
    }

    fn see(&mut self, container: ContainerSeen) {
        if self.removed.has(&container.id) {
            return;
        }
        self.born
            .entry(container.id.clone())
            .or_insert_with(Instant::now);
        self.seen.see_container(container);
    }

    /// What the runtime does not list any more, though it was known when the
    /// list was asked for, is gone.
    fn reconcile(&mut self, listed: PodSeen, asked: Instant) {
        let old =
            |born: &HashMap<String, Instant>, id: &str| born.get(id).is_some_and(|b| *b < asked);
        let containers: BTreeSet<&str> = listed.containers.iter().map(|c| c.id.as_str()).collect();
        let sandboxes: BTreeSet<&str> = listed.sandboxes.iter().map(|s| s.id.as_str()).collect();
        let gone = |id: &str, known: &BTreeSet<&str>| !known.contains(id) && old(&self.born, id);
        let lost: Vec<String> = self.seen.containers.iter().map(|c| c.id.clone()).collect();
        let lost: Vec<String> = lost
            .into_iter()
            .filter(|id| gone(id, &containers))
            .collect();
        let empty: Vec<String> = self.seen.sandboxes.iter().map(|s| s.id.clone()).collect();
        let empty: Vec<String> = empty
            .into_iter()
            .filter(|id| gone(id, &sandboxes))
            .collect();
        self.removed.settle(&containers, asked);
        lost.iter().for_each(|id| self.seen.forget_container(id));
        empty.iter().for_each(|id| self.seen.forget_sandbox(id));
        self.take_in(listed);
    }

    fn judge(&mut self, verdict: Verdict) {
        let slot = self.seen.probes.entry(verdict.container).or_default();
        slot.set(verdict.kind, verdict.healthy);
    }

    /// A container that was ready before the agent's restart still is.
    fn adopt_readiness(&mut self) {
        let status = self.want.pod.status.as_ref();
        let of = |list: Option<&Vec<k8s_openapi::api::core::v1::ContainerStatus>>| {
            list.into_iter().flatten().cloned().collect::<Vec<_>>()
        };
        let mut known = of(status.and_then(|s| s.container_statuses.as_ref()));
        known.extend(of(status.and_then(|s| s.init_container_statuses.as_ref())));
        for container in known {
            let id = container.container_id.unwrap_or_default();
            let id = id.rsplit('/').next().unwrap_or_default().to_owned();
            if self
                .seen
                .containers
                .iter()
                .any(|c| c.id == id && c.running())
            {
                let verdicts = Verdicts {
                    startup: container.started.filter(|s| *s),
                    liveness: None,
                    readiness: Some(container.ready),
                };
                self.seen.probes.insert(id, verdicts);
            }
        }
    }

    fn settle(&mut self, done: Option<(Effect, Result<Report, Failed>, Duration)>) {
        // Nobody aborts them, and what panics in them is a result.
        let Some((effect, result, took)) = done else {
            return;
        };
        self.count_work(&effect, took, result.is_err());
        let Some(work) = effect.work() else { return };
        self.seen.busy.remove(&work);
        match result {
            Ok(report) => {
                self.seen.failed.remove(&work);
                self.note(&effect, report);
            }
            // Given up, not failed.
            Err(failed) if failed.reason == ABANDONED => {}
            // No other try: the pod belongs to a node that has room for it.
            Err(failed) if work == Work::Allocate && failed.reason != PANICKED => {
                let verdict = lifecycle::Verdict {
                    reason: failed.reason.to_owned(),
                    message: failed.message,
                    grace: None,
                    disrupts: false,
                };
                self.want.verdict.get_or_insert(verdict);
            }
            Err(failed) => {
                let count = self.seen.failed.get(&work).map_or(0, |f| f.count) + 1;
                let failure = Failure {
                    reason: failed.reason.to_owned(),
                    message: failed.message,
                    count,
                    at: Timestamp::now(),
                };
                self.seen.failed.insert(work, failure);
            }
        }
    }

    fn note(&mut self, effect: &Effect, report: Report) {
        match report {
            Report::Volumes(volumes) => {
                self.volumes = Arc::new(volumes);
                self.seen.volumes = !std::mem::take(&mut self.mount_again);
            }
            Report::Sandbox(sandbox) => {
                self.born.insert(sandbox.id.clone(), Instant::now());
                self.seen.see_sandbox(sandbox);
                self.seen.unprepared = dra::claim::any(&self.want.pod);
            }
            Report::Image(container, image) => drop(self.seen.images.insert(container, image)),
            Report::Container(container) => {
                if let Effect::CreateContainer {
                    container: name, ..
                } = effect
                    && let Some(resources) = self.making.remove(name)
                {
                    self.seen.applied.insert(container.id.clone(), resources);
                }
                self.see(*container);
            }
            Report::Resized(given, pod) => {
                self.seen.applied.extend(given);
                self.seen.pod_applied = Some(pod);
            }
            Report::Done => {}
        }
        match effect {
            Effect::Allocate => self.seen.unallocated = false,
            Effect::PrepareResources => self.seen.unprepared = false,
            Effect::StopSandbox { id } => drop(self.seen.stopped.insert(id.clone())),
            Effect::RemoveContainer { id } => self.remove(id),
            Effect::RemoveSandbox { id } => self.seen.forget_sandbox(id),
            Effect::UnmountVolumes => {
                self.seen.unmounted = true;
                self.seen.volumes = false;
            }
            _ => {}
        }
    }

    fn subject(&self) -> Subject {
        Subject::new(self.want.pod.clone(), self.executor.deps().events.clone())
    }

    fn report_back_off(&self, container: &str) {
        let delay = self
            .state
            .memory
            .backoffs
            .get(container)
            .map(|b| b.delay)
            .unwrap_or_default();
        let text = back_off_message(delay, container, &self.want.pod);
        tracing::debug!(container, "{text}");
        let pod = &self.want.pod.metadata;
        let message = format!(
            "Back-off restarting failed container {container} in pod {}_{}({})",
            pod.name.as_deref().unwrap_or_default(),
            pod.namespace.as_deref().unwrap_or_default(),
            pod.uid.as_deref().unwrap_or_default()
        );
        self.subject()
            .of_container(container, EventType::Warning, "BackOff", &message);
    }

    fn report_pull(&mut self, container: &str) {
        let work = Work::Image(container.to_owned());
        if let Some(failure) = self.seen.failed.get_mut(&work)
            && failure.reason == ERR_IMAGE_PULL
        {
            "ImagePullBackOff".clone_into(&mut failure.reason);
        }
        let spec = self.want.pod.spec.as_ref();
        let image = spec
            .and_then(|s| spec::find(s, container))
            .and_then(|c| c.image);
        let message = format!("Back-off pulling image {:?}", image.unwrap_or_default());
        let subject = self.subject();
        subject.of_container(container, EventType::Normal, "BackOff", &message);
        subject.of_container(
            container,
            EventType::Warning,
            "Failed",
            "Error: ImagePullBackOff",
        );
    }
}

/// The state to start from: what the API server remembers.
fn begin(want: &Desired) -> WorkerState {
    let status = want.pod.status.as_ref();
    let start_time = status.and_then(|s| s.start_time.as_ref()).map(|t| t.0);
    let mut memory = Memory {
        start_time: Some(start_time.unwrap_or_else(Timestamp::now)),
        ..Memory::default()
    };
    let lists = status.map(|s| {
        [
            &s.container_statuses,
            &s.init_container_statuses,
            &s.ephemeral_container_statuses,
        ]
    });
    for container in lists.into_iter().flatten().flatten().flatten() {
        if container.container_id.is_some() {
            let next = u32::try_from(container.restart_count).unwrap_or(0) + 1;
            memory.attempts.insert(container.name.clone(), next);
        }
    }
    WorkerState {
        stage: Stage::Syncing,
        memory,
    }
}

async fn until(at: Option<Timestamp>) {
    match at {
        Some(at) => {
            let left = at.duration_since(Timestamp::now());
            tokio::time::sleep(Duration::try_from(left).unwrap_or_default()).await;
        }
        None => std::future::pending().await,
    }
}
