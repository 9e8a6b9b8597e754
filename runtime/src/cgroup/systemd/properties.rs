//! Limits as properties of units: systemd.resource-control(5), and
//! org.freedesktop.systemd1(5) for their types. Pure.

use super::super::Limits;
use cgroupfs::weight;

/// One property.
pub type Property = (&'static str, Value);

/// As it goes over the bus.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    Bool(bool),
    U64(u64),
    Text(String),
    Bytes(Vec<u8>),
    Pids(Vec<u32>),
}

/// systemd's infinity.
const NONE: u64 = u64::MAX;
/// Microseconds of a second.
const SECOND: u64 = 1_000_000;
/// systemd keeps a quota in percent: what is less is rounded up, or a reload
/// would take some of it. opencontainers/cgroups v0.0.5 systemd/common.go
/// `addCPUQuota` rounds the same.
const PERCENT: u64 = SECOND / 100;
/// cpu(7)'s default period.
const PERIOD: u64 = 100_000;

fn accounting() -> Vec<Property> {
    [
        "CPUAccounting",
        "MemoryAccounting",
        "IOAccounting",
        "TasksAccounting",
    ]
    .map(|name| (name, Value::Bool(true)))
    .into()
}

/// Of every pod.
pub fn of_slice() -> Vec<Property> {
    let mut out = accounting();
    out.extend(common("Kubernetes pod"));
    out
}

/// Of every container: the scope is ours to write in.
pub fn of_scope(slice: &str, pid: u32) -> Vec<Property> {
    let mut out = accounting();
    out.extend(common("Kubernetes container"));
    out.extend([
        ("Slice", Value::Text(slice.to_owned())),
        ("PIDs", Value::Pids(vec![pid])),
        ("Delegate", Value::Bool(true)),
        // Else systemd's own default for every unit holds.
        ("TasksMax", Value::U64(NONE)),
    ]);
    out
}

fn common(description: &str) -> [Property; 3] {
    [
        ("Description", Value::Text(description.to_owned())),
        // No stop at shutdown before us, no wait for sysinit.
        ("DefaultDependencies", Value::Bool(false)),
        // A unit that failed, by an OOM for one, is not kept for its looks.
        ("CollectMode", Value::Text("inactive-or-failed".to_owned())),
    ]
}

/// What of the limits systemd knows.
pub fn of_limits(limits: &Limits) -> Vec<Property> {
    let mut out = Vec::new();
    out.extend(
        limits
            .cpu_shares
            .map(|n| ("CPUWeight", Value::U64(weight(n)))),
    );
    out.extend(quota(limits));
    out.extend(limits.memory.map(|n| ("MemoryMax", amount(n))));
    out.extend(limits.swap().map(|n| ("MemorySwapMax", amount(n))));
    for (name, list) in [
        ("AllowedCPUs", &limits.cpuset_cpus),
        ("AllowedMemoryNodes", &limits.cpuset_mems),
    ] {
        let mask = list.as_deref().and_then(mask);
        out.extend(mask.map(|mask| (name, Value::Bytes(mask))));
    }
    out.extend(
        limits
            .unified
            .iter()
            .filter_map(|(file, value)| unified(file, value)),
    );
    out
}

fn amount(n: i64) -> Value {
    Value::U64(u64::try_from(n).unwrap_or(NONE))
}

fn quota(limits: &Limits) -> Vec<Property> {
    let Some(quota) = limits.cpu_quota else {
        return Vec::new();
    };
    let period = limits.cpu_period.filter(|p| *p > 0).unwrap_or(PERIOD);
    let a_second = match u64::try_from(quota) {
        Ok(quota) if quota > 0 => {
            let exact = quota.saturating_mul(SECOND) / period;
            exact.div_ceil(PERCENT) * PERCENT
        }
        _ => NONE,
    };
    vec![
        ("CPUQuotaPerSecUSec", Value::U64(a_second)),
        ("CPUQuotaPeriodUSec", Value::U64(period)),
    ]
}

/// Files of v2 that systemd has a property for.
fn unified(file: &str, value: &str) -> Option<Property> {
    let name = match file {
        "memory.min" => "MemoryMin",
        "memory.low" => "MemoryLow",
        "memory.high" => "MemoryHigh",
        "memory.max" => "MemoryMax",
        "memory.swap.max" => "MemorySwapMax",
        "pids.max" => "TasksMax",
        "cpu.weight" => "CPUWeight",
        _ => return None,
    };
    let value = match value.trim() {
        "max" => NONE,
        number => number.parse().ok()?,
    };
    Some((name, Value::U64(value)))
}

/// A list such as `0-3,7` as bits, the lowest first.
fn mask(list: &str) -> Option<Vec<u8>> {
    let mut bits: Vec<u8> = Vec::new();
    for range in list.trim().split(',').filter(|r| !r.is_empty()) {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (first, last): (usize, usize) = (first.parse().ok()?, last.parse().ok()?);
        // NR_CPUS is 8192 at most.
        for bit in first..=last.min(8191) {
            if bits.len() <= bit / 8 {
                bits.resize(bit / 8 + 1, 0);
            }
            bits[bit / 8] |= 1 << (bit % 8);
        }
    }
    Some(bits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_told_as_systemd_calls_them() {
        let limits = Limits {
            cpu_shares: Some(1024),
            cpu_quota: Some(12_500),
            cpu_period: Some(100_000),
            memory: Some(64 << 20),
            memory_swap: Some(96 << 20),
            cpuset_cpus: Some("0-1,9".to_owned()),
            unified: [
                ("memory.high", "max"),
                ("pids.max", "7"),
                ("memory.oom.group", "1"),
            ]
            .map(|(k, v)| (k.to_owned(), v.to_owned()))
            .into(),
            ..Limits::default()
        };
        let expected = [
            ("CPUWeight", Value::U64(100)),
            ("CPUQuotaPerSecUSec", Value::U64(130_000)),
            ("CPUQuotaPeriodUSec", Value::U64(100_000)),
            ("MemoryMax", Value::U64(64 << 20)),
            ("MemorySwapMax", Value::U64(32 << 20)),
            ("AllowedCPUs", Value::Bytes(vec![0b11, 0b10])),
            ("MemoryHigh", Value::U64(u64::MAX)),
            ("TasksMax", Value::U64(7)),
        ];
        assert_eq!(of_limits(&limits), expected);
    }

    #[test]
    fn no_limit_is_infinity_and_not_given_is_not_told() {
        let limits = Limits {
            cpu_quota: Some(-1),
            memory: Some(-1),
            ..Limits::default()
        };
        let told = of_limits(&limits);
        assert_eq!(told[0], ("CPUQuotaPerSecUSec", Value::U64(u64::MAX)));
        assert_eq!(told[2], ("MemoryMax", Value::U64(u64::MAX)));
        assert!(of_limits(&Limits::default()).is_empty());
    }

    #[test]
    fn list_that_is_none_is_told_to_nobody() {
        assert_eq!(mask("nonsense"), None);
        assert_eq!(mask("8"), Some(vec![0, 1]));
    }
}
