//! What a volume is, written beside it: `vol_data.json`.
//! Keys: kubernetes v1.37 pkg/volume/csi/csi_plugin.go `volDataKey`.

use super::attachments::{self, InUse};
use super::paths::{Paths, RECORD};
use crate::volume::disk::{failed, make_dirs};
use crate::volume::error::VolumeReason;
use serde::{Deserialize, Serialize};
use std::io::{self, ErrorKind};
use std::path::Path;

/// Readable for whoever may look into the folder.
const MODE: u32 = 0o644;

/// How long a volume lives.
pub(super) const PERSISTENT: &str = "Persistent";
/// As long as its pod.
pub(super) const EPHEMERAL: &str = "Ephemeral";

/// One volume.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Record {
    #[serde(rename = "specVolID", skip_serializing_if = "String::is_empty")]
    pub spec_vol_id: String,
    pub volume_handle: String,
    pub driver_name: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub node_name: String,
    #[serde(rename = "attachmentID", skip_serializing_if = "String::is_empty")]
    pub attachment_id: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub volume_lifecycle_mode: String,
    /// What it is mounted with, if all of it has one label.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub se_linux_mount_context: String,
}

impl Record {
    pub fn is_of(&self, driver: &str, handle: &str) -> bool {
        self.driver_name == driver && self.volume_handle == handle
    }

    /// Writes it unless it is there, whole or not at all.
    pub fn write(&self, path: &Path) -> Result<(), VolumeReason> {
        if read(path)?.as_ref() == Some(self) {
            return Ok(());
        }
        let dir = path.parent().unwrap_or(path);
        make_dirs(dir).map_err(failed("mkdir", dir))?;
        let text = serde_json::to_vec(self).map_err(failed("encode", path))?;
        crate::join::files::write_atomically(path, &text, MODE).map_err(failed("write", path))
    }
}

/// What is written there, if anything is.
pub(super) fn read(path: &Path) -> Result<Option<Record>, VolumeReason> {
    match std::fs::read(path) {
        Ok(text) => match serde_json::from_slice(&text) {
            Ok(record) => Ok(Some(record)),
            Err(error) => Err(failed("read", path)(io::Error::other(error))),
        },
        Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => Ok(None),
        Err(e) => Err(failed("read", path)(e)),
    }
}

/// Names of what is in a folder; nothing if there is none.
pub(super) fn names(dir: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    entries
        .filter_map(|e| e.file_name().into_string().ok())
        .collect()
}

/// Pods that have a volume mounted.
pub(super) fn users(paths: &Paths, driver: &str, handle: &str) -> Vec<String> {
    let uses = |uid: &String| {
        let dir = paths.volumes(uid);
        let mut records = names(&dir).into_iter().map(|n| dir.join(n).join(RECORD));
        records.any(|path| {
            let record = read(&path).ok().flatten();
            record.is_some_and(|r| r.is_of(driver, handle))
        })
    };
    names(&paths.pods()).into_iter().filter(uses).collect()
}

/// Volumes that an earlier agent, or another kubelet, has left mounted.
pub(super) fn in_use(paths: &Paths) -> InUse {
    let mut found = InUse::new();
    for uid in names(&paths.pods()) {
        let dir = paths.volumes(&uid);
        let mounted = names(&dir).into_iter().map(|n| dir.join(n).join(RECORD));
        let devices = names(&paths.devices(&uid)).into_iter();
        let devices = devices.map(|name| paths.device(&uid, &name).record);
        for path in mounted.chain(devices) {
            let Ok(Some(record)) = read(&path) else {
                continue;
            };
            if record.volume_lifecycle_mode != EPHEMERAL {
                let name = attachments::name(&record.driver_name, &record.volume_handle);
                found.entry(name).or_default().insert(uid.clone());
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::volume::disk::scratch::Scratch;

    /// As the stock kubelet 1.37 wrote it.
    const THEIRS: &str = r#"{"attachmentID":"csi-1","driverName":"d","nodeName":"n","specVolID":"pv","volumeHandle":"h","volumeLifecycleMode":"Persistent"}"#;

    #[test]
    fn a_record_of_the_stock_kubelet_is_understood_and_written_alike() {
        let record: Record = serde_json::from_str(THEIRS).unwrap();
        assert!(record.is_of("d", "h"));
        let value = |text: &str| serde_json::from_str::<serde_json::Value>(text).unwrap();
        assert_eq!(serde_json::to_value(&record).unwrap(), value(THEIRS));
    }

    #[test]
    fn what_is_on_disk_says_which_volumes_are_in_use_and_by_whom() {
        let dir = Scratch::new();
        let paths = Paths::new(&dir.0);
        let mut record: Record = serde_json::from_str(THEIRS).unwrap();
        for pod in ["a", "b"] {
            record
                .write(&paths.mount(pod, "pv", "d", "h").record)
                .unwrap();
        }
        record.volume_lifecycle_mode = EPHEMERAL.to_owned();
        record.volume_handle = "x".to_owned();
        record
            .write(&paths.mount("c", "v", "d", "x").record)
            .unwrap();
        let mut users = users(&paths, "d", "h");
        users.sort();
        assert_eq!(users, ["a", "b"]);
        let in_use = in_use(&paths);
        assert_eq!(in_use.keys().collect::<Vec<_>>(), ["kubernetes.io/csi/d^h"]);
        std::fs::write(paths.mount("a", "pv", "d", "h").record, "{").unwrap();
        assert_eq!(super::users(&paths, "d", "h"), ["b"]);
    }
}
