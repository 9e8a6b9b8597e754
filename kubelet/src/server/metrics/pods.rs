//! How many pods and containers there are, of each kind.

use crate::pod::Known;
use crate::source::is_static;
use crate::status::is_over;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct State {
    container_state: &'static str,
}

/// `true` and the empty word, as kubelets have it for pods of files and of the API.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Static {
    r#static: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Working {
    config: &'static str,
    lifecycle: &'static str,
    r#static: &'static str,
}

/// Registers the gauges with what is so now.
pub(super) fn register(registry: &mut Registry, pods: &[Known]) {
    containers(registry, pods);
    let (desired, active) = (by_source(), by_source());
    let working = Family::<Working, Gauge>::default();
    let mirrors = Gauge::<i64>::default();
    for known in pods {
        let label = Static {
            r#static: if is_static(&known.pod) { "true" } else { "" },
        };
        desired.get_or_create(&label).inc();
        if !is_over(&known.status) {
            active.get_or_create(&label).inc();
        }
        if label.r#static == "true" {
            mirrors.inc();
        }
        let working_label = Working {
            config: "desired",
            lifecycle: lifecycle(known),
            r#static: label.r#static,
        };
        working.get_or_create(&working_label).inc();
    }
    registry.register("kubelet_desired_pods", "Pods that are to run here", desired);
    registry.register("kubelet_active_pods", "Pods that are not over", active);
    registry.register("kubelet_working_pods", "Pods by lifecycle", working);
    registry.register("kubelet_mirror_pods", "Mirrors of static pods", mirrors);
}

fn by_source() -> Family<Static, Gauge> {
    let family = Family::<Static, Gauge>::default();
    for r#static in ["", "true"] {
        family.get_or_create(&Static { r#static }).set(0);
    }
    family
}

fn containers(registry: &mut Registry, pods: &[Known]) {
    let running = Gauge::<i64>::default();
    let ephemeral = Gauge::<i64>::default();
    let states = Family::<State, Gauge>::default();
    for known in pods {
        if known.status.phase.as_deref() == Some("Running") {
            running.inc();
        }
        let spec = known.pod.spec.as_ref();
        let extra = spec.and_then(|s| s.ephemeral_containers.as_ref());
        ephemeral.inc_by(extra.map_or(0, |e| i64::try_from(e.len()).unwrap_or(i64::MAX)));
        for status in known.status.container_statuses.iter().flatten() {
            let container_state = match &status.state {
                Some(s) if s.running.is_some() => "running",
                Some(s) if s.terminated.is_some() => "exited",
                _ => "created",
            };
            states.get_or_create(&State { container_state }).inc();
        }
    }
    registry.register(
        "kubelet_running_pods",
        "Pods with a running sandbox",
        running,
    );
    registry.register("kubelet_running_containers", "Containers by state", states);
    registry.register(
        "kubelet_managed_ephemeral_containers",
        "Ephemeral containers of pods here",
        ephemeral,
    );
    let version = Gauge::<i64>::default();
    version.set(cgroup_version());
    registry.register("kubelet_cgroup_version", "Of the host's cgroups", version);
}

/// A hybrid host's controllers are on v1.
fn cgroup_version() -> i64 {
    if cgroupfs::is_unified() { 2 } else { 1 }
}

fn lifecycle(known: &Known) -> &'static str {
    if is_over(&known.status) {
        "terminated"
    } else if known.pod.metadata.deletion_timestamp.is_some() {
        "terminating"
    } else {
        "sync"
    }
}
