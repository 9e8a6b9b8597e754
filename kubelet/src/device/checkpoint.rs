//! What must outlive the agent: which devices were given to whom.

use super::inventory::{Allocation, Inventory, Place, Resource};
use crate::proto::deviceplugin::ContainerAllocateResponse;
use crate::topology::NodeMask;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use prost::Message;
use serde::{Deserialize, Serialize};
use std::io::ErrorKind;
use std::path::Path;
use std::time::Instant;

/// kubernetes v1.37 pkg/kubelet/cm/devicemanager/types.go `kubeletDeviceManagerCheckpoint`.
pub(super) const FILE: &str = "kubelet_internal_checkpoint";

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Record {
    /// Resources that a plugin offered.
    registered: Vec<String>,
    allocations: Vec<Entry>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Entry {
    #[serde(rename = "podUID")]
    pod_uid: String,
    container_name: String,
    resource_name: String,
    #[serde(rename = "deviceIDs")]
    device_ids: Vec<String>,
    nodes: Vec<u32>,
    /// A `ContainerAllocateResponse`, in base64.
    answer: String,
}

/// Writes it, whole or not at all.
pub(super) fn write(path: &Path, inventory: &Inventory) -> std::io::Result<()> {
    let entry = |(place, allocation): (&Place, &Allocation)| Entry {
        pod_uid: place.pod.clone(),
        container_name: place.container.clone(),
        resource_name: place.resource.clone(),
        device_ids: allocation.ids.iter().cloned().collect(),
        nodes: allocation.nodes.nodes().collect(),
        answer: BASE64.encode(allocation.answer.encode_to_vec()),
    };
    let now = Instant::now();
    let registered = inventory.resources.iter().filter(|(_, r)| !r.is_over(now));
    let record = Record {
        registered: registered.map(|(name, _)| name.clone()).collect(),
        allocations: inventory.allocations.iter().map(entry).collect(),
    };
    let text = serde_json::to_vec_pretty(&record)?;
    crate::join::files::write_atomically(path, &text, 0o600)
}

/// What was written last; nothing if nobody ever did. Plugins are not there yet.
pub(super) fn read(path: &Path, now: Instant) -> std::io::Result<Inventory> {
    let text = match std::fs::read(path) {
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(Inventory::default()),
        other => other?,
    };
    let record: Record = serde_json::from_slice(&text)?;
    let mut inventory = Inventory::default();
    for name in record.registered {
        let resource = Resource {
            gone: Some(now),
            ..Resource::default()
        };
        inventory.resources.insert(name, resource);
    }
    for entry in record.allocations {
        let bytes = BASE64.decode(&entry.answer).unwrap_or_default();
        let place = Place {
            pod: entry.pod_uid,
            container: entry.container_name,
            resource: entry.resource_name,
        };
        let Ok(answer) = ContainerAllocateResponse::decode(bytes.as_slice()) else {
            tracing::warn!(?place, "what a device plugin answered can't be read");
            continue;
        };
        let allocation = Allocation {
            ids: entry.device_ids.into_iter().collect(),
            nodes: NodeMask::of(entry.nodes),
            answer,
        };
        inventory.allocations.insert(place, allocation);
    }
    Ok(inventory)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_given_is_read_back_and_resources_wait_for_their_plugin() {
        let dir = std::env::temp_dir().join(format!("device-checkpoint-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let path = dir.join(FILE);
        let now = Instant::now();
        assert!(read(&path, now).unwrap().allocations.is_empty());
        let mut inventory = Inventory::default();
        inventory
            .resources
            .insert("x/y".into(), Resource::default());
        let place = Place {
            pod: "u".into(),
            container: "c".into(),
            resource: "x/y".into(),
        };
        let answer = ContainerAllocateResponse {
            envs: [("A".to_owned(), "1".to_owned())].into(),
            ..Default::default()
        };
        let allocation = Allocation {
            ids: ["d".to_owned()].into(),
            nodes: NodeMask::of([1]),
            answer,
        };
        inventory.allocations.insert(place, allocation);
        write(&path, &inventory).unwrap();
        let back = read(&path, now).unwrap();
        assert_eq!(back.allocations, inventory.allocations);
        assert_eq!(back.resources["x/y"].counts(now), (0, 0));
        assert_eq!(back.resources["x/y"].gone, Some(now));
        std::fs::write(&path, "{").unwrap();
        assert!(read(&path, now).is_err());
        std::fs::remove_dir_all(dir).unwrap();
    }
}
