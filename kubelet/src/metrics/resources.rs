//! What is counted of the node's resources and who gets them.
//!
//! Counters whose upstream name does not end in `_total` are kept as gauges that only
//! grow: the encoder would append it.

use super::Metrics;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{
    Histogram, exponential_buckets, exponential_buckets_range,
};
use prometheus_client::registry::Registry;
use std::time::Duration;

/// A call of the pod resources API.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum PodResourcesCall {
    List,
    Get,
    GetAllocatable,
    /// Of v1alpha1: only counted among all.
    ListAlpha,
}

/// What became of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Answer {
    Given,
    Refused,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ServerApiVersion {
    server_api_version: &'static str,
}

#[derive(Clone)]
struct Call {
    asked: Family<ServerApiVersion, Gauge>,
    refused: Family<ServerApiVersion, Gauge>,
}

impl Call {
    fn new() -> Call {
        Call {
            asked: Family::default(),
            refused: Family::default(),
        }
    }

    fn count(&self, label: &ServerApiVersion, answer: Answer) {
        self.asked.get_or_create(label).inc();
        if answer == Answer::Refused {
            self.refused.get_or_create(label).inc();
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct NumaNode {
    numa_node: u32,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Alignment {
    scope: &'static str,
    boundary: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct DraOperation {
    operation_name: &'static str,
    is_error: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct DraCall {
    driver_name: String,
    method_name: String,
    grpc_status_code: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct DriverName {
    driver_name: String,
}

/// kubernetes v1.37 pkg/kubelet/metrics/metrics.go `DRADurationBuckets`.
fn dra_duration() -> Histogram {
    Histogram::new(exponential_buckets_range(0.1, 40.0, 15))
}

/// All of it.
#[derive(Clone)]
pub struct Resources {
    dra_operations: Family<DraOperation, Histogram, fn() -> Histogram>,
    dra_calls: Family<DraCall, Histogram, fn() -> Histogram>,
    dra_in_use: Family<DriverName, Gauge>,
    cpu_requests: Counter,
    cpu_errors: Counter,
    cpu_shared_millis: Gauge,
    cpu_exclusive: Gauge,
    cpu_per_numa: Family<NumaNode, Gauge>,
    aligned: Family<Alignment, Gauge>,
    unaligned: Family<Alignment, Gauge>,
    memory_requests: Counter,
    memory_errors: Counter,
    topology_requests: Counter,
    topology_errors: Counter,
    topology_duration: Histogram,
    pod_resources: Family<ServerApiVersion, Counter>,
    list: Call,
    get: Call,
    get_allocatable: Call,
}

impl Default for Resources {
    fn default() -> Self {
        Resources {
            dra_operations: Family::new_with_constructor(dra_duration),
            dra_calls: Family::new_with_constructor(dra_duration),
            dra_in_use: Family::default(),
            cpu_requests: Counter::default(),
            cpu_errors: Counter::default(),
            cpu_shared_millis: Gauge::default(),
            cpu_exclusive: Gauge::default(),
            cpu_per_numa: Family::default(),
            aligned: Family::default(),
            unaligned: Family::default(),
            memory_requests: Counter::default(),
            memory_errors: Counter::default(),
            topology_requests: Counter::default(),
            topology_errors: Counter::default(),
            topology_duration: Histogram::new(exponential_buckets(0.05, 2.0, 15)),
            pod_resources: Family::default(),
            list: Call::new(),
            get: Call::new(),
            get_allocatable: Call::new(),
        }
    }
}

impl Metrics {
    /// One call of the pod resources API in this version.
    pub fn pod_resources_asked(
        &self,
        server_api_version: &'static str,
        call: PodResourcesCall,
        answer: Answer,
    ) {
        let label = ServerApiVersion { server_api_version };
        let resources = &self.resources;
        resources.pod_resources.get_or_create(&label).inc();
        match call {
            PodResourcesCall::List => resources.list.count(&label, answer),
            PodResourcesCall::Get => resources.get.count(&label, answer),
            PodResourcesCall::GetAllocatable => resources.get_allocatable.count(&label, answer),
            PodResourcesCall::ListAlpha => {}
        }
    }

    /// A container asked for CPUs for itself, of whole cores only when `full`.
    pub fn cpus_pinned(&self, given: bool, full: bool) {
        self.resources.cpu_requests.inc();
        if !given {
            self.resources.cpu_errors.inc();
        }
        self.aligned("container", "physical_cpu", full, given);
    }

    /// A container asked for memory of NUMA nodes.
    pub fn memory_pinned(&self, given: bool) {
        self.resources.memory_requests.inc();
        if !given {
            self.resources.memory_errors.inc();
        }
    }

    /// How many CPUs are shared, and how many somebody has for himself, by NUMA node.
    pub fn cpus_held(
        &self,
        shared: usize,
        exclusive: usize,
        per_node: impl Iterator<Item = (u32, usize)>,
    ) {
        let number = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
        self.resources.cpu_shared_millis.set(number(shared * 1000));
        self.resources.cpu_exclusive.set(number(exclusive));
        for (numa_node, count) in per_node {
            let label = NumaNode { numa_node };
            let family = &self.resources.cpu_per_numa;
            family.get_or_create(&label).set(number(count));
        }
    }

    /// A container or a pod got all of it within a boundary, or could not; counted only
    /// where that was `demanded`.
    pub fn aligned(
        &self,
        scope: &'static str,
        boundary: &'static str,
        demanded: bool,
        given: bool,
    ) {
        let family = match given {
            true => &self.resources.aligned,
            false => &self.resources.unaligned,
        };
        if demanded {
            family.get_or_create(&Alignment { scope, boundary }).inc();
        }
    }

    /// A pod that asks for what can't be shared was taken, or was not.
    pub fn topology_admitted(&self, taken: bool, took: Duration) {
        let all = &self.resources;
        all.topology_requests.inc();
        if !taken {
            all.topology_errors.inc();
        }
        all.topology_duration.observe(took.as_secs_f64() * 1000.0);
    }

    /// All claims of a pod were made ready, or taken back, or it failed.
    pub fn dra_worked(&self, operation_name: &'static str, failed: bool, took: Duration) {
        let label = DraOperation {
            operation_name,
            is_error: if failed { "true" } else { "false" },
        };
        let histogram = self.resources.dra_operations.get_or_create(&label);
        histogram.observe(took.as_secs_f64());
    }

    /// A driver answered.
    pub fn dra_called(&self, driver: &str, method_name: String, code: tonic::Code, took: Duration) {
        // As Go's library writes them.
        let grpc_status_code = match code {
            tonic::Code::Ok => "OK".to_owned(),
            tonic::Code::Cancelled => "Canceled".to_owned(),
            other => format!("{other:?}"),
        };
        let label = DraCall {
            driver_name: driver.to_owned(),
            method_name,
            grpc_status_code,
        };
        let histogram = self.resources.dra_calls.get_or_create(&label);
        histogram.observe(took.as_secs_f64());
    }

    /// How many claims are in use, in all and of each driver.
    pub fn dra_in_use<'a>(&self, total: i64, drivers: impl Iterator<Item = (&'a str, i64)>) {
        let family = &self.resources.dra_in_use;
        family.clear();
        for (driver, count) in [("<any>", total)].into_iter().chain(drivers) {
            let label = DriverName {
                driver_name: driver.to_owned(),
            };
            family.get_or_create(&label).set(count);
        }
    }

    fn register_dra(&self, registry: &mut Registry) {
        let all = &self.resources;
        registry.register(
            "dra_operations_duration_seconds",
            "Duration of making all claims of a pod ready, or taking them back",
            all.dra_operations.clone(),
        );
        registry.register(
            "dra_grpc_operations_duration_seconds",
            "Duration of calls of DRA drivers",
            all.dra_calls.clone(),
        );
        registry.register(
            "dra_resource_claims_in_use",
            "ResourceClaims in use, by driver and in all",
            all.dra_in_use.clone(),
        );
    }

    fn register_cpus(&self, registry: &mut Registry) {
        let all = &self.resources;
        for (name, help, counter) in [
            (
                "kubelet_cpu_manager_pinning_requests",
                "Containers that asked for CPUs for themselves",
                &all.cpu_requests,
            ),
            (
                "kubelet_cpu_manager_pinning_errors",
                "Containers that did not get CPUs for themselves",
                &all.cpu_errors,
            ),
            (
                "kubelet_memory_manager_pinning_requests",
                "Containers that asked for memory of NUMA nodes",
                &all.memory_requests,
            ),
            (
                "kubelet_memory_manager_pinning_errors",
                "Containers that did not get memory of NUMA nodes",
                &all.memory_errors,
            ),
        ] {
            registry.register(name, help, counter.clone());
        }
        registry.register(
            "kubelet_cpu_manager_shared_pool_size_millicores",
            "CPUs that containers share, in thousandths",
            all.cpu_shared_millis.clone(),
        );
        registry.register(
            "kubelet_cpu_manager_exclusive_cpu_allocation_count",
            "CPUs that containers have for themselves",
            all.cpu_exclusive.clone(),
        );
        registry.register(
            "kubelet_cpu_manager_allocation_per_numa",
            "CPUs that containers have for themselves, by NUMA node",
            all.cpu_per_numa.clone(),
        );
    }

    fn register_topology(&self, registry: &mut Registry) {
        let all = &self.resources;
        registry.register(
            "kubelet_container_aligned_compute_resources_count",
            "Times that all resources came from within a boundary",
            all.aligned.clone(),
        );
        registry.register(
            "kubelet_container_aligned_compute_resources_failure_count",
            "Times that resources could not come from within a boundary",
            all.unaligned.clone(),
        );
        registry.register(
            "kubelet_topology_manager_admission_requests",
            "Pods that asked for what can't be shared",
            all.topology_requests.clone(),
        );
        registry.register(
            "kubelet_topology_manager_admission_errors",
            "Pods that could not be given it",
            all.topology_errors.clone(),
        );
        registry.register(
            "kubelet_topology_manager_admission_duration_ms",
            "Duration of giving it, in milliseconds",
            all.topology_duration.clone(),
        );
    }

    pub(super) fn register_resources(&self, registry: &mut Registry) {
        self.register_cpus(registry);
        self.register_dra(registry);
        self.register_topology(registry);
        let all = &self.resources;
        registry.register(
            "kubelet_pod_resources_endpoint_requests",
            "Calls of the pod resources API",
            all.pod_resources.clone(),
        );
        for (name, call) in [
            ("list", &all.list),
            ("get", &all.get),
            ("get_allocatable", &all.get_allocatable),
        ] {
            registry.register(
                format!("kubelet_pod_resources_endpoint_requests_{name}"),
                "Calls of one method of the pod resources API",
                call.asked.clone(),
            );
            registry.register(
                format!("kubelet_pod_resources_endpoint_errors_{name}"),
                "Calls of one method of the pod resources API that failed",
                call.refused.clone(),
            );
        }
    }
}
