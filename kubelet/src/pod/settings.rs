//! What the engine is made of and told once.

use super::image::provider::Providers;
use super::spec::swap::Swap;
use crate::allocation::Allocations;
use crate::event::Recorder;
use crate::metrics::Metrics;
use crate::node::address::LiveAddresses;
use crate::node::machine;
use crate::objects::Objects;
use crate::source::Source;
use crate::status::StatusSink;
use crate::trace::Tracer;
use crate::volume::Volumes;
use cri_proto::Cri;
use k8s_openapi::api::core::v1::Taint;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// Everything the engine works with.
#[derive(Clone)]
pub struct Deps {
    /// The runtime.
    pub cri: Arc<dyn Cri>,
    /// Volumes of pods.
    pub volumes: Arc<Volumes>,
    /// ConfigMaps, Secrets, Services.
    pub objects: Arc<dyn Objects>,
    /// Devices of plugins.
    pub allocations: Arc<Allocations>,
    /// Where events go.
    pub events: Arc<dyn Recorder>,
    /// Who is told of statuses.
    pub status: Arc<dyn StatusSink>,
    /// This node.
    pub node: NodeFacts,
    /// Settings.
    pub options: Options,
    /// What is counted.
    pub metrics: Metrics,
}

/// What pods can ask about their node, and where their things are kept.
#[derive(Debug, Clone)]
pub struct NodeFacts {
    /// Name of the Node.
    pub name: String,
    /// Addresses of type InternalIP, the primary one first.
    pub ips: LiveAddresses,
    /// `status.allocatable`: cpu, memory, pods, ephemeral-storage, hugepages-*.
    pub allocatable: BTreeMap<String, Quantity>,
    /// Memory of the machine in bytes: the base of oom_score_adj.
    pub memory_capacity: u64,
    /// Labels of the Node, for admission; read anew whenever a pod arrives.
    pub labels: Arc<dyn NodeLabels>,
    /// Usually /var/log/pods.
    pub pod_logs_root: PathBuf,
    /// Usually /var/log/containers; empty for no links.
    pub container_links: PathBuf,
    /// Usually /var/lib/kubelet: user namespace records, seccomp profiles.
    pub kubelet_root: PathBuf,
    /// Domain of the cluster, without a dot at the end.
    pub cluster_domain: String,
}

/// What the Node is told to be, as it is now.
pub trait NodeLabels: std::fmt::Debug + Send + Sync + 'static {
    /// All of them; empty while the Node is not known.
    fn labels(&self) -> BTreeMap<String, String>;

    /// Its taints, as the API server has them.
    fn taints(&self) -> Vec<Taint> {
        Vec::new()
    }

    /// Conditions such as `MemoryPressure` that hold now.
    fn pressures(&self) -> Vec<String> {
        Vec::new()
    }

    /// Whether the machine is about to go down.
    fn going_down(&self) -> bool {
        false
    }
}

/// Fixed labels, for `play` and tests.
impl NodeLabels for BTreeMap<String, String> {
    fn labels(&self) -> BTreeMap<String, String> {
        self.clone()
    }
}

/// Who makes cgroups; decides how a pod's parent cgroup is named.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum CgroupDriver {
    Cgroupfs,
    Systemd,
}

/// KubeletConfiguration's fields that concern pods.
#[derive(Debug, Clone)]
pub struct Options {
    /// Sources that must have synced before pods nobody wants are removed.
    pub sources: Vec<Source>,
    /// `cgroupRoot`: usually empty or "/"; the pods' tree is `<root>/kubepods`.
    pub cgroup_root: String,
    /// `cgroupDriver`.
    pub cgroup_driver: CgroupDriver,
    /// `seccompDefault`.
    pub seccomp_default: bool,
    /// `serializeImagePulls: false` + `maxParallelImagePulls`; 1 means one at a time.
    pub max_parallel_image_pulls: usize,
    /// `registryPullQPS`; 0 means no limit.
    pub registry_pull_qps: u32,
    /// `registryBurst`.
    pub registry_burst: u32,
    /// `cpuCFSQuota`.
    pub cpu_cfs_quota: bool,
    /// `cpuCFSQuotaPeriod`.
    pub cpu_cfs_quota_period: Duration,
    /// `crashLoopBackOff.maxContainerRestartPeriod`.
    pub crash_loop_max: Duration,
    /// `podPidsLimit`; `None` (or -1 in the file) means no limit.
    pub pod_pids_limit: Option<i64>,
    /// `singleProcessOOMKill`.
    pub single_process_oom_kill: bool,
    /// `allowedUnsafeSysctls`; a trailing `*` matches any rest.
    pub allowed_unsafe_sysctls: Vec<String>,
    /// `maxPods`.
    pub max_pods: usize,
    /// Ask admission of `spec.nodeSelector` etc.; off under `play`.
    pub admit: bool,
    /// First host id and number of ids for `hostUsers: false`
    /// (65536 for each pod).
    pub user_namespaces: IdRange,
    /// Who is told of work on pods.
    pub tracer: Tracer,
    /// `runtimeRequestTimeout`.
    pub runtime_request_timeout: Duration,
    /// The runtime handler offers `recursiveReadOnlyMounts`.
    pub recursive_read_only: bool,
    /// Whether the host has only cgroup v2.
    pub cgroup_v2: bool,
    /// `memorySwap`, and what there is of it.
    pub swap: Swap,
    /// Bytes of each size of huge pages that the machine knows.
    pub huge_page_sizes: Vec<u64>,
    /// Programs that know credentials of registries.
    pub credential_providers: Arc<Providers>,
    /// Dead containers kept for each container name (`logs --previous`).
    pub dead_containers_kept: usize,
}

/// Ids of the host set aside for user namespaces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IdRange {
    /// First id, a multiple of 65536.
    pub first: u32,
    /// How many.
    pub length: u32,
}

impl Default for Options {
    fn default() -> Self {
        use crate::defaults as d;
        Self {
            sources: vec![Source::Api, Source::File],
            cgroup_root: String::new(),
            cgroup_driver: CgroupDriver::Cgroupfs,
            seccomp_default: false,
            max_parallel_image_pulls: d::MAX_PARALLEL_IMAGE_PULLS,
            registry_pull_qps: d::REGISTRY_PULL_QPS,
            registry_burst: d::REGISTRY_BURST,
            cpu_cfs_quota: true,
            cpu_cfs_quota_period: d::CPU_CFS_QUOTA_PERIOD,
            crash_loop_max: d::MAX_CONTAINER_BACKOFF,
            pod_pids_limit: None,
            single_process_oom_kill: false,
            allowed_unsafe_sysctls: Vec::new(),
            max_pods: d::MAX_PODS,
            admit: true,
            user_namespaces: d::USER_NAMESPACE_IDS,
            tracer: Tracer::default(),
            runtime_request_timeout: d::RUNTIME_REQUEST_TIMEOUT,
            recursive_read_only: true,
            cgroup_v2: cgroupfs::is_unified(),
            swap: Swap {
                counted: cgroupfs::counts_swap(),
                ..Swap::default()
            },
            huge_page_sizes: machine::huge_page_sizes(),
            credential_providers: Arc::default(),
            dead_containers_kept: 1,
        }
    }
}
