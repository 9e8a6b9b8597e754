//! What has to be done on disk for each volume of a pod.

use super::Prepared;
use super::cleanup;
use super::disk::attach::{self, Attached};
use super::disk::device::Shared;
use super::disk::ownership::Ownership;
use super::disk::{atomic_writer, empty_dir, host_path, mountpoint};
use super::error::VolumeReason;
use super::huge_pages;
use super::kind::Kind;
use super::payload::Files;
use super::persistent::{Persistent, Source};
use super::plugin;
use crate::metrics::storage::{MAP_VOLUME, VOLUME_MOUNT};
use crate::quantity::Amount;
use cri_proto::v1;
use k8s_openapi::api::core::v1::{
    EmptyDirVolumeSource, HostPathVolumeSource, LocalVolumeSource, Pod, Volume,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The work for one volume.
#[derive(Debug, Clone, PartialEq)]
pub enum Work {
    /// Write these, below a tmpfs of so many bytes if there is a size.
    Files {
        dir: PathBuf,
        files: Files,
        tmpfs: Option<u64>,
        fs_group: Option<u32>,
    },
    /// Make a folder, or mount what is no disk.
    EmptyDir {
        dir: PathBuf,
        medium: Medium,
        fs_group: Option<u32>,
    },
    /// Check, perhaps make.
    HostPath {
        path: PathBuf,
        kind: String,
        read_only: bool,
    },
    /// Mount what lies elsewhere.
    Attached(Attached),
    /// Check.
    Device { path: PathBuf, read_only: bool },
    /// The runtime does it.
    Image(v1::ImageSpec),
}

/// What an emptyDir is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Medium {
    Disk,
    /// So many bytes at most.
    Memory(u64),
    /// Pages of so many bytes.
    HugePages(u64),
}

/// What the plan has to know of the pod.
#[derive(Debug, Clone, Copy)]
pub struct Place<'a> {
    pub pod: &'a Pod,
    /// pods/<uid>/volumes
    pub volumes_dir: &'a Path,
    pub allocatable: &'a BTreeMap<String, Quantity>,
}

impl Place<'_> {
    /// The work for one volume; `files` if it is of a kind that has them.
    pub fn work(&self, volume: &Volume, files: Option<Files>) -> Result<Work, VolumeReason> {
        let kind = Kind::of(volume);
        match (kind, files) {
            (Kind::EmptyDir(source), _) => self.empty_dir(kind, volume, source),
            (Kind::HostPath(source), _) => Ok(host_path(source, false)),
            (Kind::Image(source), _) => Ok(Work::Image(v1::ImageSpec {
                image: source.reference.clone().unwrap_or_default(),
                user_specified_image: source.reference.clone().unwrap_or_default(),
                ..v1::ImageSpec::default()
            })),
            (Kind::Claim | Kind::Nfs(_) | Kind::Csi(_), _) => Err(VolumeReason::Unsupported {
                kind: "of an unknown source",
            }),
            (Kind::Unsupported(kind), _) => Err(VolumeReason::Unsupported { kind }),
            (_, files) => Ok(Work::Files {
                dir: self.dir(kind, volume),
                files: files.unwrap_or_default(),
                // A ConfigMap is no secret and may be large: it lives on disk.
                tmpfs: (!matches!(kind, Kind::ConfigMap(_))).then(|| self.memory()),
                fs_group: self.fs_group(),
            }),
        }
    }

    /// The work for what was found elsewhere; `None` if a driver or a server does it.
    pub fn foreign(&self, found: &Persistent) -> Option<Work> {
        let local = match &found.source {
            Source::HostPath(source) if !found.block => {
                return Some(host_path(source, found.read_only));
            }
            Source::HostPath(HostPathVolumeSource { path, .. })
            | Source::Local(LocalVolumeSource { path, .. })
                if found.block =>
            {
                return Some(Work::Device {
                    path: path.into(),
                    read_only: found.read_only,
                });
            }
            Source::Local(source) => source,
            Source::HostPath(_) | Source::Nfs(_) | Source::Csi(_) | Source::Inline(_) => {
                return None;
            }
        };
        let shared = Shared {
            dir: cleanup::shared(self.volumes_dir, &found.name),
            fs_type: local.fs_type.clone(),
        };
        Some(Work::Attached(Attached {
            source: local.path.clone(),
            target: self.volumes_dir.join(cleanup::LOCAL).join(&found.name),
            options: found.mount_options.clone(),
            read_only: found.read_only,
            ownership: self.ownership(found.read_only),
            shared,
        }))
    }

    /// fsGroup of the pod, and how it is to be applied.
    pub fn ownership(&self, read_only: bool) -> Option<Ownership> {
        let context = self.pod.spec.as_ref()?.security_context.as_ref()?;
        Some(Ownership {
            gid: self.fs_group()?,
            only_on_root_mismatch: context.fs_group_change_policy.as_deref()
                == Some("OnRootMismatch"),
            read_only,
        })
    }

    fn empty_dir(
        &self,
        kind: Kind<'_>,
        volume: &Volume,
        source: &EmptyDirVolumeSource,
    ) -> Result<Work, VolumeReason> {
        let medium = match source.medium.as_deref().unwrap_or_default() {
            "" => Medium::Disk,
            "Memory" => Medium::Memory(self.memory_up_to(source.size_limit.as_ref())),
            other => {
                let medium = other.to_owned();
                let unknown = VolumeReason::Medium { medium };
                let size = huge_pages::page_size(other, self.pod).ok_or(unknown)?;
                Medium::HugePages(size?)
            }
        };
        Ok(Work::EmptyDir {
            dir: self.dir(kind, volume),
            medium,
            fs_group: self.fs_group(),
        })
    }

    fn dir(&self, kind: Kind<'_>, volume: &Volume) -> PathBuf {
        let plugin = kind.plugin_dir().unwrap_or_default();
        self.volumes_dir.join(plugin).join(&volume.name)
    }

    fn fs_group(&self) -> Option<u32> {
        let context = self.pod.spec.as_ref()?.security_context.as_ref()?;
        u32::try_from(context.fs_group?).ok()
    }

    /// Bytes that a tmpfs of this pod may hold: its memory limit if every
    /// container has one, and never more than the node has to give.
    /// Rule: kubernetes v1.36 pkg/volume/emptydir/empty_dir.go
    /// `calculateEmptyDirMemorySize`.
    fn memory(&self) -> u64 {
        let node = bytes(self.allocatable.get("memory"));
        match (node, pod_memory_limit(self.pod)) {
            (0, limit) | (limit, 0) => limit,
            (node, limit) => node.min(limit),
        }
    }

    fn memory_up_to(&self, size_limit: Option<&Quantity>) -> u64 {
        match (self.memory(), bytes(size_limit)) {
            (0, limit) | (limit, 0) => limit,
            (memory, limit) => memory.min(limit),
        }
    }
}

fn host_path(source: &HostPathVolumeSource, read_only: bool) -> Work {
    Work::HostPath {
        path: PathBuf::from(&source.path),
        kind: source.type_.clone().unwrap_or_default(),
        read_only,
    }
}

fn bytes(quantity: Option<&Quantity>) -> u64 {
    quantity.map_or(0, |q| u64::try_from(Amount::from(q).units()).unwrap_or(0))
}

/// 0 without one.
fn pod_memory_limit(pod: &Pod) -> u64 {
    let Some(spec) = &pod.spec else { return 0 };
    let of_pod = spec
        .resources
        .as_ref()
        .and_then(|r| r.limits.as_ref()?.get("memory"));
    if of_pod.is_some() {
        return bytes(of_pod);
    }
    let limits = spec.containers.iter().map(|c| {
        let limits = c.resources.as_ref().and_then(|r| r.limits.as_ref());
        bytes(limits.and_then(|l| l.get("memory")))
    });
    let limits: Vec<u64> = limits.collect();
    if limits.contains(&0) {
        0
    } else {
        limits.iter().sum()
    }
}

impl Work {
    /// What containers will be given.
    pub fn prepared(&self) -> Prepared {
        let ours = |path: &Path, read_only| Prepared::Path {
            path: path.to_owned(),
            owned: true,
            read_only,
        };
        match self {
            Work::Files { dir, .. } => ours(dir, true),
            Work::EmptyDir { dir, .. } => ours(dir, false),
            Work::HostPath {
                path, read_only, ..
            } => Prepared::Path {
                path: path.clone(),
                owned: false,
                read_only: *read_only,
            },
            Work::Attached(attached) => Prepared::Path {
                path: attached.target.clone(),
                owned: true,
                read_only: attached.read_only,
            },
            Work::Device { path, read_only } => Prepared::Device {
                path: path.clone(),
                read_only: *read_only,
            },
            Work::Image(spec) => Prepared::Image(spec.clone()),
        }
    }

    /// Does it; may block.
    pub fn apply(&self) -> Result<(), VolumeReason> {
        match self {
            Work::Files {
                dir,
                files,
                tmpfs,
                fs_group,
            } => {
                match tmpfs {
                    // Its files carry the group; the mount itself needs none.
                    Some(size) => empty_dir::in_memory(dir, *size, None)?,
                    None => empty_dir::on_disk(dir, None)?,
                }
                atomic_writer::write(dir, files, *fs_group).map(|_| ())
            }
            Work::EmptyDir {
                dir,
                medium,
                fs_group,
            } => match medium {
                Medium::Disk => empty_dir::on_disk(dir, *fs_group),
                Medium::Memory(size) => empty_dir::in_memory(dir, *size, *fs_group),
                Medium::HugePages(size) => empty_dir::in_huge_pages(dir, *size, *fs_group),
            },
            Work::HostPath { path, kind, .. } => host_path::prepare(path, kind),
            Work::Attached(attached) => attached.mount(),
            Work::Device { path, .. } => attach::check_device(path),
            Work::Image(_) => Ok(()),
        }
    }

    /// The kind of volume, by the name of its plugin.
    pub fn plugin(&self) -> String {
        match self {
            Work::Files { dir, .. } | Work::EmptyDir { dir, .. } => plugin::of_folder(dir),
            Work::HostPath { .. } => plugin::HOST_PATH.to_owned(),
            Work::Attached(_) | Work::Device { .. } => plugin::LOCAL.to_owned(),
            Work::Image(_) => plugin::IMAGE.to_owned(),
        }
    }

    /// What is done, as it is counted.
    pub fn operation(&self) -> &'static str {
        match self {
            Work::Device { .. } => MAP_VOLUME,
            _ => VOLUME_MOUNT,
        }
    }

    /// Rewrites files where they are; false if the volume is not mounted any
    /// more (then nothing may be written: it would reach the disk).
    pub fn still_mounted(&self) -> Result<bool, VolumeReason> {
        match self {
            Work::Files {
                dir,
                tmpfs: Some(_),
                ..
            } => mountpoint::is_mounted(dir),
            Work::Files { dir, .. } => Ok(dir.is_dir()),
            _ => Ok(true),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn work(pod: serde_json::Value, volume: serde_json::Value) -> Result<Work, VolumeReason> {
        let pod: Pod = serde_json::from_value(pod).unwrap();
        let allocatable = BTreeMap::from([("memory".to_owned(), Quantity("8Gi".into()))]);
        let place = Place {
            pod: &pod,
            volumes_dir: Path::new("/k/pods/u/volumes"),
            allocatable: &allocatable,
        };
        place.work(&serde_json::from_value(volume).unwrap(), None)
    }

    fn memory_size(pod: serde_json::Value, limit: serde_json::Value) -> Option<u64> {
        let volume = json!({"name": "v", "emptyDir": {"medium": "Memory", "sizeLimit": limit}});
        match work(pod, volume) {
            Ok(Work::EmptyDir {
                medium: Medium::Memory(size),
                ..
            }) => Some(size),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn secrets_are_in_memory_and_config_maps_on_disk_each_in_its_own_folder() {
        let pod = json!({"spec": {"containers": [], "securityContext": {"fsGroup": 7}}});
        let secret = work(
            pod.clone(),
            json!({"name": "v", "secret": {"secretName": "s"}}),
        )
        .unwrap();
        let Work::Files {
            dir,
            tmpfs,
            fs_group,
            ..
        } = &secret
        else {
            panic!("{secret:?}")
        };
        assert_eq!(dir, Path::new("/k/pods/u/volumes/kubernetes.io~secret/v"));
        assert_eq!((*tmpfs, *fs_group), (Some(8 << 30), Some(7)));
        let config = work(pod, json!({"name": "v", "configMap": {"name": "c"}})).unwrap();
        assert!(matches!(config, Work::Files { tmpfs: None, .. }));
    }

    #[test]
    fn memory_is_bounded_by_size_limit_pod_limit_and_node() {
        let limited = json!({"spec": {"containers": [{"name": "a", "resources": {"limits": {"memory": "1Gi"}}}]}});
        let half = json!({"spec": {"containers": [
            {"name": "a", "resources": {"limits": {"memory": "1Gi"}}}, {"name": "b"}]}});
        assert_eq!(memory_size(limited.clone(), json!("64Mi")), Some(64 << 20));
        assert_eq!(memory_size(limited.clone(), json!("2Gi")), Some(1 << 30));
        assert_eq!(memory_size(limited, json!(null)), Some(1 << 30));
        assert_eq!(memory_size(half, json!(null)), Some(8 << 30));
    }

    #[test]
    fn huge_pages_are_of_a_size_that_the_pod_asks_for_and_other_media_unknown() {
        let list = json!({"requests": {"hugepages-2Mi": "4Mi"}});
        let pod = json!({"spec": {"containers": [{"name": "a", "resources": list}]}});
        let of = |medium: &str| {
            let volume = json!({"name": "v", "emptyDir": {"medium": medium, "sizeLimit": "2Mi"}});
            work(pod.clone(), volume).map(|work| match work {
                Work::EmptyDir { medium, .. } => medium,
                other => panic!("{other:?}"),
            })
        };
        assert_eq!(of("HugePages-2Mi").unwrap(), Medium::HugePages(2 << 20));
        assert_eq!(of("").unwrap(), Medium::Disk);
        assert!(matches!(
            of("HugePages-1Gi"),
            Err(VolumeReason::HugePages { .. })
        ));
        assert!(matches!(of("Paper"), Err(VolumeReason::Medium { .. })));
    }

    #[test]
    fn unsupported_kinds_are_named() {
        let pod = json!({"spec": {"containers": []}});
        let iscsi = json!({"name": "v", "iscsi": {"targetPortal": "p", "iqn": "i", "lun": 0}});
        let refused = work(pod.clone(), iscsi).unwrap_err().to_string();
        assert_eq!(refused, "volume kind iscsi is not supported by this node");
        let git = json!({"name": "v", "gitRepo": {"repository": "r"}});
        assert!(work(pod, git).unwrap_err().to_string().contains("gitRepo"));
    }
}
