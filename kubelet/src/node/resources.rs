//! Capacity and allocatable.

use super::machine::Machine;
use crate::config::{Config, Signal};
use crate::quantity::{Amount, binary as bytes};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use std::collections::BTreeMap;

/// A list of resources of a Node.
pub type Resources = BTreeMap<String, Quantity>;

/// What the machine has.
pub fn capacity(machine: &Machine, nodefs_bytes: Option<u64>, max_pods: usize) -> Resources {
    let mut all = BTreeMap::from([
        ("cpu".to_owned(), Quantity(machine.cpus.to_string())),
        ("memory".to_owned(), bytes(machine.memory)),
        ("pods".to_owned(), Quantity(max_pods.to_string())),
    ]);
    if let Some(total) = nodefs_bytes {
        all.insert("ephemeral-storage".to_owned(), bytes(total));
    }
    for (size, count) in &machine.hugepages {
        all.insert(hugepage_name(*size), bytes(size * count));
    }
    all
}

/// What pods may have: capacity less what is reserved and less what eviction
/// keeps free. Huge pages come out of memory.
pub fn allocatable(capacity: &Resources, config: &Config) -> Resources {
    let hugepages: i64 = capacity
        .iter()
        .filter(|(name, _)| name.starts_with("hugepages-"))
        .map(|(_, q)| Amount::from(q).units())
        .sum();
    let one = |(name, quantity): (&String, &Quantity)| {
        let reserved = config.allocatable.reserved.get(name).copied();
        let reserved = i64::try_from(reserved.unwrap_or_default()).unwrap_or(i64::MAX);
        let left = match name.as_str() {
            "cpu" => milli(Amount::from(quantity).millis() - reserved),
            "memory" => {
                let all = Amount::from(quantity).units();
                let kept = eviction_reserve(config, Signal::MemoryAvailable, all);
                bytes(positive(all - reserved - kept - hugepages))
            }
            "ephemeral-storage" => {
                let all = Amount::from(quantity).units();
                let kept = eviction_reserve(config, Signal::NodefsAvailable, all);
                bytes(positive(all - reserved - kept))
            }
            _ => bytes(positive(Amount::from(quantity).units() - reserved)),
        };
        (name.clone(), left)
    };
    capacity.iter().map(one).collect()
}

/// What eviction keeps free of a signal's resource, in bytes.
pub fn eviction_reserve(config: &Config, signal: Signal, capacity: i64) -> i64 {
    let threshold = config.eviction_hard.iter().find(|t| t.signal == signal);
    let amount = threshold.map_or(0, |t| t.value.amount(positive(capacity)));
    i64::try_from(amount).unwrap_or(i64::MAX)
}

fn positive(n: i64) -> u64 {
    u64::try_from(n).unwrap_or(0)
}

fn milli(n: i64) -> Quantity {
    match n.max(0) {
        n if n % 1000 == 0 => Quantity((n / 1000).to_string()),
        n => Quantity(format!("{n}m")),
    }
}

/// kubernetes v1.37 pkg/apis/core/v1/helper `HugePageResourceName`.
pub fn hugepage_name(size: u64) -> String {
    format!("hugepages-{}", bytes(size).0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(text: &str) -> Config {
        crate::config::parse(&[("test", text)]).unwrap().config
    }

    #[test]
    fn allocatable_is_less_by_reserves_and_eviction() {
        let machine = Machine {
            cpus: 2,
            memory: 4 << 30,
            hugepages: BTreeMap::from([(2 << 20, 8)]),
            ..Machine::default()
        };
        let config = config(
            "kubeReserved: {cpu: 150m, memory: 100Mi}\nsystemReserved: {memory: 100Mi}\n\
             evictionHard: {memory.available: 100Mi, nodefs.available: 10%}",
        );
        let capacity = capacity(&machine, Some(1000), 110);
        assert_eq!(capacity["hugepages-2Mi"].0, "16Mi");
        let left = allocatable(&capacity, &config);
        assert_eq!(left["cpu"].0, "1850m");
        assert_eq!(left["memory"].0, format!("{}Mi", 4096 - 300 - 16));
        assert_eq!(left["ephemeral-storage"].0, "900");
        assert_eq!(left["pods"].0, "110");
    }

    #[test]
    fn allocatable_is_never_negative() {
        let machine = Machine {
            cpus: 1,
            memory: 1024,
            ..Machine::default()
        };
        let config = config("kubeReserved: {cpu: '4', memory: 1Gi}");
        let left = allocatable(&capacity(&machine, None, 1), &config);
        assert_eq!(
            (left["cpu"].0.as_str(), left["memory"].0.as_str()),
            ("0", "0")
        );
    }
}
