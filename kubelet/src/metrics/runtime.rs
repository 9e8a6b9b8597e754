//! Calls of the runtime, as they are counted.

use super::Metrics;
use super::labels::{Handler, Operation, Size};
use cri_proto::CallObserver;
use cri_proto::v1::{NamespaceMode, RunPodSandboxRequest};
use std::any::Any;
use std::time::Duration;

impl CallObserver for Metrics {
    fn called(&self, verb: &'static str, request: &dyn Any, took: Duration, failed: bool) {
        let labels = Operation {
            operation_type: operation(verb),
        };
        self.runtime_operations.get_or_create(&labels).inc();
        let histogram = self.runtime_duration.get_or_create(&labels);
        histogram.observe(took.as_secs_f64());
        drop(histogram);
        if failed {
            self.runtime_errors.get_or_create(&labels).inc();
        }
        if let Some(request) = request.downcast_ref::<RunPodSandboxRequest>() {
            self.sandbox(request, took, failed);
        }
        if verb == "pull_image" {
            // The size is not known to who asks.
            let size = Size {
                image_size_in_bytes: "N/A",
            };
            self.image_pull
                .get_or_create(&size)
                .observe(took.as_secs_f64());
        }
    }
}

impl Metrics {
    fn sandbox(&self, request: &RunPodSandboxRequest, took: Duration, failed: bool) {
        let labels = Handler {
            runtime_handler: request.runtime_handler.clone(),
        };
        let histogram = self.sandbox_duration.get_or_create(&labels);
        histogram.observe(took.as_secs_f64());
        drop(histogram);
        self.started_pods.inc();
        if is_mapped(request) {
            self.started_userns_pods.inc();
        }
        if failed {
            self.sandbox_errors.get_or_create(&labels).inc();
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
        "port_forward" => "port_forward",
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
        let metrics = Metrics::default();
        let request = RunPodSandboxRequest::default();
        let took = Duration::from_millis(3);
        metrics.called("run_pod_sandbox", &request, took, true);
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
