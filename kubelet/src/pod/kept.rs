//! `allocated_pods_state`: what pods were granted of which nobody else would tell the next agent.
//!
//! The stock kubelet's file (kubernetes v1.37 pkg/kubelet/allocation/state). It names every pod
//! there; here only those that ask for something else than they have, or were resized before they
//! ran, so that no other pod costs a write. Either kubelet takes a pod that is not named for one that has what it asks for.

use super::resize::Granted;
use crate::checkpoint::{self, CheckpointError};
use k8s_openapi::api::core::v1::ResourceRequirements;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// kubernetes v1.37 pkg/kubelet/allocation/allocation_manager.go `allocatedPodsStateFile`.
const FILE: &str = "allocated_pods_state";

/// By uid of the pod.
type Pods = BTreeMap<String, Granted>;

/// What pods keep.
#[derive(Debug)]
pub struct Kept {
    path: PathBuf,
    pods: Mutex<Pods>,
}

#[derive(Serialize, Deserialize)]
struct File {
    data: String,
    checksum: u32,
}

#[derive(Default, Serialize, Deserialize)]
struct Data {
    #[serde(default)]
    entries: BTreeMap<String, Entry>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Entry {
    container_resources: Option<BTreeMap<String, ResourceRequirements>>,
    pod_level_resources: Option<ResourceRequirements>,
}

impl Kept {
    /// As written last. A file that can't be read is as none: what it said is asked of the
    /// API server instead.
    #[must_use]
    pub fn load(kubelet_root: &Path) -> Self {
        let path = kubelet_root.join(FILE);
        let pods = read(&path).unwrap_or_else(|error| {
            tracing::warn!(error = &error as &dyn std::error::Error, "begins anew");
            Pods::new()
        });
        Self {
            path,
            pods: Mutex::new(pods),
        }
    }

    fn pods(&self) -> MutexGuard<'_, Pods> {
        self.pods.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What a pod keeps, if it asks for something else.
    pub fn of(&self, uid: &str) -> Option<Granted> {
        self.pods().get(uid).cloned()
    }

    /// The pod asks for something else than this, which it keeps.
    pub fn keep(&self, uid: &str, granted: &Granted) {
        let mut pods = self.pods();
        if pods.get(uid) != Some(granted) {
            pods.insert(uid.to_owned(), granted.clone());
            self.save(&pods);
        }
    }

    /// The pod has what it asks for, or is gone.
    pub fn forget(&self, uid: &str) {
        let mut pods = self.pods();
        if pods.remove(uid).is_some() {
            self.save(&pods);
        }
    }

    /// There are no pods but these.
    pub fn keep_only(&self, uids: &BTreeSet<String>) {
        let mut pods = self.pods();
        let before = pods.len();
        pods.retain(|uid, _| uids.contains(uid));
        if pods.len() != before {
            self.save(&pods);
        }
    }

    fn save(&self, pods: &Pods) {
        if let Err(error) = write(&self.path, pods) {
            let error = &error as &dyn std::error::Error;
            tracing::warn!(error, "the next agent will not know which resizes wait");
        }
    }
}

fn write(path: &Path, pods: &Pods) -> Result<(), CheckpointError> {
    let entry = |granted: &Granted| {
        let mut containers = granted.clone();
        Entry {
            pod_level_resources: containers.remove(""),
            container_resources: Some(containers),
        }
    };
    let entries = pods.iter().map(|(uid, g)| (uid.clone(), entry(g)));
    let data = Data {
        entries: entries.collect(),
    };
    let data = serde_json::to_string(&data).unwrap_or_default();
    let checksum = checkpoint::checksum_of_data(&data);
    checkpoint::write(path, &File { data, checksum })
}

fn read(path: &Path) -> Result<Pods, CheckpointError> {
    let Some(file) = checkpoint::read::<File>(path)? else {
        return Ok(Pods::new());
    };
    if checkpoint::checksum_of_data(&file.data) != file.checksum {
        return Err(checkpoint::damaged(path, "its checksum is wrong"));
    }
    let data: Data =
        serde_json::from_str(&file.data).map_err(|e| checkpoint::damaged(path, e.to_string()))?;
    let granted = |entry: Entry| {
        let mut all: Granted = entry.container_resources.unwrap_or_default();
        all.extend(entry.pod_level_resources.map(|own| (String::new(), own)));
        all
    };
    let entries = data.entries.into_iter();
    Ok(entries.map(|(uid, e)| (uid, granted(e))).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn resources(cpu: &str) -> ResourceRequirements {
        serde_json::from_value(json!({ "requests": { "cpu": cpu } })).unwrap()
    }

    #[test]
    fn next_agent_knows_what_pods_keep_and_of_no_others() {
        let root = std::env::temp_dir().join(format!("kept-{}", std::process::id()));
        std::fs::create_dir_all(&root).unwrap();
        let kept = Kept::load(&root);
        let granted: Granted = [
            (String::new(), resources("2")),
            ("a".to_owned(), resources("1")),
        ]
        .into();
        kept.keep("u", &granted);
        kept.keep("v", &granted);
        kept.keep("w", &granted);
        kept.forget("v");
        let kept = Kept::load(&root);
        assert_eq!(kept.of("u"), Some(granted));
        assert_eq!(kept.of("v"), None);
        kept.keep_only(&["u".to_owned()].into());
        let kept = Kept::load(&root);
        assert!(kept.of("u").is_some() && kept.of("w").is_none());
        std::fs::write(root.join(FILE), r#"{"data":"{}","checksum":1}"#).unwrap();
        assert_eq!(Kept::load(&root).of("u"), None, "damaged");
        std::fs::remove_dir_all(&root).unwrap();
    }
}
