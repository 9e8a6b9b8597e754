//! What a pod has on disks: logs, volumes of its own, and all that counts for it.

use super::figures::{of_disk, put};
use crate::eviction::{Used, tree};
use crate::node::disk::{self, Disk};
use crate::server::metrics::usage::PodUsage;
use cri_proto::v1;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Where the files of pods are.
#[derive(Debug, Clone)]
pub(super) struct Places {
    pub root_dir: PathBuf,
    pub pod_logs_root: PathBuf,
}

/// Of one pod, as far as it was looked for.
#[derive(Debug, Default)]
pub(super) struct Stored {
    /// By container.
    pub logs: BTreeMap<String, Value>,
    pub volumes: Vec<Value>,
    pub ephemeral: Option<Value>,
}

/// Walks the pod's folders: not for an async thread.
pub(super) fn of_pod(places: &Places, pod: &PodUsage) -> Stored {
    let mut stored = Stored::default();
    let mut all = Used::default();
    for layer in pod
        .containers
        .iter()
        .filter_map(|c| c.stats.writable_layer.as_ref())
    {
        let value = |v: Option<v1::UInt64Value>| v.map_or(0, |v| v.value);
        all.storage += value(layer.used_bytes);
        all.inodes += value(layer.inodes_used);
    }
    let log = format!("{}_{}_{}", pod.namespace, pod.name, pod.uid);
    let log = places.pod_logs_root.join(log);
    for container in &pod.containers {
        let dir = log.join(&container.name);
        let used = tree(&dir);
        all.add(used);
        stored
            .logs
            .extend(told(&dir, used).map(|v| (container.name.clone(), v)));
    }
    let dir = places.root_dir.join("pods").join(&pod.uid);
    let own = disk::device(&dir);
    for kind in crate::volume::OWN {
        for (name, volume) in folders(&dir.join("volumes").join(kind)) {
            let used = tree(&volume);
            // What is in memory is no storage.
            if disk::device(&volume) == own {
                all.add(used);
            }
            let mut value = told(&volume, used);
            if let Some(value) = &mut value {
                put(value, "name", Some(json!(name)));
            }
            stored.volumes.extend(value);
        }
    }
    stored.ephemeral = told(&dir, all);
    stored
}

fn told(dir: &Path, used: Used) -> Option<Value> {
    let disk: Disk = disk::of(dir)?;
    Some(of_disk(&disk, Some(used.storage), Some(used.inodes)))
}

fn folders(dir: &Path) -> Vec<(String, PathBuf)> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    entries
        .filter(|e| e.path().is_dir())
        .map(|e| (e.file_name().to_string_lossy().into_owned(), e.path()))
        .collect()
}
