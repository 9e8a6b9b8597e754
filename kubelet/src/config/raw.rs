//! What a configuration file says, with the API's own names.
//!
//! An absent field is `None`; defaults are given in [`super::used`].

use k8s_openapi::api::core::v1::Taint;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// `kubelet.config.k8s.io/v1beta1`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[allow(missing_docs)]
pub struct KubeletConfiguration {
    pub api_version: Option<String>,
    pub kind: Option<String>,
    pub address: Option<String>,
    pub allowed_unsafe_sysctls: Option<Vec<String>>,
    pub authentication: Option<Authentication>,
    pub authorization: Option<Authorization>,
    pub cgroup_driver: Option<String>,
    pub cgroup_root: Option<String>,
    #[serde(rename = "cgroupsPerQOS")]
    pub cgroups_per_qos: Option<bool>,
    #[serde(rename = "clusterDNS")]
    pub cluster_dns: Option<Vec<String>>,
    pub cluster_domain: Option<String>,
    pub container_log_max_files: Option<i32>,
    pub container_log_max_size: Option<String>,
    pub container_runtime_endpoint: Option<String>,
    #[serde(rename = "cpuCFSQuota")]
    pub cpu_cfs_quota: Option<bool>,
    #[serde(rename = "cpuCFSQuotaPeriod")]
    pub cpu_cfs_quota_period: Option<String>,
    pub cpu_manager_policy: Option<String>,
    pub cpu_manager_policy_options: Option<BTreeMap<String, String>>,
    pub cpu_manager_reconcile_period: Option<String>,
    pub crash_loop_back_off: Option<CrashLoopBackOff>,
    pub enable_controller_attach_detach: Option<bool>,
    pub enable_debug_flags_handler: Option<bool>,
    pub enable_debugging_handlers: Option<bool>,
    pub enable_profiling_handler: Option<bool>,
    pub enable_server: Option<bool>,
    pub enable_system_log_handler: Option<bool>,
    pub enable_system_log_query: Option<bool>,
    pub enforce_node_allocatable: Option<Vec<String>>,
    pub event_burst: Option<i32>,
    #[serde(rename = "eventRecordQPS")]
    pub event_record_qps: Option<i32>,
    pub eviction_hard: Option<BTreeMap<String, String>>,
    pub eviction_max_pod_grace_period: Option<i32>,
    pub eviction_minimum_reclaim: Option<BTreeMap<String, String>>,
    pub eviction_pressure_transition_period: Option<String>,
    pub eviction_soft: Option<BTreeMap<String, String>>,
    pub eviction_soft_grace_period: Option<BTreeMap<String, String>>,
    pub fail_cgroup_v1: Option<bool>,
    pub fail_swap_on: Option<bool>,
    pub file_check_frequency: Option<String>,
    pub healthz_bind_address: Option<String>,
    pub healthz_port: Option<i32>,
    #[serde(rename = "imageGCHighThresholdPercent")]
    pub image_gc_high_threshold_percent: Option<i32>,
    #[serde(rename = "imageGCLowThresholdPercent")]
    pub image_gc_low_threshold_percent: Option<i32>,
    #[serde(rename = "imageMaximumGCAge")]
    pub image_maximum_gc_age: Option<String>,
    #[serde(rename = "imageMinimumGCAge")]
    pub image_minimum_gc_age: Option<String>,
    pub kube_reserved: Option<BTreeMap<String, String>>,
    pub kube_reserved_cgroup: Option<String>,
    pub local_storage_capacity_isolation: Option<bool>,
    pub max_parallel_image_pulls: Option<i32>,
    pub max_pods: Option<i32>,
    pub memory_manager_policy: Option<String>,
    pub memory_swap: Option<MemorySwapConfiguration>,
    pub merge_default_eviction_settings: Option<bool>,
    pub node_lease_duration_seconds: Option<i32>,
    pub node_status_max_images: Option<i32>,
    pub node_status_report_frequency: Option<String>,
    pub node_status_update_frequency: Option<String>,
    #[serde(rename = "podCIDR")]
    pub pod_cidr: Option<String>,
    pub pod_logs_dir: Option<String>,
    pub pod_pids_limit: Option<i64>,
    pub port: Option<i32>,
    #[serde(rename = "providerID")]
    pub provider_id: Option<String>,
    pub register_node: Option<bool>,
    pub register_with_taints: Option<Vec<Taint>>,
    pub registry_burst: Option<i32>,
    #[serde(rename = "registryPullQPS")]
    pub registry_pull_qps: Option<i32>,
    pub reserved_memory: Option<Vec<MemoryReservation>>,
    #[serde(rename = "reservedSystemCPUs")]
    pub reserved_system_cpus: Option<String>,
    pub resolv_conf: Option<String>,
    pub rotate_certificates: Option<bool>,
    pub runtime_request_timeout: Option<String>,
    pub seccomp_default: Option<bool>,
    pub serialize_image_pulls: Option<bool>,
    #[serde(rename = "serverTLSBootstrap")]
    pub server_tls_bootstrap: Option<bool>,
    pub shutdown_grace_period: Option<String>,
    pub shutdown_grace_period_by_pod_priority: Option<Vec<ShutdownGracePeriodByPodPriority>>,
    pub shutdown_grace_period_critical_pods: Option<String>,
    #[serde(rename = "singleProcessOOMKill")]
    pub single_process_oom_kill: Option<bool>,
    pub static_pod_path: Option<String>,
    pub sync_frequency: Option<String>,
    pub system_reserved: Option<BTreeMap<String, String>>,
    pub system_reserved_cgroup: Option<String>,
    pub tls_cert_file: Option<String>,
    pub tls_private_key_file: Option<String>,
    pub topology_manager_policy: Option<String>,
    pub topology_manager_policy_options: Option<BTreeMap<String, String>>,
    pub topology_manager_scope: Option<String>,
    pub tracing: Option<TracingConfiguration>,
    /// Fields that Kubernetes knows and this node does not act on.
    #[serde(flatten)]
    pub other: BTreeMap<String, serde_json::Value>,
}

/// Who may talk to :10250.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[allow(missing_docs)]
pub struct Authentication {
    pub x509: Option<X509Authentication>,
    pub webhook: Option<WebhookAuthentication>,
    pub anonymous: Option<AnonymousAuthentication>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[allow(missing_docs)]
pub struct X509Authentication {
    #[serde(rename = "clientCAFile")]
    pub client_ca_file: Option<String>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[allow(missing_docs)]
pub struct WebhookAuthentication {
    pub enabled: Option<bool>,
    #[serde(rename = "cacheTTL")]
    pub cache_ttl: Option<String>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[allow(missing_docs)]
pub struct AnonymousAuthentication {
    pub enabled: Option<bool>,
}

/// Who of them may do what.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[allow(missing_docs)]
pub struct Authorization {
    pub mode: Option<String>,
    pub webhook: Option<WebhookAuthorization>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[allow(missing_docs)]
pub struct WebhookAuthorization {
    #[serde(rename = "cacheAuthorizedTTL")]
    pub cache_authorized_ttl: Option<String>,
    #[serde(rename = "cacheUnauthorizedTTL")]
    pub cache_unauthorized_ttl: Option<String>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[allow(missing_docs)]
pub struct CrashLoopBackOff {
    pub max_container_restart_period: Option<String>,
}

/// What pods have of the machine's swap.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[allow(missing_docs)]
pub struct MemorySwapConfiguration {
    pub swap_behavior: Option<String>,
}

/// How long pods of a priority and above have when the machine goes down.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[allow(missing_docs)]
pub struct ShutdownGracePeriodByPodPriority {
    #[serde(default)]
    pub priority: i32,
    #[serde(default)]
    pub shutdown_grace_period_seconds: i64,
}

/// What the system keeps of a NUMA node.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[allow(missing_docs)]
pub struct MemoryReservation {
    pub numa_node: Option<u32>,
    pub limits: Option<BTreeMap<String, String>>,
}

/// Where traces go.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[allow(missing_docs)]
pub struct TracingConfiguration {
    pub endpoint: Option<String>,
    pub sampling_rate_per_million: Option<i32>,
}

/// Fields of v1beta1 that this node reads and does not act on: in Kubernetes
/// 1.37 they exist (staging/src/k8s.io/kubelet/config/v1beta1/types.go).
pub const NOT_ACTED_ON: &[&str] = &[
    "configMapAndSecretChangeDetectionStrategy",
    "containerLogMaxWorkers",
    "containerLogMonitorInterval",
    "contentType",
    "enableContentionProfiling",
    "featureGates",
    "hairpinMode",
    "httpCheckFrequency",
    "imagePullCredentialsVerificationPolicy",
    "imageServiceEndpoint",
    "iptablesDropBit",
    "iptablesMasqueradeBit",
    "kernelMemcgNotification",
    "kubeAPIBurst",
    "kubeAPIQPS",
    "kubeletCgroups",
    "logging",
    "makeIPTablesUtilChains",
    "maxOpenFiles",
    "memoryReservationPolicy",
    "memoryThrottlingFactor",
    "oomScoreAdj",
    "podsPerCore",
    "preloadedImagesVerificationAllowlist",
    "protectKernelDefaults",
    "qosReserved",
    "readOnlyPort",
    "runOnce",
    "showHiddenMetricsForVersion",
    "staticPodURL",
    "staticPodURLHeader",
    "streamingConnectionIdleTimeout",
    "systemCgroups",
    "tlsCipherSuites",
    "tlsCurvePreferences",
    "tlsMinVersion",
    "userNamespaces",
    "volumePluginDir",
    "volumeStatsAggPeriod",
];

/// Fields that are pointers in Kubernetes' own type, where 0, "" or an empty
/// list is a wish of its own and not "unset".
pub(super) const POINTERS: &[&str] = &[
    // No pointer, but a list that is empty is not one that is absent.
    "enforceNodeAllocatable",
    "eventRecordQPS",
    "evictionHard",
    "healthzPort",
    "imageGCHighThresholdPercent",
    "imageGCLowThresholdPercent",
    "oomScoreAdj",
    "podPidsLimit",
    "registryPullQPS",
    // "0" is a CPU.
    "reservedSystemCPUs",
    "resolvConf",
];
