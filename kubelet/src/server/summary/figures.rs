//! Figures of the runtime as the summary names them. Pure.

use crate::node::disk::Disk;
use cri_proto::v1;
use serde_json::{Map, Value, json};

pub(super) fn put(map: &mut Value, field: &str, value: Option<Value>) {
    if let (Value::Object(map), Some(value)) = (map, value) {
        map.insert(field.to_owned(), value);
    }
}

pub(super) fn time(ms: i64) -> Value {
    match jiff::Timestamp::from_millisecond(ms) {
        Ok(time) => json!(time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()),
        Err(_) => Value::Null,
    }
}

type Fields<'a> = &'a [(&'a str, Option<v1::UInt64Value>)];

/// Of a moment, with pressure where the runtime knows it.
fn figures(at_nanos: i64, fields: Fields<'_>, psi: Option<v1::PsiStats>) -> Value {
    let mut map = Map::new();
    map.insert("time".to_owned(), time(at_nanos / 1_000_000));
    add(&mut map, fields);
    let mut value = Value::Object(map);
    put(&mut value, "psi", psi.map(of_psi));
    value
}

fn add(map: &mut Map<String, Value>, fields: Fields<'_>) {
    for (name, value) in fields {
        if let Some(value) = value {
            map.insert((*name).to_owned(), json!(value.value));
        }
    }
}

pub(super) fn of_cpu(cpu: v1::CpuUsage) -> Value {
    let fields = [
        ("usageNanoCores", cpu.usage_nano_cores),
        ("usageCoreNanoSeconds", cpu.usage_core_nano_seconds),
    ];
    figures(cpu.timestamp, &fields, cpu.psi)
}

pub(super) fn of_memory(memory: v1::MemoryUsage) -> Value {
    let fields = [
        ("availableBytes", memory.available_bytes),
        ("usageBytes", memory.usage_bytes),
        ("workingSetBytes", memory.working_set_bytes),
        ("rssBytes", memory.rss_bytes),
        ("pageFaults", memory.page_faults),
        ("majorPageFaults", memory.major_page_faults),
    ];
    figures(memory.timestamp, &fields, memory.psi)
}

pub(super) fn of_swap(swap: v1::SwapUsage) -> Value {
    let fields = [
        ("swapAvailableBytes", swap.swap_available_bytes),
        ("swapUsageBytes", swap.swap_usage_bytes),
    ];
    figures(swap.timestamp, &fields, None)
}

pub(super) fn of_io(io: v1::IoUsage) -> Value {
    figures(io.timestamp, &[], io.psi)
}

fn of_psi(psi: v1::PsiStats) -> Value {
    let data = |d: v1::PsiData| json!({"total": d.total, "avg10": d.avg10, "avg60": d.avg60, "avg300": d.avg300});
    json!({"full": psi.full.map(data), "some": psi.some.map(data)})
}

/// A file system, and what of it is used by whom this is about.
pub(super) fn of_disk(disk: &Disk, used: Option<u64>, inodes_used: Option<u64>) -> Value {
    let mut value = json!({
        "time": time(jiff::Timestamp::now().as_millisecond()),
        "availableBytes": disk.available,
        "capacityBytes": disk.capacity,
        "inodesFree": disk.inodes_free,
        "inodes": disk.inodes,
    });
    put(&mut value, "usedBytes", used.map(|n| json!(n)));
    put(&mut value, "inodesUsed", inodes_used.map(|n| json!(n)));
    value
}

pub(super) fn of_network(network: &v1::NetworkUsage) -> Value {
    let all: Vec<_> = network
        .default_interface
        .iter()
        .chain(&network.interfaces)
        .map(interface)
        .collect();
    let default = network.default_interface.as_ref().map(interface);
    let mut value = Value::Object(default.unwrap_or_default());
    put(
        &mut value,
        "time",
        Some(time(network.timestamp / 1_000_000)),
    );
    put(&mut value, "interfaces", Some(json!(all)));
    value
}

fn interface(i: &v1::NetworkInterfaceUsage) -> Map<String, Value> {
    let mut map = Map::new();
    map.insert("name".to_owned(), json!(i.name));
    let fields = [
        ("rxBytes", i.rx_bytes),
        ("rxErrors", i.rx_errors),
        ("txBytes", i.tx_bytes),
        ("txErrors", i.tx_errors),
    ];
    add(&mut map, &fields);
    map
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pressure_is_told_where_the_runtime_knows_it() {
        let line = |total| {
            Some(v1::PsiData {
                total,
                avg10: 0.5,
                ..v1::PsiData::default()
            })
        };
        let mut cpu = v1::CpuUsage {
            timestamp: 1_000_000_000,
            ..v1::CpuUsage::default()
        };
        assert_eq!(of_cpu(cpu), json!({"time": "1970-01-01T00:00:01Z"}));
        cpu.psi = Some(v1::PsiStats {
            full: line(1),
            some: line(2),
        });
        let told = of_cpu(cpu);
        assert_eq!(told["psi"]["some"]["total"], 2);
        assert_eq!(told["psi"]["full"]["avg10"], 0.5);
    }
}
