//! Volumes mounted with the label of their pod, where the driver says that it can: nobody has to
//! go through their files then. Pure, but for what the host is asked.
//! Rules: kubernetes v1.37 pkg/volume/util/selinux.go; labels as opencontainers/selinux v1.13
//! go-selinux/label `InitLabels` makes them.

use super::request::Volume;
use crate::volume::error::VolumeReason;
use k8s_openapi::api::core::v1::{Pod, SELinuxOptions, VolumeMount};
use k8s_openapi::api::storage::v1::CSIDriver;
use std::collections::BTreeSet;
use std::fs;

/// Lists selinuxfs where the kernel has SELinux on.
const FILE_SYSTEMS: &str = "/proc/filesystems";
const CONFIG: &str = "/etc/selinux/config";
/// The context of everybody while no policy is loaded; include/security/initial_sid_to_string.h.
const NO_POLICY: &str = "kernel";
/// Without lxc_contexts(5).
const FILE: &str = "system_u:object_r:container_file_t:s0";

/// The host's policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Policy {
    /// What containers' files are.
    file: String,
}

impl Policy {
    /// `None` = SELinux is off, or has no policy.
    pub fn of_host() -> Option<Policy> {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let there = |line: &str| line.split_whitespace().last() == Some("selinuxfs");
        let own = read("/proc/self/attr/current");
        let off = own.trim_end_matches(['\0', '\n']) == NO_POLICY;
        if off || !read(FILE_SYSTEMS).lines().any(there) {
            return None;
        }
        let config = read(CONFIG);
        let name = setting(&config, "SELINUXTYPE").unwrap_or("targeted");
        let contexts = read(&format!("/etc/selinux/{name}/contexts/lxc_contexts"));
        let file = setting(&contexts, "file").unwrap_or(FILE).to_owned();
        Some(Policy { file })
    }

    /// What the volume of this name in the pod is to be mounted with.
    ///
    /// # Errors
    /// When containers that use it have different labels.
    pub fn label(
        &self,
        pod: &Pod,
        name: &str,
        (volume, driver): (&Volume, Option<&CSIDriver>),
    ) -> Result<Option<String>, VolumeReason> {
        let can = driver.and_then(|d| d.spec.se_linux_mount) == Some(true);
        if !can || volume.ephemeral || volume.block {
            return Ok(None);
        }
        let options = options(pod, name);
        let labels: BTreeSet<_> = options.into_iter().map(|o| self.of(o)).collect();
        if labels.len() > 1 {
            let labels: Vec<String> = labels.into_iter().map(Option::unwrap_or_default).collect();
            let labels = labels.join(",");
            return Err(VolumeReason::SelinuxLabels { labels });
        }
        let own = pod.spec.as_ref().and_then(|s| s.security_context.as_ref());
        let policy = own.and_then(|s| s.se_linux_change_policy.as_deref());
        let label = labels.into_iter().next().flatten();
        Ok(label.filter(|_| policy != Some("Recursive")))
    }

    /// The label of files for a process with these options. Without a level the runtime chooses
    /// one, which is not known here.
    fn of(&self, options: &SELinuxOptions) -> Option<String> {
        let level = options.level.as_deref().filter(|level| !level.is_empty())?;
        let mut parts = self.file.splitn(4, ':');
        let (user, role, kind) = (parts.next()?, parts.next()?, parts.next()?);
        let user = options
            .user
            .as_deref()
            .filter(|user| !user.is_empty())
            .unwrap_or(user);
        Some(format!("{user}:{role}:{kind}:{level}"))
    }
}

/// Of the containers that use a volume; those without any are not asked.
fn options<'a>(pod: &'a Pod, name: &str) -> Vec<&'a SELinuxOptions> {
    let Some(spec) = &pod.spec else {
        return Vec::new();
    };
    let of_pod = spec
        .security_context
        .as_ref()
        .and_then(|s| s.se_linux_options.as_ref());
    let init = spec.init_containers.iter().flatten();
    let usual = init.chain(&spec.containers);
    let usual = usual.map(|c| (c.volume_mounts.as_ref(), c.security_context.as_ref()));
    let ephemeral = spec.ephemeral_containers.iter().flatten();
    let ephemeral = ephemeral.map(|c| (c.volume_mounts.as_ref(), c.security_context.as_ref()));
    let names = |mounts: &Option<&Vec<VolumeMount>>| {
        mounts.is_some_and(|all| all.iter().any(|m| m.name == name))
    };
    let using = usual.chain(ephemeral).filter(|(m, _)| names(m));
    using
        .filter_map(|(_, own)| own.and_then(|s| s.se_linux_options.as_ref()).or(of_pod))
        .collect()
}

/// As a mount option; the quotes let the level have a comma.
pub(super) fn mount_flag(label: &str) -> String {
    format!("context={label:?}")
}

fn setting<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    let mut lines = text.lines().filter_map(|line| line.split_once('='));
    let (_, value) = lines.find(|(name, _)| name.trim() == key)?;
    Some(value.trim().trim_matches('"'))
}

#[cfg(test)]
mod tests {
    use super::super::request::tests::volume_of;
    use super::*;
    use serde_json::{Value, json};

    fn policy() -> Policy {
        Policy { file: FILE.into() }
    }

    fn driver(se_linux_mount: Value) -> CSIDriver {
        let spec = json!({ "seLinuxMount": se_linux_mount });
        serde_json::from_value(json!({"metadata": {"name": "d"}, "spec": spec})).unwrap()
    }

    fn pod(security: &Value, of_container: &Value) -> Pod {
        let mounts = json!([{"name": "v", "mountPath": "/v"}]);
        let one = json!({"name": "a", "volumeMounts": mounts, "securityContext": of_container});
        let two = json!({"name": "b", "volumeMounts": mounts});
        let other = json!({"name": "c",
            "securityContext": {"seLinuxOptions": {"level": "s0:c9"}}});
        let spec = json!({"containers": [one, two, other], "securityContext": security});
        serde_json::from_value(json!({ "spec": spec })).unwrap()
    }

    fn label(pod: &Pod, driver: &CSIDriver) -> Result<Option<String>, String> {
        let volume = volume_of("ReadWriteOncePod", "ext4");
        let label = policy().label(pod, "v", (&volume, Some(driver)));
        label.map_err(|e| e.to_string())
    }

    #[test]
    fn a_volume_has_the_label_of_its_pod_if_the_driver_can_mount_it_so() {
        let level = json!({"seLinuxOptions": {"level": "s0:c1,c2", "type": "spc_t"}});
        let whole = pod(&level, &Value::Null);
        let wanted = "system_u:object_r:container_file_t:s0:c1,c2";
        let can = driver(json!(true));
        assert_eq!(label(&whole, &can), Ok(Some(wanted.to_owned())));
        assert_eq!(label(&whole, &driver(json!(false))), Ok(None));
        assert_eq!(label(&whole, &driver(Value::Null)), Ok(None));
        let mut volume = volume_of("ReadWriteOncePod", "ext4");
        volume.ephemeral = true;
        let inline = policy().label(&whole, "v", (&volume, Some(&can)));
        assert!(inline.unwrap().is_none());
        let flag = mount_flag(wanted);
        assert_eq!(
            flag,
            r#"context="system_u:object_r:container_file_t:s0:c1,c2""#
        );
    }

    #[test]
    fn a_pod_without_a_level_or_that_wants_its_files_labeled_gets_a_plain_mount() {
        let can = driver(json!(true));
        assert_eq!(label(&pod(&Value::Null, &Value::Null), &can), Ok(None));
        let kind = json!({"seLinuxOptions": {"type": "t"}});
        assert_eq!(label(&pod(&kind, &Value::Null), &can), Ok(None));
        let recursive = json!({"seLinuxOptions": {"level": "s0:c1"},
            "seLinuxChangePolicy": "Recursive"});
        assert_eq!(label(&pod(&recursive, &Value::Null), &can), Ok(None));
    }

    #[test]
    fn containers_that_differ_are_told_so() {
        let of_pod = json!({"seLinuxOptions": {"level": "s0:c1", "user": "u"}});
        let of_one = json!({"seLinuxOptions": {"level": "s0:c2"}});
        let both = label(&pod(&of_pod, &of_one), &driver(json!(true))).unwrap_err();
        let wanted = "multiple SELinux labels found: \
                      system_u:object_r:container_file_t:s0:c2,u:object_r:container_file_t:s0:c1";
        assert_eq!(both, wanted);
    }

    #[test]
    fn settings_are_read_with_and_without_quotes() {
        let text = "process = \"p\"\nfile = \"f:g\"\n";
        assert_eq!(setting(text, "file"), Some("f:g"));
        assert_eq!(
            setting("SELINUXTYPE=default\n", "SELINUXTYPE"),
            Some("default")
        );
    }
}
