use super::sim::{Sim, containers, sidecar};
use crate::pod::lifecycle::*;
use serde_json::json;

#[test]
fn pod_begins_volumes_sandbox_and_images_at_once() {
    let mut sim = Sim::new(json!({"containers": containers(&["a", "b"])}));
    assert_eq!(sim.says(), ["mount", "sandbox#0", "image a#0", "image b#0"]);
}

#[test]
fn what_a_pod_claims_is_made_ready_before_its_sandbox_and_beside_volumes_and_images() {
    let mut sim = Sim::new(json!({"containers": containers(&["a"])}));
    sim.seen.unprepared = true;
    assert_eq!(sim.says(), ["mount", "prepare", "image a#0"]);
    sim.fails(Work::PrepareResources, "FailedPrepareDynamicResources");
    assert_eq!(sim.rest(), ["mount", "image a#0"]);
    let told = sim.pass(1).rest();
    assert_eq!(told, ["prepare", "sandbox#0", "create a#0", "start a#0"]);
}

#[test]
fn nothing_is_asked_for_twice_while_it_is_under_way() {
    let mut sim = Sim::new(json!({"containers": containers(&["a"])}));
    for effect in sim.decide() {
        sim.seen.busy.extend(effect.work());
    }
    assert!(sim.says().is_empty());
}

#[test]
fn pod_comes_to_rest_when_its_containers_run() {
    let mut sim = Sim::new(json!({"containers": containers(&["a"])}));
    let told = sim.rest();
    assert_eq!(
        told,
        ["mount", "sandbox#0", "image a#0", "create a#0", "start a#0"]
    );
    assert_eq!(sim.wake_at, None);
}

#[test]
fn adopted_pod_is_left_alone_but_for_its_volumes() {
    let mut sim = Sim::running(json!({"containers": containers(&["a"])}));
    sim.state.memory = Memory::default();
    sim.seen.volumes = false;
    assert_eq!(sim.rest(), ["mount"]);
}

#[test]
fn created_container_is_started_when_the_agent_died_between() {
    let mut sim = Sim::new(json!({"containers": containers(&["a"])}));
    while !sim.seen.containers.iter().any(|c| c.name == "a") {
        let effects = sim.decide();
        assert!(!effects.is_empty());
        sim.state.memory = Memory::default();
        sim.perform_all(effects);
    }
    assert_eq!(sim.rest(), ["start a#0"]);
}

#[test]
fn container_waits_for_its_volumes() {
    let mut sim = Sim::new(json!({"containers": containers(&["a"])}));
    sim.fails(Work::Volumes, "FailedMount");
    assert_eq!(sim.rest(), ["sandbox#0", "image a#0"]);
    assert_eq!(sim.pass(1).rest(), ["mount", "create a#0", "start a#0"]);
}

#[test]
fn init_containers_run_one_after_the_other_and_then_the_app() {
    let mut sim = Sim::new(json!({
        "initContainers": containers(&["one", "two"]), "containers": containers(&["app"])
    }));
    assert!(sim.rest().contains(&"start one#0".to_owned()));
    assert_eq!(
        sim.exits("one", 0).rest(),
        ["image two#0", "create two#0", "start two#0"]
    );
    assert_eq!(
        sim.exits("two", 0).rest(),
        ["image app#0", "create app#0", "start app#0"]
    );
}

#[test]
fn init_container_that_failed_is_started_again_with_a_back_off() {
    let mut sim = Sim::running(json!({
        "initContainers": containers(&["one"]), "containers": containers(&["app"])
    }));
    assert_eq!(
        sim.exits("one", 1).rest(),
        ["image one#1", "create one#1", "start one#1"]
    );
    assert_eq!(
        sim.exits("one", 1).rest(),
        ["back off one#2", "remove one#0"]
    );
    assert!(sim.pass(10).rest().contains(&"start one#2".to_owned()));
}

#[test]
fn sidecar_must_have_started_before_the_next_begins() {
    let mut slow = sidecar("side");
    slow["startupProbe"] = json!({"exec": {"command": ["true"]}});
    let mut sim =
        Sim::running(json!({"initContainers": [slow], "containers": containers(&["app"])}));
    assert!(sim.seen.newest("app").is_none());
    let id = sim.id("side");
    sim.seen.probes.entry(id).or_default().startup = Some(true);
    assert_eq!(sim.rest(), ["image app#0", "create app#0", "start app#0"]);
}

#[test]
fn sidecar_is_restarted_while_the_app_goes_on() {
    let mut sim = Sim::running(json!({
        "initContainers": [sidecar("side")], "containers": containers(&["app"]), "restartPolicy": "Never"
    }));
    let told = sim.exits("side", 0).rest();
    assert_eq!(told, ["image side#1", "create side#1", "start side#1"]);
}

#[test]
fn ephemeral_container_is_started_once_and_never_again() {
    let mut sim = Sim::running(json!({"containers": containers(&["a"])}));
    sim.edit(|pod| {
        let debug = json!([{"name": "debug", "image": "i"}]);
        let list = serde_json::from_value(debug).unwrap_or_default();
        pod.spec.get_or_insert_default().ephemeral_containers = list;
    });
    assert_eq!(
        sim.rest(),
        ["image debug#0", "create debug#0", "start debug#0"]
    );
    assert!(sim.exits("debug", 1).rest().is_empty());
}

#[test]
fn failed_pull_is_shown_then_backed_off_and_tried_again_later_each_time() {
    let mut sim = Sim::new(json!({"containers": containers(&["a"])}));
    let work = Work::Image("a".into());
    sim.fails(work.clone(), "ErrImagePull");
    assert_eq!(sim.rest(), ["mount", "sandbox#0"]);
    assert_eq!(sim.pass(1).rest(), ["pull back off a"]);
    assert!(sim.pass(8).says().is_empty());
    assert_eq!(sim.pass(1).says(), ["image a#0"]);
    sim.fails(work, "ErrImagePull");
    sim.seen
        .failed
        .values_mut()
        .for_each(|f| f.reason = "ImagePullBackOff".into());
    assert!(sim.pass(19).says().is_empty());
    assert_eq!(sim.pass(1).says(), ["image a#0"]);
}
