//! What a seccomp profile says. Two JSON forms are read as one: the runtime
//! spec's (`architectures`) and Docker's (`archMap`, `includes`, `excludes`).

use super::syscall_table::Abi;
use oci_spec::runtime::{LinuxSeccompAction, LinuxSeccompOperator};
use serde::Deserialize;
use std::collections::BTreeSet;

/// A profile for one container: conditions on capabilities, kernel and
/// architecture have been decided.
#[derive(Debug, Clone)]
pub struct Profile {
    /// For calls that no rule names.
    pub(super) default: Outcome,
    /// ABIs covered; calls through others kill the process.
    pub(super) abis: BTreeSet<Abi>,
    /// In order: of two that match, the first counts.
    pub(super) rules: Vec<Rule>,
}

/// An action with its return value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Outcome {
    pub action: LinuxSeccompAction,
    pub errno: Option<u32>,
}

impl Outcome {
    pub(super) const fn of(action: LinuxSeccompAction) -> Self {
        Self {
            action,
            errno: None,
        }
    }

    /// The filter's return value.
    pub(super) fn value(self) -> u32 {
        // linux/seccomp.h SECCOMP_RET_DATA: the low 16 bits.
        self.action.as_u32(self.errno.map(|errno| errno & 0xFFFF))
    }
}

#[derive(Debug, Clone)]
pub(super) struct Rule {
    pub names: Vec<String>,
    pub outcome: Outcome,
    /// All must hold, except that conditions on the same argument are
    /// alternatives (opencontainers/runc v1.2 libcontainer/seccomp, which
    /// splits such a rule).
    pub args: Vec<Arg>,
}

/// A condition on an argument of the call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Arg {
    pub index: u8,
    pub value: u64,
    #[serde(default)]
    pub value_two: u64,
    pub op: LinuxSeccompOperator,
}

/// Why a profile can't be used.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum ProfileError {
    #[error("not a seccomp profile")]
    Json(#[from] serde_json::Error),
    #[error("argument {index} of {name}: a system call has arguments 0 to 5")]
    ArgIndex { name: String, index: u8 },
    #[error("SCMP_ACT_NOTIFY for {name} needs a listener, which is not supported")]
    Notify { name: String },
    #[error("none of its architectures is this host's")]
    Architecture,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Json {
    default_action: LinuxSeccompAction,
    default_errno_ret: Option<u32>,
    architectures: Option<Vec<String>>,
    arch_map: Option<Vec<ArchMap>>,
    syscalls: Option<Vec<Call>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ArchMap {
    architecture: String,
    #[serde(default)]
    sub_architectures: Option<Vec<String>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Call {
    /// Docker's first form: one name.
    name: Option<String>,
    #[serde(default)]
    names: Vec<String>,
    action: LinuxSeccompAction,
    errno_ret: Option<u32>,
    args: Option<Vec<Arg>>,
    includes: Option<Condition>,
    excludes: Option<Condition>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Condition {
    caps: Option<Vec<String>>,
    arches: Option<Vec<String>>,
    min_kernel: Option<String>,
}

impl Condition {
    fn has_cap(&self, held: &BTreeSet<String>, all: bool) -> Option<bool> {
        let caps = self.caps.as_ref().filter(|caps| !caps.is_empty())?;
        Some(if all {
            caps.iter().all(|cap| held.contains(cap))
        } else {
            caps.iter().any(|cap| held.contains(cap))
        })
    }

    fn has_arch(&self) -> Option<bool> {
        let arches = self.arches.as_ref().filter(|arches| !arches.is_empty())?;
        // Go's names of the architectures, as moby writes them.
        Some(
            arches
                .iter()
                .any(|a| matches!(a.as_str(), "amd64" | "x86" | "x32")),
        )
    }
}

impl Call {
    /// moby v28 profiles/seccomp `setupSeccomp`: includes must all hold, no
    /// exclude may. The oldest kernel that is supported is newer than any
    /// `minKernel` in use, so that one is taken as met.
    fn applies(&self, held: &BTreeSet<String>) -> bool {
        let included = self
            .includes
            .as_ref()
            .is_none_or(|c| c.has_cap(held, true).unwrap_or(true) && c.has_arch().unwrap_or(true));
        let excluded = self.excludes.as_ref().is_some_and(|c| {
            c.has_cap(held, false).unwrap_or(false)
                || c.has_arch().unwrap_or(false)
                || c.min_kernel.is_some()
        });
        included && !excluded
    }

    fn rule(self) -> Result<Rule, ProfileError> {
        let names: Vec<String> = self.name.into_iter().chain(self.names).collect();
        let first = || names.first().cloned().unwrap_or_default();
        if self.action == LinuxSeccompAction::ScmpActNotify {
            return Err(ProfileError::Notify { name: first() });
        }
        let args = self.args.unwrap_or_default();
        if let Some(arg) = args.iter().find(|arg| arg.index > 5) {
            return Err(ProfileError::ArgIndex {
                name: first(),
                index: arg.index,
            });
        }
        Ok(Rule {
            names,
            outcome: Outcome {
                action: self.action,
                errno: self.errno_ret,
            },
            args,
        })
    }
}

impl Profile {
    /// Reads a profile for a container that holds these capabilities.
    ///
    /// # Errors
    /// When it isn't one, or asks for what can't be given.
    pub fn parse(text: &[u8], held: &BTreeSet<String>) -> Result<Self, ProfileError> {
        let json: Json = serde_json::from_slice(text)?;
        if json.default_action == LinuxSeccompAction::ScmpActNotify {
            return Err(ProfileError::Notify {
                name: "defaultAction".to_owned(),
            });
        }
        let abis = abis(&json)?;
        let rules = json.syscalls.unwrap_or_default();
        Ok(Self {
            default: Outcome {
                action: json.default_action,
                errno: json.default_errno_ret,
            },
            abis,
            rules: rules
                .into_iter()
                .filter(|call| call.applies(held))
                .map(Call::rule)
                .collect::<Result<_, _>>()?,
        })
    }
}

/// The native ABI is always covered when none is named.
fn abis(json: &Json) -> Result<BTreeSet<Abi>, ProfileError> {
    let mut names: Vec<&str> = Vec::new();
    names.extend(json.architectures.iter().flatten().map(String::as_str));
    for map in json.arch_map.iter().flatten() {
        if Abi::from_profile(&map.architecture) == Some(Abi::NATIVE) {
            names.push(&map.architecture);
            names.extend(map.sub_architectures.iter().flatten().map(String::as_str));
        }
    }
    let mut abis: BTreeSet<Abi> = names.iter().filter_map(|n| Abi::from_profile(n)).collect();
    if !names.is_empty() && abis.is_empty() {
        return Err(ProfileError::Architecture);
    }
    abis.insert(Abi::NATIVE);
    Ok(abis)
}
