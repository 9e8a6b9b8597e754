use super::pod::{Look, build};
use crate::pod::lifecycle::{Desired, Memory, Stage, Verdict, Why, Work, WorkerState};
use crate::pod::observed::{ContainerSeen, Exit, Failure, Observed, Run, SandboxSeen, Verdicts};
use crate::pod::spec::testing::node;
use crate::source::Source;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ContainerStatus, PodStatus};
use serde_json::{Value, json};
use std::sync::Arc;

const NOW: i64 = 2_000_000;

struct Case {
    want: Desired,
    state: WorkerState,
    seen: Observed,
    before: Option<PodStatus>,
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap_or_default()
}

impl Case {
    fn new(spec: Value) -> Self {
        let metadata = json!({"name": "p", "namespace": "n", "uid": "u", "generation": 3});
        let pod = json!({"metadata": metadata, "spec": spec});
        Self {
            want: Desired {
                pod: Arc::new(serde_json::from_value(pod).unwrap_or_default()),
                source: Source::Api,
                removed: false,
                verdict: None,
            },
            state: WorkerState {
                stage: Stage::Syncing,
                memory: Memory::default(),
            },
            seen: Observed {
                volumes: true,
                ..Observed::default()
            },
            before: None,
        }
    }

    fn sandbox(mut self) -> Self {
        self.seen.see_sandbox(SandboxSeen {
            id: "s".into(),
            attempt: 0,
            ready: true,
            created: at(1),
            ips: vec!["10.0.0.2".into(), "fd00::2".into()],
            runtime_handler: String::new(),
            granted: String::new(),
        });
        self
    }

    fn container(mut self, name: &str, attempt: u32, run: Run) -> Self {
        self.seen.see_container(ContainerSeen {
            id: format!("{name}{attempt}"),
            sandbox: "s".into(),
            name: name.into(),
            attempt,
            run,
            created: at(1),
            image: "i".into(),
            image_id: "sha256:1".into(),
            hash: String::new(),
            user: None,
            log_path: String::new(),
        });
        self
    }

    fn fails(mut self, work: Work, reason: &str, message: &str) -> Self {
        let failure = Failure {
            reason: reason.into(),
            message: message.into(),
            count: 1,
            at: at(NOW),
        };
        self.seen.failed.insert(work, failure);
        self
    }

    fn stage(mut self, stage: Stage) -> Self {
        self.state.stage = stage;
        self
    }

    fn status(&self) -> PodStatus {
        build(&Look {
            want: &self.want,
            state: &self.state,
            seen: &self.seen,
            node: &node(),
            runtime: "lighter",
            before: self.before.as_ref(),
            now: at(NOW),
        })
    }
}

fn running() -> Run {
    Run::Running { started: at(5) }
}

fn exited(code: i32) -> Run {
    Run::Exited(Exit {
        code,
        reason: if code == 0 { "Completed" } else { "Error" }.into(),
        message: "last words".into(),
        started: Some(at(5)),
        finished: at(NOW - 1),
    })
}

fn terminated(why: Why) -> Stage {
    let since = at(NOW);
    Stage::Terminated { why, since }
}

fn first(status: &PodStatus) -> ContainerStatus {
    let mut list = status.container_statuses.clone().unwrap_or_default();
    list.remove(0)
}

fn waiting(status: &PodStatus) -> (String, String) {
    let state = first(status)
        .state
        .and_then(|s| s.waiting)
        .unwrap_or_default();
    (
        state.reason.unwrap_or_default(),
        state.message.unwrap_or_default(),
    )
}

fn condition(status: &PodStatus, kind: &str) -> (String, String, String) {
    let mut all = status.conditions.iter().flatten();
    let found = all.find(|c| c.type_ == kind).cloned().unwrap_or_default();
    let text = |t: Option<String>| t.unwrap_or_default();
    (found.status, text(found.reason), text(found.message))
}

fn one() -> Value {
    json!({"containers": [{"name": "a", "image": "i"}]})
}

#[test]
fn containers_are_told_by_name_and_init_containers_in_the_order_of_the_spec() {
    let two = json!([{"name": "b", "image": "i"}, {"name": "a", "image": "i"}]);
    let status = Case::new(json!({"containers": two, "initContainers": [
        {"name": "y", "image": "i"}, {"name": "x", "image": "i"}]}))
    .status();
    let names = |list: &Option<Vec<ContainerStatus>>| -> Vec<String> {
        list.iter().flatten().map(|c| c.name.clone()).collect()
    };
    assert_eq!(names(&status.container_statuses), ["a", "b"]);
    assert_eq!(names(&status.init_container_statuses), ["y", "x"]);
}

#[test]
fn fresh_pod_is_pending_and_says_what_is_missing() {
    let status = Case::new(one()).status();
    assert_eq!(status.phase.as_deref(), Some("Pending"));
    assert_eq!(waiting(&status).0, "ContainerCreating");
    assert_eq!(
        condition(&status, "Ready"),
        (
            "False".into(),
            "ContainersNotReady".into(),
            "containers with unready status: [a]".into()
        )
    );
    assert_eq!(condition(&status, "Initialized").0, "True");
    let (value, reason, _) = condition(&status, "PodReadyToStartContainers");
    assert_eq!(
        (value.as_str(), reason.as_str()),
        ("False", "PodSandboxNotReady")
    );
    assert_eq!(status.observed_generation, Some(3));
}

#[test]
fn running_pod_is_ready_and_has_all_its_addresses() {
    let status = Case::new(one())
        .sandbox()
        .container("a", 0, running())
        .status();
    assert_eq!(status.phase.as_deref(), Some("Running"));
    assert_eq!(condition(&status, "Ready").0, "True");
    assert_eq!(condition(&status, "PodReadyToStartContainers").0, "True");
    let ips: Vec<String> = status
        .pod_ips
        .iter()
        .flatten()
        .map(|p| p.ip.clone())
        .collect();
    assert_eq!(ips, ["10.0.0.2", "fd00::2"]);
    assert_eq!(status.host_ip.as_deref(), Some("192.168.0.1"));
    assert_eq!(first(&status).container_id.as_deref(), Some("lighter://a0"));
}

#[test]
fn container_with_a_readiness_probe_is_ready_only_after_its_verdict() {
    let spec = json!({"containers": [{"name": "a", "image": "i", "readinessProbe": {}}]});
    let mut case = Case::new(spec).sandbox().container("a", 0, running());
    assert!(!first(&case.status()).ready);
    let verdicts = Verdicts {
        readiness: Some(true),
        ..Verdicts::default()
    };
    case.seen.probes.insert("a0".into(), verdicts);
    assert!(first(&case.status()).ready);
}

#[test]
fn readiness_gates_hold_the_pod_back_and_say_so() {
    let mut spec = one();
    spec["readinessGates"] = json!([{"conditionType": "x/y"}]);
    let status = Case::new(spec)
        .sandbox()
        .container("a", 0, running())
        .status();
    assert_eq!(condition(&status, "ContainersReady").0, "True");
    let (value, reason, message) = condition(&status, "Ready");
    assert_eq!(
        (value.as_str(), reason.as_str()),
        ("False", "ReadinessGatesNotReady")
    );
    assert_eq!(
        message,
        "corresponding condition of pod readiness gate \"x/y\" does not exist."
    );
}

#[test]
fn init_containers_keep_the_pod_pending_and_the_app_waiting() {
    let mut spec = one();
    spec["initContainers"] = json!([{"name": "init", "image": "i"}]);
    let status = Case::new(spec)
        .sandbox()
        .container("init", 0, running())
        .status();
    assert_eq!(status.phase.as_deref(), Some("Pending"));
    assert_eq!(waiting(&status).0, "PodInitializing");
    let (_, reason, message) = condition(&status, "Initialized");
    assert_eq!(reason, "ContainersNotInitialized");
    assert_eq!(message, "containers with incomplete status: [init]");
}

#[test]
fn waiting_container_names_what_it_waits_for() {
    let of = |work: Work, reason, message| {
        waiting(
            &Case::new(one())
                .sandbox()
                .fails(work, reason, message)
                .status(),
        )
    };
    let image = Work::Image("a".into());
    assert_eq!(of(image.clone(), "ErrImagePull", "x").0, "ErrImagePull");
    let (reason, message) = of(image, "ImagePullBackOff", "no such host");
    assert_eq!(reason, "ImagePullBackOff");
    assert_eq!(
        message,
        "Back-off pulling image \"i\": ErrImagePull: no such host"
    );
    let secret = "secret \"s\" not found";
    let found = of(
        Work::Create("a".into()),
        "CreateContainerConfigError",
        secret,
    );
    assert_eq!(found, ("CreateContainerConfigError".into(), secret.into()));
}

#[test]
fn container_that_was_restarted_keeps_its_last_end() {
    let case = Case::new(one()).sandbox();
    let status = case
        .container("a", 0, exited(3))
        .container("a", 1, running())
        .status();
    let container = first(&status);
    let last = container
        .last_state
        .and_then(|s| s.terminated)
        .unwrap_or_default();
    assert_eq!(
        (last.exit_code, last.message.as_deref()),
        (3, Some("last words"))
    );
    assert_eq!((container.restart_count, container.ready), (1, true));
}

#[test]
fn completed_pod_has_succeeded_and_is_not_ready() {
    let mut spec = one();
    spec["restartPolicy"] = "Never".into();
    let case = Case::new(spec).sandbox().container("a", 0, exited(0));
    assert_eq!(
        case.status().phase.as_deref(),
        Some("Running"),
        "not before it is at rest"
    );
    let status = case.stage(terminated(Why::Completed)).status();
    assert_eq!(status.phase.as_deref(), Some("Succeeded"));
    assert_eq!(condition(&status, "Ready").1, "PodCompleted");
    assert_eq!(condition(&status, "Initialized").1, "PodCompleted");
}

#[test]
fn deleted_pod_that_never_ran_has_failed() {
    let status = Case::new(one()).stage(terminated(Why::Deleted)).status();
    assert_eq!(status.phase.as_deref(), Some("Failed"));
    let end = first(&status)
        .state
        .and_then(|s| s.terminated)
        .unwrap_or_default();
    assert_eq!(
        (end.exit_code, end.reason.as_deref()),
        (137, Some("ContainerStatusUnknown"))
    );
}

#[test]
fn rejected_pod_has_a_reason_and_no_containers() {
    let verdict = Verdict {
        reason: "NodePorts".into(),
        message: "taken".into(),
        grace: None,
        disrupts: false,
    };
    let status = Case::new(one())
        .stage(terminated(Why::Rejected(verdict)))
        .status();
    assert_eq!(status.phase.as_deref(), Some("Failed"));
    assert_eq!(status.reason.as_deref(), Some("NodePorts"));
    assert_eq!(status.container_statuses, None);
}

#[test]
fn condition_keeps_its_time_until_its_status_changes() {
    let mut case = Case::new(one()).sandbox().container("a", 0, running());
    let since = |status: &PodStatus| {
        let mut all = status.conditions.iter().flatten();
        let ready = all.find(|c| c.type_ == "Ready").cloned();
        ready
            .and_then(|c| c.last_transition_time)
            .map(|t| t.0.as_second())
    };
    let condition = |status: &str| {
        json!({"conditions": [
            {"type": "Ready", "status": status, "lastTransitionTime": "1970-01-01T00:00:07Z"}
        ]})
    };
    case.before = serde_json::from_value(condition("True")).ok();
    assert_eq!(since(&case.status()), Some(7));
    case.before = serde_json::from_value(condition("False")).ok();
    assert_eq!(since(&case.status()), Some(NOW));
}
