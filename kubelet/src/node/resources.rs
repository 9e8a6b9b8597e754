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
        let all = Amount::from(quantity).counted(name);
        let left = all.saturating_sub(reservation(name, all, config));
        let left = match name.as_str() {
            "cpu" => milli(left),
            "memory" => bytes(positive(left - hugepages)),
            _ => bytes(positive(left)),
        };
        (name.clone(), left)
    };
    capacity.iter().map(one).collect()
}

/// More is to be kept from pods than the node has: of each resource what is kept, and what there is.
#[derive(Debug, PartialEq, thiserror::Error)]
#[error(
    "this node has less than is reserved on it: {}; to go on, lower kubeReserved, systemReserved or \
     evictionHard in the kubelet configuration", listed(.0)
)]
pub struct ReservationError(Vec<(String, Quantity, Quantity)>);

fn listed(all: &[(String, Quantity, Quantity)]) -> String {
    let one = |(name, kept, has): &(String, Quantity, Quantity)| {
        format!("{name} {} of {}", kept.0, has.0)
    };
    all.iter().map(one).collect::<Vec<_>>().join(", ")
}

/// kubernetes v1.37 pkg/kubelet/cm/node_container_manager_linux.go `validateNodeAllocatable`.
///
/// # Errors
/// When more of a resource is reserved, and kept free by eviction, than there is.
pub fn check(capacity: &Resources, config: &Config) -> Result<(), ReservationError> {
    let one = |(name, has): (&String, &Quantity)| {
        let all = Amount::from(has).counted(name);
        let kept = reservation(name, all, config);
        let kept_as_written = match name.as_str() {
            "cpu" => milli(kept),
            _ => bytes(positive(kept)),
        };
        (kept > all).then(|| (name.clone(), kept_as_written, has.clone()))
    };
    let beyond: Vec<_> = capacity.iter().filter_map(one).collect();
    match beyond.is_empty() {
        true => Ok(()),
        false => Err(ReservationError(beyond)),
    }
}

/// What pods can't have of `all`: thousandths of a CPU, or units.
fn reservation(name: &str, all: i64, config: &Config) -> i64 {
    let reserved = config.allocatable.reserved.get(name).copied();
    let reserved = i64::try_from(reserved.unwrap_or_default()).unwrap_or(i64::MAX);
    let kept = match name {
        "memory" => eviction_reserve(config, Signal::MemoryAvailable, all),
        "ephemeral-storage" => eviction_reserve(config, Signal::NodefsAvailable, all),
        _ => 0,
    };
    reserved.saturating_add(kept)
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
    fn reservation_beyond_capacity_is_an_error_that_names_both() {
        let machine = Machine {
            cpus: 2,
            memory: 4 << 30,
            ..Machine::default()
        };
        let capacity = capacity(&machine, Some(1000), 110);
        let said = |text: &str| check(&capacity, &config(text)).map_err(|e| e.to_string());
        let both = "kubeReserved: {cpu: '2', memory: 2Gi}\nsystemReserved: {cpu: 1m, memory: 2Gi}\n\
                    evictionHard: {memory.available: 100Mi}";
        let expected = "this node has less than is reserved on it: cpu 2001m of 2, memory 4196Mi of \
                        4Gi; to go on, lower kubeReserved, systemReserved or evictionHard in the \
                        kubelet configuration";
        assert_eq!(said(both), Err(expected.to_owned()));
        // All of it is not too much, and of process ids upstream does not ask.
        let all = "kubeReserved: {cpu: '2', memory: 3996Mi, ephemeral-storage: '999', pid: '9e18'}\n\
                   evictionHard: {memory.available: 100Mi, nodefs.available: '1'}";
        assert_eq!(said(all), Ok(()));
        assert!(said("evictionHard: {nodefs.available: '1001'}").is_err());
        assert!(said("kubeReserved: {memory: '9e18'}\nsystemReserved: {memory: '9e18'}").is_err());
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
