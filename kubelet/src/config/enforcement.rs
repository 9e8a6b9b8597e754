//! `enforceNodeAllocatable`: which cgroups are held to what the node has for them.

use super::raw::KubeletConfiguration;
use super::used::{Mistakes, amounts};
use std::collections::{BTreeMap, BTreeSet};

/// kubernetes v1.37 pkg/kubelet/apis/config/v1beta1/defaults.go
/// `DefaultNodeAllocatableEnforcement`.
const DEFAULT: [&str; 1] = ["pods"];
/// kubernetes v1.37 pkg/kubelet/types/constants.go.
const ALL: [&str; 6] = [
    "pods",
    "system-reserved",
    "system-reserved-compressible",
    "kube-reserved",
    "kube-reserved-compressible",
    "none",
];

/// What is enforced.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Enforcement {
    /// Pods as a whole get what is not reserved; else they are held to what the machine has.
    pub pods: bool,
    /// Cgroups of others, which must exist.
    pub reserved: Vec<ReservedCgroup>,
}

/// A cgroup that is held to what is reserved for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReservedCgroup {
    /// `system` or `kube`.
    pub whose: &'static str,
    /// By its name from the root on.
    pub cgroup: String,
    /// Thousandths of a CPU for `cpu`, bytes or pieces for the others.
    pub amounts: BTreeMap<String, u64>,
    /// Only what a cgroup may have too little of and live: CPU.
    pub compressible: bool,
}

pub(super) fn of(m: &mut Mistakes, raw: &KubeletConfiguration) -> Enforcement {
    let words: Vec<&str> = match &raw.enforce_node_allocatable {
        Some(words) => words.iter().map(String::as_str).collect(),
        None => DEFAULT.to_vec(),
    };
    check(m, raw, &words);
    let has = |word: &str| words.contains(&word);
    let sets = [
        ("system", &raw.system_reserved_cgroup, &raw.system_reserved),
        ("kube", &raw.kube_reserved_cgroup, &raw.kube_reserved),
    ];
    let mut reserved = Vec::new();
    for (whose, cgroup, set) in sets {
        let (whole, part) = (
            format!("{whose}-reserved"),
            format!("{whose}-reserved-compressible"),
        );
        if !has(&whole) && !has(&part) {
            continue;
        }
        if has(&whole) && has(&part) {
            m.mistake(format!("{whole:?} and {part:?} exclude each other"));
        }
        match (cgroup, set) {
            (Some(cgroup), Some(set)) => reserved.push(ReservedCgroup {
                whose,
                cgroup: cgroup.clone(),
                // A mistake in them is told where they are taken from allocatable.
                amounts: amounts(&mut Mistakes::default(), "", set),
                compressible: has(&part),
            }),
            (None, _) => m.mistake(format!("{whole:?} needs {whose}ReservedCgroup")),
            (_, None) => m.mistake(format!("{whole:?} needs {whose}Reserved")),
        }
    }
    Enforcement {
        pods: has("pods"),
        reserved,
    }
}

/// kubernetes v1.37 pkg/kubelet/apis/config/validation/validation.go.
fn check(m: &mut Mistakes, raw: &KubeletConfiguration, words: &[&str]) {
    let mut seen = BTreeSet::new();
    for word in words {
        if !ALL.contains(word) {
            m.mistake(format!("{word:?} is none of {}", ALL.join(", ")));
        }
        if !seen.insert(word) {
            m.mistake(format!("{word:?} is given twice"));
        }
    }
    let none = words.contains(&"none");
    if none && words.len() > 1 {
        m.mistake("\"none\" stands alone".to_owned());
    }
    if !none && !words.is_empty() && raw.cgroups_per_qos == Some(false) {
        m.mistake("only [none] goes with cgroupsPerQOS: false".to_owned());
    }
    let named = raw.system_reserved_cgroup.is_some() || raw.kube_reserved_cgroup.is_some();
    if raw.reserved_system_cpus.is_some() && named {
        let text = "reservedSystemCPUs: neither systemReservedCgroup nor kubeReservedCgroup goes \
                    with it";
        m.0.push(text.to_owned());
    }
}

impl Mistakes {
    fn mistake(&mut self, why: String) {
        self.0.push(format!("enforceNodeAllocatable: {why}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{ConfigError, parse};

    fn of(text: &str) -> Enforcement {
        parse(&[("test", text)]).unwrap().config.enforcement
    }

    fn mistakes(text: &str) -> Vec<String> {
        match parse(&[("test", text)]) {
            Err(ConfigError::Mistakes { mistakes, .. }) => mistakes,
            other => panic!("no mistakes: {other:?}"),
        }
    }

    #[test]
    fn pods_are_held_unless_told_otherwise() {
        assert!(of("").pods);
        assert!(!of("enforceNodeAllocatable: []").pods);
        assert!(!of("enforceNodeAllocatable: [none]").pods);
        assert!(!of("enforceNodeAllocatable: [none]\ncgroupsPerQOS: false").pods);
    }

    #[test]
    fn reserved_cgroups_have_their_own_amounts() {
        let all = of(
            "enforceNodeAllocatable: [pods, kube-reserved-compressible, system-reserved]\n\
             kubeReserved: {cpu: 100m, memory: 1Gi}\nkubeReservedCgroup: /kube\n\
             systemReserved: {memory: 1Mi, pid: '100'}\nsystemReservedCgroup: /system.slice\n",
        );
        let [system, kube] = all.reserved.as_slice() else {
            panic!("{all:?}");
        };
        assert_eq!((system.whose, system.compressible), ("system", false));
        assert_eq!(
            (system.amounts["memory"], system.amounts["pid"]),
            (1 << 20, 100)
        );
        assert_eq!((kube.cgroup.as_str(), kube.compressible), ("/kube", true));
        assert_eq!(kube.amounts["cpu"], 100);
    }

    #[test]
    fn every_mistake_is_told() {
        for (text, count) in [
            ("enforceNodeAllocatable: [pods, pods]", 1),
            ("enforceNodeAllocatable: [pods, none]", 1),
            ("enforceNodeAllocatable: [all]", 1),
            ("enforceNodeAllocatable: [kube-reserved]", 1),
            (
                "enforceNodeAllocatable: [kube-reserved]\nkubeReservedCgroup: /a",
                1,
            ),
            (
                "enforceNodeAllocatable: [system-reserved, system-reserved-compressible]\n\
                 systemReserved: {cpu: '1'}\nsystemReservedCgroup: /a",
                1,
            ),
            ("cgroupsPerQOS: false", 1),
            ("reservedSystemCPUs: '0'\nkubeReservedCgroup: /a", 1),
        ] {
            assert_eq!(mistakes(text).len(), count, "{text}");
        }
    }
}
