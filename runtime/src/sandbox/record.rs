//! What is written down of a sandbox: everything needed to go on with it, or
//! to take it apart, after a restart.

use crate::cgroup::CgroupPath;
use cni::{Attachment, PodNetwork};
use cri_proto::v1::{self, PodSandboxConfig, PodSandboxMetadata, PodSandboxState};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::io;
use std::path::{Path, PathBuf};

/// Version of all records; a newer one is not read.
pub const VERSION: u32 = 1;

const RECORD: &str = "record.json";

/// A sandbox on disk.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[allow(missing_docs)]
pub struct Record {
    pub version: u32,
    pub id: String,
    pub state: State,
    pub created_at: i64,
    pub runtime_handler: String,
    #[serde(with = "proto")]
    pub config: PodSandboxConfig,
    /// The containers' parent.
    pub cgroup: CgroupPath,
    /// The topmost level of it that was made for a sandbox of ours.
    pub cgroup_made: Option<CgroupPath>,
    /// Of all its containers that ask for no other; empty without SELinux.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub selinux_level: String,
    /// `None` = the host's network.
    pub network: Option<NetworkRecord>,
}

/// What CNI DEL needs.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NetworkRecord {
    /// What ADD was asked for.
    pub pod: PodNetwork,
    /// What ADD answered.
    pub attachment: Option<Attachment>,
    /// DEL has been done.
    pub released: bool,
}

/// Where in its life a sandbox is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum State {
    /// RunPodSandbox has not ended: after a crash it is taken apart.
    Creating,
    /// Containers can be made.
    Ready,
    /// Stopped or dead.
    NotReady,
}

/// A record that could not be read or written.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum RecordError {
    #[error("write {path}")]
    Write { path: PathBuf, source: io::Error },
    #[error("read {path}")]
    Read { path: PathBuf, source: io::Error },
    #[error("{path} is no record of this version")]
    Parse {
        path: PathBuf,
        source: serde_json::Error,
    },
    #[error("{path} was written by a newer version ({version}); start that one")]
    Newer { path: PathBuf, version: u32 },
}

impl State {
    /// CRI knows two.
    #[must_use]
    pub fn to_cri(self) -> PodSandboxState {
        match self {
            Self::Ready => PodSandboxState::SandboxReady,
            Self::Creating | Self::NotReady => PodSandboxState::SandboxNotready,
        }
    }
}

impl Record {
    /// Name, namespace, uid and attempt: what makes a sandbox unique.
    #[must_use]
    pub fn metadata(&self) -> PodSandboxMetadata {
        self.config.metadata.clone().unwrap_or_default()
    }

    /// The pod's addresses; none on the host's network.
    #[must_use]
    pub fn network_status(&self) -> v1::PodSandboxNetworkStatus {
        let attachment = self.network.as_ref().and_then(|n| n.attachment.as_ref());
        let ips = attachment.map(|a| a.ips.as_slice()).unwrap_or_default();
        let mut ips = ips.iter().map(ToString::to_string);
        v1::PodSandboxNetworkStatus {
            ip: ips.next().unwrap_or_default(),
            additional_ips: ips.map(|ip| v1::PodIp { ip }).collect(),
        }
    }
}

/// Writes a record so that a reader sees the old one or the new one. It is not
/// forced to disk: after a power cut nothing of what it describes lives.
pub(crate) fn write_record<T: Serialize>(dir: &Path, record: &T) -> Result<(), RecordError> {
    let path = dir.join(RECORD);
    let temp = dir.join(".record.json.new");
    let write = || {
        std::fs::write(&temp, serde_json::to_vec(record)?)?;
        std::fs::rename(&temp, &path)
    };
    write().map_err(|source| {
        // Half of one: the disk is full.
        let _ = std::fs::remove_file(&temp);
        RecordError::Write { path, source }
    })
}

/// Reads what [`write_record`] wrote.
pub(crate) fn read_record<T: DeserializeOwned>(dir: &Path) -> Result<T, RecordError> {
    #[derive(Deserialize)]
    struct Head {
        version: u32,
    }
    let path = dir.join(RECORD);
    let text = std::fs::read(&path).map_err(|source| RecordError::Read {
        path: path.clone(),
        source,
    })?;
    let parse = |source| RecordError::Parse {
        path: path.clone(),
        source,
    };
    let head: Head = serde_json::from_slice(&text).map_err(parse)?;
    if head.version > VERSION {
        return Err(RecordError::Newer {
            path,
            version: head.version,
        });
    }
    serde_json::from_slice(&text).map_err(parse)
}

/// CRI messages inside JSON, as base64 of their wire form: unknown fields of a
/// newer caller survive in neither form, and this one needs no second schema.
pub(crate) mod proto {
    use base64::Engine;
    use base64::engine::general_purpose::STANDARD;
    use prost::Message;
    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serializer};

    pub(crate) fn serialize<M: Message, S: Serializer>(
        message: &M,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&STANDARD.encode(message.encode_to_vec()))
    }

    pub(crate) fn deserialize<'de, M: Message + Default, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<M, D::Error> {
        let text = String::deserialize(deserializer)?;
        let bytes = STANDARD.decode(text).map_err(D::Error::custom)?;
        M::decode(bytes.as_slice()).map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> Record {
        Record {
            version: VERSION,
            id: "a".repeat(64),
            state: State::Ready,
            created_at: 7,
            runtime_handler: String::new(),
            config: PodSandboxConfig {
                hostname: "web".to_owned(),
                ..Default::default()
            },
            cgroup: CgroupPath::parse("/kubepods/podx").expect("name"),
            selinux_level: String::new(),
            cgroup_made: None,
            network: None,
        }
    }

    #[test]
    fn record_comes_back_as_it_was_written_and_a_newer_one_is_refused() {
        let dir = std::env::temp_dir().join(format!("lighter-record-{}", std::process::id()));
        std::fs::create_dir_all(&dir).expect("dir");
        write_record(&dir, &record()).expect("written");
        let back: Record = read_record(&dir).expect("read");
        let newer = Record {
            version: VERSION + 1,
            ..record()
        };
        write_record(&dir, &newer).expect("written");
        let refused = read_record::<Record>(&dir);
        std::fs::write(dir.join(RECORD), "").expect("emptied");
        let empty = read_record::<Record>(&dir);
        let _ = std::fs::remove_dir_all(&dir);
        assert_eq!(back.config, record().config);
        assert_eq!(back.cgroup, record().cgroup);
        assert!(matches!(refused, Err(RecordError::Newer { .. })));
        assert!(matches!(empty, Err(RecordError::Parse { .. })));
    }
}
