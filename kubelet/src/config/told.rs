//! The configuration as `/configz` tells it: complete.

use super::used::Config;
use serde_json::{Map, Value, json};

impl Config {
    /// What was written, with kubernetes' defaults for what was not and without empty fields.
    #[must_use]
    pub fn told(&self) -> Value {
        let mut all = defaults();
        overlay(&mut all, json!(self.raw));
        overlay(
            &mut all,
            json!({
                "kind": "KubeletConfiguration",
                "apiVersion": "kubelet.config.k8s.io/v1beta1",
                "cgroupRoot": self.cgroup_root.as_deref().unwrap_or("/"),
                "cgroupDriver": self.cgroup_driver,
                "containerRuntimeEndpoint": self.container_runtime_endpoint,
            }),
        );
        all
    }
}

/// kubernetes v1.37 pkg/kubelet/apis/config/v1beta1/defaults.go, without those of Windows. Of
/// what this node does not act on it says what is true of it all the same.
fn defaults() -> Value {
    let served = json!({
        "enableServer": true, "address": "0.0.0.0", "port": 10250,
        "healthzBindAddress": "127.0.0.1", "healthzPort": 10248,
        "enableDebuggingHandlers": true, "enableSystemLogHandler": true,
        "enableSystemLogQuery": false,
        "enableProfilingHandler": true, "enableDebugFlagsHandler": true,
        "streamingConnectionIdleTimeout": "4h0m0s", "rotateCertificates": false,
        "authentication": {
            "x509": {},
            "webhook": { "enabled": true, "cacheTTL": "2m0s" },
            "anonymous": { "enabled": false },
        },
        "authorization": {
            "mode": "Webhook",
            "webhook": { "cacheAuthorizedTTL": "5m0s", "cacheUnauthorizedTTL": "30s" },
        },
    });
    let node = json!({
        "registerNode": true, "nodeStatusUpdateFrequency": "10s",
        "nodeStatusReportFrequency": "5m0s", "nodeLeaseDurationSeconds": 40,
        "nodeStatusMaxImages": 50, "maxPods": 110, "podPidsLimit": -1,
        "resolvConf": "/etc/resolv.conf", "enforceNodeAllocatable": ["pods"],
        "evictionHard": {
            "imagefs.available": "15%", "imagefs.inodesFree": "5%", "memory.available": "100Mi",
            "nodefs.available": "10%", "nodefs.inodesFree": "5%",
        },
        "evictionPressureTransitionPeriod": "5m0s", "mergeDefaultEvictionSettings": false,
        "failSwapOn": true, "failCgroupV1": true, "memorySwap": {},
        "localStorageCapacityIsolation": true, "enableControllerAttachDetach": true,
        "shutdownGracePeriod": "0s", "shutdownGracePeriodCriticalPods": "0s",
        "oomScoreAdj": -999, "maxOpenFiles": 1_000_000, "makeIPTablesUtilChains": true,
        "iptablesMasqueradeBit": 14, "iptablesDropBit": 15,
        "contentType": "application/vnd.kubernetes.protobuf",
        "kubeAPIQPS": 50, "kubeAPIBurst": 100, "eventRecordQPS": 50, "eventBurst": 100,
        "logging": {
            "format": "text", "flushFrequency": "5s", "verbosity": 0,
            "options": { "text": { "infoBufferSize": "0" }, "json": { "infoBufferSize": "0" } },
        },
    });
    let pods = json!({
        "podLogsDir": "/var/log/pods", "syncFrequency": "1m0s", "fileCheckFrequency": "20s",
        "httpCheckFrequency": "20s", "cgroupsPerQOS": true,
        "cpuCFSQuota": true, "cpuCFSQuotaPeriod": "100ms", "seccompDefault": false,
        "cpuManagerPolicy": "none", "cpuManagerReconcilePeriod": "10s",
        "memoryManagerPolicy": "None", "memoryReservationPolicy": "None",
        "topologyManagerPolicy": "none", "topologyManagerScope": "container",
        "runtimeRequestTimeout": "2m0s", "hairpinMode": "promiscuous-bridge",
        "serializeImagePulls": true, "registryPullQPS": 5, "registryBurst": 10,
        "imagePullCredentialsVerificationPolicy": "NeverVerifyPreloadedImages",
        "imageMinimumGCAge": "2m0s", "imageMaximumGCAge": "0s",
        "imageGCHighThresholdPercent": 85, "imageGCLowThresholdPercent": 80,
        "containerLogMaxSize": "10Mi", "containerLogMaxFiles": 5, "containerLogMaxWorkers": 1,
        "containerLogMonitorInterval": "10s", "volumeStatsAggPeriod": "1m0s",
        "volumePluginDir": "/usr/libexec/kubernetes/kubelet-plugins/volume/exec/",
        "configMapAndSecretChangeDetectionStrategy": "Watch",
        "crashLoopBackOff": { "maxContainerRestartPeriod": "5m0s" },
    });
    let mut all = Value::Object(Map::new());
    for part in [served, node, pods] {
        overlay(&mut all, part);
    }
    all
}

/// `over` counts where it says something; maps of quantities count as a whole.
fn overlay(under: &mut Value, over: Value) {
    const WHOLE: [&str; 1] = ["evictionHard"];
    let (Value::Object(under), Value::Object(over)) = (under, over) else {
        return;
    };
    for (name, value) in over {
        match under.get_mut(&name) {
            _ if value.is_null() => {}
            Some(old) if value.is_object() && !WHOLE.contains(&name.as_str()) => {
                overlay(old, value);
            }
            _ => drop(under.insert(name, without_nulls(value))),
        }
    }
}

fn without_nulls(mut value: Value) -> Value {
    if let Value::Object(map) = &mut value {
        map.retain(|_, v| !v.is_null());
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn told_is_what_was_written_over_the_defaults() {
        let raw = json!({
            "maxPods": 7, "authentication": { "webhook": { "enabled": false } },
            "evictionHard": { "memory.available": "1Gi" },
        });
        let config = Config {
            raw: serde_json::from_value(raw).unwrap(),
            ..Config::default()
        };
        let told = config.told();
        assert_eq!(told["maxPods"], 7);
        let webhook = &told["authentication"]["webhook"];
        assert_eq!(webhook, &json!({ "enabled": false, "cacheTTL": "2m0s" }));
        assert_eq!(told["evictionHard"], json!({ "memory.available": "1Gi" }));
        assert_eq!(told["cgroupRoot"], "/");
        assert!(told.get("podCIDR").is_none());
    }

    #[test]
    fn defaults_that_are_told_are_those_that_count() {
        let (config, told) = (Config::default(), defaults());
        let seconds = |field: &str| {
            let text = told.pointer(field).and_then(Value::as_str).unwrap();
            crate::config::duration::parse(text).unwrap()
        };
        assert_eq!(told["maxPods"], config.max_pods);
        assert_eq!(told["port"], config.port);
        assert_eq!(told["registryBurst"], config.registry_burst);
        assert_eq!(told["containerLogMaxFiles"], config.container_log_max_files);
        assert_eq!(
            told["imageGCHighThresholdPercent"],
            config.image_gc.high_percent
        );
        assert_eq!(told["enableSystemLogQuery"], config.enable_system_log_query);
        let (profiles, flags) = ("enableProfilingHandler", "enableDebugFlagsHandler");
        assert_eq!(told[profiles], config.enable_profiling_handler);
        assert_eq!(told[flags], config.enable_debug_flags_handler);
        for (field, used) in [
            (
                "/nodeStatusUpdateFrequency",
                config.node_status_update_frequency,
            ),
            (
                "/nodeStatusReportFrequency",
                config.node_status_report_frequency,
            ),
            ("/fileCheckFrequency", config.file_check_frequency),
            ("/syncFrequency", config.sync_frequency),
            ("/runtimeRequestTimeout", config.runtime_request_timeout),
            (
                "/authentication/webhook/cacheTTL",
                config.authentication_cache_ttl,
            ),
            (
                "/authorization/webhook/cacheAuthorizedTTL",
                config.cache_authorized_ttl,
            ),
            ("/cpuCFSQuotaPeriod", config.cpu_cfs_quota_period),
        ] {
            assert_eq!(seconds(field), used, "{field}");
        }
    }
}
