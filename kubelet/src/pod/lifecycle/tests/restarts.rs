use super::sim::{Sim, containers};
use crate::pod::lifecycle::*;
use serde_json::json;

fn starts(told: &[String]) -> Vec<&str> {
    told.iter()
        .filter_map(|t| t.strip_prefix("start "))
        .collect()
}

#[test]
fn first_crash_restarts_at_once_and_later_ones_wait_ten_twenty_forty_seconds() {
    let mut sim = Sim::running(json!({"containers": containers(&["a"])}));
    assert_eq!(starts(&sim.exits("a", 1).rest()), ["a#1"]);
    for (attempt, wait) in [(2, 10), (3, 20), (4, 40)] {
        let waits = sim.exits("a", 1).rest();
        assert!(
            waits.contains(&format!("back off a#{attempt}")),
            "{waits:?}"
        );
        assert!(starts(&sim.pass(wait - 1).rest()).is_empty());
        assert_eq!(starts(&sim.pass(1).rest()), [format!("a#{attempt}")]);
    }
}

#[test]
fn back_off_is_reported_once_and_the_clock_is_asked_to_wake() {
    let mut sim = Sim::running(json!({"containers": containers(&["a"])}));
    sim.exits("a", 1).rest();
    sim.exits("a", 1).rest();
    let told = sim.pass(3).says();
    assert!(!told.iter().any(|t| t.starts_with("back off")), "{told:?}");
    assert_eq!(
        sim.wake_at.map(|at| at.duration_since(sim.now).as_secs()),
        Some(7)
    );
}

#[test]
fn back_off_is_forgotten_when_the_container_ran_for_long() {
    let mut sim = Sim::running(json!({"containers": containers(&["a"])}));
    sim.exits("a", 1).rest();
    sim.exits("a", 1).pass(10).rest();
    assert_eq!(starts(&sim.pass(601).exits("a", 1).rest()), ["a#3"]);
}

#[test]
fn restart_policy_says_what_is_started_again() {
    for (policy, code, again) in [
        ("Always", 0, true),
        ("OnFailure", 0, false),
        ("OnFailure", 1, true),
        ("Never", 1, false),
    ] {
        let mut sim =
            Sim::running(json!({"containers": containers(&["a", "b"]), "restartPolicy": policy}));
        let told = sim.exits("a", code).rest();
        assert_eq!(!starts(&told).is_empty(), again, "{policy} {code}");
    }
}

#[test]
fn restart_rule_of_a_container_goes_before_the_pods_policy() {
    let rule = json!([{"action": "Restart", "exitCodes": {"operator": "In", "values": [42]}}]);
    let container = json!({
        "name": "a", "image": "i", "restartPolicy": "Never", "restartPolicyRules": rule
    });
    let spec = json!({"containers": [container], "restartPolicy": "Never"});
    let mut sim = Sim::running(spec);
    assert_eq!(starts(&sim.exits("a", 42).rest()), ["a#1"]);
    sim.exits("a", 1).rest();
    assert!(matches!(
        sim.state.stage,
        Stage::Terminated {
            why: Why::Completed,
            ..
        }
    ));
}

#[test]
fn changed_image_restarts_the_container_in_place_without_back_off() {
    let mut sim = Sim::running(json!({"containers": containers(&["a", "b"])}));
    sim.edit(|pod| pod.spec.get_or_insert_default().containers[0].image = Some("new".into()));
    let told = sim.rest();
    assert_eq!(told[0], "stop a#0 in 30s: DefinitionChanged");
    assert_eq!(starts(&told), ["a#1"]);
}

#[test]
fn resize_goes_by_without_a_restart_unless_the_container_wants_one() {
    let of = |name: &str, policy: &str| {
        json!({
            "name": name, "image": "i", "resources": {"requests": {"cpu": "1"}},
            "resizePolicy": [{"resourceName": "cpu", "restartPolicy": policy}]
        })
    };
    let mut sim = Sim::running(json!({
        "containers": [of("a", "NotRequired"), of("b", "RestartContainer")]
    }));
    assert_eq!(sim.says(), Vec::<String>::new());
    sim.edit(|pod| {
        for container in &mut pod.spec.get_or_insert_default().containers {
            let resources = json!({"requests": {"cpu": "2"}});
            container.resources = serde_json::from_value(resources).ok();
        }
    });
    let told = sim.rest();
    assert_eq!(told[0], "stop b#0 in 30s: Resized");
    assert!(told.contains(&"resize".to_owned()), "{told:?}");
    assert_eq!(starts(&told), ["b#1"]);
}

#[test]
fn failed_liveness_probe_stops_and_restarts_only_that_container() {
    let mut sim = Sim::running(json!({
        "containers": containers(&["a", "b"]), "terminationGracePeriodSeconds": 5
    }));
    let id = sim.id("a");
    sim.seen.probes.entry(id).or_default().liveness = Some(false);
    let told = sim.rest();
    assert_eq!(told[0], "stop a#0 in 5s: LivenessFailed");
    assert_eq!(starts(&told), ["a#1"]);
}

#[test]
fn probe_may_set_a_grace_period_of_its_own() {
    let probe = json!({"exec": {}, "terminationGracePeriodSeconds": 1});
    let mut sim = Sim::running(json!({
        "containers": [{"name": "a", "image": "i", "startupProbe": probe}]
    }));
    let id = sim.id("a");
    sim.seen.probes.entry(id).or_default().startup = Some(false);
    assert_eq!(sim.says(), ["stop a#0 in 1s: StartupFailed"]);
}

#[test]
fn failed_post_start_hook_kills_the_container() {
    let mut sim = Sim::running(json!({"containers": containers(&["a"])}));
    let id = sim.id("a");
    sim.fails(Work::Start(id), "PostStartHookError");
    assert_eq!(sim.says(), ["stop a#0 in 30s: PostStartFailed"]);
}

#[test]
fn stop_is_not_put_off_while_it_is_asked_for_again() {
    let mut sim = Sim::running(json!({"containers": containers(&["a"])}));
    let id = sim.id("a");
    sim.seen.probes.entry(id).or_default().liveness = Some(false);
    assert_eq!(sim.says(), ["stop a#0 in 30s: LivenessFailed"]);
    assert_eq!(sim.pass(10).says(), ["stop a#0 in 20s: LivenessFailed"]);
}

#[test]
fn dead_sandbox_is_stopped_and_replaced_and_restarts_are_counted() {
    let mut sim = Sim::running(json!({
        "initContainers": containers(&["init"]), "containers": containers(&["a"])
    }));
    sim.exits("init", 0).rest();
    let told = sim.sandbox_dies().rest();
    assert_eq!(told[..2], ["stop sandbox", "sandbox#1"]);
    assert_eq!(starts(&told), ["init#1"]);
    assert_eq!(starts(&sim.exits("init", 0).rest()), ["a#1"]);
}

#[test]
fn new_sandbox_says_what_became_of_the_old_one() {
    let mut sim = Sim::running(json!({"containers": containers(&["a"])}));
    sim.sandbox_dies();
    sim.seen.stopped.insert("s1".into());
    let because = sim.decide().into_iter().find_map(|e| match e {
        Effect::RunSandbox { because, .. } => because,
        _ => None,
    });
    let expected = "sandbox s1 is no longer ready, container a ended with 255 (Error)";
    assert_eq!(because.as_deref(), Some(expected));
}

#[test]
fn dead_attempts_are_removed_but_for_one_and_so_are_empty_sandboxes() {
    let mut sim = Sim::running(json!({"containers": containers(&["a"])}));
    sim.sandbox_dies().rest();
    let told = sim.pass(601).sandbox_dies().rest();
    assert!(told.contains(&"remove a#0".to_owned()), "{told:?}");
    assert!(told.contains(&"remove sandbox".to_owned()), "{told:?}");
    let left: Vec<u32> = sim.seen.attempts("a").map(|c| c.attempt).collect();
    assert_eq!(left, [1, 2]);
}

#[test]
fn one_dead_attempt_is_left_while_the_next_waits_and_beside_one_that_runs() {
    let mut sim = Sim::running(json!({"containers": containers(&["a"])}));
    let left = |sim: &Sim| {
        sim.seen
            .attempts("a")
            .map(|c| c.attempt)
            .collect::<Vec<u32>>()
    };
    sim.exits("a", 1).rest();
    assert_eq!(left(&sim), [0, 1]);
    // The second waits for the third.
    let told = sim.exits("a", 1).rest();
    assert!(told.contains(&"remove a#0".to_owned()), "{told:?}");
    assert_eq!(left(&sim), [1]);
    sim.pass(10).rest();
    assert_eq!(left(&sim), [1, 2]);
}

#[test]
fn attempts_go_on_counting_when_the_runtime_forgot_the_old_ones() {
    let mut sim = Sim::new(json!({"containers": containers(&["a"])}));
    sim.state.memory.attempts.insert("a".into(), 4);
    assert_eq!(starts(&sim.rest()), ["a#4"]);
}

#[test]
fn one_that_asks_for_it_has_all_containers_begin_anew_in_order_and_goes_last() {
    let rules = json!([{
        "action": "RestartAllContainers", "exitCodes": {"operator": "In", "values": [42]},
    }]);
    let mut asking = containers(&["a", "b"]);
    asking[1]["restartPolicy"] = "Never".into();
    asking[1]["restartPolicyRules"] = rules;
    let mut sim = Sim::running(json!({
        "restartPolicy": "Never", "initContainers": containers(&["i"]), "containers": asking,
    }));
    sim.exits("i", 0).rest();
    let told = sim.exits("b", 42).rest();
    assert!(sim.state.memory.reset.contains_key("b"));
    let at = |word: &str| told.iter().position(|t| t.contains(word));
    let order = ["stop a#0", "remove b#0", "create i#1"].map(at);
    assert!(
        order.iter().all(Option::is_some) && order.is_sorted(),
        "{told:?}"
    );
    assert_eq!(at("stop b#0"), None);
    let told = sim.exits("i", 0).rest();
    for word in ["create a#1", "create b#1"] {
        assert!(told.iter().any(|t| t.contains(word)), "{told:?}");
    }
    assert!(!sim.state.memory.resetting);
    // Any other end is as ever.
    sim.exits("b", 1).exits("a", 0).rest();
    assert!(matches!(
        sim.state.stage,
        Stage::Terminated { .. } | Stage::Terminating { .. }
    ));
}
