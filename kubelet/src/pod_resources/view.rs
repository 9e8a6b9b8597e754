//! What is told of a pod. Pure.

use crate::device::inventory::{Allocation, Inventory};
use crate::dra::prepared::{Claim, Device};
use crate::memory::table::{Block, Blocks};
use crate::pod::Known;
use crate::pod::lifecycle::restartable_init;
use crate::pod::spec;
use crate::proto::podresources as api;
use crate::status::is_over;
use crate::topology::NodeMask;
use k8s_openapi::api::core::v1::{Container, Pod};

/// Containers that others run beside: sidecars and app containers. What an init
/// container had is somebody else's by now.
pub fn containers(pod: &Pod) -> impl Iterator<Item = &Container> {
    let spec = pod.spec.as_ref();
    spec.into_iter().flat_map(|s| {
        let init = s.init_containers.iter().flatten();
        init.filter(|c| restartable_init(c)).chain(&s.containers)
    })
}

/// Its containers are not all over.
pub fn active(known: &Known) -> bool {
    !is_over(&known.status)
}

/// One pod; `of` tells of a container.
pub fn pod(pod: &Pod, of: impl Fn(&Container) -> api::ContainerResources) -> api::PodResources {
    api::PodResources {
        name: spec::name(pod).to_owned(),
        namespace: spec::namespace(pod).to_owned(),
        containers: containers(pod).map(of).collect(),
    }
}

/// The devices that a container was given.
pub fn devices(inventory: &Inventory, uid: &str, container: &str) -> Vec<api::ContainerDevices> {
    let own = inventory.of(uid, container);
    own.flat_map(|(resource, allocation)| {
        let nodes = |id: &str| nodes_of(inventory, resource, id, allocation);
        let ids = allocation.ids.iter();
        ids.flat_map(|id| told(resource, id, nodes(id)))
            .collect::<Vec<_>>()
    })
    .collect()
}

/// Every device that could be given away.
pub fn all_devices(inventory: &Inventory) -> Vec<api::ContainerDevices> {
    let resources = inventory.resources.iter();
    resources
        .flat_map(|(name, resource)| {
            let devices = resource.healthy();
            devices.flat_map(|(id, device)| told(name, id, device.nodes))
        })
        .collect()
}

/// A plugin that is away does not say where a device is; what was written down does.
fn nodes_of(inventory: &Inventory, resource: &str, id: &str, given: &Allocation) -> NodeMask {
    let known = inventory.resources.get(resource);
    let device = known.and_then(|r| r.devices.get(id));
    device.map_or(given.nodes, |d| d.nodes)
}

/// An entry for each NUMA node that a device is near, as upstream has it.
fn told(resource: &str, id: &str, nodes: NodeMask) -> Vec<api::ContainerDevices> {
    let one = |topology| api::ContainerDevices {
        resource_name: resource.to_owned(),
        device_ids: vec![id.to_owned()],
        topology,
    };
    if nodes.is_empty() {
        return vec![one(None)];
    }
    nodes.nodes().map(|n| one(Some(topology([n])))).collect()
}

/// Memory of NUMA nodes.
pub fn memory(blocks: &Blocks) -> Vec<api::ContainerMemory> {
    let one = |block: &Block| api::ContainerMemory {
        memory_type: block.kind.clone(),
        size: block.size,
        topology: Some(topology(block.nodes.iter().copied())),
    };
    blocks.iter().map(one).collect()
}

/// Claims that were made ready.
pub fn claims(claims: Vec<Claim>) -> Vec<api::DynamicResource> {
    let one = |claim: Claim| {
        let devices = claim.drivers.into_iter().flat_map(|(driver, state)| {
            let devices = state.devices.into_iter();
            devices.map(move |device| claimed(driver.clone(), device))
        });
        api::DynamicResource {
            claim_name: claim.name,
            claim_namespace: claim.namespace,
            claim_resources: devices.collect(),
        }
    };
    claims.into_iter().map(one).collect()
}

fn claimed(driver_name: String, device: Device) -> api::ClaimResource {
    let cdi = device.cdi_device_ids.into_iter();
    api::ClaimResource {
        cdi_devices: cdi.map(|name| api::CdiDevice { name }).collect(),
        driver_name,
        pool_name: device.pool_name,
        device_name: device.device_name,
        share_id: device.share_id,
    }
}

/// These NUMA nodes.
pub fn topology(nodes: impl IntoIterator<Item = u32>) -> api::TopologyInfo {
    let nodes = nodes.into_iter().map(|n| api::NumaNode { id: n.into() });
    api::TopologyInfo {
        nodes: nodes.collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::inventory::{Described, Place, Resource};
    use crate::proto::deviceplugin::ContainerAllocateResponse;

    fn inventory() -> Inventory {
        let mut inventory = Inventory::default();
        let device = |healthy, nodes: &[u32]| Described {
            healthy,
            nodes: NodeMask::of(nodes.iter().copied()),
        };
        let devices = [
            ("a".to_owned(), device(true, &[0, 1])),
            ("b".to_owned(), device(true, &[])),
            ("c".to_owned(), device(false, &[0])),
        ];
        let resource = Resource {
            devices: devices.into(),
            gone: None,
        };
        inventory.resources.insert("x/y".into(), resource);
        inventory
    }

    #[test]
    fn healthy_devices_are_told_once_for_each_node_they_are_near() {
        let told = all_devices(&inventory());
        let told: Vec<_> = told
            .iter()
            .map(|d| {
                let nodes = d.topology.iter().flat_map(|t| &t.nodes);
                (d.device_ids.concat(), nodes.map(|n| n.id).collect())
            })
            .collect();
        let expected: [(String, Vec<i64>); 3] = [
            ("a".into(), vec![0]),
            ("a".into(), vec![1]),
            ("b".into(), vec![]),
        ];
        assert_eq!(told, expected);
    }

    #[test]
    fn device_of_a_plugin_that_is_away_is_where_it_was_when_it_was_given() {
        let mut inventory = inventory();
        inventory.resources.clear();
        let place = Place {
            pod: "u".into(),
            container: "c".into(),
            resource: "x/y".into(),
        };
        let allocation = Allocation {
            ids: ["a".to_owned()].into(),
            nodes: NodeMask::of([1]),
            answer: ContainerAllocateResponse::default(),
        };
        inventory.allocations.insert(place, allocation);
        let told = devices(&inventory, "u", "c");
        assert_eq!(told[0].topology, Some(topology([1])));
        assert!(devices(&inventory, "u", "d").is_empty());
    }
}
