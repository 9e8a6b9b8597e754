//! The whole NodeStatus, from what was found out.

use super::machine::Machine;
use super::resources::Resources;
use cri_proto::v1;
use k8s_openapi::api::core::v1::{
    ContainerImage, DaemonEndpoint, NodeAddress, NodeCondition, NodeDaemonEndpoints, NodeFeatures,
    NodeRuntimeHandler, NodeRuntimeHandlerFeatures, NodeStatus, NodeSwapStatus, NodeSystemInfo,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use std::net::IpAddr;

/// What does not change while the agent runs; but for the addresses, which may.
#[derive(Debug, Clone)]
pub struct Fixed {
    pub name: String,
    pub machine: Machine,
    pub addresses: Vec<IpAddr>,
    pub capacity: Resources,
    pub allocatable: Resources,
    /// Of the kubelet API; `None` when it is off.
    pub port: Option<u16>,
    pub max_images: Option<usize>,
}

/// What the runtime says of itself.
#[derive(Debug, Clone, Default)]
pub struct RuntimeSays {
    /// `name://version`.
    pub version: String,
    pub handlers: Vec<v1::RuntimeHandler>,
    pub supplemental_groups_policy: bool,
    pub images: Vec<v1::Image>,
}

/// All of it together.
pub fn build(fixed: &Fixed, runtime: &RuntimeSays, conditions: Vec<NodeCondition>) -> NodeStatus {
    NodeStatus {
        addresses: Some(addresses(fixed)),
        allocatable: Some(fixed.allocatable.clone()),
        capacity: Some(fixed.capacity.clone()),
        conditions: Some(conditions),
        daemon_endpoints: fixed.port.map(|port| NodeDaemonEndpoints {
            kubelet_endpoint: Some(DaemonEndpoint { port: port.into() }),
        }),
        declared_features: Some(declared_features()),
        features: Some(NodeFeatures {
            supplemental_groups_policy: Some(runtime.supplemental_groups_policy),
        }),
        images: Some(images(&runtime.images, fixed.max_images)),
        node_info: Some(node_info(fixed, runtime)),
        runtime_handlers: Some(handlers(&runtime.handlers)),
        ..NodeStatus::default()
    }
}

/// Resources that come and go: name, capacity, allocatable.
pub fn add_resources(status: &mut NodeStatus, resources: Vec<(String, Quantity, Quantity)>) {
    for (name, capacity, allocatable) in resources {
        let all = status.capacity.get_or_insert_default();
        all.insert(name.clone(), capacity);
        let left = status.allocatable.get_or_insert_default();
        left.insert(name, allocatable);
    }
}

/// Only what works here: the scheduler and the API server build on it.
/// kubernetes v1.37 staging/src/k8s.io/component-helpers/nodedeclaredfeatures.
fn declared_features() -> Vec<String> {
    let features = [
        // exec, attach and port-forward take WebSockets as they come.
        "ExtendWebSocketsToKubelet",
        "InPlacePodLevelResourcesVerticalScaling",
        "RestartAllContainersOnContainerExits",
    ];
    features.map(str::to_owned).into()
}

fn addresses(fixed: &Fixed) -> Vec<NodeAddress> {
    let address = |kind: &str, address: String| NodeAddress {
        type_: kind.to_owned(),
        address,
    };
    let ips = fixed.addresses.iter();
    let ips = ips.map(|ip| address("InternalIP", ip.to_string()));
    ips.chain([address("Hostname", fixed.name.clone())])
        .collect()
}

fn node_info(fixed: &Fixed, runtime: &RuntimeSays) -> NodeSystemInfo {
    let machine = &fixed.machine;
    NodeSystemInfo {
        architecture: machine.architecture.clone(),
        boot_id: machine.boot_id.clone(),
        container_runtime_version: runtime.version.clone(),
        kernel_version: machine.kernel_version.clone(),
        kube_proxy_version: String::new(),
        kubelet_version: crate::defaults::KUBELET_VERSION.to_owned(),
        machine_id: machine.machine_id.clone(),
        operating_system: "linux".to_owned(),
        os_image: machine.os_image.clone(),
        swap: i64::try_from(machine.swap)
            .ok()
            .filter(|s| *s > 0)
            .map(|s| NodeSwapStatus { capacity: Some(s) }),
        running_in_user_namespace: Some(machine.in_user_namespace),
        system_uuid: machine.system_uuid.clone(),
    }
}

/// The largest first: they are what the scheduler should know of.
fn images(images: &[v1::Image], max: Option<usize>) -> Vec<ContainerImage> {
    let mut all: Vec<_> = images.iter().collect();
    all.sort_by(|a, b| b.size.cmp(&a.size).then_with(|| a.id.cmp(&b.id)));
    all.truncate(max.unwrap_or(usize::MAX));
    let one = |image: &v1::Image| {
        let names = image.repo_digests.iter().chain(&image.repo_tags);
        ContainerImage {
            names: Some(
                names
                    .take(crate::defaults::MAX_NAMES_PER_IMAGE)
                    .cloned()
                    .collect(),
            ),
            size_bytes: i64::try_from(image.size).ok(),
        }
    };
    all.into_iter().map(one).collect()
}

fn handlers(handlers: &[v1::RuntimeHandler]) -> Vec<NodeRuntimeHandler> {
    let one = |handler: &v1::RuntimeHandler| NodeRuntimeHandler {
        name: Some(handler.name.clone()),
        features: handler
            .features
            .as_ref()
            .map(|f| NodeRuntimeHandlerFeatures {
                recursive_read_only_mounts: Some(f.recursive_read_only_mounts),
                user_namespaces: Some(f.user_namespaces),
            }),
    };
    handlers.iter().map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_are_the_largest_and_no_more_than_asked_for() {
        let image = |id: &str, size| v1::Image {
            id: id.into(),
            repo_tags: vec![format!("{id}:1")],
            repo_digests: vec![format!("{id}@sha256:0")],
            size,
            ..Default::default()
        };
        let all = [image("a", 1), image("b", 3), image("c", 2)];
        let kept = images(&all, Some(2));
        assert_eq!(
            kept[0].names.as_deref(),
            Some(&["b@sha256:0".to_owned(), "b:1".to_owned()][..])
        );
        assert_eq!(kept.len(), 2);
        assert_eq!(images(&all, None).len(), 3);
    }
}
