//! The kubelet's flags, and what each means here.
//! kubernetes v1.37 cmd/kubelet/app/options/options.go.

/// How a flag's value is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Text,
    /// `--flag` alone is true.
    Bool,
    Number,
    /// `a,b`, and given again to add to it.
    List,
    /// `a=1,b=2`.
    Map,
    /// `signal<value,…`.
    Thresholds,
    /// `key=value:effect,…`.
    Taints,
}

/// What becomes of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Use {
    /// An option of the agent, of the same name.
    Agent(Kind),
    /// A field of KubeletConfiguration, by its path.
    Field(&'static str, Kind),
    /// Taken and told: here it has no meaning.
    Without(Kind, &'static str),
}

use Kind::{Bool, List, Map, Number, Taints, Text, Thresholds};
use Use::{Agent, Field, Without};

const RUNTIME: &str = "the runtime is in this process, in a cgroup of its own";
const SANDBOX: &str = "sandboxes need no image";
const LOG: &str = "the log's form is set with LIGHTER_LOG";
const DEAD: &str = "one dead container is kept for each container";
const OLD: &str = "upstream has no use for it either";

/// Every flag but those that the parser itself knows (`--help`, `--version`, `-v`).
pub const TABLE: &[(&str, Use)] = &[
    ("config", Agent(Text)),
    ("config-dir", Agent(Text)),
    ("kubeconfig", Agent(Text)),
    ("bootstrap-kubeconfig", Agent(Text)),
    ("hostname-override", Agent(Text)),
    ("node-ip", Agent(List)),
    ("node-labels", Agent(List)),
    ("root-dir", Agent(Text)),
    ("cert-dir", Agent(Text)),
    ("cloud-provider", Agent(Text)),
    ("cgroup-root", Agent(Text)),
    ("image-credential-provider-config", Agent(Text)),
    ("image-credential-provider-bin-dir", Agent(Text)),
    ("container-runtime-endpoint", Agent(Text)),
    ("address", Field("address", Text)),
    (
        "allowed-unsafe-sysctls",
        Field("allowedUnsafeSysctls", List),
    ),
    (
        "anonymous-auth",
        Field("authentication.anonymous.enabled", Bool),
    ),
    (
        "authentication-token-webhook",
        Field("authentication.webhook.enabled", Bool),
    ),
    (
        "authentication-token-webhook-cache-ttl",
        Field("authentication.webhook.cacheTTL", Text),
    ),
    ("authorization-mode", Field("authorization.mode", Text)),
    (
        "authorization-webhook-cache-authorized-ttl",
        Field("authorization.webhook.cacheAuthorizedTTL", Text),
    ),
    (
        "authorization-webhook-cache-unauthorized-ttl",
        Field("authorization.webhook.cacheUnauthorizedTTL", Text),
    ),
    ("cgroup-driver", Field("cgroupDriver", Text)),
    ("cgroups-per-qos", Field("cgroupsPerQOS", Bool)),
    (
        "client-ca-file",
        Field("authentication.x509.clientCAFile", Text),
    ),
    ("cluster-dns", Field("clusterDNS", List)),
    ("cluster-domain", Field("clusterDomain", Text)),
    (
        "container-log-max-files",
        Field("containerLogMaxFiles", Number),
    ),
    ("container-log-max-size", Field("containerLogMaxSize", Text)),
    (
        "contention-profiling",
        Field("enableContentionProfiling", Bool),
    ),
    ("cpu-cfs-quota", Field("cpuCFSQuota", Bool)),
    ("cpu-cfs-quota-period", Field("cpuCFSQuotaPeriod", Text)),
    ("cpu-manager-policy", Field("cpuManagerPolicy", Text)),
    (
        "cpu-manager-policy-options",
        Field("cpuManagerPolicyOptions", Map),
    ),
    (
        "cpu-manager-reconcile-period",
        Field("cpuManagerReconcilePeriod", Text),
    ),
    (
        "enable-controller-attach-detach",
        Field("enableControllerAttachDetach", Bool),
    ),
    (
        "enable-debugging-handlers",
        Field("enableDebuggingHandlers", Bool),
    ),
    ("enable-server", Field("enableServer", Bool)),
    (
        "enforce-node-allocatable",
        Field("enforceNodeAllocatable", List),
    ),
    ("event-burst", Field("eventBurst", Number)),
    ("event-qps", Field("eventRecordQPS", Number)),
    ("eviction-hard", Field("evictionHard", Thresholds)),
    (
        "eviction-max-pod-grace-period",
        Field("evictionMaxPodGracePeriod", Number),
    ),
    (
        "eviction-minimum-reclaim",
        Field("evictionMinimumReclaim", Map),
    ),
    (
        "eviction-pressure-transition-period",
        Field("evictionPressureTransitionPeriod", Text),
    ),
    ("eviction-soft", Field("evictionSoft", Thresholds)),
    (
        "eviction-soft-grace-period",
        Field("evictionSoftGracePeriod", Map),
    ),
    ("fail-cgroupv1", Field("failCgroupV1", Bool)),
    ("fail-swap-on", Field("failSwapOn", Bool)),
    ("feature-gates", Field("featureGates", Map)),
    ("file-check-frequency", Field("fileCheckFrequency", Text)),
    ("hairpin-mode", Field("hairpinMode", Text)),
    ("healthz-bind-address", Field("healthzBindAddress", Text)),
    ("healthz-port", Field("healthzPort", Number)),
    ("http-check-frequency", Field("httpCheckFrequency", Text)),
    (
        "image-gc-high-threshold",
        Field("imageGCHighThresholdPercent", Number),
    ),
    (
        "image-gc-low-threshold",
        Field("imageGCLowThresholdPercent", Number),
    ),
    (
        "image-service-endpoint",
        Field("imageServiceEndpoint", Text),
    ),
    (
        "kernel-memcg-notification",
        Field("kernelMemcgNotification", Bool),
    ),
    ("kube-api-burst", Field("kubeAPIBurst", Number)),
    ("kube-api-content-type", Field("contentType", Text)),
    ("kube-api-qps", Field("kubeAPIQPS", Number)),
    ("kube-reserved", Field("kubeReserved", Map)),
    ("kube-reserved-cgroup", Field("kubeReservedCgroup", Text)),
    ("kubelet-cgroups", Field("kubeletCgroups", Text)),
    (
        "local-storage-capacity-isolation",
        Field("localStorageCapacityIsolation", Bool),
    ),
    (
        "make-iptables-util-chains",
        Field("makeIPTablesUtilChains", Bool),
    ),
    ("manifest-url", Field("staticPodURL", Text)),
    ("max-open-files", Field("maxOpenFiles", Number)),
    ("max-pods", Field("maxPods", Number)),
    ("memory-manager-policy", Field("memoryManagerPolicy", Text)),
    (
        "minimum-image-ttl-duration",
        Field("imageMinimumGCAge", Text),
    ),
    (
        "node-status-max-images",
        Field("nodeStatusMaxImages", Number),
    ),
    (
        "node-status-update-frequency",
        Field("nodeStatusUpdateFrequency", Text),
    ),
    ("oom-score-adj", Field("oomScoreAdj", Number)),
    ("pod-cidr", Field("podCIDR", Text)),
    ("pod-manifest-path", Field("staticPodPath", Text)),
    ("pod-max-pids", Field("podPidsLimit", Number)),
    ("pods-per-core", Field("podsPerCore", Number)),
    ("port", Field("port", Number)),
    (
        "protect-kernel-defaults",
        Field("protectKernelDefaults", Bool),
    ),
    ("provider-id", Field("providerID", Text)),
    ("read-only-port", Field("readOnlyPort", Number)),
    ("register-node", Field("registerNode", Bool)),
    ("register-with-taints", Field("registerWithTaints", Taints)),
    ("registry-burst", Field("registryBurst", Number)),
    ("registry-qps", Field("registryPullQPS", Number)),
    ("reserved-cpus", Field("reservedSystemCPUs", Text)),
    ("resolv-conf", Field("resolvConf", Text)),
    ("rotate-certificates", Field("rotateCertificates", Bool)),
    (
        "rotate-server-certificates",
        Field("serverTLSBootstrap", Bool),
    ),
    ("runonce", Field("runOnce", Bool)),
    (
        "runtime-request-timeout",
        Field("runtimeRequestTimeout", Text),
    ),
    ("seccomp-default", Field("seccompDefault", Bool)),
    ("serialize-image-pulls", Field("serializeImagePulls", Bool)),
    (
        "streaming-connection-idle-timeout",
        Field("streamingConnectionIdleTimeout", Text),
    ),
    ("sync-frequency", Field("syncFrequency", Text)),
    ("system-cgroups", Field("systemCgroups", Text)),
    ("system-reserved", Field("systemReserved", Map)),
    (
        "system-reserved-cgroup",
        Field("systemReservedCgroup", Text),
    ),
    ("tls-cert-file", Field("tlsCertFile", Text)),
    ("tls-cipher-suites", Field("tlsCipherSuites", List)),
    ("tls-min-version", Field("tlsMinVersion", Text)),
    ("tls-private-key-file", Field("tlsPrivateKeyFile", Text)),
    (
        "topology-manager-policy",
        Field("topologyManagerPolicy", Text),
    ),
    (
        "topology-manager-scope",
        Field("topologyManagerScope", Text),
    ),
    ("volume-plugin-dir", Field("volumePluginDir", Text)),
    (
        "volume-stats-agg-period",
        Field("volumeStatsAggPeriod", Text),
    ),
    (
        "exit-on-lock-contention",
        Without(Bool, "the state folder is locked in any case"),
    ),
    (
        "experimental-allocatable-ignore-eviction",
        Without(Bool, OLD),
    ),
    ("experimental-mounter-path", Without(Text, OLD)),
    (
        "lock-file",
        Without(Text, "the state folder is locked in any case"),
    ),
    ("log-flush-frequency", Without(Text, LOG)),
    ("logging-format", Without(Text, LOG)),
    ("maximum-dead-containers", Without(Number, DEAD)),
    (
        "maximum-dead-containers-per-container",
        Without(Number, DEAD),
    ),
    ("minimum-container-ttl-duration", Without(Text, DEAD)),
    ("pod-infra-container-image", Without(Text, SANDBOX)),
    ("runtime-cgroups", Without(Text, RUNTIME)),
    ("vmodule", Without(Text, LOG)),
];
