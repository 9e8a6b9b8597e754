//! What a driver is asked. Pure.
//! Rules: kubernetes v1.37 pkg/volume/csi/{csi_client,csi_mounter,csi_util}.go.

use super::driver::Capabilities;
use super::record::{EPHEMERAL, PERSISTENT};
use crate::proto::csi as api;
use crate::proto::csi::node_service_capability::rpc::Type as Capability;
use crate::proto::csi::volume_capability::access_mode::Mode;
use crate::proto::csi::volume_capability::{AccessMode, AccessType, BlockVolume, MountVolume};
use crate::volume::persistent::{Persistent, Source};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::storage::v1::CSIDriver;
use std::collections::{BTreeMap, HashMap};

/// What is known of a volume of a driver, whoever names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Volume {
    pub driver: String,
    pub handle: String,
    /// The PersistentVolume, or the pod's volume.
    pub name: String,
    pub fs_type: String,
    pub attributes: HashMap<String, String>,
    pub read_only: bool,
    pub block: bool,
    pub ephemeral: bool,
    pub mount_flags: Vec<String>,
    pub access_modes: Vec<String>,
    /// Namespace and name of Secrets.
    pub stage_secret: Option<(String, String)>,
    pub publish_secret: Option<(String, String)>,
    pub expand_secret: Option<(String, String)>,
}

impl Volume {
    /// `None` if it is of no driver.
    pub fn of(pod: &Pod, found: &Persistent) -> Option<Volume> {
        match &found.source {
            Source::Csi(source) => {
                let secret = |r: &Option<k8s_openapi::api::core::v1::SecretReference>| {
                    let r = r.as_ref()?;
                    Some((r.namespace.clone()?, r.name.clone()?))
                };
                Some(Volume {
                    driver: source.driver.clone(),
                    handle: source.volume_handle.clone(),
                    name: found.name.clone(),
                    fs_type: source.fs_type.clone().unwrap_or_default(),
                    attributes: map(source.volume_attributes.clone().unwrap_or_default()),
                    read_only: found.read_only || source.read_only.unwrap_or(false),
                    block: found.block,
                    ephemeral: false,
                    mount_flags: found.mount_options.clone(),
                    access_modes: found.access_modes.clone(),
                    stage_secret: secret(&source.node_stage_secret_ref),
                    publish_secret: secret(&source.node_publish_secret_ref),
                    expand_secret: secret(&source.node_expand_secret_ref),
                })
            }
            Source::Inline(source) => {
                let namespace = pod.metadata.namespace.clone().unwrap_or_default();
                let secret = source.node_publish_secret_ref.as_ref();
                Some(Volume {
                    driver: source.driver.clone(),
                    handle: inline_handle(pod, &found.name),
                    name: found.name.clone(),
                    fs_type: source.fs_type.clone().unwrap_or_default(),
                    attributes: map(source.volume_attributes.clone().unwrap_or_default()),
                    read_only: found.read_only,
                    block: false,
                    ephemeral: true,
                    mount_flags: Vec::new(),
                    access_modes: vec!["ReadWriteOnce".to_owned()],
                    stage_secret: None,
                    publish_secret: secret.map(|s| (namespace, s.name.clone())),
                    expand_secret: None,
                })
            }
            Source::HostPath(_) | Source::Local(_) | Source::Nfs(_) => None,
        }
    }

    pub fn lifecycle(&self) -> &'static str {
        if self.ephemeral {
            EPHEMERAL
        } else {
            PERSISTENT
        }
    }

    /// How it is to be had; `group` for drivers that give volumes to a group themselves.
    pub fn capability(&self, can: &Capabilities, group: Option<u32>) -> api::VolumeCapability {
        let group = group.filter(|_| can.has(Capability::VolumeMountGroup));
        let access_type = match self.block {
            true => AccessType::Block(BlockVolume {}),
            false => AccessType::Mount(MountVolume {
                fs_type: self.fs_type.clone(),
                mount_flags: self.mount_flags.clone(),
                volume_mount_group: group.map(|g| g.to_string()).unwrap_or_default(),
            }),
        };
        let mode = self.mode(can.has(Capability::SingleNodeMultiWriter));
        api::VolumeCapability {
            access_mode: Some(AccessMode { mode: mode.into() }),
            access_type: Some(access_type),
        }
    }

    fn mode(&self, finer: bool) -> Mode {
        match self.access_modes.first().map(String::as_str) {
            Some("ReadOnlyMany") => Mode::MultiNodeReaderOnly,
            Some("ReadWriteMany") => Mode::MultiNodeMultiWriter,
            Some("ReadWriteOncePod") if finer => Mode::SingleNodeSingleWriter,
            _ if finer => Mode::SingleNodeMultiWriter,
            _ => Mode::SingleNodeWriter,
        }
    }

    /// Whether the pod's fsGroup is to be applied here.
    pub fn takes_group(&self, driver: Option<&CSIDriver>, can: &Capabilities) -> bool {
        if self.block || self.read_only || can.has(Capability::VolumeMountGroup) {
            return false;
        }
        let policy = driver.and_then(|d| d.spec.fs_group_policy.as_deref());
        match policy {
            Some("None") => false,
            Some("File") => true,
            _ => {
                let once = self.access_modes.iter().any(|m| m == "ReadWriteOnce");
                !self.fs_type.is_empty() && once
            }
        }
    }

    /// Whether the driver serves volumes that live like this one.
    pub fn is_allowed(&self, driver: Option<&CSIDriver>) -> bool {
        let modes = driver.and_then(|d| d.spec.volume_lifecycle_modes.as_ref());
        match modes.filter(|m| !m.is_empty()) {
            Some(modes) => modes.iter().any(|m| m == self.lifecycle()),
            None => !self.ephemeral,
        }
    }

    /// Whether it has to be attached to the node first.
    pub fn is_attached(&self, driver: Option<&CSIDriver>) -> bool {
        !self.ephemeral && driver.and_then(|d| d.spec.attach_required).unwrap_or(true)
    }

    /// What the driver knows of it, and of the pod if it wants to.
    pub fn context(&self, pod: &Pod, driver: Option<&CSIDriver>) -> HashMap<String, String> {
        let mut context = self.attributes.clone();
        let wanted = driver
            .and_then(|d| d.spec.pod_info_on_mount)
            .unwrap_or(false);
        if wanted {
            let meta = &pod.metadata;
            let account = pod
                .spec
                .as_ref()
                .and_then(|s| s.service_account_name.clone());
            let facts = [
                ("pod.name", meta.name.clone().unwrap_or_default()),
                ("pod.namespace", meta.namespace.clone().unwrap_or_default()),
                ("pod.uid", meta.uid.clone().unwrap_or_default()),
                ("serviceAccount.name", account.unwrap_or_default()),
                ("ephemeral", self.ephemeral.to_string()),
            ];
            for (key, value) in facts {
                context.insert(format!("csi.storage.k8s.io/{key}"), value);
            }
        }
        context
    }
}

/// csi_util.go `makeVolumeHandle`: the same for the same volume of the same pod.
fn inline_handle(pod: &Pod, volume: &str) -> String {
    let uid = pod.metadata.uid.as_deref().unwrap_or_default();
    format!("csi-{}", super::paths::hash(&format!("{uid}{volume}")))
}

/// What volumes, VolumeAttachments and Secrets hold, as gRPC wants it.
pub(super) fn map(from: BTreeMap<String, String>) -> HashMap<String, String> {
    from.into_iter().collect()
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use serde_json::{Value, json};

    pub fn volume_of(access: &str, fs_type: &str) -> Volume {
        let source = json!({"driver": "d", "volumeHandle": "h", "fsType": fs_type,
            "nodePublishSecretRef": {"namespace": "s", "name": "n"}});
        let found = Persistent {
            name: "pv".into(),
            source: Source::Csi(serde_json::from_value(source).unwrap()),
            read_only: false,
            block: false,
            mount_options: vec!["noatime".into()],
            access_modes: vec![access.into()],
            claim: None,
            growth: None,
        };
        Volume::of(&Pod::default(), &found).unwrap()
    }

    fn inline() -> (Pod, Volume) {
        let pod = json!({"metadata": {"namespace": "ns", "name": "p", "uid": "u"},
            "spec": {"containers": [], "serviceAccountName": "sa"}});
        let pod: Pod = serde_json::from_value(pod).unwrap();
        let source = json!({"driver": "d", "nodePublishSecretRef": {"name": "n"}});
        let found = Persistent {
            name: "v".into(),
            source: Source::Inline(serde_json::from_value(source).unwrap()),
            read_only: false,
            block: false,
            mount_options: Vec::new(),
            access_modes: Vec::new(),
            claim: None,
            growth: None,
        };
        let volume = Volume::of(&pod, &found).unwrap();
        (pod, volume)
    }

    fn driver(spec: Value) -> CSIDriver {
        serde_json::from_value(json!({"metadata": {"name": "d"}, "spec": spec})).unwrap()
    }

    fn can(all: &[Capability]) -> Capabilities {
        Capabilities::of(all)
    }

    #[test]
    fn access_modes_are_told_as_finely_as_the_driver_knows_them() {
        let mode = |access, can| {
            volume_of(access, "")
                .capability(&can, None)
                .access_mode
                .unwrap()
                .mode()
        };
        assert_eq!(mode("ReadWriteMany", can(&[])), Mode::MultiNodeMultiWriter);
        assert_eq!(mode("ReadWriteOncePod", can(&[])), Mode::SingleNodeWriter);
        let finer = can(&[Capability::SingleNodeMultiWriter]);
        assert_eq!(
            mode("ReadWriteOncePod", finer.clone()),
            Mode::SingleNodeSingleWriter
        );
        assert_eq!(mode("ReadWriteOnce", finer), Mode::SingleNodeMultiWriter);
    }

    #[test]
    fn the_group_is_applied_by_the_policy_or_by_the_driver_itself() {
        let once = volume_of("ReadWriteOnce", "ext4");
        assert!(once.takes_group(None, &can(&[])));
        assert!(!volume_of("ReadWriteOnce", "").takes_group(None, &can(&[])));
        assert!(!volume_of("ReadWriteMany", "ext4").takes_group(None, &can(&[])));
        let policy = |policy: &str| driver(json!({ "fsGroupPolicy": policy }));
        assert!(volume_of("ReadWriteMany", "").takes_group(Some(&policy("File")), &can(&[])));
        assert!(!once.takes_group(Some(&policy("None")), &can(&[])));
        let own = can(&[Capability::VolumeMountGroup]);
        assert!(!once.takes_group(None, &own));
        let Some(AccessType::Mount(mount)) = once.capability(&own, Some(42)).access_type else {
            panic!("no mount")
        };
        assert_eq!(mount.volume_mount_group, "42");
        assert_eq!(mount.mount_flags, ["noatime"]);
    }

    #[test]
    fn an_inline_volume_is_told_of_its_pod_and_is_only_for_drivers_that_say_so() {
        let (pod, volume) = inline();
        assert!(!volume.is_allowed(None) && !volume.is_attached(None));
        let both = driver(json!({"volumeLifecycleModes": ["Ephemeral"], "podInfoOnMount": true}));
        assert!(volume.is_allowed(Some(&both)));
        assert!(!volume_of("ReadWriteOnce", "").is_allowed(Some(&both)));
        let context = volume.context(&pod, Some(&both));
        assert_eq!(context["csi.storage.k8s.io/pod.uid"], "u");
        assert_eq!(context["csi.storage.k8s.io/ephemeral"], "true");
        assert!(volume.context(&pod, None).is_empty());
        assert_eq!(volume.publish_secret, Some(("ns".into(), "n".into())));
    }

    #[test]
    fn a_volume_is_attached_unless_its_driver_says_that_it_need_not_be() {
        let volume = volume_of("ReadWriteOnce", "");
        assert!(volume.is_attached(None));
        assert!(!volume.is_attached(Some(&driver(json!({"attachRequired": false})))));
    }
}
