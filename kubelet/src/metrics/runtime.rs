//! Calls of the runtime, as they are counted.

use super::Metrics;
use super::labels::{Handler, Operation};
use cri_proto::v1::{NamespaceMode, RunPodSandboxRequest};
use cri_proto::{CallObserver, Ended};
use std::any::Any;
use std::sync::Arc;
use std::time::{Duration, Instant};

impl CallObserver for Metrics {
    fn calls(self: Arc<Self>, verb: &'static str, request: &dyn Any) -> Ended {
        let start = Instant::now();
        let sandbox = request.downcast_ref().map(Sandbox::of);
        Box::new(move |failed| self.called(verb, sandbox, start.elapsed(), failed))
    }
}

/// What is counted of RunPodSandbox.
struct Sandbox {
    handler: Handler,
    mapped: bool,
}

impl Sandbox {
    fn of(request: &RunPodSandboxRequest) -> Sandbox {
        Sandbox {
            handler: Handler {
                runtime_handler: request.runtime_handler.clone(),
            },
            mapped: is_mapped(request),
        }
    }
}

impl Metrics {
    fn called(&self, verb: &'static str, sandbox: Option<Sandbox>, took: Duration, failed: bool) {
        let labels = Operation {
            operation_type: operation(verb),
        };
        let seconds = took.as_secs_f64();
        self.runtime_operations.get_or_create(&labels).inc();
        let histogram = self.runtime_duration.get_or_create_owned(&labels);
        histogram.observe(seconds);
        if failed {
            self.runtime_errors.get_or_create(&labels).inc();
        }
        if let Some(sandbox) = sandbox {
            self.sandbox(&sandbox, seconds, failed);
        }
    }

    fn sandbox(&self, sandbox: &Sandbox, seconds: f64, failed: bool) {
        let histogram = self.sandbox_duration.get_or_create_owned(&sandbox.handler);
        histogram.observe(seconds);
        self.started_pods.inc();
        if sandbox.mapped {
            self.started_userns_pods.inc();
        }
        if failed {
            self.sandbox_errors.get_or_create(&sandbox.handler).inc();
            self.started_pods_errors.inc();
        }
    }
}

fn is_mapped(request: &RunPodSandboxRequest) -> bool {
    let linux = request.config.as_ref().and_then(|c| c.linux.as_ref());
    let options = linux
        .and_then(|l| l.security_context.as_ref())
        .and_then(|s| s.namespace_options.as_ref());
    let userns = options.and_then(|o| o.userns_options.as_ref());
    userns.is_some_and(|u| u.mode() == NamespaceMode::Pod)
}

/// The kubelet's name of an operation
/// (`pkg/kubelet/kuberuntime/instrumented_services.go`).
fn operation(verb: &'static str) -> &'static str {
    match verb {
        "run_pod_sandbox" => "run_podsandbox",
        "stop_pod_sandbox" => "stop_podsandbox",
        "remove_pod_sandbox" => "remove_podsandbox",
        "pod_sandbox_status" => "podsandbox_status",
        "list_pod_sandbox" => "list_podsandbox",
        "pod_sandbox_stats" => "podsandbox_stats",
        "list_pod_sandbox_stats" => "list_podsandbox_stats",
        "list_pod_sandbox_metrics" => "list_podsandbox_metrics",
        "update_container_resources" => "update_container",
        "update_pod_sandbox_resources" => "update_podsandbox_resources",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use prometheus_client::encoding::text::encode;
    use prometheus_client::registry::Registry;

    #[test]
    fn sandbox_that_could_not_be_made_is_counted_as_kubelets_do() {
        let metrics = Arc::new(Metrics::default());
        let request = RunPodSandboxRequest::default();
        metrics.clone().calls("run_pod_sandbox", &request)(true);
        let mut registry = Registry::default();
        metrics.register(&mut registry);
        let mut text = String::new();
        encode(&mut text, &registry).unwrap();
        for line in [
            "kubelet_runtime_operations_total{operation_type=\"run_podsandbox\"} 1",
            "kubelet_runtime_operations_errors_total{operation_type=\"run_podsandbox\"} 1",
            "kubelet_run_podsandbox_errors_total{runtime_handler=\"\"} 1",
            "kubelet_started_pods_errors_total 1",
            "kubelet_started_user_namespaced_pods_total 0",
        ] {
            assert!(text.contains(line), "{line} is not in {text}");
        }
    }
}
