//! Borrowed constants, each with its origin.

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
