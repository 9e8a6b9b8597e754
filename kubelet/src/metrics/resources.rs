//! What is counted of the node's resources and who gets them.
//!
//! Counters whose upstream name does not end in `_total` are kept as gauges that only
//! grow: the encoder would append it.

use super::Metrics;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

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

/// All of it.
#[derive(Clone)]
pub struct Resources {
    pod_resources: Family<ServerApiVersion, Counter>,
    list: Call,
    get: Call,
    get_allocatable: Call,
}

impl Default for Resources {
    fn default() -> Self {
        Resources {
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

    pub(super) fn register_resources(&self, registry: &mut Registry) {
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
