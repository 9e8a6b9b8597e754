//! Which capabilities a container holds: the default ones, plus, minus; never
//! more than this process could give.

use super::SpecError;
use super::defaults::DEFAULT_CAPABILITIES;
use cri_proto::v1::LinuxContainerSecurityContext;
use oci_spec::runtime::{Capability, LinuxCapabilities};
use std::collections::{BTreeSet, HashSet};
use std::str::FromStr;

/// linux/capability.h, by number.
const NAMES: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

/// Names with `CAP_`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Resolved {
    pub bounding: BTreeSet<String>,
    pub ambient: BTreeSet<String>,
}

impl Resolved {
    /// Inheritable stays empty but for what is ambient: CVE-2022-24769.
    pub(super) fn to_oci(&self) -> LinuxCapabilities {
        let mut out = LinuxCapabilities::default();
        out.set_bounding(Some(set(&self.bounding)))
            .set_effective(Some(set(&self.bounding)))
            .set_permitted(Some(set(&self.bounding)))
            .set_inheritable(Some(set(&self.ambient)))
            .set_ambient(Some(set(&self.ambient)));
        out
    }
}

fn set(names: &BTreeSet<String>) -> HashSet<Capability> {
    let known = |name: &String| Capability::from_str(name.strip_prefix("CAP_")?).ok();
    names.iter().filter_map(known).collect()
}

/// The names of a mask as in `/proc/self/status`.
pub(crate) fn names(mask: u64) -> BTreeSet<String> {
    let held = NAMES.iter().enumerate().filter(|(n, _)| mask >> n & 1 == 1);
    held.map(|(_, name)| format!("CAP_{name}")).collect()
}

pub(super) fn resolve(
    security: &LinuxContainerSecurityContext,
    possible: &BTreeSet<String>,
) -> Result<Resolved, SpecError> {
    if security.privileged {
        return Ok(Resolved {
            bounding: possible.clone(),
            ..Resolved::default()
        });
    }
    let request = security.capabilities.clone().unwrap_or_default();
    let all = |names: &[String]| names.iter().any(|n| n.eq_ignore_ascii_case("ALL"));
    let add = parse(&request.add_capabilities)?;
    let drop = parse(&request.drop_capabilities)?;
    let ambient = parse(&request.add_ambient_capabilities)?;
    // containerd v2 internal/cri/opts: ALL first, then names one by one.
    let mut held: BTreeSet<String> = if all(&request.drop_capabilities) {
        BTreeSet::new()
    } else {
        DEFAULT_CAPABILITIES.map(str::to_owned).into()
    };
    if all(&request.add_capabilities) {
        held.extend(possible.iter().cloned());
    }
    held.extend(add);
    held.extend(ambient.iter().cloned());
    held.retain(|name| possible.contains(name) && !drop.contains(name));
    Ok(Resolved {
        ambient: ambient.intersection(&held).cloned().collect(),
        bounding: held,
    })
}

/// Names without ALL, each known.
fn parse(names: &[String]) -> Result<BTreeSet<String>, SpecError> {
    let mut out = BTreeSet::new();
    for name in names {
        let upper = name.to_ascii_uppercase();
        let bare = upper.strip_prefix("CAP_").unwrap_or(&upper);
        if bare == "ALL" {
            continue;
        }
        if !NAMES.contains(&bare) {
            return Err(SpecError::Capability { name: name.clone() });
        }
        out.insert(format!("CAP_{bare}"));
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use cri_proto::v1;

    fn bounding(add: &[&str], drop: &[&str]) -> BTreeSet<String> {
        let strings = |names: &[&str]| names.iter().map(|n| (*n).to_owned()).collect();
        let security = LinuxContainerSecurityContext {
            capabilities: Some(v1::Capability {
                add_capabilities: strings(add),
                drop_capabilities: strings(drop),
                add_ambient_capabilities: vec![],
            }),
            ..Default::default()
        };
        resolve(&security, &names(u64::MAX >> 23))
            .expect("capabilities")
            .bounding
    }

    #[test]
    fn all_known_names_fit_the_engines_type() {
        assert_eq!(set(&names(u64::MAX >> 23)).len(), 41);
    }

    #[test]
    fn additions_and_drops_apply_one_by_one_after_all() {
        assert_eq!(bounding(&[], &[]).len(), 14);
        assert!(bounding(&["NET_ADMIN"], &[]).contains("CAP_NET_ADMIN"));
        assert!(!bounding(&[], &["NET_RAW"]).contains("CAP_NET_RAW"));
        assert!(bounding(&[], &["ALL"]).is_empty());
        assert_eq!(
            bounding(&["KILL"], &["ALL"]),
            BTreeSet::from(["CAP_KILL".to_owned()])
        );
        assert_eq!(bounding(&["ALL"], &["CHOWN"]).len(), 40);
    }

    #[test]
    fn nothing_is_given_that_the_host_does_not_have() {
        let host = names(0b1);
        let security = LinuxContainerSecurityContext {
            privileged: true,
            ..Default::default()
        };
        assert_eq!(
            resolve(&security, &host).expect("capabilities").bounding,
            host
        );
    }

    #[test]
    fn unknown_name_is_refused() {
        assert!(parse(&["FLY".to_owned()]).is_err());
    }
}
