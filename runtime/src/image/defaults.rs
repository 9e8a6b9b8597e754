//! Borrowed constants, each with its origin.

use std::time::Duration;

/// containerd 2.4 internal/cri/config `registry.config_path` as most distributions set it.
pub const REGISTRY_CONFIG_DIR: &str = "/etc/containerd/certs.d";
/// k3s docs "Private Registry Configuration".
pub const REGISTRIES_FILE: &str = "/etc/rancher/k3s/registries.yaml";
/// Go crypto/x509/root_linux.go `certFiles`.
pub const CA_BUNDLES: &[&str] = &[
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];
/// containerd 2.4 internal/cri/config `max_concurrent_downloads`.
pub const PARALLEL_LAYERS: usize = 3;
/// distribution-spec "Pulling manifests": a registry must accept 4 MiB.
pub const MAX_MANIFEST: u64 = 4 << 20;
/// Image configurations carry histories and labels, which some builders fill.
pub const MAX_IMAGE_CONFIG: u64 = 8 << 20;
/// distribution v2 reference/regexp.go `RepositoryNameTotalLengthMax`.
pub const MAX_REPOSITORY: usize = 255;
/// Linux fs/overlayfs/params.h `OVL_MAX_STACK`.
pub const MAX_LAYERS: usize = 500;
/// Indexes within indexes that are followed.
pub const MAX_INDEX_DEPTH: usize = 3;
/// Go net/http `defaultCheckRedirect`.
pub const MAX_REDIRECTS: usize = 10;
/// containerd 2.4 core/remotes/docker/config `dial_timeout` of its transport.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a registry may take to begin its answer.
pub const RESPONSE_TIMEOUT: Duration = Duration::from_secs(60);
/// containerd 2.4 internal/cri/config `image_pull_progress_timeout` is 5 min for a
/// whole image; a body that stands still this long is cut and resumed.
pub const STALL_TIMEOUT: Duration = Duration::from_secs(30);
/// Tries of one exchange, the first included.
pub const MAX_TRIES: u32 = 4;
/// Doubled with every further try.
pub const RETRY_BASE: Duration = Duration::from_millis(250);
/// A longer Retry-After is an error: the kubelet's own back-off is the better place to wait.
pub const MAX_RETRY_AFTER: Duration = Duration::from_secs(30);
