use super::sim::{Sim, containers, sidecar};
use crate::pod::lifecycle::*;
use serde_json::json;

#[test]
fn deleted_pod_is_stopped_unmounted_and_removed_and_then_finished() {
    let mut sim = Sim::running(json!({"containers": containers(&["a"])}));
    let told = sim.deleted(7).rest();
    let steps = [
        "abandon",
        "stop a#0 in 7s: PodEnds",
        "stop sandbox",
        "unmount",
        "remove sandbox",
    ];
    assert_eq!(told, steps);
    assert_eq!(sim.state.stage, Stage::Finished { why: Why::Deleted });
}

#[test]
fn pod_that_never_started_is_finished_once_its_volumes_are_unmounted() {
    let mut sim = Sim::new(json!({"containers": containers(&["a"])}));
    assert_eq!(sim.deleted(30).rest(), ["abandon", "unmount"]);
    assert_eq!(sim.state.stage, Stage::Finished { why: Why::Deleted });
}

#[test]
fn nothing_is_stopped_for_good_while_something_may_still_appear() {
    let mut sim = Sim::new(json!({"containers": containers(&["a"])}));
    sim.seen.busy.insert(Work::Sandbox);
    assert_eq!(sim.deleted(30).says(), ["abandon"]);
    assert!(matches!(sim.state.stage, Stage::Terminating { .. }));
}

#[test]
fn pull_under_way_does_not_keep_a_pod() {
    let mut sim = Sim::new(json!({"containers": containers(&["a"])}));
    sim.seen.busy.insert(Work::Image("a".into()));
    assert_eq!(sim.deleted(30).rest(), ["abandon", "unmount"]);
}

#[test]
fn shorter_grace_period_hastens_the_end_and_a_longer_one_does_not_delay_it() {
    let mut sim = Sim::running(json!({"containers": containers(&["a"])}));
    assert!(
        sim.deleted(30)
            .says()
            .contains(&"stop a#0 in 30s: PodEnds".to_owned())
    );
    assert_eq!(sim.deleted(60).says(), ["stop a#0 in 30s: PodEnds"]);
    assert_eq!(sim.deleted(1).says(), ["stop a#0 in 1s: PodEnds"]);
}

#[test]
fn sidecars_end_after_the_app_and_in_reverse_order() {
    let mut sim = Sim::running(json!({
        "initContainers": [sidecar("one"), sidecar("two")], "containers": containers(&["app"])
    }));
    let told = sim.deleted(30).rest();
    let stops: Vec<&str> = told
        .iter()
        .filter_map(|t| t.strip_prefix("stop "))
        .collect();
    let order: Vec<&str> = stops.iter().filter_map(|s| s.split(' ').next()).collect();
    assert_eq!(order, ["app#0", "two#0", "one#0", "sandbox"]);
}

#[test]
fn sidecars_are_stopped_at_once_when_time_is_up() {
    let mut sim = Sim::running(json!({
        "initContainers": [sidecar("one"), sidecar("two")], "containers": containers(&["app"])
    }));
    sim.deleted(5).decide();
    let told = sim.pass(5).says();
    assert_eq!(told.iter().filter(|t| t.starts_with("stop ")).count(), 3);
}

#[test]
fn pod_that_is_done_ends_its_sidecars_and_keeps_its_logs() {
    let mut sim = Sim::running(json!({
        "initContainers": [sidecar("side")], "containers": containers(&["job"]),
        "restartPolicy": "OnFailure"
    }));
    let told = sim.exits("job", 0).rest();
    assert_eq!(
        told,
        [
            "abandon",
            "stop side#0 in 30s: PodEnds",
            "stop sandbox",
            "unmount"
        ]
    );
    assert!(matches!(
        sim.state.stage,
        Stage::Terminated {
            why: Why::Completed,
            ..
        }
    ));
    assert_eq!(sim.deleted(30).rest(), ["remove sandbox"]);
    assert_eq!(
        sim.state.stage,
        Stage::Finished {
            why: Why::Completed
        }
    );
}

#[test]
fn init_container_that_fails_for_good_ends_the_pod() {
    let mut sim = Sim::running(json!({
        "initContainers": containers(&["init"]), "containers": containers(&["app"]),
        "restartPolicy": "Never"
    }));
    sim.exits("init", 1).rest();
    assert!(matches!(
        sim.state.stage,
        Stage::Terminated {
            why: Why::Completed,
            ..
        }
    ));
    assert!(sim.seen.newest("app").is_none());
}

#[test]
fn deadline_wakes_the_pod_and_ends_it() {
    let mut sim = Sim::running(json!({
        "containers": containers(&["a"]), "activeDeadlineSeconds": 60
    }));
    assert_eq!(
        sim.wake_at.map(|at| at.duration_since(sim.now).as_secs()),
        Some(60)
    );
    sim.pass(60).rest();
    assert!(matches!(
        sim.state.stage,
        Stage::Terminated {
            why: Why::DeadlineExceeded,
            ..
        }
    ));
}

#[test]
fn pod_that_the_api_calls_failed_is_never_brought_back() {
    let mut sim = Sim::running(json!({"containers": containers(&["a"])}));
    sim.edit(|pod| pod.status.get_or_insert_default().phase = Some("Failed".into()));
    sim.rest();
    let why = Why::ApiTerminal(Terminal::Failed);
    assert!(matches!(&sim.state.stage, Stage::Terminated { why: w, .. } if *w == why));
    assert!(sim.pass(1000).rest().is_empty());
}

#[test]
fn rejected_pod_starts_nothing() {
    let mut sim = Sim::new(json!({"containers": containers(&["a"])}));
    sim.want.verdict = Some(Verdict {
        reason: "NodePorts".into(),
        message: String::new(),
        grace: None,
        disrupts: false,
    });
    assert_eq!(sim.rest(), ["abandon", "unmount"]);
    assert!(matches!(
        sim.state.stage,
        Stage::Terminated {
            why: Why::Rejected(_),
            ..
        }
    ));
}

#[test]
fn evicted_pod_has_the_grace_it_is_given() {
    let mut sim = Sim::running(json!({"containers": containers(&["a"])}));
    sim.want.verdict = Some(Verdict {
        reason: "Evicted".into(),
        message: String::new(),
        grace: Some(0),
        disrupts: true,
    });
    assert!(sim.says().contains(&"stop a#0 in 1s: PodEnds".to_owned()));
}

#[test]
fn pod_that_its_source_dropped_is_ended_and_removed() {
    let mut sim = Sim::running(json!({"containers": containers(&["a"])}));
    sim.want.removed = true;
    assert!(sim.rest().contains(&"remove sandbox".to_owned()));
    assert_eq!(sim.state.stage, Stage::Finished { why: Why::Deleted });
}

#[test]
fn failed_stop_is_tried_again() {
    let mut sim = Sim::running(json!({"containers": containers(&["a"])}));
    let stop = sim.deleted(30).decide().into_iter().find_map(|e| match &e {
        Effect::StopContainer { .. } => e.work(),
        _ => None,
    });
    assert!(stop.is_some());
    if let Some(work) = stop {
        sim.fails(work, "FailedKillPod");
    }
    assert!(sim.says().is_empty());
    assert_eq!(sim.pass(1).says(), ["stop a#0 in 29s: PodEnds"]);
}
