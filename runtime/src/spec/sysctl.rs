//! Kernel settings of a pod: only those that a namespace of its own holds.

use super::SpecError;
use cri_proto::v1::PodSandboxConfig;
use std::collections::BTreeMap;

/// What Docker and containerd give every pod, so that ports below 1024 and
/// ping need no capability: containerd v2 `enable_unprivileged_ports`, `_icmp`.
const DEFAULTS: [(&str, &str); 2] = [
    ("net.ipv4.ip_unprivileged_port_start", "0"),
    ("net.ipv4.ping_group_range", "0 2147483647"),
];

/// Settings of the IPC namespace. opencontainers/runc v1.2
/// libcontainer/configs/validate `sysctl`.
const IPC: [&str; 8] = [
    "kernel.msgmax",
    "kernel.msgmnb",
    "kernel.msgmni",
    "kernel.sem",
    "kernel.shmall",
    "kernel.shmmax",
    "kernel.shmmni",
    "kernel.shm_rmid_forced",
];

/// Whether every pod has this setting.
pub fn is_default_sysctl(name: &str, value: &str) -> bool {
    DEFAULTS.contains(&(name, value))
}

/// The settings to write, dotted names.
///
/// # Errors
/// A name outside the pod's namespaces, or characters that have no business
/// in it (CVE-2022-0811).
pub fn sysctls(
    config: &PodSandboxConfig,
    own_network: bool,
    own_ipc: bool,
    user_namespace: bool,
) -> Result<Vec<(String, String)>, SpecError> {
    let mut out: BTreeMap<String, String> = BTreeMap::new();
    if own_network {
        for (name, value) in DEFAULTS {
            // Ids outside the map are refused.
            if !(user_namespace && name.ends_with("ping_group_range")) {
                out.insert(name.to_owned(), value.to_owned());
            }
        }
    }
    for (name, value) in config.linux.iter().flat_map(|l| &l.sysctls) {
        let dotted =
            check(name, value, own_network, own_ipc).map_err(|reason| SpecError::Sysctl {
                name: name.clone(),
                reason,
            })?;
        out.insert(dotted, value.clone());
    }
    Ok(out.into_iter().collect())
}

fn check(
    name: &str,
    value: &str,
    own_network: bool,
    own_ipc: bool,
) -> Result<String, &'static str> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '/' | '_' | '-');
    if name.is_empty() || !name.chars().all(plain) || name.contains("..") {
        return Err("characters other than letters, digits, . / _ -");
    }
    if value.contains(char::is_control) {
        return Err("control characters in its value");
    }
    let dotted = dotted(name);
    let ipc = IPC.contains(&dotted.as_str()) || dotted.starts_with("fs.mqueue.");
    match () {
        () if ipc && own_ipc => Ok(dotted),
        () if ipc => Err("the pod shares the host's IPC namespace"),
        () if dotted.starts_with("net.") && own_network => Ok(dotted),
        () if dotted.starts_with("net.") => Err("the pod shares the host's network namespace"),
        () => Err("not a setting of a namespace that a pod has of its own"),
    }
}

/// Kubernetes takes both separators; the first that occurs decides, and the
/// other one then belongs to the names (apimachinery `NormalizeName`).
fn dotted(name: &str) -> String {
    match name.find(['.', '/']) {
        Some(at) if name[at..].starts_with('/') => name
            .chars()
            .map(|c| match c {
                '/' => '.',
                '.' => '/',
                other => other,
            })
            .collect(),
        _ => name.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cve_2022_0811_odd_characters_are_refused() {
        for name in [
            "kernel.shm_rmid_forced+net.core",
            "net.a=b",
            "net.a,b",
            "net\n.a",
            "net..a",
            "",
        ] {
            assert!(check(name, "1", true, true).is_err(), "{name:?}");
        }
        assert!(check("net.core.somaxconn", "1\nkernel.core_pattern=x", true, true).is_err());
    }

    #[test]
    fn settings_need_a_namespace_of_their_own() {
        assert!(check("kernel.shm_rmid_forced", "1", false, true).is_ok());
        assert!(check("kernel.shm_rmid_forced", "1", true, false).is_err());
        assert!(check("net.ipv4.ip_forward", "1", false, true).is_err());
        assert!(check("fs.mqueue.msg_max", "1", true, true).is_ok());
        assert!(check("kernel.core_pattern", "x", true, true).is_err());
        assert!(check("vm.overcommit_memory", "1", true, true).is_err());
    }

    #[test]
    fn slashes_become_dots() {
        assert_eq!(
            dotted("net/ipv4/conf/eth0.1/forwarding"),
            "net.ipv4.conf.eth0/1.forwarding"
        );
        assert_eq!(dotted("net.ipv4.ip_forward"), "net.ipv4.ip_forward");
    }
}
