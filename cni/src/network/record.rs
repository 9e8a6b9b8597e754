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

/// The folders of records, a file a sandbox.
#[derive(Debug, Clone)]
pub struct Records {
    /// Of pods that foreign plugins wired: what those have to undo after a boot.
    foreign: PathBuf,
    /// Of those that we wired: nothing of them outlives a boot.
    own: PathBuf,
}

impl Records {
    /// The folders, made if they are missing, without what one who was killed was
    /// about to write.
    pub fn open(foreign: PathBuf, own: PathBuf) -> io::Result<Self> {
        for dir in [&foreign, &own] {
            fs::create_dir_all(dir)?;
            for entry in fs::read_dir(dir)? {
                let path = entry?.path();
                if path.extension().is_some_and(|e| e == TEMPORARY) {
                    fs::remove_file(path)?;
                }
            }
        }
        Ok(Self { foreign, own })
    }

    /// Where a sandbox's record may be; earlier versions had all in one folder. An
    /// id that is no plain file name has none.
    fn paths(&self, sandbox: &str) -> Option<[PathBuf; 2]> {
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        let fine = !sandbox.is_empty() && !sandbox.starts_with('.') && sandbox.chars().all(plain);
        let name = format!("{sandbox}.json");
        fine.then(|| [&self.own, &self.foreign].map(|dir| dir.join(&name)))
    }

    /// The record; none if there is none or it can't be read: one bad record
    /// must not keep a pod from being removed.
    pub fn get(&self, sandbox: &str) -> Option<Record> {
        let paths = self.paths(sandbox)?;
        let found = |path: &PathBuf| Some((path.clone(), fs::read(path).ok()?));
        let (path, bytes) = paths.iter().find_map(found)?;
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
        for dir in [&self.own, &self.foreign] {
            for entry in fs::read_dir(dir)? {
                let name = entry?.file_name();
                let id = name.to_str().and_then(|n| n.strip_suffix(".json"));
                all.extend(id.and_then(|id| self.get(id)));
            }
        }
        Ok(all)
    }

    /// Writes a record, whole or not at all.
    pub fn put(&self, record: &Record) -> io::Result<()> {
        let paths = self.paths(&record.pod.sandbox_id);
        let [own, foreign] = paths.ok_or(io::ErrorKind::InvalidInput)?;
        let path = if record.conflist.is_some() {
            foreign
        } else {
            own
        };
        write_whole(&path, &serde_json::to_vec(record)?)
    }

    /// Forgets a sandbox.
    pub fn remove(&self, sandbox: &str) -> io::Result<()> {
        for path in self.paths(sandbox).into_iter().flatten() {
            match fs::remove_file(path) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
                _ => {}
            }
        }
        Ok(())
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

    fn open(dir: &TempDir) -> Records {
        Records::open(dir.path().join("disk"), dir.path().join("run")).unwrap()
    }

    #[test]
    fn record_comes_back_until_it_is_removed() {
        let dir = TempDir::new();
        let records = open(&dir);
        records.put(&record("abc")).unwrap();
        assert_eq!(records.get("abc").unwrap().pod.sandbox_id, "abc");
        records.remove("abc").unwrap();
        records.remove("abc").unwrap();
        assert!(records.get("abc").is_none());
    }

    #[test]
    fn record_that_a_crash_left_empty_counts_as_none() {
        let dir = TempDir::new();
        let records = open(&dir);
        fs::write(dir.path().join("run/torn.json"), "").unwrap();
        records.put(&record("whole")).unwrap();
        let ids: Vec<_> = records.all().unwrap();
        assert_eq!(ids.len(), 1);
        assert!(records.get("torn").is_none());
    }

    #[test]
    fn what_a_killed_agent_was_about_to_write_is_gone() {
        let dir = TempDir::new();
        let run = dir.path().join("run");
        fs::create_dir(&run).unwrap();
        fs::write(run.join("abc.new"), "{").unwrap();
        open(&dir);
        assert_eq!(fs::read_dir(run).unwrap().count(), 0);
    }

    #[test]
    fn record_of_an_id_with_a_path_in_it_is_refused() {
        let dir = TempDir::new();
        let records = open(&dir);
        assert!(records.put(&record("../../etc/passwd")).is_err());
        assert_eq!(records.paths(".."), None);
    }

    #[test]
    fn record_of_foreign_plugins_is_the_one_that_outlives_a_boot() {
        let dir = TempDir::new();
        let records = open(&dir);
        let foreign = Record {
            conflist: Some(serde_json::json!({})),
            ..record("theirs")
        };
        records.put(&record("ours")).unwrap();
        records.put(&foreign).unwrap();
        assert_eq!(records.all().unwrap().len(), 2);
        fs::remove_dir_all(dir.path().join("run")).unwrap();
        let ids: Vec<_> = open(&dir).all().unwrap();
        assert_eq!(ids.len(), 1);
        assert_eq!(ids[0].pod.sandbox_id, "theirs");
    }
}
