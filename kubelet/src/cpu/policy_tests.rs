use super::*;
use crate::topology::cpus::testing::{divided, machine};

fn set(text: &str) -> CpuSet {
    text.parse().unwrap()
}

fn policy(topology: CpuTopology, reserved: &str, options: StaticOptions) -> (Static, State) {
    let policy = Static::new(topology, options, Reserved::Cpus(set(reserved))).unwrap();
    let mut state = State::default();
    policy.check(&mut state).unwrap();
    (policy, state)
}

fn asks<'a>(container: &'a str, count: usize, reusable: &'a CpuSet) -> Wanted<'a> {
    Wanted {
        pod: "u",
        container,
        count,
        affinity: None,
        reusable,
    }
}

fn pod(spec: serde_json::Value) -> Pod {
    serde_json::from_value(serde_json::json!({
        "metadata": { "uid": "u" }, "spec": spec, "status": { "qosClass": "Guaranteed" }
    }))
    .unwrap()
}

#[test]
fn only_whole_cpus_of_guaranteed_pods_are_exclusive() {
    let with = |cpu: &str| {
        let list = serde_json::json!({ "cpu": cpu, "memory": "1Mi" });
        serde_json::json!({ "name": "c", "resources": { "requests": list, "limits": list } })
    };
    let wants = |cpu: &str| {
        let pod = pod(serde_json::json!({ "containers": [with(cpu)] }));
        wanted(&pod, &pod.spec.as_ref().unwrap().containers[0])
    };
    assert_eq!((wants("2"), wants("2000m"), wants("1500m")), (2, 2, 0));
    let mut sidecar = with("1");
    sidecar["restartPolicy"] = "Always".into();
    let whole = pod(serde_json::json!({
        "initContainers": [sidecar, with("4")], "containers": [with("2")]
    }));
    assert_eq!(wanted_by_pod(&whole), 5);
    let mut burstable = whole;
    burstable.status.as_mut().unwrap().qos_class = Some("Burstable".into());
    assert_eq!(wanted_by_pod(&burstable), 0);
}

#[test]
fn what_is_given_leaves_the_shared_pool_and_comes_back() {
    let (policy, mut state) = policy(machine(2, 2, 2, false), "0,4", StaticOptions::default());
    assert_eq!(state.shared, set("0-7"));
    let none = CpuSet::default();
    policy.allocate(&mut state, &asks("a", 2, &none)).unwrap();
    assert_eq!(state.of("u", "a"), Some(&set("1,5")));
    assert_eq!(state.shared, set("0,2-4,6-7"));
    // Asked again it is what it was.
    policy.allocate(&mut state, &asks("a", 2, &none)).unwrap();
    assert_eq!(state.taken(), set("1,5"));
    let refused = policy.allocate(&mut state, &asks("b", 5, &none));
    let too_few = CpuError::TooFew {
        requested: 5,
        available: 4,
    };
    assert_eq!(refused, Err(too_few));
    assert!(state.release(|pod| pod != "u"));
    assert_eq!(
        state,
        State {
            shared: set("0-7"),
            exclusive: BTreeMap::new(),
        }
    );
}

#[test]
fn app_container_takes_what_the_init_container_had() {
    let (policy, mut state) = policy(machine(1, 4, 1, false), "0", StaticOptions::default());
    let none = CpuSet::default();
    policy
        .allocate(&mut state, &asks("init", 2, &none))
        .unwrap();
    let had = state.of("u", "init").unwrap().clone();
    policy.allocate(&mut state, &asks("app", 3, &had)).unwrap();
    assert_eq!(state.of("u", "app"), Some(&set("1-3")));
    assert_eq!(state.shared, set("0"));
    // Both have CPUs 1 and 2: they come back once.
    assert!(state.release(|_| false));
    assert_eq!(state.shared, set("0-3"));
}

#[test]
fn affinity_is_heeded_as_far_as_it_goes() {
    let (policy, mut state) = policy(machine(2, 2, 1, false), "0", StaticOptions::default());
    let none = CpuSet::default();
    let wanted = Wanted {
        affinity: Some(NodeMask::of([1])),
        ..asks("a", 1, &none)
    };
    policy.allocate(&mut state, &wanted).unwrap();
    assert_eq!(state.of("u", "a"), Some(&set("2")));
    let wanted = Wanted {
        container: "b",
        count: 2,
        ..wanted
    };
    policy.allocate(&mut state, &wanted).unwrap();
    assert_eq!(state.of("u", "b"), Some(&set("1,3")));
}

#[test]
fn full_pcpus_only_refuses_parts_of_cores() {
    let options = StaticOptions {
        full_pcpus_only: true,
        ..StaticOptions::default()
    };
    let (policy, mut state) = policy(machine(1, 3, 2, false), "0", options);
    let none = CpuSet::default();
    let odd = policy.allocate(&mut state, &asks("a", 1, &none));
    assert_eq!(
        odd.unwrap_err().to_string(),
        "SMT Alignment Error: requested 1 cpus not multiple cpus per core = 2"
    );
    // CPU 3 is free, but its core is reserved in part.
    let many = policy
        .allocate(&mut state, &asks("a", 6, &none))
        .unwrap_err();
    assert!(
        many.to_string().contains("available physical CPUs = 4"),
        "{many}"
    );
    policy.allocate(&mut state, &asks("a", 4, &none)).unwrap();
    assert_eq!(state.of("u", "a"), Some(&set("1-2,4-5")));
}

#[test]
fn strict_reservation_keeps_everybody_off() {
    let options = StaticOptions {
        strict_cpu_reservation: true,
        ..StaticOptions::default()
    };
    let (policy, state) = policy(machine(1, 4, 1, false), "0-1", options);
    assert_eq!(state.shared, set("2-3"));
    assert_eq!(policy.allocatable(), set("2-3"));
    let mut loose = State {
        shared: set("0-3"),
        ..State::default()
    };
    assert!(matches!(
        policy.check(&mut loose),
        Err(StateError::ReservedShared { .. })
    ));
}

#[test]
fn state_that_does_not_fit_the_machine_is_refused() {
    let (policy, _) = policy(machine(1, 4, 1, false), "0", StaticOptions::default());
    let state = |shared: &str, own: &str| State {
        shared: set(shared),
        exclusive: BTreeMap::from([("u".into(), BTreeMap::from([("c".into(), set(own))]))]),
    };
    let check = |mut state: State| policy.check(&mut state);
    assert_eq!(check(state("0,2-3", "1")), Ok(()));
    assert_eq!(check(state("", "1")), Err(StateError::NoShared));
    assert!(matches!(
        check(state("0-3", "1")),
        Err(StateError::Overlap { .. })
    ));
    assert!(matches!(
        check(state("1-3", "0")),
        Err(StateError::ReservedGone { .. })
    ));
    assert!(matches!(
        check(state("0,2", "1")),
        Err(StateError::OtherCpus { .. })
    ));
}

#[test]
fn reserved_cpus_are_those_of_the_first_cores() {
    let reserved = |count| {
        let machine = machine(1, 4, 2, false);
        Static::new(machine, StaticOptions::default(), Reserved::Count(count)).map(|p| p.reserved)
    };
    assert_eq!(reserved(2), Some(set("0,4")));
    assert_eq!(reserved(3), Some(set("0-1,4")));
    assert_eq!(reserved(9), None);
}

#[test]
fn hints_are_the_nodes_that_have_enough() {
    let (policy, mut state) = policy(machine(2, 2, 1, false), "0", StaticOptions::default());
    let none = CpuSet::default();
    let hints = |state: &State, count| {
        let hints = policy.hints(state, &asks("a", count, &none));
        let of = |h: Hint| {
            format!(
                "{}{}",
                h.nodes.unwrap_or_default(),
                if h.preferred { "!" } else { "" }
            )
        };
        hints.into_iter().map(of).collect::<Vec<_>>()
    };
    assert_eq!(hints(&state, 1), ["0!", "1!", "0,1"]);
    assert_eq!(hints(&state, 2), ["1!", "0,1"]);
    // Two nodes are the least that this machine could do it with.
    assert_eq!(hints(&state, 3), ["0,1!"]);
    assert!(hints(&state, 4).is_empty());
    policy.allocate(&mut state, &asks("a", 2, &none)).unwrap();
    assert_eq!(hints(&state, 2), ["1!", "0,1"], "where it is already");
    assert!(hints(&state, 1).is_empty(), "it has more than it asks for");
}

#[test]
fn hints_with_sockets_prefer_nodes_of_one_socket() {
    let options = StaticOptions {
        align_by_socket: true,
        ..StaticOptions::default()
    };
    let four = divided(&machine(2, 4, 1, false), 2, 1);
    let (policy, state) = policy(four, "0", options);
    let none = CpuSet::default();
    let preferred = |nodes: [u32; 2]| {
        let hints = policy.hints(&state, &asks("a", 2, &none));
        let wanted = Some(NodeMask::of(nodes));
        hints.iter().any(|h| h.nodes == wanted && h.preferred)
    };
    assert!(preferred([0, 1]) && preferred([2, 3]));
    assert!(!preferred([1, 2]));
}
