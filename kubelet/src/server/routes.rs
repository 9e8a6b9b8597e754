//! Paths to handlers.

use super::authn::Authenticator;
use super::authz::Authorizer;
use super::metrics::Metrics;
use super::{Verbosity, debug, guard, logs, metrics, node_logs, pods, pprof, stream, summary};
use crate::config::Config;
use crate::node::machine::Machine;
use crate::pod::PodView;
use crate::trace::Tracer;
use crate::volume::Volumes;
use axum::Router;
use axum::middleware::from_fn_with_state;
use axum::routing::{any, get, post};
use cri_proto::Cri;
use std::path::PathBuf;
use std::sync::Arc;

/// What handlers work with.
pub struct State {
    /// The Node's name.
    pub node_name: String,
    /// Settings.
    pub config: Config,
    /// The runtime.
    pub cri: Arc<dyn Cri>,
    /// Pods of this node.
    pub pods: Arc<dyn PodView>,
    /// Volumes of the pods.
    pub volumes: Arc<Volumes>,
    /// Who is asking.
    pub authenticator: Authenticator,
    /// May they.
    pub authorizer: Authorizer,
    /// The host.
    pub machine: Machine,
    /// `/var/lib/kubelet`, for the disk figures.
    pub root_dir: PathBuf,
    /// `/var/log`.
    pub system_logs: PathBuf,
    /// When this began.
    pub started: jiff::Timestamp,
    /// The cgroup that all pods are in, as a path.
    pub pods_cgroup: String,
    /// What the machine's cores did before.
    pub cpu_samples: summary::CpuSamples,
    /// Counted here.
    pub metrics: Metrics,
    /// Told of there.
    pub tracer: Tracer,
    /// How much the log says; `None`: that can't be changed.
    pub verbosity: Option<Arc<dyn Verbosity>>,
    /// Held while a profile is taken.
    pub profiling: Arc<tokio::sync::Mutex<()>>,
}

pub(super) fn router(state: Arc<State>) -> Router {
    let ok = || async { "ok" };
    let router = Router::new()
        .route("/healthz", get(ok))
        .route("/healthz/ping", get(ok))
        .route("/healthz/log", get(ok))
        .route("/healthz/syncloop", get(ok))
        .route("/pods", get(pods::pods))
        .route("/pods/", get(pods::pods))
        .route("/metrics", any(metrics::kubelet))
        .route("/metrics/resource", any(metrics::resource))
        .route("/metrics/cadvisor", any(metrics::cadvisor))
        .route("/metrics/probes", any(metrics::probes))
        .route("/metrics/slis", any(metrics::slis))
        .route("/stats/summary", any(summary::summary))
        .route("/stats/summary/", any(summary::summary));
    let router = match state.config.enable_debugging_handlers {
        true => debugging(router, &state.config),
        false => router.fallback(debug::disabled),
    };
    router
        .layer(from_fn_with_state(state.clone(), guard::guard))
        .with_state(state)
}

fn debugging(router: Router<Arc<State>>, config: &Config) -> Router<Arc<State>> {
    let router = router
        .route("/statusz", any(debug::statusz))
        .route("/flagz", any(debug::flagz))
        .route("/runningpods/", get(pods::running))
        .route("/configz", any(debug::configz))
        .route(
            "/containerLogs/{namespace}/{pod}/{container}",
            get(logs::container_logs),
        )
        .route(
            "/exec/{namespace}/{pod}/{container}",
            get(stream::exec).post(stream::exec),
        )
        .route(
            "/exec/{namespace}/{pod}/{uid}/{container}",
            get(stream::exec_uid).post(stream::exec_uid),
        )
        .route(
            "/attach/{namespace}/{pod}/{container}",
            get(stream::attach).post(stream::attach),
        )
        .route(
            "/attach/{namespace}/{pod}/{uid}/{container}",
            get(stream::attach_uid).post(stream::attach_uid),
        )
        .route(
            "/portForward/{namespace}/{pod}",
            get(stream::port_forward).post(stream::port_forward),
        )
        .route(
            "/portForward/{namespace}/{pod}/{uid}",
            get(stream::port_forward_uid).post(stream::port_forward_uid),
        )
        .route("/run/{namespace}/{pod}/{container}", post(stream::run))
        .route(
            "/run/{namespace}/{pod}/{uid}/{container}",
            post(stream::run_uid),
        )
        .route(
            "/checkpoint/{namespace}/{pod}/{container}",
            post(debug::checkpoint),
        );
    let router = match config.enable_system_log_handler {
        true => router
            .route("/logs/", get(node_logs::root))
            .route("/logs/{*path}", get(node_logs::below)),
        false => router
            .route("/logs/", any(debug::logs_disabled))
            .route("/logs/{*path}", any(debug::logs_disabled)),
    };
    let router = match config.enable_profiling_handler {
        true => router
            .route("/debug/pprof/", get(pprof::index))
            .route("/debug/pprof/{*name}", get(pprof::of)),
        false => router
            .route("/debug/pprof/", any(debug::profiling_disabled))
            .route("/debug/pprof/{*name}", any(debug::profiling_disabled)),
    };
    match config.enable_debug_flags_handler {
        true => router.route("/debug/flags/v", any(debug::set_verbosity)),
        false => router.route("/debug/flags/v", any(debug::flags_disabled)),
    }
}
