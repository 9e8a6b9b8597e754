//! Makes the parts of a node from its settings.

use super::giving;
use super::{AgentError, AgentOptions};
use crate::allocation::Allocations;
use crate::api::{Clients, EventRecorder};
use crate::cgroup::{NodeCgroups, NodeCgroupsOptions};
use crate::config::Config;
use crate::cpu;
use crate::dra::{self, Drivers, Slices};
use crate::event::Recorder;
use crate::eviction::{self, Evictor, EvictorOptions, Images};
use crate::metrics::{Metrics, StorageOperations};
use crate::node::address::{self, Addresses, LiveAddresses};
use crate::node::machine::Machine;
use crate::node::{
    Beside, Fixed, Keeper, KeeperOptions, NodeHandle, Registration, disk, resources,
};
use crate::objects::{ApiObjects, Objects};
use crate::oom::OomWatcher;
use crate::plugin;
use crate::pod::spec::cgroup;
use crate::pod::spec::swap::Swap;
use crate::pod::{CgroupDriver, Deps, Engine, NodeFacts, Options, PodView};
use crate::pod_resources::PodResources;
use crate::server::authn::{Authenticator, AuthnOptions};
use crate::server::authz::{Authorizer, AuthzOptions};
use crate::server::{self, State};
use crate::shutdown::{Shutdown, ShutdownOptions};
use crate::source::{ApiPods, Mirrors, Source, StaticPods};
use crate::status::ApiStatus;
use crate::trace::Tracer;
use crate::volume::csi::Csi;
use crate::volume::dns::DnsSettings;
use crate::volume::{Volumes, VolumesConfig};
use cri_proto::{Cri, v1};
use std::sync::Arc;
use tokio::sync::watch;

/// Everything that runs.
pub struct Parts {
    pub addresses: LiveAddresses,
    pub events: Arc<dyn Recorder>,
    pub node: NodeHandle,
    pub keeper: Keeper,
    pub engine: Arc<Engine>,
    pub mirrors: Arc<Mirrors>,
    pub evictor: Evictor,
    pub cgroups: NodeCgroups,
    pub oom: OomWatcher,
    pub images: Arc<Images>,
    pub graceful: Shutdown,
    pub allocations: Arc<Allocations>,
    pub pod_resources: PodResources,
    pub pinned: cpu::Follower,
    pub plugins: plugin::Watcher,
    pub drivers: Arc<Drivers>,
    pub api_pods: ApiPods,
    pub static_pods: Option<StaticPods>,
    pub server: Arc<State>,
}

/// What had to be found out before anything can be made.
pub struct Facts {
    fixed: Fixed,
    addresses: Addresses,
    cgroup_driver: CgroupDriver,
}

/// Looks at the host and asks the runtime.
pub async fn facts(options: &AgentOptions, clients: &Clients, cri: &Arc<dyn Cri>) -> Facts {
    let config = &options.config.config;
    let machine = Machine::read();
    let server = match options.node_ips.is_empty() {
        false => None,
        true => address::of_server(&clients.endpoint().server).await,
    };
    let addresses = Addresses::new(options.node_ips.clone(), server);
    if addresses.look().is_empty() {
        tracing::warn!("no address found for this node; give one with --node-ip");
    }
    let nodefs = disk::of(&options.root_dir)
        .filter(|_| config.local_storage_isolation)
        .map(|d| d.capacity);
    let capacity = resources::capacity(&machine, nodefs, config.max_pods);
    let allocatable = resources::allocatable(&capacity, config);
    Facts {
        fixed: Fixed {
            name: options.node_name.clone(),
            machine,
            addresses: addresses.look(),
            capacity,
            allocatable,
            port: config.enable_server.then_some(config.port),
            max_images: config.node_status_max_images,
        },
        addresses,
        cgroup_driver: cgroup_driver(config, cri).await,
    }
}

/// The runtime knows best (KubeletCgroupDriverFromCRI).
async fn cgroup_driver(config: &Config, cri: &Arc<dyn Cri>) -> CgroupDriver {
    let answer = cri.runtime_config(v1::RuntimeConfigRequest {}).await;
    let said = answer.ok().and_then(|a| a.linux).map(|l| l.cgroup_driver());
    let configured = match config.cgroup_driver.as_str() {
        "systemd" => CgroupDriver::Systemd,
        _ => CgroupDriver::Cgroupfs,
    };
    let used = match said {
        Some(v1::CgroupDriver::Systemd) => CgroupDriver::Systemd,
        Some(v1::CgroupDriver::Cgroupfs) => CgroupDriver::Cgroupfs,
        None => configured,
    };
    if used != configured {
        tracing::info!(?configured, ?used, "cgroup driver as the runtime has it");
    }
    used
}

/// Makes them all; nothing runs yet but the recorder and caches.
///
/// # Errors
/// When what is configured does not fit the machine, or what was written down.
pub fn parts(
    options: &AgentOptions,
    clients: &Clients,
    (cri, tracer): (&Arc<dyn Cri>, Tracer),
    facts: Facts,
) -> Result<Parts, AgentError> {
    let config = &options.config.config;
    let name = &options.node_name;
    let fixed = facts.fixed.clone();
    resources::check(&fixed.capacity, config)?;
    let addresses = facts.addresses.live();
    let metrics = Metrics::new(clients.requests());
    let cri = match tracer.is_on() {
        true => cri_proto::traced(cri.clone(), Arc::new(tracer.clone())),
        false => cri.clone(),
    };
    let cri = &cri_proto::observed(cri, Arc::new(metrics.clone()));
    let events: Arc<dyn Recorder> = EventRecorder::new(
        clients.writes(),
        name,
        config.event_record_qps,
        config.event_burst,
    );
    let slices = Slices::new(clients.writes(), name);
    let drivers = Drivers::new(slices, metrics.clone(), Some(&options.root_dir));
    let allocations = giving::allocations(options, &metrics, (clients.writes(), drivers.clone()))?;
    let csi = Csi::new(clients.writes(), clients.watches(), name, &options.root_dir);
    let (going_down, is_going_down) = watch::channel(false);
    let beside = Beside {
        devices: allocations.devices.clone(),
        attachments: csi.attachments(),
        addresses: facts.addresses,
        going_down: is_going_down,
    };
    let (keeper, node) = Keeper::new(
        keeper_options(options, clients, &fixed, beside),
        cri.clone(),
        events.clone(),
    );
    let mirrors = Mirrors::new(clients.writes(), name);
    let objects: Arc<dyn Objects> = ApiObjects::new(clients.watches(), clients.writes(), name);
    let volumes = Volumes::new(
        VolumesConfig {
            operations: metrics.storage(),
            ..volumes_config(options, &fixed, node.clone(), csi.clone())
        },
        objects.clone(),
        events.clone(),
    );
    let engine = Engine::new(Deps {
        cri: cri.clone(),
        volumes: volumes.clone(),
        objects,
        allocations: allocations.clone(),
        events: events.clone(),
        status: ApiStatus::new(clients.writes(), mirrors.clone(), metrics.clone()),
        node: node_facts(options, &fixed, (addresses.clone(), node.clone())),
        options: Options {
            credential_providers: options.credential_providers.clone(),
            tracer: tracer.clone(),
            ..engine_options(config, &fixed.machine, facts.cgroup_driver)
        },
        metrics: metrics.clone(),
    });
    let images = Images::new(
        engine.clone(),
        cri.clone(),
        events.clone(),
        metrics.clone(),
        (name, config.image_gc),
    );
    let evictor = Evictor::new(
        (engine.clone(), images.clone()),
        cri.clone(),
        events.clone(),
        metrics.clone(),
        evictor_options(options),
    );
    let shutdown_options = ShutdownOptions {
        node_name: name.clone(),
        root_dir: options.root_dir.clone(),
        periods: config.shutdown.clone(),
    };
    let graceful = Shutdown::new(
        engine.clone(),
        events.clone(),
        metrics.clone(),
        shutdown_options,
        going_down,
    );
    let static_pods = config
        .static_pod_path
        .as_ref()
        .map(|path| StaticPods::new(path, name, config.file_check_frequency, mirrors.clone()));
    Ok(Parts {
        addresses,
        node,
        keeper,
        api_pods: ApiPods::new(clients.watches(), name, mirrors.clone()),
        static_pods,
        mirrors,
        evictor,
        cgroups: NodeCgroups::new(
            config,
            &fixed.machine,
            NodeCgroupsOptions {
                path: pods_cgroup(options, facts.cgroup_driver),
                driver: facts.cgroup_driver,
                node: eviction::node(name),
                pods: engine.clone(),
                changes: engine.changes(),
                events: events.clone(),
                metrics: metrics.clone(),
            },
        ),
        oom: OomWatcher {
            events: events.clone(),
            node: eviction::node(name),
        },
        images,
        graceful,
        pinned: cpu::Follower {
            cri: cri.clone(),
            pods: engine.clone(),
            cpus: allocations.cpus.clone(),
            period: config.managers.cpu_reconcile_period,
        },
        pod_resources: PodResources::new(engine.clone(), allocations.clone(), metrics.clone()),
        allocations,
        plugins: plugin::Watcher::new(
            &options.root_dir,
            vec![
                Arc::new(csi.registrar()),
                Arc::new(dra::Registrar(drivers.clone())),
            ],
        ),
        drivers,
        server: server_state(
            options,
            clients,
            cri,
            (fixed.machine, facts.cgroup_driver),
            (engine.clone(), volumes, metrics, tracer),
        ),
        engine,
        events,
    })
}

fn evictor_options(options: &AgentOptions) -> EvictorOptions {
    let config = &options.config.config;
    EvictorOptions {
        node_name: options.node_name.clone(),
        root_dir: options.root_dir.clone(),
        pod_logs_root: config.pod_logs_dir.clone(),
        max_pod_grace: config.eviction_max_pod_grace,
        local_storage_isolation: config.local_storage_isolation,
    }
}

fn keeper_options(
    options: &AgentOptions,
    clients: &Clients,
    fixed: &Fixed,
    beside: Beside,
) -> KeeperOptions {
    let config = options.config.config.clone();
    KeeperOptions {
        registration: Registration {
            name: options.node_name.clone(),
            architecture: fixed.machine.architecture.clone(),
            labels: options.node_labels.clone(),
            taints: config.register_with_taints.clone(),
            provider_id: config.provider_id.clone(),
            controller_attach: config.enable_controller_attach_detach,
        },
        fixed: fixed.clone(),
        beside,
        config,
        root_dir: options.root_dir.clone(),
        writes: clients.writes(),
        watches: clients.watches(),
    }
}

fn volumes_config(
    options: &AgentOptions,
    fixed: &Fixed,
    node: NodeHandle,
    csi: Arc<Csi>,
) -> VolumesConfig {
    let config = &options.config.config;
    VolumesConfig {
        kubelet_root: options.root_dir.clone(),
        node_name: options.node_name.clone(),
        allocatable: fixed.allocatable.clone(),
        node_labels: Arc::new(node),
        csi: Some(csi),
        dns: DnsSettings {
            cluster_dns: config.cluster_dns.iter().map(ToString::to_string).collect(),
            cluster_domain: config.cluster_domain.trim_end_matches('.').to_owned(),
            resolv_conf: config.resolv_conf.clone().unwrap_or_default(),
        },
        operations: StorageOperations::default(),
    }
}

fn node_facts(
    options: &AgentOptions,
    fixed: &Fixed,
    (addresses, node): (LiveAddresses, NodeHandle),
) -> NodeFacts {
    let config = &options.config.config;
    NodeFacts {
        name: options.node_name.clone(),
        ips: addresses,
        allocatable: fixed.allocatable.clone(),
        memory_capacity: fixed.machine.memory,
        labels: Arc::new(node),
        pod_logs_root: config.pod_logs_dir.clone(),
        container_links: options.container_links.clone(),
        kubelet_root: options.root_dir.clone(),
        cluster_domain: config.cluster_domain.trim_end_matches('.').to_owned(),
    }
}

fn engine_options(config: &Config, machine: &Machine, cgroup_driver: CgroupDriver) -> Options {
    let defaults = Options::default();
    let file = config.static_pod_path.as_ref().map(|_| Source::File);
    Options {
        sources: [Source::Api].into_iter().chain(file).collect(),
        cgroup_root: config.cgroup_root.clone().unwrap_or_default(),
        cgroup_driver,
        seccomp_default: config.seccomp_default,
        max_parallel_image_pulls: parallel_pulls(config, defaults.max_parallel_image_pulls),
        registry_pull_qps: config.registry_pull_qps,
        registry_burst: config.registry_burst,
        cpu_cfs_quota: config.cpu_cfs_quota,
        cpu_cfs_quota_period: config.cpu_cfs_quota_period,
        crash_loop_max: config.crash_loop_back_off_max,
        pod_pids_limit: config.pod_pids_limit.and_then(|l| i64::try_from(l).ok()),
        single_process_oom_kill: config.single_process_oom_kill,
        allowed_unsafe_sysctls: config.allowed_unsafe_sysctls.clone(),
        max_pods: config.max_pods,
        runtime_request_timeout: config.runtime_request_timeout,
        swap: Swap {
            limited: config.limited_swap,
            capacity: machine.swap,
            ..defaults.swap
        },
        ..defaults
    }
}

/// Only who asks for one at a time in so many words gets it.
fn parallel_pulls(config: &Config, default: usize) -> usize {
    match (
        config.max_parallel_image_pulls,
        config.raw.serialize_image_pulls,
    ) {
        (Some(limit), _) => usize::try_from(limit).unwrap_or(default),
        (None, Some(true)) => 1,
        (None, _) => default,
    }
}

/// The cgroup of all pods, from the host's root on.
fn pods_cgroup(options: &AgentOptions, driver: CgroupDriver) -> String {
    let root = options.config.config.cgroup_root.as_deref();
    let root = root.unwrap_or_default().trim_start_matches('/');
    cgroup::of_pods(&format!("{}/{root}", options.runtime_cgroup), driver)
}

fn server_state(
    options: &AgentOptions,
    clients: &Clients,
    cri: &Arc<dyn Cri>,
    (machine, cgroup_driver): (Machine, CgroupDriver),
    (pods, volumes, metrics, tracer): (Arc<dyn PodView>, Arc<Volumes>, Metrics, Tracer),
) -> Arc<State> {
    let config = options.config.config.clone();
    let authn = AuthnOptions {
        client_ca_file: config.client_ca_file.clone(),
        anonymous: config.anonymous_auth,
        webhook: config.webhook_authentication,
        cache_ttl: config.authentication_cache_ttl,
    };
    let authz = AuthzOptions {
        node_name: options.node_name.clone(),
        mode: config.authorization_mode,
        allowed_ttl: config.cache_authorized_ttl,
        denied_ttl: config.cache_unauthorized_ttl,
    };
    Arc::new(State {
        pods_cgroup: pods_cgroup(options, cgroup_driver),
        node_name: options.node_name.clone(),
        config,
        cri: cri.clone(),
        pods,
        volumes,
        authenticator: Authenticator::new(authn, Some(clients.writes())),
        authorizer: Authorizer::new(authz, Some(clients.writes())),
        machine,
        root_dir: options.root_dir.clone(),
        system_logs: options.system_logs.clone(),
        started: jiff::Timestamp::now(),
        cpu_samples: Default::default(),
        metrics: server::Metrics::new(metrics),
        tracer,
        verbosity: options.verbosity.clone(),
        profiling: Arc::default(),
    })
}
