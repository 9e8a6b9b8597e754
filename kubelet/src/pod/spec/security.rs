//! Who a container is and what it may: the pod's and its own securityContext
//! as one.

use super::{name, namespace, uid};
use crate::pod::{NodeFacts, Options};
use cri_proto::v1;
use k8s_openapi::api::core::v1::{
    AppArmorProfile, Container, Pod, PodSecurityContext, SELinuxOptions, SeccompProfile,
    SecurityContext,
};

/// kubernetes v1.36 pkg/securitycontext/util.go `defaultMaskedPaths`.
const MASKED_PATHS: &[&str] = &[
    "/proc/asound",
    "/proc/acpi",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
];
/// kubernetes v1.36 pkg/securitycontext/util.go `defaultReadonlyPaths`.
const READONLY_PATHS: &[&str] = &[
    "/proc/bus",
    "/proc/fs",
    "/proc/irq",
    "/proc/sys",
    "/proc/sysrq-trigger",
];

/// The user that an image names.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ImageUser {
    /// As a number, if it is one.
    pub uid: Option<i64>,
    /// As a name, if it isn't.
    pub name: String,
}

/// Why a container may not run as the user it would.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs)]
pub enum NonRootError {
    #[error(
        "container's runAsUser breaks non-root policy (pod: \"{pod}\", container: {container})"
    )]
    RunAsUser { pod: String, container: String },
    #[error(
        "container has runAsNonRoot and image will run as root (pod: \"{pod}\", container: {container})"
    )]
    ImageIsRoot { pod: String, container: String },
    #[error(
        "container has runAsNonRoot and image has non-numeric user ({user}), cannot verify user is non-root (pod: \"{pod}\", container: {container})"
    )]
    NonNumeric {
        user: String,
        pod: String,
        container: String,
    },
}

/// Everything that a container's security context depends on.
#[derive(Clone, Copy)]
#[allow(missing_docs)]
pub struct Subject<'a> {
    pub pod: &'a Pod,
    pub container: &'a Container,
    pub user: &'a ImageUser,
    pub node: &'a NodeFacts,
    pub options: &'a Options,
}

/// The container's context for the runtime; namespaces are the caller's.
///
/// # Errors
/// When runAsNonRoot forbids the user, or nobody can tell.
pub fn of_container(
    subject: Subject<'_>,
    namespaces: v1::NamespaceOption,
) -> Result<v1::LinuxContainerSecurityContext, NonRootError> {
    let own = subject
        .container
        .security_context
        .clone()
        .unwrap_or_default();
    let pod = pod_context(subject.pod);
    let run_as_user = own.run_as_user.or(pod.run_as_user);
    verify_non_root(&subject, &own, &pod, run_as_user)?;
    let group = own.run_as_group.or(pod.run_as_group);
    let unmasked = own.proc_mount.as_deref() == Some("Unmasked");
    let paths = |list: &[&str]| -> Vec<String> {
        let list = if unmasked { &[] } else { list };
        list.iter().map(|p| (*p).to_owned()).collect()
    };
    let seccomp = own
        .seccomp_profile
        .as_ref()
        .or(pod.seccomp_profile.as_ref());
    let apparmor = own
        .app_armor_profile
        .as_ref()
        .or(pod.app_armor_profile.as_ref());
    let username = match (run_as_user, subject.user.uid) {
        (None, None) => subject.user.name.clone(),
        (Some(_), _) | (None, Some(_)) => String::new(),
    };
    Ok(v1::LinuxContainerSecurityContext {
        capabilities: own.capabilities.as_ref().map(|c| v1::Capability {
            add_capabilities: c.add.clone().unwrap_or_default(),
            drop_capabilities: c.drop.clone().unwrap_or_default(),
            add_ambient_capabilities: Vec::new(),
        }),
        privileged: own.privileged.unwrap_or(false),
        namespace_options: Some(namespaces),
        selinux_options: selinux(
            own.se_linux_options
                .as_ref()
                .or(pod.se_linux_options.as_ref()),
        ),
        run_as_user: run_as_user
            .or(subject.user.uid)
            .map(|value| v1::Int64Value { value }),
        run_as_group: group.map(|value| v1::Int64Value { value }),
        run_as_username: username,
        readonly_rootfs: own.read_only_root_filesystem.unwrap_or(false),
        supplemental_groups: supplemental_groups(&pod),
        supplemental_groups_policy: groups_policy(&pod).into(),
        no_new_privs: own.allow_privilege_escalation == Some(false),
        masked_paths: paths(MASKED_PATHS),
        readonly_paths: paths(READONLY_PATHS),
        seccomp: Some(self::seccomp(
            seccomp,
            subject.node,
            subject.options.seccomp_default,
        )),
        apparmor: apparmor.map(self::apparmor),
        ..v1::LinuxContainerSecurityContext::default()
    })
}

fn pod_context(pod: &Pod) -> PodSecurityContext {
    pod.spec
        .as_ref()
        .and_then(|s| s.security_context.clone())
        .unwrap_or_default()
}

fn verify_non_root(
    subject: &Subject<'_>,
    own: &SecurityContext,
    pod: &PodSecurityContext,
    run_as_user: Option<i64>,
) -> Result<(), NonRootError> {
    if own.run_as_non_root.or(pod.run_as_non_root) != Some(true) {
        return Ok(());
    }
    let p = subject.pod;
    let (pod, container) = (
        format!("{}_{}({})", name(p), namespace(p), uid(p)),
        subject.container.name.clone(),
    );
    match (run_as_user, subject.user.uid, subject.user.name.as_str()) {
        (Some(0), _, _) => Err(NonRootError::RunAsUser { pod, container }),
        (Some(_), _, _) => Ok(()),
        (None, Some(0), _) | (None, None, "") => Err(NonRootError::ImageIsRoot { pod, container }),
        (None, Some(_), _) => Ok(()),
        (None, None, user) => Err(NonRootError::NonNumeric {
            user: user.to_owned(),
            pod,
            container,
        }),
    }
}

/// supplementalGroups and fsGroup.
pub(super) fn supplemental_groups(pod: &PodSecurityContext) -> Vec<i64> {
    let mut groups = pod.supplemental_groups.clone().unwrap_or_default();
    groups.extend(pod.fs_group.filter(|g| !groups.contains(g)));
    groups
}

pub(super) fn groups_policy(pod: &PodSecurityContext) -> v1::SupplementalGroupsPolicy {
    match pod.supplemental_groups_policy.as_deref() {
        Some("Strict") => v1::SupplementalGroupsPolicy::Strict,
        Some(_) | None => v1::SupplementalGroupsPolicy::Merge,
    }
}

fn seccomp(
    profile: Option<&SeccompProfile>,
    node: &NodeFacts,
    default: bool,
) -> v1::SecurityProfile {
    use v1::security_profile::ProfileType;
    let of = |kind: ProfileType| v1::SecurityProfile {
        profile_type: kind.into(),
        localhost_ref: String::new(),
    };
    match profile.map(|p| (p.type_.as_str(), p.localhost_profile.as_deref())) {
        Some(("RuntimeDefault", _)) => of(ProfileType::RuntimeDefault),
        Some(("Localhost", Some(file))) => v1::SecurityProfile {
            profile_type: ProfileType::Localhost.into(),
            localhost_ref: node
                .kubelet_root
                .join("seccomp")
                .join(file)
                .display()
                .to_string(),
        },
        None if default => of(ProfileType::RuntimeDefault),
        Some(_) | None => of(ProfileType::Unconfined),
    }
}

fn apparmor(profile: &AppArmorProfile) -> v1::SecurityProfile {
    use v1::security_profile::ProfileType;
    let kind = match profile.type_.as_str() {
        "Localhost" => ProfileType::Localhost,
        "Unconfined" => ProfileType::Unconfined,
        _ => ProfileType::RuntimeDefault,
    };
    v1::SecurityProfile {
        profile_type: kind.into(),
        localhost_ref: profile.localhost_profile.clone().unwrap_or_default(),
    }
}

pub(super) fn selinux(options: Option<&SELinuxOptions>) -> Option<v1::SeLinuxOption> {
    options.map(|o| v1::SeLinuxOption {
        user: o.user.clone().unwrap_or_default(),
        role: o.role.clone().unwrap_or_default(),
        r#type: o.type_.clone().unwrap_or_default(),
        level: o.level.clone().unwrap_or_default(),
    })
}

/// Namespaces of a pod and its ordinary containers.
#[must_use]
pub fn namespaces(pod: &Pod, userns: Option<&v1::UserNamespace>) -> v1::NamespaceOption {
    use v1::NamespaceMode::{Container as Own, Node, Pod as Shared};
    let spec = pod.spec.as_ref();
    let flag = |of: Option<bool>| of.unwrap_or(false);
    let pid = match spec {
        Some(s) if flag(s.host_pid) => Node,
        Some(s) if flag(s.share_process_namespace) => Shared,
        Some(_) | None => Own,
    };
    let host = |on: bool| if on { Node } else { Shared };
    v1::NamespaceOption {
        network: host(flag(spec.and_then(|s| s.host_network))).into(),
        ipc: host(flag(spec.and_then(|s| s.host_ipc))).into(),
        pid: pid.into(),
        target_id: String::new(),
        userns_options: userns.cloned(),
    }
}

/// Whether any container of the pod is privileged.
#[must_use]
pub fn any_privileged(pod: &Pod) -> bool {
    let Some(spec) = &pod.spec else { return false };
    let init = spec.init_containers.iter().flatten();
    spec.containers.iter().chain(init).any(|c| {
        let context = c.security_context.as_ref();
        context.and_then(|s| s.privileged).unwrap_or(false)
    })
}

#[cfg(test)]
#[path = "security_tests.rs"]
mod tests;
