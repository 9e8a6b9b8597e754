//! What each pod was given, on disk: DEL must work after a restart, from a
//! changed configuration, and for a plugin that has gone.

use crate::{Attachment, PodNetwork};
use serde::{Deserialize, Serialize};
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// One pod's record.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Record {
    /// The pod as it was wired.
    pub pod: PodNetwork,
    /// What it was given.
    pub attachment: Attachment,
    /// The plugins' configuration list of that time; none = built-in network.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub conflist: Option<serde_json::Value>,
    /// Path of the network namespace for the plugins.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub netns: Option<PathBuf>,
}

/// The folder of records, a file a sandbox.
#[derive(Debug, Clone)]
pub struct Records {
    dir: PathBuf,
}

impl Records {
    /// The folder, made if it is missing, without what one who was killed was
    /// about to write.
    pub fn open(dir: PathBuf) -> io::Result<Self> {
        fs::create_dir_all(&dir)?;
        for entry in fs::read_dir(&dir)? {
            let path = entry?.path();
            if path.extension().is_some_and(|e| e == TEMPORARY) {
                fs::remove_file(path)?;
            }
        }
        Ok(Self { dir })
    }

    /// Where a sandbox's record is. An id that is no plain file name has none.
    pub fn path(&self, sandbox: &str) -> Option<PathBuf> {
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        let fine = !sandbox.is_empty() && !sandbox.starts_with('.') && sandbox.chars().all(plain);
        fine.then(|| self.dir.join(format!("{sandbox}.json")))
    }

    /// The record; none if there is none or it can't be read: one bad record
    /// must not keep a pod from being removed.
    pub fn get(&self, sandbox: &str) -> Option<Record> {
        let path = self.path(sandbox)?;
        let bytes = fs::read(&path).ok()?;
        let record = serde_json::from_slice(&bytes);
        record
            .inspect_err(
                |error| tracing::warn!(path = %path.display(), %error, "unreadable network record"),
            )
            .ok()
    }

    /// All records that can be read.
    pub fn all(&self) -> io::Result<Vec<Record>> {
        let mut all = Vec::new();
        for entry in fs::read_dir(&self.dir)? {
            let name = entry?.file_name();
            let id = name.to_str().and_then(|n| n.strip_suffix(".json"));
            all.extend(id.and_then(|id| self.get(id)));
        }
        Ok(all)
    }

    /// Writes a record, whole or not at all.
    pub fn put(&self, record: &Record) -> io::Result<()> {
        let path = self.path(&record.pod.sandbox_id);
        let path = path.ok_or(io::ErrorKind::InvalidInput)?;
        write_whole(&path, &serde_json::to_vec(record)?)
    }

    /// Forgets a sandbox.
    pub fn remove(&self, sandbox: &str) -> io::Result<()> {
        let Some(path) = self.path(sandbox) else {
            return Ok(());
        };
        match fs::remove_file(path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
            _ => Ok(()),
        }
    }
}

const TEMPORARY: &str = "new";

/// Temporary file and rename. Not synced: after a power cut no pod lives, and
/// an empty record is taken for none.
pub fn write_whole(path: &Path, content: &[u8]) -> io::Result<()> {
    let temporary = path.with_extension(TEMPORARY);
    File::create(&temporary)?.write_all(content)?;
    fs::rename(temporary, path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::TempDir;

    fn record(id: &str) -> Record {
        Record {
            pod: PodNetwork {
                sandbox_id: id.to_owned(),
                ..PodNetwork::default()
            },
            attachment: Attachment::default(),
            conflist: None,
            netns: None,
        }
    }

    #[test]
    fn record_comes_back_until_it_is_removed() {
        let dir = TempDir::new();
        let records = Records::open(dir.path().join("r")).unwrap();
        records.put(&record("abc")).unwrap();
        assert_eq!(records.get("abc").unwrap().pod.sandbox_id, "abc");
        records.remove("abc").unwrap();
        records.remove("abc").unwrap();
        assert!(records.get("abc").is_none());
    }

    #[test]
    fn record_that_a_crash_left_empty_counts_as_none() {
        let dir = TempDir::new();
        let records = Records::open(dir.path().to_owned()).unwrap();
        fs::write(dir.path().join("torn.json"), "").unwrap();
        records.put(&record("whole")).unwrap();
        let ids: Vec<_> = records.all().unwrap();
        assert_eq!(ids.len(), 1);
        assert!(records.get("torn").is_none());
    }

    #[test]
    fn what_a_killed_agent_was_about_to_write_is_gone() {
        let dir = TempDir::new();
        fs::write(dir.path().join("abc.new"), "{").unwrap();
        Records::open(dir.path().to_owned()).unwrap();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn record_of_an_id_with_a_path_in_it_is_refused() {
        let dir = TempDir::new();
        let records = Records::open(dir.path().to_owned()).unwrap();
        assert!(records.put(&record("../../etc/passwd")).is_err());
        assert_eq!(records.path(".."), None);
    }
}
