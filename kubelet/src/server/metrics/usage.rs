//! What pods and containers use, from the runtime.

use crate::server::routes::State;
use cri_proto::v1;
use k8s_openapi::api::core::v1::PodStatus;
use std::collections::BTreeMap;

/// Of all pods.
#[derive(Debug, Clone, Default)]
pub struct Usage {
    pub pods: Vec<PodUsage>,
    /// The runtime could not be asked.
    pub error: Option<String>,
}

/// Of one pod.
#[derive(Debug, Clone, Default)]
pub struct PodUsage {
    pub namespace: String,
    pub name: String,
    pub uid: String,
    pub sandbox_id: String,
    pub started_ms: Option<i64>,
    pub cpu: Option<v1::CpuUsage>,
    pub memory: Option<v1::MemoryUsage>,
    pub network: Option<v1::NetworkUsage>,
    pub io: Option<v1::IoUsage>,
    pub processes: Option<u64>,
    pub containers: Vec<ContainerUsage>,
}

impl PodUsage {
    /// A pod's swap is that of its containers.
    pub fn swap(&self) -> Option<v1::SwapUsage> {
        let all = self.containers.iter().filter_map(|c| c.stats.swap);
        let used = |s: &v1::SwapUsage| s.swap_usage_bytes.map_or(0, |v| v.value);
        all.reduce(|a, b| v1::SwapUsage {
            timestamp: a.timestamp.max(b.timestamp),
            swap_available_bytes: None,
            swap_usage_bytes: Some(v1::UInt64Value {
                value: used(&a) + used(&b),
            }),
        })
        .map(|sum| v1::SwapUsage {
            swap_available_bytes: None,
            ..sum
        })
    }
}

/// Of one container.
#[derive(Debug, Clone, Default)]
pub struct ContainerUsage {
    pub name: String,
    pub id: String,
    pub image: String,
    pub started_ms: Option<i64>,
    pub stats: v1::ContainerStats,
}

/// Asks for pods, and where a runtime knows only containers, for those.
pub async fn gather(state: &State) -> Usage {
    let request = v1::ListPodSandboxStatsRequest { filter: None };
    let mut usage = match state.cri.list_pod_sandbox_stats(request).await {
        Ok(answer) => Usage {
            pods: answer.stats.into_iter().filter_map(of_sandbox).collect(),
            error: None,
        },
        Err(_) => by_container(state).await,
    };
    add_starts(state, &mut usage);
    usage
}

fn of_sandbox(stats: v1::PodSandboxStats) -> Option<PodUsage> {
    let attributes = stats.attributes?;
    let metadata = attributes.metadata?;
    let linux = stats.linux.unwrap_or_default();
    Some(PodUsage {
        namespace: metadata.namespace,
        name: metadata.name,
        uid: metadata.uid,
        sandbox_id: attributes.id,
        started_ms: None,
        cpu: linux.cpu,
        memory: linux.memory,
        network: linux.network,
        io: linux.io,
        processes: linux.process.and_then(|p| p.process_count).map(|v| v.value),
        containers: linux.containers.into_iter().map(of_container).collect(),
    })
}

fn of_container(stats: v1::ContainerStats) -> ContainerUsage {
    let attributes = stats.attributes.clone().unwrap_or_default();
    ContainerUsage {
        name: attributes.metadata.map(|m| m.name).unwrap_or_default(),
        id: attributes.id,
        image: String::new(),
        started_ms: None,
        stats,
    }
}

async fn by_container(state: &State) -> Usage {
    let request = v1::ListContainerStatsRequest { filter: None };
    let stats = match state.cri.list_container_stats(request).await {
        Ok(answer) => answer.stats,
        Err(status) => {
            return Usage {
                pods: Vec::new(),
                error: Some(status.message().to_owned()),
            };
        }
    };
    let mut pods: BTreeMap<String, PodUsage> = BTreeMap::new();
    for one in stats {
        let labels = one.attributes.clone().unwrap_or_default().labels;
        let label = |name: &str| labels.get(name).cloned().unwrap_or_default();
        let uid = label("io.kubernetes.pod.uid");
        let pod = pods.entry(uid.clone()).or_insert_with(|| PodUsage {
            namespace: label("io.kubernetes.pod.namespace"),
            name: label("io.kubernetes.pod.name"),
            uid,
            ..PodUsage::default()
        });
        pod.containers.push(of_container(one));
    }
    Usage {
        pods: pods.into_values().map(with_sums).collect(),
        error: None,
    }
}

/// Without figures of the pod's cgroup its containers' are added up.
fn with_sums(mut pod: PodUsage) -> PodUsage {
    let cpu = pod.containers.iter().filter_map(|c| c.stats.cpu);
    let memory = pod.containers.iter().filter_map(|c| c.stats.memory);
    let value = |v: Option<v1::UInt64Value>| v.map(|v| v.value).unwrap_or_default();
    let some = |value| Some(v1::UInt64Value { value });
    pod.cpu = cpu.reduce(|a, b| v1::CpuUsage {
        timestamp: a.timestamp.max(b.timestamp),
        usage_core_nano_seconds: some(
            value(a.usage_core_nano_seconds) + value(b.usage_core_nano_seconds),
        ),
        usage_nano_cores: some(value(a.usage_nano_cores) + value(b.usage_nano_cores)),
        psi: None,
    });
    pod.memory = memory.reduce(|a, b| v1::MemoryUsage {
        timestamp: a.timestamp.max(b.timestamp),
        working_set_bytes: some(value(a.working_set_bytes) + value(b.working_set_bytes)),
        usage_bytes: some(value(a.usage_bytes) + value(b.usage_bytes)),
        rss_bytes: some(value(a.rss_bytes) + value(b.rss_bytes)),
        page_faults: some(value(a.page_faults) + value(b.page_faults)),
        major_page_faults: some(value(a.major_page_faults) + value(b.major_page_faults)),
        ..v1::MemoryUsage::default()
    });
    pod
}

/// Times and images that only the pods' statuses have.
fn add_starts(state: &State, usage: &mut Usage) {
    for known in state.pods.pods() {
        let uid = known.pod.metadata.uid.as_deref();
        let Some(pod) = usage.pods.iter_mut().find(|p| Some(p.uid.as_str()) == uid) else {
            continue;
        };
        pod.started_ms = known
            .status
            .start_time
            .as_ref()
            .map(|t| t.0.as_millisecond());
        for container in &mut pod.containers {
            let (started, image) = of_status(&known.status, &container.name);
            container.started_ms = started;
            container.image = image;
        }
    }
}

fn of_status(status: &PodStatus, container: &str) -> (Option<i64>, String) {
    let all = [
        &status.container_statuses,
        &status.init_container_statuses,
        &status.ephemeral_container_statuses,
    ];
    let mut all = all.into_iter().flatten().flatten();
    let Some(status) = all.find(|s| s.name == container) else {
        return (None, String::new());
    };
    let running = status.state.as_ref().and_then(|s| s.running.as_ref());
    let started = running.and_then(|r| r.started_at.as_ref());
    (started.map(|t| t.0.as_millisecond()), status.image.clone())
}
