//! Borrowed constants, each with its origin.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

// Pods.

/// kubernetes v1.36 pkg/kubelet/kubelet.go `MaxContainerBackOff`.
pub const MAX_CONTAINER_BACKOFF: Duration = Duration::from_secs(300);
/// kubernetes v1.36 pkg/kubelet/kubelet.go `containerBackOffPeriod`.
pub const CONTAINER_BACKOFF: Duration = Duration::from_secs(10);
/// kubernetes v1.36 pkg/kubelet/kubelet.go `imageBackOffPeriod`.
pub const IMAGE_BACKOFF: Duration = Duration::from_secs(10);
/// kubernetes v1.36 pkg/kubelet/kubelet.go `MaxImageBackOff`.
pub const MAX_IMAGE_BACKOFF: Duration = Duration::from_secs(300);
/// Ours: upstream pulls one image at a time (`serializeImagePulls: true`).
pub const MAX_PARALLEL_IMAGE_PULLS: usize = 8;
/// kubernetes v1.36 pkg/kubelet/apis/config/v1beta1/defaults.go `RegistryPullQPS`.
pub const REGISTRY_PULL_QPS: u32 = 5;
/// kubernetes v1.36 pkg/kubelet/apis/config/v1beta1/defaults.go `RegistryBurst`.
pub const REGISTRY_BURST: u32 = 10;
/// kubernetes v1.36 pkg/kubelet/apis/config/v1beta1/defaults.go `CPUCFSQuotaPeriod`.
pub const CPU_CFS_QUOTA_PERIOD: Duration = Duration::from_millis(100);
/// kubernetes v1.36 pkg/kubelet/apis/config/v1beta1/defaults.go `MaxPods`.
pub const MAX_PODS: usize = 110;
/// kubernetes v1.36 pkg/kubelet/apis/config/v1beta1/defaults.go `RuntimeRequestTimeout`.
pub const RUNTIME_REQUEST_TIMEOUT: Duration = Duration::from_secs(120);
/// kubernetes v1.36 pkg/kubelet/userns/userns_manager.go: a pod's run of ids,
/// and, without a `kubelet` entry in /etc/subuid, ids from 65536 on for each
/// of the node's pods (110 by default).
pub const USER_NAMESPACE_LENGTH: u32 = 65536;
/// See [`USER_NAMESPACE_LENGTH`].
pub const USER_NAMESPACE_IDS: crate::pod::IdRange = crate::pod::IdRange {
    first: USER_NAMESPACE_LENGTH,
    length: 110 * USER_NAMESPACE_LENGTH,
};

// The API server's clients.

/// kubernetes v1.37 staging/src/k8s.io/apiserver/pkg/server/options
/// `HTTP2MaxStreamsPerConnection` leaves Go's 100 for anonymous and 250 else; a
/// few are kept free, because the server counts a stream longer than we do.
pub const STREAMS_PER_CONNECTION: usize = 90;
/// golang.org/x/net/http2 as client-go sets it: `ReadIdleTimeout`.
pub const API_PING_INTERVAL: Duration = Duration::from_secs(30);
/// golang.org/x/net/http2 as client-go sets it: `PingTimeout`.
pub const API_PING_TIMEOUT: Duration = Duration::from_secs(15);
/// Ours: a server that does not take a connection for so long is away.
pub const API_CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Who we say we are.
pub const USER_AGENT: &str = concat!("lighter/", env!("CARGO_PKG_VERSION"));

// KubeletConfiguration. kubernetes v1.37 pkg/kubelet/apis/config/v1beta1/defaults.go
// unless said otherwise.

/// `Address`.
pub const ADDRESS: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
/// pkg/cluster/ports `KubeletPort`.
pub const PORT: u16 = 10250;
/// pkg/cluster/ports `KubeletHealthzPort`.
pub const HEALTHZ_PORT: u16 = 10248;
/// `HealthzBindAddress`.
pub const HEALTHZ_ADDRESS: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
/// `Authentication.Webhook.CacheTTL`.
pub const AUTHENTICATION_CACHE_TTL: Duration = Duration::from_secs(2 * 60);
/// `Authorization.Webhook.CacheAuthorizedTTL`.
pub const CACHE_AUTHORIZED_TTL: Duration = Duration::from_secs(5 * 60);
/// `Authorization.Webhook.CacheUnauthorizedTTL`.
pub const CACHE_UNAUTHORIZED_TTL: Duration = Duration::from_secs(30);
/// `ContainerLogMonitorInterval`.
pub const LOG_MONITOR_INTERVAL: Duration = Duration::from_secs(10);
/// `PodLogsDir`.
pub const POD_LOGS_DIR: &str = "/var/log/pods";
/// `FileCheckFrequency`.
pub const FILE_CHECK_FREQUENCY: Duration = Duration::from_secs(20);
/// `SyncFrequency`.
pub const SYNC_FREQUENCY: Duration = Duration::from_secs(60);
/// `NodeStatusUpdateFrequency`.
pub const NODE_STATUS_UPDATE_FREQUENCY: Duration = Duration::from_secs(10);
/// `NodeStatusReportFrequency`.
pub const NODE_STATUS_REPORT_FREQUENCY: Duration = Duration::from_secs(5 * 60);
/// `NodeStatusMaxImages`.
pub const NODE_STATUS_MAX_IMAGES: usize = 50;
/// `NodeLeaseDurationSeconds`.
pub const NODE_LEASE_SECONDS: u64 = 40;
/// `CPUManagerReconcilePeriod`.
pub const CPU_MANAGER_RECONCILE_PERIOD: Duration = Duration::from_secs(10);
/// `CgroupDriver`.
pub const CGROUP_DRIVER: &str = "cgroupfs";
/// `ContainerLogMaxSize`.
pub const CONTAINER_LOG_MAX_SIZE: &str = "10Mi";
/// `ContainerLogMaxFiles`.
pub const CONTAINER_LOG_MAX_FILES: u32 = 5;
/// pkg/kubelet/kubelet.go `MaxCrashLoopBackOff`.
pub const CRASH_LOOP_BACK_OFF_MAX: Duration = Duration::from_secs(300);
/// `EventRecordQPS`.
pub const EVENT_RECORD_QPS: u32 = 50;
/// `EventBurst`.
pub const EVENT_BURST: u32 = 100;
/// `EvictionPressureTransitionPeriod`.
pub const EVICTION_PRESSURE_TRANSITION_PERIOD: Duration = Duration::from_secs(5 * 60);
/// pkg/kubelet/apis/config/v1beta1/defaults_linux.go `DefaultEvictionHard`.
pub const EVICTION_HARD: &[(&str, &str)] = &[
    ("memory.available", "100Mi"),
    ("nodefs.available", "10%"),
    ("nodefs.inodesFree", "5%"),
    ("imagefs.available", "15%"),
    ("imagefs.inodesFree", "5%"),
];
/// `ImageGCHighThresholdPercent`.
pub const IMAGE_GC_HIGH_THRESHOLD_PERCENT: u64 = 85;
/// `ImageGCLowThresholdPercent`.
pub const IMAGE_GC_LOW_THRESHOLD_PERCENT: u64 = 80;
/// `ImageMinimumGCAge`.
pub const IMAGE_MINIMUM_GC_AGE: Duration = Duration::from_secs(2 * 60);
/// pkg/kubelet/kubelet.go `ImageGCPeriod`.
pub const IMAGE_GC_PERIOD: Duration = Duration::from_secs(5 * 60);
/// pkg/kubelet/kubelet.go `evictionMonitoringPeriod`.
pub const EVICTION_MONITORING_PERIOD: Duration = Duration::from_secs(10);
/// `ResolverConfig`.
pub const RESOLV_CONF: &str = "/etc/resolv.conf";
/// kubernetes v1.36 staging/src/k8s.io/api/core/v1/types.go
/// `DefaultTerminationGracePeriodSeconds`.
pub const TERMINATION_GRACE_PERIOD_SECONDS: i64 = 30;
/// kubernetes v1.36 pkg/probe/http/request.go: `kube-probe/<major>.<minor>`.
pub const PROBE_USER_AGENT: &str = "kube-probe/1.37";
/// kubernetes v1.36 pkg/kubelet/kuberuntime/kuberuntime_container.go
/// `minimumGracePeriodInSeconds`: what a container has after its preStop hook.
pub const MINIMUM_GRACE_PERIOD_SECONDS: i64 = 2;
/// Ours: events say what happens; a list only catches what they missed.
pub const RELIST_PERIOD: Duration = Duration::from_secs(30);
/// kubernetes v1.36 pkg/kubelet/kubelet.go `genericPlegRelistPeriod`: without
/// events, how often the runtime is asked.
pub const EVENT_STREAM_RETRY: Duration = Duration::from_secs(1);

/// kubernetes v1.37 pkg/kubelet/cm/qos_container_manager_linux.go
/// `periodicQOSCgroupUpdateInterval`.
pub const CGROUPS_PERIOD: Duration = Duration::from_secs(60);
/// Ours: pods that come together change their class' CPU shares once.
pub const CGROUPS_SETTLING: Duration = Duration::from_millis(100);

// Events. kubernetes v1.37 staging/src/k8s.io/client-go/tools/record/events_cache.go
// and event.go.

/// `maxQueuedEvents`.
pub const EVENT_QUEUE: usize = 1000;
/// `maxTriesPerEvent`, fewer: the queue is in memory.
pub const EVENT_TRIES: u32 = 4;
/// `defaultAggregateMaxEvents`.
pub const EVENT_SIMILAR_LIMIT: usize = 10;
/// `defaultAggregateIntervalInSeconds`.
pub const EVENT_MEMORY: Duration = Duration::from_secs(600);

// The Node.

/// The Kubernetes release whose kubelet this node behaves as; build metadata
/// does not count when versions are compared.
pub const KUBELET_VERSION: &str = "v1.37.2+lighter";
/// kubernetes v1.37 pkg/kubelet/nodestatus `MaxNamesPerImageInNodeStatus`.
pub const MAX_NAMES_PER_IMAGE: usize = 5;
/// kubernetes v1.37 pkg/kubelet/kubelet_node_status.go `registerWithAPIServer`.
pub const REGISTER_RETRY: Duration = Duration::from_millis(100);
/// See [`REGISTER_RETRY`].
pub const REGISTER_RETRY_MAX: Duration = Duration::from_secs(7);
/// kubernetes v1.37 pkg/kubelet/kubelet.go `fastStatusUpdateOnce`.
pub const FAST_STATUS: Duration = Duration::from_millis(100);
/// Ours: for so long after its start an agent waits for its runtime before it
/// calls a Ready node otherwise; less than the controllers' 40 s of grace.
pub const SETTLING: Duration = Duration::from_secs(20);
/// Ours: a runtime that takes longer to say how it is is called down.
pub const RUNTIME_STATUS_TIMEOUT: Duration = Duration::from_secs(10);
/// Ours: what is still on its way when the agent ends gets this long.
pub const SHUTDOWN_GRACE: Duration = Duration::from_secs(3);
/// Ours: a registration that takes longer is tried again, and spoken of.
pub const API_CALL_TIMEOUT: Duration = Duration::from_secs(10);
/// Ours: a resolver that takes longer must not hold up the start.
pub const RESOLVE_TIMEOUT: Duration = Duration::from_secs(3);
