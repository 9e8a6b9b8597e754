//! `/stats/summary`: what the node and its pods use, as one document.
//! kubernetes v1.37 staging/src/k8s.io/kubelet/pkg/apis/stats/v1alpha1.

use super::metrics::NodeUsage;
use super::metrics::usage::{self, ContainerUsage, PodUsage};
use super::routes::State;
use crate::node::disk::{self, Disk};
use crate::volume::usage::VolumeUsage;
use axum::extract::State as Extract;
use axum::http::Uri;
use axum::response::Json;
use cri_proto::v1;
use serde_json::{Map, Value, json};
use std::sync::Arc;

pub(super) async fn summary(Extract(state): Extract<Arc<State>>, uri: Uri) -> Json<Value> {
    let brief = super::query::Params::of(&uri).is_ok_and(|p| p.is_true("only_cpu_and_memory"));
    let usage = usage::gather(&state).await;
    let mut pods = Vec::new();
    for pod in &usage.pods {
        let mut value = of_pod(pod, brief);
        if !brief {
            put(&mut value, "volume", volumes(&state, &pod.uid).await);
        }
        pods.push(value);
    }
    let mut node = of_node(&state.node_name, &NodeUsage::read());
    if !brief {
        put(
            &mut node,
            "fs",
            disk::of(&state.root_dir).map(|d| of_disk(&d)),
        );
        let images = image_fs(&state).await;
        put(
            &mut node,
            "runtime",
            images.map(|fs| json!({ "imageFs": fs })),
        );
    }
    Json(json!({"node": node, "pods": pods}))
}

fn put(map: &mut Value, field: &str, value: Option<Value>) {
    if let (Value::Object(map), Some(value)) = (map, value) {
        map.insert(field.to_owned(), value);
    }
}

fn time(ms: i64) -> Value {
    match jiff::Timestamp::from_millisecond(ms) {
        Ok(time) => json!(time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()),
        Err(_) => Value::Null,
    }
}

fn of_node(name: &str, usage: &NodeUsage) -> Value {
    let at = time(usage.at_ms);
    json!({
        "nodeName": name,
        "startTime": time(booted_ms(usage.at_ms)),
        "cpu": {"time": at, "usageCoreNanoSeconds": (usage.cpu_seconds * 1e9) as u64},
        "memory": {
            "time": at,
            "availableBytes": usage.memory_available,
            "usageBytes": usage.memory_usage,
            "workingSetBytes": usage.memory_working_set,
            "rssBytes": usage.memory_rss,
            "pageFaults": usage.page_faults,
            "majorPageFaults": usage.major_page_faults,
        },
        "swap": {"time": at, "swapUsageBytes": usage.swap_usage},
    })
}

fn booted_ms(now_ms: i64) -> i64 {
    let uptime = std::fs::read_to_string("/proc/uptime").unwrap_or_default();
    let seconds = uptime.split(' ').next().and_then(|s| s.parse::<f64>().ok());
    now_ms - (seconds.unwrap_or_default() * 1e3) as i64
}

fn of_disk(disk: &Disk) -> Value {
    json!({
        "time": time(jiff::Timestamp::now().as_millisecond()),
        "availableBytes": disk.available,
        "capacityBytes": disk.capacity,
        "usedBytes": disk.capacity.saturating_sub(disk.available),
        "inodesFree": disk.inodes_free,
        "inodes": disk.inodes,
        "inodesUsed": disk.inodes.saturating_sub(disk.inodes_free),
    })
}

async fn image_fs(state: &State) -> Option<Value> {
    let info = state
        .cri
        .image_fs_info(v1::ImageFsInfoRequest {})
        .await
        .ok()?;
    let usage = info.image_filesystems.into_iter().next()?;
    let disk = disk::of(usage.fs_id?.mountpoint.as_ref())?;
    let mut fs = of_disk(&disk);
    put(
        &mut fs,
        "usedBytes",
        usage.used_bytes.map(|v| json!(v.value)),
    );
    put(
        &mut fs,
        "inodesUsed",
        usage.inodes_used.map(|v| json!(v.value)),
    );
    Some(fs)
}

fn of_pod(pod: &PodUsage, brief: bool) -> Value {
    let containers: Vec<Value> = pod
        .containers
        .iter()
        .map(|c| of_container(c, brief))
        .collect();
    let mut value = json!({
        "podRef": {"name": pod.name, "namespace": pod.namespace, "uid": pod.uid},
        "containers": containers,
    });
    put(&mut value, "startTime", pod.started_ms.map(time));
    put(&mut value, "cpu", pod.cpu.map(of_cpu));
    put(&mut value, "memory", pod.memory.map(of_memory));
    if !brief {
        put(&mut value, "network", pod.network.as_ref().map(of_network));
        put(
            &mut value,
            "process_stats",
            pod.processes.map(|n| json!({ "process_count": n })),
        );
    }
    value
}

async fn volumes(state: &State, pod_uid: &str) -> Option<Value> {
    let all = state.volumes.usage(pod_uid).await;
    let at = time(jiff::Timestamp::now().as_millisecond());
    let of = |volume: &VolumeUsage| {
        let usage = volume.usage;
        let mut value = json!({"name": volume.name, "time": at});
        for (field, figure) in [
            ("availableBytes", usage.available),
            ("capacityBytes", usage.capacity),
            ("usedBytes", usage.used),
            ("inodesFree", usage.inodes_free),
            ("inodes", usage.inodes),
            ("inodesUsed", usage.inodes_used),
        ] {
            put(&mut value, field, figure.map(|f| json!(f)));
        }
        let claim = volume.claim.as_ref();
        let claim = claim.map(|(namespace, name)| json!({"name": name, "namespace": namespace}));
        put(&mut value, "pvcRef", claim);
        value
    };
    (!all.is_empty()).then(|| all.iter().map(of).collect())
}

fn of_container(container: &ContainerUsage, brief: bool) -> Value {
    let mut value = json!({ "name": container.name });
    put(&mut value, "startTime", container.started_ms.map(time));
    put(&mut value, "cpu", container.stats.cpu.map(of_cpu));
    put(&mut value, "memory", container.stats.memory.map(of_memory));
    if !brief {
        put(
            &mut value,
            "rootfs",
            container.stats.writable_layer.as_ref().map(of_layer),
        );
    }
    value
}

fn figures(at_nanos: i64, fields: &[(&str, Option<v1::UInt64Value>)]) -> Value {
    let mut map = Map::new();
    map.insert("time".to_owned(), time(at_nanos / 1_000_000));
    for (name, value) in fields {
        if let Some(value) = value {
            map.insert((*name).to_owned(), json!(value.value));
        }
    }
    Value::Object(map)
}

fn of_cpu(cpu: v1::CpuUsage) -> Value {
    let fields = [
        ("usageNanoCores", cpu.usage_nano_cores),
        ("usageCoreNanoSeconds", cpu.usage_core_nano_seconds),
    ];
    figures(cpu.timestamp, &fields)
}

fn of_memory(memory: v1::MemoryUsage) -> Value {
    let fields = [
        ("availableBytes", memory.available_bytes),
        ("usageBytes", memory.usage_bytes),
        ("workingSetBytes", memory.working_set_bytes),
        ("rssBytes", memory.rss_bytes),
        ("pageFaults", memory.page_faults),
        ("majorPageFaults", memory.major_page_faults),
    ];
    figures(memory.timestamp, &fields)
}

fn of_layer(layer: &v1::FilesystemUsage) -> Value {
    let fields = [
        ("usedBytes", layer.used_bytes),
        ("inodesUsed", layer.inodes_used),
    ];
    figures(layer.timestamp, &fields)
}

fn of_network(network: &v1::NetworkUsage) -> Value {
    let interface = |i: &v1::NetworkInterfaceUsage| {
        let mut map = Map::new();
        map.insert("name".to_owned(), json!(i.name));
        let fields = [
            ("rxBytes", i.rx_bytes),
            ("rxErrors", i.rx_errors),
            ("txBytes", i.tx_bytes),
            ("txErrors", i.tx_errors),
        ];
        for (name, value) in fields {
            if let Some(value) = value {
                map.insert(name.to_owned(), json!(value.value));
            }
        }
        map
    };
    let all: Vec<_> = network
        .default_interface
        .iter()
        .chain(&network.interfaces)
        .map(interface)
        .collect();
    let mut value = Value::Object(
        network
            .default_interface
            .as_ref()
            .map(interface)
            .unwrap_or_default(),
    );
    put(
        &mut value,
        "time",
        Some(time(network.timestamp / 1_000_000)),
    );
    put(&mut value, "interfaces", Some(json!(all)));
    value
}
