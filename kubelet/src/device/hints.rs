//! Near which NUMA nodes a container could have its devices. Pure.
//!
//! As kubernetes v1.37 pkg/kubelet/cm/devicemanager/topology_hints.go makes them.

use super::inventory::{Ids, Inventory, Resource};
use crate::topology::{Hint, Hints, NodeMask};

impl Inventory {
    /// For so many of a resource; `had` are those that were given already. `None`: it
    /// does not matter.
    pub fn hints(&self, name: &str, count: usize, had: &Ids, reusable: &Ids) -> Hints {
        let resource = self.resources.get(name)?;
        let places = resource.devices.values().map(|d| d.nodes);
        let nodes = places.fold(NodeMask::default(), NodeMask::or);
        if nodes.is_empty() {
            return None;
        }
        if !had.is_empty() {
            return Some(match had.len() == count {
                true => hints(resource, nodes, count, (had, &Ids::new())),
                false => Vec::new(),
            });
        }
        let used = self.used(name);
        let healthy = resource.healthy().map(|(id, _)| id);
        let free: Ids = healthy.filter(|id| !used.contains(*id)).cloned().collect();
        Some(match free.union(reusable).count() < count {
            true => Vec::new(),
            false => hints(resource, nodes, count, (&free, reusable)),
        })
    }
}

fn hints(
    resource: &Resource,
    nodes: NodeMask,
    count: usize,
    (free, reusable): (&Ids, &Ids),
) -> Vec<Hint> {
    let place = |id: &String| {
        resource
            .devices
            .get(id)
            .map(|d| d.nodes)
            .unwrap_or_default()
    };
    let mut fewest = nodes.count();
    let mut found = Vec::new();
    for subset in nodes.subsets() {
        let near = |place: NodeMask| !place.and(subset).is_empty();
        let all = resource.devices.values().filter(|d| near(d.nodes));
        if all.count() >= count {
            fewest = fewest.min(subset.count());
        }
        let placed = || reusable.iter().map(place).filter(|p| !p.is_empty());
        let usable = placed().count() + free.iter().filter(|id| near(place(id))).count();
        if placed().all(near) && usable >= count {
            found.push(subset);
        }
    }
    let hint = |nodes: NodeMask| Hint {
        nodes: Some(nodes),
        preferred: nodes.count() == fewest,
    };
    found.into_iter().map(hint).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::inventory::Described;

    fn inventory(devices: &[(&str, &[u32])]) -> Inventory {
        let described = |nodes: &[u32]| Described {
            healthy: true,
            nodes: NodeMask::of(nodes.iter().copied()),
        };
        let devices = devices
            .iter()
            .map(|(id, n)| ((*id).to_owned(), described(n)));
        let resource = Resource {
            devices: devices.collect(),
            gone: None,
        };
        let mut inventory = Inventory::default();
        inventory.resources.insert("x/y".into(), resource);
        inventory
    }

    fn told(hints: Hints) -> Vec<String> {
        let of = |h: Hint| {
            let nodes = h.nodes.unwrap_or_default();
            format!("{nodes}{}", if h.preferred { "!" } else { "" })
        };
        hints.unwrap_or_default().into_iter().map(of).collect()
    }

    #[test]
    fn devices_without_a_place_do_not_mind() {
        let none = Ids::new();
        let anywhere = inventory(&[("a", &[]), ("b", &[])]);
        assert_eq!(anywhere.hints("x/y", 1, &none, &none), None);
        assert_eq!(anywhere.hints("other", 1, &none, &none), None);
    }

    #[test]
    fn hints_are_the_nodes_with_enough_devices() {
        let none = Ids::new();
        let two = inventory(&[("a", &[0]), ("b", &[1]), ("c", &[1])]);
        assert_eq!(told(two.hints("x/y", 1, &none, &none)), ["0!", "1!", "0,1"]);
        assert_eq!(told(two.hints("x/y", 2, &none, &none)), ["1!", "0,1"]);
        assert_eq!(told(two.hints("x/y", 3, &none, &none)), ["0,1!"]);
        assert_eq!(two.hints("x/y", 4, &none, &none), Some(Vec::new()));
        let had = Ids::from(["a".to_owned()]);
        assert_eq!(told(two.hints("x/y", 1, &had, &none)), ["0!", "0,1"]);
        assert_eq!(two.hints("x/y", 2, &had, &none), Some(Vec::new()));
        // What the init container had must be among them.
        let reusable = Ids::from(["b".to_owned()]);
        assert_eq!(told(two.hints("x/y", 2, &none, &reusable)), ["1!", "0,1"]);
    }
}
