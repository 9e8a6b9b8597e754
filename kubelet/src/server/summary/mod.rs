//! `/stats/summary`: what the node and its pods use, as one document.
//! kubernetes v1.37 staging/src/k8s.io/kubelet/pkg/apis/stats/v1alpha1.

mod figures;
mod host;
mod storage;
mod system;

pub use host::CpuSamples;

use super::metrics::usage::{self, ContainerUsage, PodUsage};
use super::routes::State;
use crate::node::disk;
use crate::volume::usage::VolumeUsage;
use axum::extract::State as Extract;
use axum::http::Uri;
use axum::response::Json;
use cri_proto::v1;
use figures::{of_cpu, of_disk, of_io, of_memory, of_network, of_swap, put, time};
use serde_json::{Value, json};
use std::sync::Arc;
use storage::{Places, Stored};

pub(super) async fn summary(Extract(state): Extract<Arc<State>>, uri: Uri) -> Json<Value> {
    let brief = super::query::Params::of(&uri).is_ok_and(|p| p.is_true("only_cpu_and_memory"));
    let usage = usage::gather(&state).await;
    let mut pods = Vec::new();
    let mut node = host::of_node(&state.node_name, &state.cpu_samples, brief);
    let (pods_cgroup, samples) = (&state.pods_cgroup, &state.cpu_samples);
    let system = system::containers(pods_cgroup, state.started, samples, brief);
    put(&mut node, "systemContainers", Some(json!(system)));
    if brief {
        let pods: Vec<Value> = usage.pods.iter().map(of_pod).collect();
        return Json(json!({"node": node, "pods": pods}));
    }
    let (images, layers) = runtime_fs(&state).await;
    let layers = layers.or_else(|| images.clone());
    for pod in usage.pods {
        let mut value = of_pod(&pod);
        let volumes = volumes(&state, &pod.uid).await;
        let (pod, stored) = stored(&state, pod).await;
        add_storage(&mut value, &pod, stored, volumes, layers.as_ref());
        pods.push(value);
    }
    let fs = disk::of(&state.root_dir);
    let fs = fs.map(|d| {
        of_disk(
            &d,
            Some(d.used),
            Some(d.inodes.saturating_sub(d.inodes_free)),
        )
    });
    put(&mut node, "fs", fs);
    put(
        &mut node,
        "runtime",
        images.map(|images| json!({"imageFs": images, "containerFs": layers})),
    );
    Json(json!({"node": node, "pods": pods}))
}

async fn stored(state: &State, pod: PodUsage) -> (PodUsage, Stored) {
    let places = Places {
        root_dir: state.root_dir.clone(),
        pod_logs_root: state.config.pod_logs_dir.clone(),
    };
    let kept = pod.clone();
    let look = move || {
        let stored = storage::of_pod(&places, &pod);
        (pod, stored)
    };
    let looked = tokio::task::spawn_blocking(look).await;
    looked.unwrap_or((kept, Stored::default()))
}

/// Of images, and of writable layers where these are elsewhere.
async fn runtime_fs(state: &State) -> (Option<Value>, Option<Value>) {
    let info = state.cri.image_fs_info(v1::ImageFsInfoRequest {}).await;
    let info = info.unwrap_or_default();
    let first = |all: Vec<v1::FilesystemUsage>| {
        let usage = all.into_iter().next()?;
        let disk = disk::of(usage.fs_id?.mountpoint.as_ref())?;
        let value = |v: Option<v1::UInt64Value>| v.map(|v| v.value);
        let (used, inodes) = (value(usage.used_bytes), value(usage.inodes_used));
        Some(of_disk(&disk, used, inodes))
    };
    (
        first(info.image_filesystems),
        first(info.container_filesystems),
    )
}

fn of_pod(pod: &PodUsage) -> Value {
    let containers: Vec<Value> = pod.containers.iter().map(of_container).collect();
    let mut value = json!({
        "podRef": {"name": pod.name, "namespace": pod.namespace, "uid": pod.uid},
        "containers": containers,
    });
    put(&mut value, "startTime", pod.started_ms.map(time));
    put(&mut value, "cpu", pod.cpu.map(of_cpu));
    put(&mut value, "memory", pod.memory.map(of_memory));
    put(&mut value, "swap", pod.swap().map(of_swap));
    value
}

fn of_container(container: &ContainerUsage) -> Value {
    let mut value = json!({ "name": container.name });
    put(&mut value, "startTime", container.started_ms.map(time));
    put(&mut value, "cpu", container.stats.cpu.map(of_cpu));
    put(&mut value, "memory", container.stats.memory.map(of_memory));
    put(&mut value, "swap", container.stats.swap.map(of_swap));
    value
}

/// What is left out where only cpu and memory are asked for.
fn add_storage(
    value: &mut Value,
    pod: &PodUsage,
    mut stored: Stored,
    volumes: Vec<Value>,
    layers: Option<&Value>,
) {
    put(value, "network", pod.network.as_ref().map(of_network));
    put(value, "io", pod.io.map(of_io));
    let processes = pod.processes.map(|n| json!({ "process_count": n }));
    put(value, "process_stats", processes);
    stored.volumes.extend(volumes);
    let volumes = Some(stored.volumes).filter(|v| !v.is_empty());
    put(value, "volume", volumes.map(|v| json!(v)));
    put(value, "ephemeral-storage", stored.ephemeral);
    let told = value["containers"].as_array_mut().into_iter().flatten();
    for (container, value) in pod.containers.iter().zip(told) {
        put(value, "io", container.stats.io.map(of_io));
        put(value, "logs", stored.logs.remove(&container.name));
        let layer = container.stats.writable_layer.as_ref();
        put(value, "rootfs", layer.map(|l| rootfs(l, layers)));
    }
}

/// A writable layer, on the file system that has them all.
fn rootfs(layer: &v1::FilesystemUsage, all: Option<&Value>) -> Value {
    let mut value = all.cloned().unwrap_or_else(|| json!({}));
    put(&mut value, "time", Some(time(layer.timestamp / 1_000_000)));
    let number = |v: Option<v1::UInt64Value>| v.map(|v| json!(v.value));
    put(&mut value, "usedBytes", number(layer.used_bytes));
    put(&mut value, "inodesUsed", number(layer.inodes_used));
    value
}

/// Of claims and drivers.
async fn volumes(state: &State, pod_uid: &str) -> Vec<Value> {
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
    all.iter().map(of).collect()
}
