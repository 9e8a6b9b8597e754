use super::*;
use serde_json::json;

/// Two nodes with 10 bytes each, of which the system keeps one.
fn machine() -> State {
    let sizes = |n| Sizes::from([("memory".to_owned(), n)]);
    State::new([(0, sizes(10), sizes(1)), (1, sizes(10), sizes(1))])
}

fn of(size: u64) -> Sizes {
    Sizes::from([("memory".to_owned(), size)])
}

fn pod() -> Pod {
    let with = |name: &str, size: u64| {
        let list = json!({ "cpu": "1", "memory": size.to_string() });
        json!({ "name": name, "resources": { "requests": list, "limits": list } })
    };
    serde_json::from_value(json!({
        "metadata": { "uid": "u" }, "status": { "qosClass": "Guaranteed" },
        "spec": { "initContainers": [with("init", 4)], "containers": [with("app", 6)] },
    }))
    .unwrap()
}

fn container(name: &str) -> Container {
    let spec = pod().spec.unwrap();
    crate::pod::spec::find(&spec, name).unwrap()
}

fn told(hints: &[Hint]) -> Vec<String> {
    let of = |h: &Hint| {
        let nodes = h.nodes.unwrap_or_default();
        format!("{nodes}{}", if h.preferred { "!" } else { "" })
    };
    hints.iter().map(of).collect()
}

#[test]
fn memory_of_guaranteed_pods_alone_is_given() {
    let pod = pod();
    assert_eq!(wanted(&pod, &container("app")), of(6));
    assert_eq!(wanted_by_pod(&pod), of(6));
    let mut burstable = pod;
    burstable.status.as_mut().unwrap().qos_class = Some("Burstable".into());
    assert!(wanted_by_pod(&burstable).is_empty());
}

#[test]
fn nodes_with_enough_are_hinted_at_and_one_is_preferred() {
    let none = Reusable::new();
    let mut state = machine();
    assert_eq!(told(&hints(&state, &of(9), &none)), ["0!", "1!", "0,1"]);
    assert_eq!(told(&hints(&state, &of(10), &none)), ["0,1!"]);
    assert!(hints(&state, &of(19), &none).is_empty());
    // A node that one container has alone is not used in a group.
    state.take(NodeMask::of([0]), "memory", 5);
    assert_eq!(told(&hints(&state, &of(5), &none)), ["1!"]);
    assert!(hints(&state, &of(10), &none).is_empty());
}

#[test]
fn affinity_is_kept_or_widened_or_refused() {
    let none = Reusable::new();
    let mut state = machine();
    let choose = |state: &State, size, node: Option<u32>, preferred| {
        let nodes = node.map(|n| NodeMask::of([n]));
        let affinity = Hint { nodes, preferred };
        choose(state, &of(size), affinity, &none).map(|n| n.to_string())
    };
    assert_eq!(choose(&state, 5, None, true), Ok("0".into()));
    assert_eq!(choose(&state, 5, Some(1), true), Ok("1".into()));
    assert_eq!(choose(&state, 12, Some(1), true), Ok("0,1".into()));
    assert_eq!(choose(&state, 19, None, true), Err(MemoryError::TooLittle));
    assert_eq!(
        choose(&state, 19, Some(0), true),
        Err(MemoryError::NotExtended)
    );
    state.take(NodeMask::of([0, 1]), "memory", 12);
    assert_eq!(
        choose(&state, 4, None, true),
        Err(MemoryError::NotPreferred)
    );
    assert_eq!(choose(&state, 4, None, false), Ok("0,1".into()));
}

#[test]
fn what_is_given_is_taken_from_nodes_and_comes_back() {
    let mut state = machine();
    let both = NodeMask::of([0, 1]);
    give(
        &mut state,
        (&pod(), &container("app")),
        both,
        &of(12),
        &Reusable::new(),
    );
    let free = |state: &State, n: u32| state.machine[&n].memory_map["memory"].free;
    assert_eq!((free(&state, 0), free(&state, 1)), (0, 6));
    assert_eq!(state.machine[&1].cells, [0, 1]);
    assert_eq!(state.misfit(&machine()), None);
    assert!(state.release(|pod| pod != "u"));
    assert_eq!(state, machine());
    assert!(!state.release(|_| false));
}

#[test]
fn init_containers_memory_is_not_taken_twice() {
    let mut state = machine();
    let first = NodeMask::of([0]);
    give(
        &mut state,
        (&pod(), &container("init")),
        first,
        &of(4),
        &Reusable::new(),
    );
    let reusable = Reusable::from([((first, "memory".to_owned()), 4)]);
    give(
        &mut state,
        (&pod(), &container("app")),
        first,
        &of(6),
        &reusable,
    );
    assert_eq!(state.machine[&0].memory_map["memory"].free, 3);
    assert_eq!(state.entries["u"]["init"][0].size, 0);
    assert_eq!(state.misfit(&machine()), None);
    state.release(|_| false);
    assert_eq!(state, machine());
}

#[test]
fn another_machine_is_noticed() {
    let mut state = machine();
    give(
        &mut state,
        (&pod(), &container("app")),
        NodeMask::of([0]),
        &of(6),
        &Reusable::new(),
    );
    let sizes = |n| Sizes::from([("memory".to_owned(), n)]);
    let smaller = State::new([(0, sizes(9), sizes(1)), (1, sizes(10), sizes(1))]);
    assert!(state.misfit(&smaller).is_some());
    let one = State::new([(0, sizes(10), sizes(1))]);
    assert!(state.misfit(&one).is_some());
    state.entries.clear();
    assert!(state.misfit(&machine()).is_some());
}
