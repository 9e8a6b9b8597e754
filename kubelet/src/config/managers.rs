//! The managers of CPUs, memory and topology.

use super::raw::KubeletConfiguration;
use super::used::{Mistakes, amount};
use crate::cpu::CpuPolicy;
use crate::cpu::options::{Maturity, StaticOptions, boolean};
use crate::defaults;
use crate::memory::MemoryPolicy;
use crate::memory::table::Sizes;
use crate::topology::CpuSet;
use crate::topology::policy::{Alignment, MAX_NUMA_NODES, Scope, TopologyPolicy};
use std::collections::BTreeMap;
use std::time::Duration;

/// Who gets CPUs for himself, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Managers {
    pub cpu: CpuPolicy,
    pub cpu_reconcile_period: Duration,
    pub topology: TopologyPolicy,
    pub memory: MemoryPolicy,
}

impl Managers {
    /// As a file has them; `reserved_millis` of CPU are kept for the system.
    pub(super) fn of(m: &mut Mistakes, raw: &KubeletConfiguration, reserved_millis: u64) -> Self {
        let topology = topology(m, raw);
        let exclusive = exclusive(m, raw);
        Managers {
            cpu: CpuPolicy {
                exclusive,
                reserved_cpus: reserved_cpus(m, raw),
                reserved_millis,
                single_numa_node: topology.alignment == Alignment::SingleNumaNode,
            },
            cpu_reconcile_period: m.duration(
                "cpuManagerReconcilePeriod",
                &raw.cpu_manager_reconcile_period,
                defaults::CPU_MANAGER_RECONCILE_PERIOD,
            ),
            topology,
            memory: MemoryPolicy {
                reserved: reserved_memory(m, raw),
            },
        }
    }
}

/// `reservedSystemCPUs`; with it systemReserved and kubeReserved say nothing of CPU.
pub(super) fn reserved_cpus(m: &mut Mistakes, raw: &KubeletConfiguration) -> Option<CpuSet> {
    let text = raw
        .reserved_system_cpus
        .as_deref()
        .filter(|t| !t.is_empty())?;
    m.keep("reservedSystemCPUs", text.parse())
}

/// The policies' names; the default is said by leaving it out too.
fn named<T: Copy>(
    m: &mut Mistakes,
    field: &str,
    given: Option<&str>,
    all: &[(&str, T)],
) -> Option<T> {
    let given = given.filter(|g| !g.is_empty())?;
    let found = all.iter().find(|(name, _)| *name == given);
    if found.is_none() {
        let names: Vec<&str> = all.iter().map(|(name, _)| *name).collect();
        m.0.push(format!(
            "{field}: {given:?} is none of {}",
            names.join(", ")
        ));
    }
    found.map(|(_, value)| *value)
}

fn exclusive(m: &mut Mistakes, raw: &KubeletConfiguration) -> Option<StaticOptions> {
    let names = [("none", false), ("static", true)];
    let given = raw.cpu_manager_policy.as_deref();
    let on = named(m, "cpuManagerPolicy", given, &names).unwrap_or(false);
    let empty = BTreeMap::new();
    let options = raw.cpu_manager_policy_options.as_ref().unwrap_or(&empty);
    if !on {
        if !options.is_empty() {
            m.0.push("cpuManagerPolicyOptions: only cpuManagerPolicy static has any".to_owned());
        }
        return None;
    }
    match StaticOptions::parse(options, maturity(raw)) {
        Ok(options) => Some(options),
        Err(mistakes) => {
            let named = mistakes.into_iter();
            m.0.extend(named.map(|why| format!("cpuManagerPolicyOptions: {why}")));
            None
        }
    }
}

/// What the system keeps of each NUMA node; `None` with policy None.
fn reserved_memory(m: &mut Mistakes, raw: &KubeletConfiguration) -> Option<BTreeMap<u32, Sizes>> {
    let names = [("None", false), ("Static", true)];
    let given = raw.memory_manager_policy.as_deref();
    let on = named(m, "memoryManagerPolicy", given, &names).unwrap_or(false);
    let mut all: BTreeMap<u32, Sizes> = BTreeMap::new();
    for one in raw.reserved_memory.iter().flatten() {
        let node = all.entry(one.numa_node.unwrap_or(0)).or_default();
        for (kind, text) in one.limits.iter().flatten() {
            if kind != "memory" && !kind.starts_with("hugepages-") {
                m.0.push(format!("reservedMemory: {kind:?} is no type of memory"));
            }
            let size = amount(m, "reservedMemory", text).units();
            let size = m.number("reservedMemory", Some(size), 0_u64);
            if node.insert(kind.clone(), size).is_some() {
                m.0.push(format!(
                    "reservedMemory: {kind} of a NUMA node is given twice"
                ));
            }
        }
    }
    if on && all.is_empty() {
        m.0.push("reservedMemory: memoryManagerPolicy Static needs it".to_owned());
    }
    if !on && !all.is_empty() {
        m.0.push("reservedMemory: only memoryManagerPolicy Static has any".to_owned());
    }
    on.then_some(all)
}

/// The gates of `featureGates` that these options hang on.
fn maturity(raw: &KubeletConfiguration) -> Maturity {
    let gate = |name: &str, default: bool| {
        let gates = raw.other.get("featureGates");
        let set = gates.and_then(|g| g.get(name));
        // A flag's map has words for values.
        set.and_then(|s| s.as_bool().or_else(|| boolean(s.as_str()?)))
            .unwrap_or(default)
    };
    let default = Maturity::default();
    Maturity {
        alpha: gate("CPUManagerPolicyAlphaOptions", default.alpha),
        beta: gate("CPUManagerPolicyBetaOptions", default.beta),
    }
}

fn topology(m: &mut Mistakes, raw: &KubeletConfiguration) -> TopologyPolicy {
    let policies = [
        ("none", Alignment::None),
        ("best-effort", Alignment::BestEffort),
        ("restricted", Alignment::Restricted),
        ("single-numa-node", Alignment::SingleNumaNode),
    ];
    let scopes = [("container", Scope::Container), ("pod", Scope::Pod)];
    let policy = raw.topology_manager_policy.as_deref();
    let scope = raw.topology_manager_scope.as_deref();
    let mut all = TopologyPolicy {
        alignment: named(m, "topologyManagerPolicy", policy, &policies).unwrap_or_default(),
        scope: named(m, "topologyManagerScope", scope, &scopes).unwrap_or_default(),
        ..TopologyPolicy::default()
    };
    for (name, value) in raw.topology_manager_policy_options.iter().flatten() {
        if let Err(why) = set(&mut all, name, value) {
            m.0.push(format!("topologyManagerPolicyOptions: {why}"));
        }
    }
    all
}

fn set(all: &mut TopologyPolicy, name: &str, value: &str) -> Result<(), String> {
    match name {
        "prefer-closest-numa-nodes" => {
            let on = boolean(value).ok_or_else(|| format!("{name}: {value:?} is not a boolean"))?;
            all.prefer_closest_numa_nodes = on;
        }
        "max-allowable-numa-nodes" => {
            let count = value.parse().ok().filter(|n| *n >= MAX_NUMA_NODES);
            let wrong = || format!("{name}: {value:?} is not a number from {MAX_NUMA_NODES} on");
            all.max_allowable_numa_nodes = count.ok_or_else(wrong)?;
        }
        _ => return Err(format!("unknown option {name:?}")),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{ConfigError, parse};

    fn managers(text: &str) -> Managers {
        parse(&[("test", text)]).unwrap().config.managers
    }

    #[test]
    fn policies_and_their_options_are_read() {
        let all = managers(
            "cpuManagerPolicy: static\ncpuManagerPolicyOptions: {full-pcpus-only: 'true'}\n\
             reservedSystemCPUs: '0'\ncpuManagerReconcilePeriod: 5s\n\
             topologyManagerPolicy: restricted\ntopologyManagerScope: pod\n\
             topologyManagerPolicyOptions: {max-allowable-numa-nodes: '9'}",
        );
        assert!(all.cpu.exclusive.is_some_and(|o| o.full_pcpus_only));
        assert_eq!(all.cpu.reserved_cpus, "0".parse().ok());
        assert_eq!(all.cpu_reconcile_period, Duration::from_secs(5));
        assert_eq!(all.topology.alignment, Alignment::Restricted);
        assert_eq!(all.topology.max_allowable_numa_nodes, 9);
        let none = managers("maxPods: 7");
        assert_eq!((none.cpu.exclusive, none.cpu.reserved_cpus), (None, None));
    }

    #[test]
    fn reserved_cpus_take_the_place_of_reserved_amounts() {
        let text = "reservedSystemCPUs: 0-1\nkubeReserved: {cpu: 500m, memory: 1Mi}";
        let config = parse(&[("test", text)]).unwrap().config;
        assert_eq!(config.allocatable.reserved["cpu"], 2000);
        assert_eq!(config.managers.cpu.reserved_millis, 2000);
    }

    #[test]
    fn alpha_options_are_allowed_by_their_gate() {
        let text = "cpuManagerPolicy: static\ncpuManagerPolicyOptions: {align-by-socket: 'true'}";
        assert!(parse(&[("test", text)]).is_err());
        let gates = format!("{text}\nfeatureGates: {{CPUManagerPolicyAlphaOptions: true}}");
        assert!(
            managers(&gates)
                .cpu
                .exclusive
                .is_some_and(|o| o.align_by_socket)
        );
    }

    #[test]
    fn every_mistake_of_the_managers_is_told() {
        let text = "cpuManagerPolicy: fast\nreservedSystemCPUs: a\ntopologyManagerPolicy: best\n\
                    topologyManagerScope: node\n\
                    topologyManagerPolicyOptions: {max-allowable-numa-nodes: '2', x: 'z'}";
        match parse(&[("test", text)]) {
            Err(ConfigError::Mistakes { mistakes, .. }) => assert_eq!(mistakes.len(), 6),
            other => panic!("{other:?}"),
        }
    }
}
