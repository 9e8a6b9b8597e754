//! Limits of containers and pods as cgroup values.

use super::qos;
use super::quantity::amount;
use super::swap;
use crate::huge_pages;
use crate::pod::Options;
use crate::pod::lifecycle::restartable_init;
use crate::quantity::{self, Amount};
use cri_proto::v1;
use k8s_openapi::api::core::v1::{Container, Pod, PodSpec, ResourceRequirements};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use std::collections::BTreeMap;

/// kubernetes v1.36 pkg/kubelet/cm/helpers_linux.go.
const MIN_SHARES: i64 = 2;
const MAX_SHARES: i64 = 262_144;
const SHARES_PER_CPU: i64 = 1024;
const MIN_QUOTA_MICROS: i64 = 1000;

/// cpu.shares of a request.
#[must_use]
pub fn shares(milli: i64) -> i64 {
    (milli * SHARES_PER_CPU / 1000).clamp(MIN_SHARES, MAX_SHARES)
}

/// cpu.cfs_quota_us of a limit; 0 when there is none.
#[must_use]
pub fn quota(milli: i64, period_micros: i64) -> i64 {
    if milli <= 0 {
        return 0;
    }
    (milli * period_micros / 1000).max(MIN_QUOTA_MICROS)
}

type List = BTreeMap<String, Quantity>;

fn requests(resources: Option<&ResourceRequirements>) -> Option<&List> {
    resources.and_then(|r| r.requests.as_ref())
}

fn limits(resources: Option<&ResourceRequirements>) -> Option<&List> {
    resources.and_then(|r| r.limits.as_ref())
}

/// What one container is held to.
#[must_use]
pub fn of_container(
    pod: &Pod,
    container: &Container,
    options: &Options,
    memory_capacity: u64,
) -> v1::LinuxContainerResources {
    let own = container.resources.as_ref();
    let whole = pod.spec.as_ref().and_then(|s| s.resources.as_ref());
    let limit = |kind| limit(own, kind).or_else(|| limit(whole, kind));
    let cpu_limit = limit("cpu");
    let memory = limit("memory").map_or(0, Amount::units);
    let cpu_request = amount(requests(own), "cpu")
        .or(cpu_limit)
        .unwrap_or_default();
    let mut result = cpu(cpu_request, cpu_limit, options);
    result.memory_limit_in_bytes = memory;
    let host = (options.cgroup_v2, memory_capacity);
    swap::limit(&mut result, (pod, container), options.swap, host);
    result.oom_score_adj = qos::oom_score_adj(pod, container, memory_capacity);
    // Of the pod as a whole, if the container says nothing itself.
    let whole = pod.spec.as_ref().and_then(|spec| spec.resources.as_ref());
    result.hugepage_limits = huge_pages::limits(&options.huge_page_sizes, |pages| {
        amount(limits(own), pages).or_else(|| amount(limits(whole), pages))
    });
    if options.cgroup_v2 && !options.single_process_oom_kill {
        result.unified.insert("memory.oom.group".into(), "1".into());
    }
    result
}

/// One that is 0 is none.
fn limit(of: Option<&ResourceRequirements>, kind: &str) -> Option<Amount> {
    amount(limits(of), kind).filter(|a| *a > Amount::default())
}

/// The resources of a container, with its pod's limits where it has none of its own.
///
/// kubernetes v1.37 pkg/kubelet/util/util.go `GetLimits`.
#[must_use]
pub fn with_limits_of(spec: &PodSpec, container: &Container) -> ResourceRequirements {
    let mut all = container.resources.clone().unwrap_or_default();
    for kind in ["cpu", "memory"] {
        let whole = limits(spec.resources.as_ref()).and_then(|l| l.get(kind));
        if let Some(whole) = whole.filter(|_| limit(Some(&all), kind).is_none()) {
            let list = all.limits.get_or_insert_default();
            list.insert(kind.to_owned(), whole.clone());
        }
    }
    all
}

fn cpu(request: Amount, limit: Option<Amount>, options: &Options) -> v1::LinuxContainerResources {
    let period = i64::try_from(options.cpu_cfs_quota_period.as_micros()).unwrap_or(100_000);
    let limit = limit.filter(|_| options.cpu_cfs_quota);
    v1::LinuxContainerResources {
        cpu_shares: shares(request.millis()),
        cpu_quota: limit.map_or(0, |l| quota(l.millis(), period)),
        cpu_period: period,
        ..v1::LinuxContainerResources::default()
    }
}

/// What the whole pod is held to: the limit is the sum only if every container
/// has one.
#[must_use]
pub fn of_pod(spec: &PodSpec, options: &Options) -> v1::LinuxContainerResources {
    let own = spec.resources.as_ref();
    let request = |kind| amount(requests(own), kind).unwrap_or_else(|| total_requests(spec, kind));
    let limit = |kind| amount(limits(own), kind).or_else(|| total_limits(spec, kind));
    let mut result = cpu(request("cpu"), limit("cpu"), options);
    result.memory_limit_in_bytes = limit("memory").map_or(0, Amount::units);
    // What is asked for is the limit, too.
    let pages = |name: &str| Some(asked(spec, name));
    result.hugepage_limits = huge_pages::limits(&options.huge_page_sizes, pages);
    if let Some(pids) = options.pod_pids_limit.filter(|p| *p > 0) {
        result.unified.insert("pids.max".into(), pids.to_string());
    }
    result
}

/// Whether the pod's cgroup is limited in it.
#[must_use]
pub fn has_limit(spec: &PodSpec, kind: &str) -> bool {
    let own = amount(limits(spec.resources.as_ref()), kind);
    own.or_else(|| total_limits(spec, kind)).is_some()
}

/// `spec.overhead` (of the RuntimeClass), as limits of their own.
#[must_use]
pub fn overhead(spec: &PodSpec, options: &Options) -> Option<v1::LinuxContainerResources> {
    let list = spec.overhead.as_ref()?;
    let limit = amount(Some(list), "cpu");
    let mut result = cpu(limit.unwrap_or_default(), limit, options);
    result.memory_limit_in_bytes = amount(Some(list), "memory").map_or(0, Amount::units);
    Some(result)
}

/// What a pod asks the node for, overhead included: app containers and
/// sidecars together, or the greatest moment of initialization.
///
/// kubernetes v1.36 staging/src/k8s.io/component-helpers/resource/helpers.go.
#[must_use]
pub fn asked(spec: &PodSpec, kind: &str) -> Amount {
    let own = amount(requests(spec.resources.as_ref()), kind);
    let total = own.unwrap_or_else(|| total_requests(spec, kind));
    total + amount(spec.overhead.as_ref(), kind).unwrap_or_default()
}

/// What a pod may keep on the node's disk: containers that have no limit add nothing, and
/// only a pod with none at all has none.
#[must_use]
pub fn local_storage_limit(spec: &PodSpec) -> Option<Quantity> {
    together(spec, limits, false)?.remove("ephemeral-storage")
}

/// All that the pod has as a whole: of its containers together, where it does not say itself,
/// and overhead on top. A limit counts although another container has none.
///
/// kubernetes v1.37 staging/src/k8s.io/component-helpers/resource/helpers.go `PodRequests`, `PodLimits`.
#[must_use]
pub fn whole(spec: &PodSpec) -> ResourceRequirements {
    ResourceRequirements {
        requests: together(spec, requests, true),
        limits: together(spec, limits, false),
        claims: spec.resources.as_ref().and_then(|own| own.claims.clone()),
    }
}

/// The lists that `of` picks as one; `alone` has overhead count where nobody else has any.
fn together(
    spec: &PodSpec,
    of: fn(Option<&ResourceRequirements>) -> Option<&List>,
    alone: bool,
) -> Option<List> {
    let own = of(spec.resources.as_ref());
    let overhead = spec.overhead.as_ref();
    let init = spec.init_containers.iter().flatten();
    let containers = spec.containers.iter().chain(init);
    let lists = containers.filter_map(|c| of(c.resources.as_ref()));
    // A sum is written as its first part is.
    let mut samples = BTreeMap::new();
    let also = overhead.filter(|_| alone);
    for (kind, quantity) in own.into_iter().chain(lists).chain(also).flatten() {
        samples.entry(kind).or_insert(quantity);
    }
    let total = |kind: &str| {
        let one = |c: &Container| Some(amount(of(c.resources.as_ref()), kind).unwrap_or_default());
        let sum = amount(own, kind).or_else(|| peak(spec, one));
        sum.unwrap_or_default() + amount(overhead, kind).unwrap_or_default()
    };
    let all: List = samples
        .into_iter()
        .map(|(kind, sample)| {
            let quantity = quantity::written(total(kind), kind, sample);
            (kind.clone(), quantity)
        })
        .collect();
    (!all.is_empty()).then_some(all)
}

pub(super) fn total_requests(spec: &PodSpec, kind: &str) -> Amount {
    let of = |c: &Container| {
        let own = c.resources.as_ref();
        Some(
            amount(requests(own), kind)
                .or_else(|| amount(limits(own), kind))
                .unwrap_or_default(),
        )
    };
    peak(spec, of).unwrap_or_default()
}

fn total_limits(spec: &PodSpec, kind: &str) -> Option<Amount> {
    peak(spec, |c| {
        amount(limits(c.resources.as_ref()), kind).filter(|a| *a > Amount::default())
    })
}

/// The most that is used at one time; `None` if any container says nothing.
fn peak(spec: &PodSpec, of: impl Fn(&Container) -> Option<Amount>) -> Option<Amount> {
    let mut sidecars = Amount::default();
    let mut starting = Amount::default();
    for container in spec.init_containers.iter().flatten() {
        let own = of(container)?;
        starting = starting.max(sidecars + own);
        if restartable_init(container) {
            sidecars = sidecars + own;
        }
    }
    let mut running = sidecars;
    for container in &spec.containers {
        running = running + of(container)?;
    }
    Some(running.max(starting))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(json: serde_json::Value) -> PodSpec {
        serde_json::from_value(json).unwrap_or_default()
    }

    #[test]
    fn cpu_becomes_shares_and_quota_with_the_kernels_floors() {
        assert_eq!(
            (shares(0), shares(1000), shares(1_000_000)),
            (2, 1024, 262_144)
        );
        assert_eq!(
            (quota(0, 100_000), quota(5, 100_000), quota(1500, 100_000)),
            (0, 1000, 150_000)
        );
    }

    #[test]
    fn container_without_a_limit_is_held_to_its_pods() {
        let pod: Pod = serde_json::from_value(serde_json::json!({"spec": {
            "containers": [
                {"name": "a", "resources": {"limits": {"cpu": "100m", "memory": "1Mi"}}},
                {"name": "b", "resources": {"requests": {"cpu": "200m"}}},
                {"name": "c"},
            ],
            "resources": {"limits": {"cpu": "1", "memory": "4Mi"}}
        }}))
        .unwrap();
        let spec = pod.spec.clone().unwrap_or_default();
        let of = |i: usize| {
            let all = of_container(&pod, &spec.containers[i], &Options::default(), 1 << 30);
            (all.cpu_quota, all.cpu_shares, all.memory_limit_in_bytes)
        };
        assert_eq!(of(0), (10_000, 102, 1 << 20));
        assert_eq!(of(1), (100_000, 204, 4 << 20));
        assert_eq!(of(2), (100_000, 1024, 4 << 20));
        let given = with_limits_of(&spec, &spec.containers[1]);
        assert_eq!(given.limits, spec.resources.and_then(|r| r.limits));
    }

    #[test]
    fn pod_has_no_memory_limit_when_one_container_has_none() {
        let limited = serde_json::json!({"name": "a", "resources": {"limits": {"memory": "1Mi"}}});
        let both = spec(serde_json::json!({"containers": [limited, limited]}));
        let one = spec(serde_json::json!({"containers": [limited, {"name": "b"}]}));
        let options = Options::default();
        assert_eq!(of_pod(&both, &options).memory_limit_in_bytes, 2 << 20);
        assert_eq!(of_pod(&one, &options).memory_limit_in_bytes, 0);
    }

    #[test]
    fn huge_pages_are_the_containers_else_the_pods_and_the_pod_has_them_all() {
        let pages = |n: &str| serde_json::json!({"limits": {"hugepages-2Mi": n}, "requests": {"hugepages-2Mi": n}});
        let two = serde_json::json!({"name": "a", "resources": pages("4Mi")});
        let mut json = serde_json::json!({"spec": {"containers": [two, two, {"name": "b"}]}});
        let options = Options {
            huge_page_sizes: vec![2 << 20, 1 << 30],
            ..Options::default()
        };
        let seen = |json: &serde_json::Value| {
            let pod: Pod = serde_json::from_value(json.clone()).unwrap_or_default();
            let spec = pod.spec.clone().unwrap_or_default();
            let own = |at: usize| of_container(&pod, &spec.containers[at], &options, 0);
            let all = [of_pod(&spec, &options), own(0), own(2)];
            all.map(|r| {
                r.hugepage_limits
                    .iter()
                    .map(|l| l.limit >> 20)
                    .collect::<Vec<_>>()
            })
        };
        assert_eq!(seen(&json), [[8, 0], [4, 0], [0, 0]]);
        json["spec"]["resources"] = pages("10Mi");
        assert_eq!(seen(&json), [[10, 0], [4, 0], [10, 0]]);
    }

    #[test]
    fn pod_asks_for_its_greatest_moment() {
        let of =
            |cpu: &str| serde_json::json!({"name": "x", "resources": {"requests": {"cpu": cpu}}});
        let mut sidecar = of("100m");
        sidecar["restartPolicy"] = "Always".into();
        let pod = spec(serde_json::json!({
            "initContainers": [sidecar, of("2")], "containers": [of("500m")],
            "overhead": {"cpu": "10m"}
        }));
        assert_eq!(asked(&pod, "cpu").millis(), 2110);
    }

    #[test]
    fn pod_as_a_whole_has_its_own_resources_else_its_containers_and_overhead() {
        let container = serde_json::json!({"name": "a", "resources": {
            "requests": {"cpu": "100m", "memory": "64Mi", "x/y": "1"}, "limits": {"memory": "64Mi"}}});
        let mut json = serde_json::json!({
            "containers": [container, container, {"name": "b"}], "overhead": {"memory": "1Mi"}
        });
        let of = |json: &serde_json::Value| serde_json::to_value(whole(&spec(json.clone()))).ok();
        let expected = serde_json::json!({
            "requests": {"cpu": "200m", "memory": "129Mi", "x/y": "2"}, "limits": {"memory": "129Mi"}
        });
        assert_eq!(of(&json), Some(expected));
        json["resources"] = serde_json::json!({"requests": {"cpu": "1"}, "limits": {"cpu": "2"}});
        let expected = serde_json::json!({
            "requests": {"cpu": "1", "memory": "129Mi", "x/y": "2"},
            "limits": {"cpu": "2", "memory": "129Mi"}
        });
        assert_eq!(of(&json), Some(expected));
        let nothing = serde_json::json!({"containers": [{"name": "a"}]});
        assert_eq!(of(&nothing), Some(serde_json::json!({})));
    }
}
