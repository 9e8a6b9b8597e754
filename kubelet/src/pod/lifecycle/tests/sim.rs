//! A runtime in which everything works at once, and a clock that is told.

use crate::pod::lifecycle::*;
use crate::pod::observed::{ContainerSeen, Exit, Failure, ImageReady, Observed, Run, SandboxSeen};
use crate::pod::spec::{find, hash};
use crate::source::Source;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;

/// One pod and all around it.
pub(super) struct Sim {
    pub want: Desired,
    pub state: WorkerState,
    pub seen: Observed,
    pub now: Timestamp,
    pub wake_at: Option<Timestamp>,
    made: u32,
}

impl Sim {
    pub fn new(spec: Value) -> Self {
        let pod = json!({"metadata": {"name": "p", "namespace": "n", "uid": "u"}, "spec": spec});
        let now = Timestamp::from_second(1_000_000).unwrap_or_default();
        Self {
            want: Desired {
                pod: Arc::new(serde_json::from_value(pod).unwrap_or_default()),
                source: Source::Api,
                removed: false,
                verdict: None,
            },
            state: WorkerState {
                stage: Stage::Syncing,
                memory: Memory {
                    start_time: Some(now),
                    ..Memory::default()
                },
            },
            seen: Observed::default(),
            now,
            wake_at: None,
            made: 0,
        }
    }

    /// Started, with everything running that runs at once.
    pub fn running(spec: Value) -> Self {
        let mut sim = Self::new(spec);
        sim.rest();
        sim
    }

    /// One decision; its effects are not done.
    pub fn decide(&mut self) -> Vec<Effect> {
        let limits = Limits {
            crash_loop_max: Duration::from_secs(300),
            dead_containers_kept: 1,
        };
        let decision = decide(self.state.clone(), &self.want, &self.seen, limits, self.now);
        self.state = decision.next;
        self.wake_at = decision.wake_at;
        decision.effects
    }

    /// One decision in words; its effects are not done.
    pub fn says(&mut self) -> Vec<String> {
        let effects = self.decide();
        effects.iter().map(|e| self.word(e)).collect()
    }

    /// Decides and does until nothing is left to do now.
    pub fn rest(&mut self) -> Vec<String> {
        let mut told = Vec::new();
        for _ in 0..100 {
            let effects = self.decide();
            if effects.is_empty() {
                return told;
            }
            told.extend(effects.iter().map(|e| self.word(e)));
            self.perform_all(effects);
        }
        told.push("does not come to rest".into());
        told
    }

    pub fn perform_all(&mut self, effects: Vec<Effect>) {
        effects.iter().for_each(|e| self.perform(e));
    }

    pub fn pass(&mut self, seconds: i64) -> &mut Self {
        self.now += SignedDuration::from_secs(seconds);
        self
    }

    /// The newest attempt of a container ends by itself.
    pub fn exits(&mut self, name: &str, code: i32) -> &mut Self {
        let id = self.id(name);
        self.exit(&id, code);
        self
    }

    pub fn id(&self, name: &str) -> String {
        self.seen
            .newest(name)
            .map(|c| c.id.clone())
            .unwrap_or_default()
    }

    /// The monitor dies: no sandbox, no containers.
    pub fn sandbox_dies(&mut self) -> &mut Self {
        let ids: Vec<String> = self.seen.containers.iter().map(|c| c.id.clone()).collect();
        ids.iter().for_each(|id| self.exit(id, 255));
        self.seen.sandboxes.iter_mut().for_each(|s| s.ready = false);
        self
    }

    pub fn edit(&mut self, change: impl FnOnce(&mut k8s_openapi::api::core::v1::Pod)) -> &mut Self {
        change(Arc::make_mut(&mut self.want.pod));
        self
    }

    pub fn deleted(&mut self, grace: i64) -> &mut Self {
        let at = k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(self.now);
        self.edit(|pod| {
            pod.metadata.deletion_timestamp = Some(at);
            pod.metadata.deletion_grace_period_seconds = Some(grace);
        })
    }

    pub fn fails(&mut self, work: Work, reason: &str) -> &mut Self {
        let count = self.seen.failed.get(&work).map_or(0, |f| f.count) + 1;
        let failure = Failure {
            reason: reason.into(),
            message: String::new(),
            count,
            at: self.now,
        };
        self.seen.failed.insert(work, failure);
        self
    }

    fn exit(&mut self, id: &str, code: i32) {
        let Some(old) = self.seen.containers.iter().find(|c| c.id == id).cloned() else {
            return;
        };
        let exit = Exit {
            code,
            reason: if code == 0 { "Completed" } else { "Error" }.into(),
            message: String::new(),
            started: None,
            finished: self.now,
        };
        self.seen.see_container(ContainerSeen {
            run: Run::Exited(exit),
            ..old
        });
    }

    fn fresh(&mut self, kind: &str) -> String {
        self.made += 1;
        format!("{kind}{}", self.made)
    }

    fn word(&self, effect: &Effect) -> String {
        let name = |id: &String| {
            let found = self.seen.containers.iter().find(|c| &c.id == id);
            found.map_or_else(|| id.clone(), |c| format!("{}#{}", c.name, c.attempt))
        };
        match effect {
            Effect::Abandon => "abandon".into(),
            Effect::Allocate => "allocate".into(),
            Effect::PrepareResources => "prepare".into(),
            Effect::Resize => "resize".into(),
            Effect::MountVolumes => "mount".into(),
            Effect::RunSandbox { attempt, .. } => format!("sandbox#{attempt}"),
            Effect::EnsureImage { container, attempt } => format!("image {container}#{attempt}"),
            Effect::CreateContainer {
                container, attempt, ..
            } => format!("create {container}#{attempt}"),
            Effect::StartContainer { id, .. } => format!("start {}", name(id)),
            Effect::StopContainer {
                id, until, reason, ..
            } => {
                let left = until.duration_since(self.now).as_secs();
                format!("stop {} in {left}s: {reason:?}", name(id))
            }
            Effect::StopSandbox { .. } => "stop sandbox".into(),
            Effect::RemoveContainer { id } => format!("remove {}", name(id)),
            Effect::RemoveSandbox { .. } => "remove sandbox".into(),
            Effect::UnmountVolumes => "unmount".into(),
            Effect::ReportBackOff { container, attempt } => {
                format!("back off {container}#{attempt}")
            }
            Effect::ReportPullBackOff { container } => format!("pull back off {container}"),
        }
    }

    fn perform(&mut self, effect: &Effect) {
        if let Some(work) = effect.work() {
            self.seen.failed.remove(&work);
        }
        match effect {
            Effect::Abandon | Effect::ReportBackOff { .. } => {}
            Effect::ReportPullBackOff { container } => {
                let failure = self.seen.failed.get_mut(&Work::Image(container.clone()));
                failure
                    .into_iter()
                    .for_each(|f| f.reason = "ImagePullBackOff".into());
            }
            Effect::Allocate => self.seen.unallocated = false,
            Effect::PrepareResources => self.seen.unprepared = false,
            Effect::Resize => {
                let pod = self.want.pod.clone();
                let cgroup = crate::pod::resize::for_cgroup(&pod, &self.seen);
                self.seen.pod_applied = Some(cgroup);
                let due = crate::pod::resize::resizable(&pod);
                let due: Vec<_> = due
                    .filter(|c| crate::pod::resize::running_due(&pod, c, &self.seen))
                    .collect();
                for container in due {
                    let newest = self.seen.newest(&container.name).map(|c| c.id.clone());
                    self.give(newest.unwrap_or_default(), container);
                }
            }
            Effect::MountVolumes => self.seen.volumes = true,
            Effect::RunSandbox { attempt, .. } => {
                self.seen.pod_applied = Some(crate::pod::resize::of(&self.want.pod));
                let sandbox = SandboxSeen {
                    id: self.fresh("s"),
                    attempt: *attempt,
                    ready: true,
                    created: self.now,
                    ips: vec!["10.0.0.2".into()],
                    runtime_handler: String::new(),
                    granted: String::new(),
                };
                self.seen.see_sandbox(sandbox);
            }
            Effect::EnsureImage { container, attempt } => {
                let ready = ImageReady {
                    attempt: *attempt,
                    image: self.container(container).image.unwrap_or_default(),
                    image_ref: "sha256:1".into(),
                    user: Default::default(),
                };
                self.seen.images.insert(container.clone(), ready);
            }
            Effect::CreateContainer {
                container,
                attempt,
                sandbox,
                ..
            } => self.create(container, *attempt, sandbox),
            Effect::StartContainer { id, .. } => self.start(id),
            Effect::StopContainer { id, .. } => self.exit(id, 137),
            Effect::StopSandbox { id } => {
                self.seen.stopped.insert(id.clone());
                let sandboxes = self.seen.sandboxes.iter_mut();
                sandboxes
                    .filter(|s| &s.id == id)
                    .for_each(|s| s.ready = false);
            }
            Effect::RemoveContainer { id } => self.seen.forget_container(id),
            Effect::RemoveSandbox { id } => self.seen.forget_sandbox(id),
            Effect::UnmountVolumes => {
                self.seen.unmounted = true;
                self.seen.volumes = false;
            }
        }
    }

    fn container(&self, name: &str) -> k8s_openapi::api::core::v1::Container {
        let spec = self.want.pod.spec.clone().unwrap_or_default();
        find(&spec, name).unwrap_or_default()
    }

    fn create(&mut self, name: &str, attempt: u32, sandbox: &str) {
        let container = self.container(name);
        let next = format!("c{}", self.made + 1);
        self.give(next, &container);
        let seen = ContainerSeen {
            id: self.fresh("c"),
            sandbox: sandbox.to_owned(),
            name: name.to_owned(),
            attempt,
            run: Run::Created,
            created: self.now,
            image: container.image.clone().unwrap_or_default(),
            image_id: "sha256:1".into(),
            hash: hash(&container),
            user: None,
            log_path: String::new(),
        };
        self.seen.see_container(seen);
    }

    fn give(&mut self, id: String, container: &k8s_openapi::api::core::v1::Container) {
        let resources = crate::pod::resize::given(&self.want.pod, &container.name);
        let resources = resources.unwrap_or_default();
        self.seen.applied.insert(id, resources);
    }

    fn start(&mut self, id: &str) {
        let Some(old) = self.seen.containers.iter().find(|c| c.id == id).cloned() else {
            return;
        };
        let started = self.now;
        self.seen.see_container(ContainerSeen {
            run: Run::Running { started },
            ..old
        });
    }
}

/// Containers by name, each with the image `i`.
pub(super) fn containers(names: &[&str]) -> Value {
    names
        .iter()
        .map(|n| json!({"name": n, "image": "i"}))
        .collect()
}

pub(super) fn sidecar(name: &str) -> Value {
    json!({"name": name, "image": "i", "restartPolicy": "Always"})
}
