//! The configuration as the node works with it: typed, complete, checked.

use super::duration;
use super::enforcement::{self, Enforcement};
use super::eviction::{self, Threshold};
use super::image_gc::ImageGc;
use super::managers::{self, Managers};
use super::raw::KubeletConfiguration;
use super::shutdown::{self, ShutdownGrace};
use super::traces::{self, Tracing};
use crate::defaults;
use crate::quantity::Amount;
use k8s_openapi::api::core::v1::Taint;
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Who decides what a caller of :10250 may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AuthorizationMode {
    /// SubjectAccessReview.
    Webhook,
    /// Nobody.
    AlwaysAllow,
}

/// What is kept from pods, by resource name: thousandths of a CPU for `cpu`,
/// bytes or pieces for the others.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NodeAllocatable {
    /// kubeReserved and systemReserved together.
    pub reserved: BTreeMap<String, u64>,
}

/// Every setting has a value; durations and quantities are numbers.
#[derive(Debug, Clone)]
#[allow(missing_docs)]
pub struct Config {
    pub address: IpAddr,
    pub port: u16,
    pub enable_server: bool,
    pub enable_debugging_handlers: bool,
    pub enable_debug_flags_handler: bool,
    pub enable_profiling_handler: bool,
    pub enable_system_log_handler: bool,
    pub enable_system_log_query: bool,
    pub healthz: Option<SocketAddr>,
    pub client_ca_file: Option<PathBuf>,
    pub anonymous_auth: bool,
    pub webhook_authentication: bool,
    pub authentication_cache_ttl: Duration,
    pub authorization_mode: AuthorizationMode,
    pub cache_authorized_ttl: Duration,
    pub cache_unauthorized_ttl: Duration,
    pub tls_files: Option<(PathBuf, PathBuf)>,
    pub rotate_certificates: bool,
    pub server_tls_bootstrap: bool,
    pub static_pod_path: Option<PathBuf>,
    pub pod_logs_dir: PathBuf,
    pub file_check_frequency: Duration,
    pub sync_frequency: Duration,
    pub node_status_update_frequency: Duration,
    pub node_status_report_frequency: Duration,
    pub node_status_max_images: Option<usize>,
    pub node_lease_duration: Duration,
    pub register_node: bool,
    pub register_with_taints: Vec<Taint>,
    pub provider_id: Option<String>,
    pub enable_controller_attach_detach: bool,
    pub cluster_dns: Vec<IpAddr>,
    pub cluster_domain: String,
    pub resolv_conf: Option<PathBuf>,
    pub pod_cidr: Option<String>,
    pub max_pods: usize,
    pub pod_pids_limit: Option<u64>,
    pub cpu_cfs_quota: bool,
    pub cpu_cfs_quota_period: Duration,
    pub cgroup_driver: String,
    pub cgroup_root: Option<String>,
    pub cgroups_per_qos: bool,
    pub fail_cgroup_v1: bool,
    pub fail_swap_on: bool,
    /// `memorySwap.swapBehavior: LimitedSwap`; else pods have no swap.
    pub limited_swap: bool,
    pub seccomp_default: bool,
    pub allowed_unsafe_sysctls: Vec<String>,
    pub serialize_image_pulls: bool,
    pub registry_pull_qps: u32,
    pub registry_burst: u32,
    pub single_process_oom_kill: bool,
    pub max_parallel_image_pulls: Option<u32>,
    pub runtime_request_timeout: Duration,
    pub container_runtime_endpoint: Option<String>,
    pub container_log_max_size: u64,
    pub container_log_max_files: u32,
    pub crash_loop_back_off_max: Duration,
    pub event_record_qps: u32,
    pub event_burst: u32,
    pub eviction_hard: Vec<Threshold>,
    pub eviction_soft: Vec<Threshold>,
    /// Seconds that a pod gets at most when a soft threshold ends it.
    pub eviction_max_pod_grace: i64,
    pub eviction_pressure_transition_period: Duration,
    pub image_gc: ImageGc,
    pub local_storage_isolation: bool,
    pub allocatable: NodeAllocatable,
    pub enforcement: Enforcement,
    /// A collector of traces.
    pub tracing: Option<Tracing>,
    /// The lowest priority first; empty: the machine's shutdown does not wait.
    pub shutdown: Vec<ShutdownGrace>,
    pub managers: Managers,
    /// As it was written, for `/configz`.
    pub raw: KubeletConfiguration,
}

impl Default for Config {
    fn default() -> Self {
        let (config, _) = Config::build(KubeletConfiguration::default(), &mut Mistakes::default());
        config
    }
}

/// Mistakes found so far; a field that has one gets its default, so that the
/// rest is checked too.
#[derive(Default)]
pub(super) struct Mistakes(pub(super) Vec<String>);

impl Mistakes {
    pub(super) fn duration(
        &mut self,
        field: &str,
        text: &Option<String>,
        default: Duration,
    ) -> Duration {
        let parsed = text.as_deref().map(duration::parse).transpose();
        self.keep(field, parsed).flatten().unwrap_or(default)
    }

    pub(super) fn number<T: TryFrom<i64>>(
        &mut self,
        field: &str,
        value: Option<i64>,
        default: T,
    ) -> T {
        let Some(value) = value else { return default };
        match T::try_from(value) {
            Ok(value) => value,
            Err(_) => {
                self.0.push(format!("{field}: {value} is out of range"));
                default
            }
        }
    }

    pub(super) fn keep<T, E: std::fmt::Display>(
        &mut self,
        field: &str,
        result: Result<T, E>,
    ) -> Option<T> {
        result
            .map_err(|e| self.0.push(format!("{field}: {e}")))
            .ok()
    }
}

impl Config {
    /// Checks everything, and says what had to be changed to be of use.
    ///
    /// # Errors
    /// With every mistake.
    pub fn validate(raw: KubeletConfiguration) -> Result<(Config, Vec<String>), Vec<String>> {
        let mut mistakes = Mistakes::default();
        check_identity(&raw, &mut mistakes);
        check_log_query(&raw, &mut mistakes);
        let (config, warnings) = Config::build(raw, &mut mistakes);
        match mistakes.0.is_empty() {
            true => Ok((config, warnings)),
            false => Err(mistakes.0),
        }
    }

    // A branch-free list of fields: as long as the API is.
    fn build(raw: KubeletConfiguration, m: &mut Mistakes) -> (Config, Vec<String>) {
        let authn = raw.authentication.clone().unwrap_or_default();
        let authz = raw.authorization.clone().unwrap_or_default();
        let webhook_authn = authn.webhook.unwrap_or_default();
        let webhook_authz = authz.webhook.unwrap_or_default();
        let mut warnings = Vec::new();
        let allocatable = reserved(m, &raw);
        let reserved_millis = allocatable.reserved.get("cpu").copied().unwrap_or(0);
        let config = Config {
            address: ip(m, "address", &raw.address, defaults::ADDRESS),
            port: m.number("port", raw.port.map(i64::from), defaults::PORT),
            enable_server: raw.enable_server.unwrap_or(true),
            enable_debugging_handlers: raw.enable_debugging_handlers.unwrap_or(true),
            enable_debug_flags_handler: raw.enable_debug_flags_handler.unwrap_or(true),
            enable_profiling_handler: raw.enable_profiling_handler.unwrap_or(true),
            enable_system_log_handler: raw.enable_system_log_handler.unwrap_or(true),
            enable_system_log_query: raw.enable_system_log_query.unwrap_or(false),
            healthz: healthz(m, &raw),
            client_ca_file: authn.x509.and_then(|x| x.client_ca_file).map(Into::into),
            anonymous_auth: authn.anonymous.and_then(|a| a.enabled).unwrap_or(false),
            webhook_authentication: webhook_authn.enabled.unwrap_or(true),
            authentication_cache_ttl: m.duration(
                "authentication.webhook.cacheTTL",
                &webhook_authn.cache_ttl,
                defaults::AUTHENTICATION_CACHE_TTL,
            ),
            authorization_mode: authorization_mode(m, authz.mode.as_deref()),
            cache_authorized_ttl: m.duration(
                "authorization.webhook.cacheAuthorizedTTL",
                &webhook_authz.cache_authorized_ttl,
                defaults::CACHE_AUTHORIZED_TTL,
            ),
            cache_unauthorized_ttl: m.duration(
                "authorization.webhook.cacheUnauthorizedTTL",
                &webhook_authz.cache_unauthorized_ttl,
                defaults::CACHE_UNAUTHORIZED_TTL,
            ),
            tls_files: tls_files(m, &raw),
            rotate_certificates: raw.rotate_certificates.unwrap_or(false),
            server_tls_bootstrap: raw.server_tls_bootstrap.unwrap_or(false),
            static_pod_path: raw.static_pod_path.clone().map(Into::into),
            pod_logs_dir: raw
                .pod_logs_dir
                .clone()
                .map_or_else(|| defaults::POD_LOGS_DIR.into(), Into::into),
            file_check_frequency: m.duration(
                "fileCheckFrequency",
                &raw.file_check_frequency,
                defaults::FILE_CHECK_FREQUENCY,
            ),
            sync_frequency: m.duration(
                "syncFrequency",
                &raw.sync_frequency,
                defaults::SYNC_FREQUENCY,
            ),
            node_status_update_frequency: m.duration(
                "nodeStatusUpdateFrequency",
                &raw.node_status_update_frequency,
                defaults::NODE_STATUS_UPDATE_FREQUENCY,
            ),
            node_status_report_frequency: m.duration(
                "nodeStatusReportFrequency",
                &raw.node_status_report_frequency,
                defaults::NODE_STATUS_REPORT_FREQUENCY,
            ),
            node_status_max_images: max_images(m, raw.node_status_max_images),
            node_lease_duration: Duration::from_secs(m.number(
                "nodeLeaseDurationSeconds",
                raw.node_lease_duration_seconds.map(i64::from),
                defaults::NODE_LEASE_SECONDS,
            )),
            register_node: raw.register_node.unwrap_or(true),
            register_with_taints: raw.register_with_taints.clone().unwrap_or_default(),
            provider_id: raw.provider_id.clone(),
            enable_controller_attach_detach: raw.enable_controller_attach_detach.unwrap_or(true),
            cluster_dns: cluster_dns(m, &raw),
            cluster_domain: raw.cluster_domain.clone().unwrap_or_default(),
            resolv_conf: resolv_conf(&raw, &mut warnings),
            pod_cidr: raw.pod_cidr.clone(),
            max_pods: m.number("maxPods", raw.max_pods.map(i64::from), defaults::MAX_PODS),
            pod_pids_limit: raw
                .pod_pids_limit
                .and_then(|l| u64::try_from(l).ok())
                .filter(|l| *l > 0),
            cpu_cfs_quota: raw.cpu_cfs_quota.unwrap_or(true),
            cpu_cfs_quota_period: m.duration(
                "cpuCFSQuotaPeriod",
                &raw.cpu_cfs_quota_period,
                defaults::CPU_CFS_QUOTA_PERIOD,
            ),
            cgroup_driver: cgroup_driver(m, &raw),
            cgroup_root: raw.cgroup_root.clone(),
            cgroups_per_qos: raw.cgroups_per_qos.unwrap_or(true),
            fail_cgroup_v1: raw.fail_cgroup_v1.unwrap_or(true),
            fail_swap_on: raw.fail_swap_on.unwrap_or(true),
            limited_swap: limited_swap(m, &raw),
            seccomp_default: raw.seccomp_default.unwrap_or(false),
            allowed_unsafe_sysctls: raw.allowed_unsafe_sysctls.clone().unwrap_or_default(),
            registry_pull_qps: m.number(
                "registryPullQPS",
                raw.registry_pull_qps.map(i64::from),
                defaults::REGISTRY_PULL_QPS,
            ),
            registry_burst: m.number(
                "registryBurst",
                raw.registry_burst.map(i64::from),
                defaults::REGISTRY_BURST,
            ),
            single_process_oom_kill: raw.single_process_oom_kill.unwrap_or(false),
            serialize_image_pulls: raw.serialize_image_pulls.unwrap_or(true),
            max_parallel_image_pulls: raw
                .max_parallel_image_pulls
                .map(|n| m.number("maxParallelImagePulls", Some(n.into()), 1)),
            runtime_request_timeout: m.duration(
                "runtimeRequestTimeout",
                &raw.runtime_request_timeout,
                defaults::RUNTIME_REQUEST_TIMEOUT,
            ),
            container_runtime_endpoint: raw.container_runtime_endpoint.clone(),
            container_log_max_size: log_size(m, &raw),
            container_log_max_files: m.number(
                "containerLogMaxFiles",
                raw.container_log_max_files.map(i64::from),
                defaults::CONTAINER_LOG_MAX_FILES,
            ),
            crash_loop_back_off_max: m.duration(
                "crashLoopBackOff.maxContainerRestartPeriod",
                &raw.crash_loop_back_off
                    .clone()
                    .and_then(|c| c.max_container_restart_period),
                defaults::CRASH_LOOP_BACK_OFF_MAX,
            ),
            event_record_qps: m.number(
                "eventRecordQPS",
                raw.event_record_qps.map(i64::from),
                defaults::EVENT_RECORD_QPS,
            ),
            event_burst: m.number(
                "eventBurst",
                raw.event_burst.map(i64::from),
                defaults::EVENT_BURST,
            ),
            eviction_hard: eviction::hard(m, &raw),
            eviction_soft: eviction::soft(m, &raw),
            eviction_max_pod_grace: i64::from(raw.eviction_max_pod_grace_period.unwrap_or(0)),
            eviction_pressure_transition_period: m.duration(
                "evictionPressureTransitionPeriod",
                &raw.eviction_pressure_transition_period,
                defaults::EVICTION_PRESSURE_TRANSITION_PERIOD,
            ),
            image_gc: ImageGc::of(m, &raw),
            local_storage_isolation: raw.local_storage_capacity_isolation.unwrap_or(true),
            managers: Managers::of(m, &raw, reserved_millis),
            allocatable,
            enforcement: enforcement::of(m, &raw),
            tracing: traces::of(m, &raw),
            shutdown: shutdown::graces(m, &raw),
            raw,
        };
        (config, warnings)
    }
}

fn limited_swap(m: &mut Mistakes, raw: &KubeletConfiguration) -> bool {
    let behavior = raw.memory_swap.as_ref();
    match behavior.and_then(|s| s.swap_behavior.as_deref()) {
        None | Some("NoSwap") => false,
        Some("LimitedSwap") => true,
        Some(other) => {
            let text = format!("memorySwap.swapBehavior: {other:?} is not NoSwap or LimitedSwap");
            m.0.push(text);
            false
        }
    }
}

fn check_identity(raw: &KubeletConfiguration, m: &mut Mistakes) {
    for (field, value, want) in [
        ("kind", &raw.kind, "KubeletConfiguration"),
        (
            "apiVersion",
            &raw.api_version,
            "kubelet.config.k8s.io/v1beta1",
        ),
    ] {
        if let Some(value) = value.as_deref().filter(|v| *v != want) {
            m.0.push(format!("{field}: {value:?} is not {want:?}"));
        }
    }
}

fn check_log_query(raw: &KubeletConfiguration, m: &mut Mistakes) {
    if raw.enable_system_log_query == Some(true) && raw.enable_system_log_handler == Some(false) {
        let text = "enableSystemLogHandler is required for enableSystemLogQuery";
        m.0.push(text.to_owned());
    }
}

fn ip(m: &mut Mistakes, field: &str, text: &Option<String>, default: IpAddr) -> IpAddr {
    let parsed = text.as_deref().map(str::parse).transpose();
    m.keep(field, parsed).flatten().unwrap_or(default)
}

fn healthz(m: &mut Mistakes, raw: &KubeletConfiguration) -> Option<SocketAddr> {
    let port: u16 = m.number(
        "healthzPort",
        raw.healthz_port.map(i64::from),
        defaults::HEALTHZ_PORT,
    );
    let address = ip(
        m,
        "healthzBindAddress",
        &raw.healthz_bind_address,
        defaults::HEALTHZ_ADDRESS,
    );
    (port != 0).then_some(SocketAddr::new(address, port))
}

fn authorization_mode(m: &mut Mistakes, mode: Option<&str>) -> AuthorizationMode {
    match mode {
        None | Some("Webhook") => AuthorizationMode::Webhook,
        Some("AlwaysAllow") => AuthorizationMode::AlwaysAllow,
        Some(other) => {
            m.0.push(format!(
                "authorization.mode: {other:?} is neither Webhook nor AlwaysAllow"
            ));
            AuthorizationMode::Webhook
        }
    }
}

fn tls_files(m: &mut Mistakes, raw: &KubeletConfiguration) -> Option<(PathBuf, PathBuf)> {
    match (&raw.tls_cert_file, &raw.tls_private_key_file) {
        (Some(cert), Some(key)) => Some((cert.into(), key.into())),
        (None, None) => None,
        _ => {
            m.0.push("tlsCertFile and tlsPrivateKeyFile: one is set without the other".to_owned());
            None
        }
    }
}

fn max_images(m: &mut Mistakes, value: Option<i32>) -> Option<usize> {
    match value {
        Some(-1) => None,
        value => Some(m.number(
            "nodeStatusMaxImages",
            value.map(i64::from),
            defaults::NODE_STATUS_MAX_IMAGES,
        )),
    }
}

fn cluster_dns(m: &mut Mistakes, raw: &KubeletConfiguration) -> Vec<IpAddr> {
    let servers = raw.cluster_dns.iter().flatten();
    servers
        .filter_map(|text| {
            let parsed = text
                .parse()
                .map_err(|_| format!("{text:?} is not an IP address"));
            m.keep("clusterDNS", parsed)
        })
        .collect()
}

/// `None` means that pods with dnsPolicy Default get no resolv.conf of the host.
fn resolv_conf(raw: &KubeletConfiguration, warnings: &mut Vec<String>) -> Option<PathBuf> {
    let wanted = match raw.resolv_conf.as_deref() {
        Some("") => return None,
        Some(path) => PathBuf::from(path),
        None => PathBuf::from(defaults::RESOLV_CONF),
    };
    if wanted.exists() || wanted == Path::new(defaults::RESOLV_CONF) {
        return Some(wanted);
    }
    warnings.push(format!(
        "resolvConf: {} does not exist on this host; using {}",
        wanted.display(),
        defaults::RESOLV_CONF
    ));
    Some(defaults::RESOLV_CONF.into())
}

fn cgroup_driver(m: &mut Mistakes, raw: &KubeletConfiguration) -> String {
    let driver = raw
        .cgroup_driver
        .as_deref()
        .unwrap_or(defaults::CGROUP_DRIVER);
    if !matches!(driver, "cgroupfs" | "systemd") {
        m.0.push(format!(
            "cgroupDriver: {driver:?} is neither cgroupfs nor systemd"
        ));
    }
    driver.to_owned()
}

fn log_size(m: &mut Mistakes, raw: &KubeletConfiguration) -> u64 {
    let text = raw
        .container_log_max_size
        .as_deref()
        .unwrap_or(defaults::CONTAINER_LOG_MAX_SIZE);
    let value = amount(m, "containerLogMaxSize", text).units();
    m.number("containerLogMaxSize", Some(value), 0)
}

pub(super) fn amount(m: &mut Mistakes, field: &str, text: &str) -> Amount {
    let parsed = Amount::parse(text).ok_or_else(|| format!("{text:?} is not a quantity"));
    m.keep(field, parsed).unwrap_or_default()
}

/// Thousandths of a CPU for `cpu`, bytes or pieces for the others.
pub(super) fn amounts(
    m: &mut Mistakes,
    field: &str,
    set: &BTreeMap<String, String>,
) -> BTreeMap<String, u64> {
    let mut one = |(name, text): (&String, &String)| {
        let amount = amount(m, field, text);
        let amount = match name.as_str() {
            "cpu" => amount.millis(),
            _ => amount.units(),
        };
        (name.clone(), m.number(field, Some(amount), 0_u64))
    };
    set.iter().map(&mut one).collect()
}

fn reserved(m: &mut Mistakes, raw: &KubeletConfiguration) -> NodeAllocatable {
    let mut sum = NodeAllocatable::default();
    for (field, set) in [
        ("kubeReserved", &raw.kube_reserved),
        ("systemReserved", &raw.system_reserved),
    ] {
        for (name, amount) in set.iter().flat_map(|set| amounts(m, field, set)) {
            *sum.reserved.entry(name).or_default() += amount;
        }
    }
    // A mistake in it is told where it is used.
    if let Some(cpus) = managers::reserved_cpus(&mut Mistakes::default(), raw) {
        sum.reserved
            .insert("cpu".to_owned(), cpus.len() as u64 * 1000);
    }
    sum
}
