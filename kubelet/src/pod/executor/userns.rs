//! Runs of ids for `hostUsers: false`, one a pod, never shared.
//! Record: kubernetes v1.36 pkg/kubelet/userns/userns_manager.go, `pods/<uid>/userns`.

use super::lock;
use crate::defaults::USER_NAMESPACE_LENGTH;
use crate::pod::IdRange;
use cri_proto::v1;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Record {
    uid_mappings: Vec<Mapping>,
    gid_mappings: Vec<Mapping>,
}

#[derive(Serialize, Deserialize, Clone, Copy)]
#[serde(rename_all = "camelCase")]
struct Mapping {
    host_id: u32,
    container_id: u32,
    length: u32,
}

/// Why a pod gets no ids.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum UserNamespaceError {
    #[error("all {runs} runs of user namespace ids are taken")]
    Exhausted { runs: u32 },
    #[error("write {}: {source}", path.display())]
    Write { path: PathBuf, source: io::Error },
}

/// Who has which ids.
pub struct UserNamespaces {
    range: IdRange,
    pods: PathBuf,
    taken: Mutex<BTreeMap<String, u32>>,
}

impl UserNamespaces {
    /// Ids from `range`; records below `kubelet_root`.
    #[must_use]
    pub fn new(range: IdRange, kubelet_root: &Path) -> Self {
        Self {
            range,
            pods: kubelet_root.join("pods"),
            taken: Mutex::new(BTreeMap::new()),
        }
    }

    /// Takes note of what a pod has from before.
    pub fn adopt(&self, uid: &str) {
        if let Some(first) = self.recorded(uid) {
            lock(&self.taken).insert(uid.to_owned(), first);
        }
    }

    /// A pod's ids: those it has, those on record, or new ones.
    ///
    /// # Errors
    /// When none are left, or the record can't be written.
    pub fn of(&self, uid: &str) -> Result<v1::UserNamespace, UserNamespaceError> {
        let mut taken = lock(&self.taken);
        if let Some(first) = taken.get(uid) {
            return Ok(namespace(*first));
        }
        let recorded = self
            .recorded(uid)
            .filter(|r| !taken.values().any(|t| t == r));
        let first = match recorded {
            Some(first) => first,
            None => self.free(&taken)?,
        };
        self.record(uid, first)?;
        taken.insert(uid.to_owned(), first);
        Ok(namespace(first))
    }

    /// The pod is gone.
    pub fn release(&self, uid: &str) {
        lock(&self.taken).remove(uid);
    }

    fn free(&self, taken: &BTreeMap<String, u32>) -> Result<u32, UserNamespaceError> {
        let runs = self.range.length / USER_NAMESPACE_LENGTH;
        let first = (0..runs).map(|run| self.range.first + run * USER_NAMESPACE_LENGTH);
        let mut free = first.filter(|first| !taken.values().any(|t| t == first));
        free.next().ok_or(UserNamespaceError::Exhausted { runs })
    }

    fn path(&self, uid: &str) -> PathBuf {
        self.pods.join(uid).join("userns")
    }

    fn recorded(&self, uid: &str) -> Option<u32> {
        let bytes = std::fs::read(self.path(uid)).ok()?;
        let record: Record = serde_json::from_slice(&bytes).ok()?;
        record.uid_mappings.first().map(|m| m.host_id)
    }

    fn record(&self, uid: &str, first: u32) -> Result<(), UserNamespaceError> {
        let path = self.path(uid);
        let mapping = Mapping {
            host_id: first,
            container_id: 0,
            length: USER_NAMESPACE_LENGTH,
        };
        let record = Record {
            uid_mappings: vec![mapping],
            gid_mappings: vec![mapping],
        };
        let text = serde_json::to_string(&record).unwrap_or_default();
        let folder = self.pods.join(uid);
        let written = std::fs::create_dir_all(&folder).and_then(|()| {
            let new = folder.join("userns.new");
            std::fs::write(&new, text)?;
            std::fs::rename(&new, &path)
        });
        written.map_err(|source| UserNamespaceError::Write { path, source })
    }
}

fn namespace(first: u32) -> v1::UserNamespace {
    let mapping = v1::IdMapping {
        host_id: first,
        container_id: 0,
        length: USER_NAMESPACE_LENGTH,
    };
    v1::UserNamespace {
        mode: v1::NamespaceMode::Pod.into(),
        uids: vec![mapping],
        gids: vec![mapping],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn first(namespaces: &UserNamespaces, uid: &str) -> Option<u32> {
        namespaces.of(uid).ok().map(|n| n.uids[0].host_id)
    }

    #[test]
    fn ids_are_never_shared_and_outlive_the_process() {
        let root = std::env::temp_dir().join(format!("lighter-userns-{}", std::process::id()));
        let range = IdRange {
            first: 65536,
            length: 2 * 65536,
        };
        let before = UserNamespaces::new(range, &root);
        let (a, b) = (first(&before, "a"), first(&before, "b"));
        assert_eq!((a, b), (Some(65536), Some(131_072)));
        assert_eq!(first(&before, "c"), None);
        let after = UserNamespaces::new(range, &root);
        after.adopt("b");
        assert_eq!(first(&after, "c"), Some(65536));
        assert_eq!(first(&after, "b"), Some(131_072));
        let _ = std::fs::remove_dir_all(&root);
    }
}
