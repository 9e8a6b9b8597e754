//! What dashboards and alerts read of a node: names and labels, the same on the stock node.

use crate::kit::{FOREVER, Space, pod, with, with_main};
use anyhow::{Result, ensure};
use e2e::progress;
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

crate::tests!(
    series_have_the_names_and_labels_that_dashboards_expect,
    volumes_pulls_and_starts_are_counted,
);

/// Name and labels of series; `le` of histograms left out.
const KUBELET: &[(&str, &str)] = &[
    ("dra_resource_claims_in_use", "driver_name"),
    ("kubelet_active_pods", "static"),
    (
        "kubelet_cgroup_manager_duration_seconds_bucket",
        "operation_type",
    ),
    ("kubelet_cgroup_version", ""),
    ("kubelet_desired_pods", "static"),
    (
        "kubelet_http_requests_total",
        "long_running method path server_type",
    ),
    (
        "kubelet_image_pull_duration_seconds_count",
        "image_size_in_bytes",
    ),
    ("kubelet_managed_ephemeral_containers", ""),
    ("kubelet_memory_manager_pinning_errors_total", ""),
    ("kubelet_memory_manager_pinning_requests_total", ""),
    ("kubelet_mirror_pods", ""),
    ("kubelet_node_name", "node"),
    ("kubelet_first_network_pod_start_sli_duration_seconds", ""),
    ("kubelet_pod_start_duration_seconds_count", ""),
    ("kubelet_pod_start_sli_duration_seconds_count", ""),
    ("kubelet_pod_start_total_duration_seconds_count", ""),
    ("kubelet_pod_status_sync_duration_seconds_count", ""),
    (
        "kubelet_pod_worker_duration_seconds_bucket",
        "operation_type",
    ),
    (
        "kubelet_run_podsandbox_duration_seconds_count",
        "runtime_handler",
    ),
    ("kubelet_running_containers", "container_state"),
    ("kubelet_running_pods", ""),
    (
        "kubelet_runtime_operations_duration_seconds_bucket",
        "operation_type",
    ),
    ("kubelet_runtime_operations_errors_total", "operation_type"),
    ("kubelet_runtime_operations_total", "operation_type"),
    ("kubelet_started_containers_total", "container_type"),
    ("kubelet_started_pods_errors_total", ""),
    ("kubelet_started_pods_total", ""),
    ("kubelet_started_user_namespaced_pods_total", ""),
    (
        "kubelet_terminated_containers_total",
        "container_type exit_code reason",
    ),
    ("kubelet_working_pods", "config lifecycle static"),
    (
        "kubernetes_build_info",
        "build_date compiler git_commit git_tree_state git_version go_version major minor platform",
    ),
    ("process_cpu_seconds_total", ""),
    ("process_max_fds", ""),
    ("process_open_fds", ""),
    ("process_resident_memory_bytes", ""),
    ("process_start_time_seconds", ""),
    ("process_virtual_memory_bytes", ""),
    ("rest_client_request_duration_seconds_bucket", "host verb"),
    ("rest_client_requests_total", "code host method"),
    (
        "storage_operation_duration_seconds_bucket",
        "migrated operation_name status volume_plugin",
    ),
    ("volume_manager_total_volumes", "plugin_name state"),
];

const PROBES: &[(&str, &str)] = &[
    (
        "prober_probe_duration_seconds_count",
        "container namespace pod probe_type",
    ),
    (
        "prober_probe_total",
        "container namespace pod pod_uid probe_type result",
    ),
];

const RESOURCE: &[(&str, &str)] = &[
    (
        "container_cpu_usage_seconds_total",
        "container namespace pod",
    ),
    (
        "container_memory_working_set_bytes",
        "container namespace pod",
    ),
    ("container_start_time_seconds", "container namespace pod"),
    ("container_swap_usage_bytes", "container namespace pod"),
    ("node_cpu_usage_seconds_total", ""),
    ("node_memory_working_set_bytes", ""),
    ("pod_cpu_usage_seconds_total", "namespace pod"),
    ("pod_memory_working_set_bytes", "namespace pod"),
    ("pod_swap_usage_bytes", "namespace pod"),
    ("resource_scrape_error", ""),
];

const CADVISOR: &[(&str, &str)] = &[
    (
        "container_cpu_usage_seconds_total",
        "container cpu id image name namespace pod",
    ),
    (
        "container_memory_working_set_bytes",
        "container id image name namespace pod",
    ),
    (
        "container_memory_rss",
        "container id image name namespace pod",
    ),
    (
        "container_network_receive_bytes_total",
        "container id image interface name namespace pod",
    ),
    ("machine_cpu_cores", "boot_id machine_id system_uuid"),
    ("machine_memory_bytes", "boot_id machine_id system_uuid"),
];

fn series_have_the_names_and_labels_that_dashboards_expect(t: &Space) -> Result<()> {
    let probe = json!({ "exec": { "command": ["true"] }, "periodSeconds": 1 });
    // Ends at once and again: a terminated container, and a start that fails.
    t.apply(&pod("ends", "exit 3"))?;
    t.apply(&with_main(
        pod("wrong", "true"),
        json!({ "command": ["/not/there"] }),
    ))?;
    t.run(&with_main(
        pod("probed", "sleep 1000"),
        json!({ "livenessProbe": probe }),
    ))?;
    for (path, wanted) in [
        ("metrics", KUBELET),
        ("metrics/probes", PROBES),
        ("metrics/resource", RESOURCE),
        ("metrics/cadvisor", CADVISOR),
    ] {
        let url = format!("/api/v1/nodes/{}/proxy/{path}", t.node().name);
        let limit = Duration::from_secs(60);
        let mut wrong = Vec::new();
        let seen = progress::wait_for("the series", limit, || {
            std::thread::sleep(Duration::from_millis(500));
            wrong = missing(&t.kubectl(&["get", "--raw", &url])?, wanted);
            Ok(wrong.is_empty().then_some(()))
        });
        ensure!(seen.is_ok(), "/{path}: {}", wrong.join("; "));
    }
    Ok(())
}

fn volumes_pulls_and_starts_are_counted(t: &Space) -> Result<()> {
    t.kubectl(&["create", "configmap", "c", "--from-literal=k=v"])?;
    let volumes = json!([
        { "name": "config", "configMap": { "name": "c" } },
        { "name": "empty", "emptyDir": {} },
        { "name": "host", "hostPath": { "path": "/tmp" } },
    ]);
    let mounts = json!({
        "imagePullPolicy": "Always",
        "volumeMounts": [
            { "name": "config", "mountPath": "/c" },
            { "name": "empty", "mountPath": "/e" },
            { "name": "host", "mountPath": "/h" },
        ],
    });
    let volumes = json!({ "volumes": volumes });
    t.run(&with_main(with(pod("p", FOREVER), volumes), mounts))?;
    // Whose start depends on no storage.
    t.run(&pod("light", FOREVER))?;
    let operation = |name: &str, plugin: &str| {
        format!(
            "storage_operation_duration_seconds_count{{migrated=\"false\",operation_name=\"{name}\",\
             status=\"success\",volume_plugin=\"kubernetes.io/{plugin}\"}}"
        )
    };
    let total = |plugin: &str, state: &str| {
        format!(
            "volume_manager_total_volumes{{plugin_name=\"kubernetes.io/{plugin}\",\
             state=\"{state}_state_of_world\"}}"
        )
    };
    // busybox is a small image.
    let pulled = "kubelet_image_pull_duration_seconds_count{image_size_in_bytes=\"0-10MB\"}";
    let started = [
        "kubelet_pod_start_total_duration_seconds_count",
        "kubelet_pod_start_sli_duration_seconds_count",
        "kubelet_first_network_pod_start_sli_duration_seconds",
    ];
    let mut wanted = vec![pulled.to_owned()];
    wanted.extend(started.map(str::to_owned));
    for plugin in ["configmap", "empty-dir", "host-path"] {
        wanted.push(operation("volume_mount", plugin));
        wanted.extend(["actual", "desired"].map(|state| total(plugin, state)));
    }
    wait_counted(t, &wanted)?;
    t.kubectl(&["delete", "pod", "p"])?;
    let unmounted = ["configmap", "empty-dir"].map(|p| operation("volume_unmount", p));
    wait_counted(t, &unmounted)
}

/// Waits until each of the series is there, and is not 0.
fn wait_counted(t: &Space, series: &[String]) -> Result<()> {
    let url = format!("/api/v1/nodes/{}/proxy/metrics", t.node().name);
    let mut left = Vec::new();
    let seen = progress::wait_for("the series", Duration::from_secs(60), || {
        std::thread::sleep(Duration::from_millis(500));
        let text = t.kubectl(&["get", "--raw", &url])?;
        let counted = |series: &&String| {
            let mut lines = text.lines().filter_map(|l| l.strip_prefix(series.as_str()));
            lines.any(|value| value.trim() != "0")
        };
        left = series.iter().filter(|s| !counted(s)).cloned().collect();
        Ok(left.is_empty().then_some(()))
    });
    ensure!(seen.is_ok(), "not counted: {}", left.join("; "));
    Ok(())
}

fn missing(text: &str, wanted: &[(&str, &str)]) -> Vec<String> {
    let found = series(text);
    let lacking = wanted.iter().filter_map(|(name, labels)| {
        let labels: BTreeSet<&str> = labels.split_whitespace().collect();
        match found.get(name) {
            None => Some(format!("no {name}")),
            Some(all) if all.contains(&labels) => None,
            Some(all) => Some(format!("{name} has {all:?}, not {labels:?}")),
        }
    });
    lacking.collect()
}

/// The sets of labels that each name comes with.
fn series(text: &str) -> BTreeMap<&str, BTreeSet<BTreeSet<&str>>> {
    let mut all: BTreeMap<&str, BTreeSet<BTreeSet<&str>>> = BTreeMap::new();
    for line in text.lines().filter(|l| !l.starts_with('#')) {
        let (name, labels) = match line.split_once('{') {
            Some((name, rest)) => (name, rest.rsplit_once('}').map_or("", |(l, _)| l)),
            None => (line.split(' ').next().unwrap_or_default(), ""),
        };
        // No value here has a quote and a comma in it that would look like a label.
        let keys = labels
            .split("\",")
            .filter_map(|l| Some(l.split_once("=\"")?.0.trim()));
        all.entry(name)
            .or_default()
            .insert(keys.filter(|k| *k != "le").collect());
    }
    all
}
