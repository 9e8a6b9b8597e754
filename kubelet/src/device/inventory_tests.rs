use super::*;
use crate::proto::deviceplugin::{NumaNode, TopologyInfo};

fn device(id: &str, health: &str, node: Option<i64>) -> Device {
    Device {
        id: id.into(),
        health: health.into(),
        topology: node.map(|id| TopologyInfo {
            nodes: vec![NumaNode { id }],
        }),
    }
}

fn ids(list: &[&str]) -> Ids {
    list.iter().map(|s| (*s).to_owned()).collect()
}

fn with(devices: &[Device]) -> Inventory {
    let mut inventory = Inventory::default();
    inventory.list("x/y", devices);
    inventory
}

fn four() -> Inventory {
    let of = |n: i64, id: &str| device(id, HEALTHY, Some(n));
    with(&[of(0, "a"), of(1, "b"), of(0, "c"), of(1, "d")])
}

fn place(pod: &str) -> Place {
    Place {
        pod: pod.into(),
        container: "c".into(),
        resource: "x/y".into(),
    }
}

fn give(inventory: &mut Inventory, pod: &str, list: &[&str]) {
    let allocation = Allocation {
        ids: ids(list),
        nodes: NodeMask::default(),
        answer: ContainerAllocateResponse::default(),
    };
    inventory.allocations.insert(place(pod), allocation);
}

fn choose(
    inventory: &Inventory,
    count: usize,
    reusable: &Ids,
    affinity: Option<NodeMask>,
) -> Result<Choice, AllocateError> {
    inventory.choose(Request {
        resource: "x/y",
        count,
        reusable,
        affinity,
    })
}

#[test]
fn unhealthy_devices_count_as_capacity_and_are_not_given_away() {
    let inventory = with(&[device("a", HEALTHY, None), device("b", "Unhealthy", None)]);
    assert_eq!(inventory.resources["x/y"].counts(Instant::now()), (2, 1));
    let error = choose(&inventory, 2, &Ids::new(), None).unwrap_err();
    assert_eq!(
        error.to_string(),
        "requested number of devices unavailable for x/y. Requested: 2, Available: 1"
    );
}

#[test]
fn devices_of_a_lost_plugin_stay_as_capacity_only() {
    let mut inventory = four();
    let now = Instant::now();
    inventory.lose("x/y", now);
    assert_eq!(inventory.resources["x/y"].counts(now), (4, 0));
    let late = now + PLUGIN_GRACE + Duration::from_secs(1);
    assert_eq!(inventory.resources["x/y"].counts(late), (0, 0));
    let error = choose(&inventory, 1, &Ids::new(), None).unwrap_err();
    assert!(matches!(error, AllocateError::NoneHealthy { .. }));
}

#[test]
fn used_devices_are_not_given_twice_but_an_init_containers_are() {
    let mut inventory = four();
    give(&mut inventory, "p", &["a", "b"]);
    let chosen = choose(&inventory, 2, &Ids::new(), None)
        .unwrap()
        .settle(&[]);
    assert_eq!(chosen, ids(&["c", "d"]));
    let reused = choose(&inventory, 3, &ids(&["a"]), None).unwrap();
    assert_eq!(reused.settle(&[]), ids(&["a", "c", "d"]));
}

#[test]
fn plugins_wish_is_heeded_among_what_is_near() {
    let inventory = four();
    let near_one = Some(NodeMask::of([1]));
    let choice = choose(&inventory, 1, &Ids::new(), near_one).unwrap();
    let (available, must, count) = choice.question().unwrap();
    assert_eq!(
        (available, must.len(), count),
        (vec!["b".into(), "d".into()], 0, 1)
    );
    // It would rather have one that is far: not heard.
    let wish = ["a".to_owned(), "d".to_owned()];
    assert_eq!(choice.settle(&wish), ids(&["d"]));
}

#[test]
fn all_near_devices_are_taken_before_far_ones() {
    let inventory = four();
    let choice = choose(&inventory, 3, &Ids::new(), Some(NodeMask::of([1]))).unwrap();
    let wish = ["c".to_owned()];
    assert_eq!(choice.settle(&wish), ids(&["b", "c", "d"]));
}

#[test]
fn pods_whose_device_changed_health_are_named() {
    let mut inventory = four();
    give(&mut inventory, "p", &["a"]);
    give(&mut inventory, "q", &["b"]);
    let news = [
        device("a", "Unhealthy", None),
        device("b", HEALTHY, None),
        device("c", "Unhealthy", None),
    ];
    assert_eq!(inventory.list("x/y", &news), ids(&["p"]));
}

#[test]
fn pod_that_begins_anew_needs_the_devices_it_had() {
    let mut inventory = four();
    give(&mut inventory, "p", &["a"]);
    inventory.check(&place("p")).unwrap();
    inventory.list("x/y", &[device("b", HEALTHY, None)]);
    let error = inventory.check(&place("p")).unwrap_err();
    assert!(matches!(error, AllocateError::Unhealthy { .. }));
}
