//! A container as CRI shows it.

use super::{Container, Record};
use crate::spec::cri_signal;
use cri_proto::v1;

impl Container {
    /// As lists show it.
    #[must_use]
    pub fn to_cri(&self) -> v1::Container {
        self.read(|record| v1::Container {
            id: record.id.clone(),
            pod_sandbox_id: record.sandbox_id.clone(),
            metadata: record.config.metadata.clone(),
            image: record.config.image.clone(),
            image_ref: record.image_id.clone(),
            state: record.state.to_cri().into(),
            created_at: record.created_at,
            labels: record.config.labels.clone(),
            annotations: record.config.annotations.clone(),
            image_id: record.image_id.clone(),
        })
    }

    /// As ContainerStatus shows it.
    #[must_use]
    pub fn status(&self) -> v1::ContainerStatus {
        self.read(status)
    }
}

fn status(record: &Record) -> v1::ContainerStatus {
    v1::ContainerStatus {
        id: record.id.clone(),
        metadata: record.config.metadata.clone(),
        state: record.state.to_cri().into(),
        created_at: record.created_at,
        started_at: record.started_at,
        finished_at: record.finished_at.unwrap_or(0),
        exit_code: record.exit_code,
        image: record.config.image.clone(),
        image_ref: record.image_ref.clone(),
        reason: record.reason.clone(),
        message: record.message.clone(),
        labels: record.config.labels.clone(),
        annotations: record.config.annotations.clone(),
        mounts: mounts(record),
        log_path: record
            .log_path
            .as_ref()
            .map(|path| path.display().to_string())
            .unwrap_or_default(),
        resources: Some(v1::ContainerResources {
            linux: Some(record.resources.clone()),
            windows: None,
        }),
        image_id: record.image_id.clone(),
        user: Some(v1::ContainerUser {
            linux: Some(v1::LinuxContainerUser {
                uid: record.user.uid.into(),
                gid: record.user.gid.into(),
                supplemental_groups: record.user.groups.iter().map(|g| (*g).into()).collect(),
            }),
        }),
        stop_signal: cri_signal(record.stop_signal).into(),
    }
}

/// As requested; mounts of images name the image that was found.
fn mounts(record: &Record) -> Vec<v1::Mount> {
    let mut mounts = record.config.mounts.clone();
    for mount in &mut mounts {
        let of = |(path, _): &&(String, String)| *path == mount.container_path;
        let id = record
            .image_mounts
            .iter()
            .find(of)
            .map(|(_, id)| id.clone());
        if let (Some(image), Some(id)) = (&mut mount.image, id) {
            image.image_ref = id;
        }
    }
    mounts
}
