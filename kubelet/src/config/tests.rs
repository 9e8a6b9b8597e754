use super::*;
use std::time::Duration;

fn read(text: &str) -> Result<Loaded, ConfigError> {
    parse(&[("config.yaml", text)])
}

fn mistakes(text: &str) -> Vec<String> {
    match read(text) {
        Err(ConfigError::Mistakes { mistakes, .. }) => mistakes,
        other => panic!("no mistakes: {other:?}"),
    }
}

#[test]
fn empty_file_means_the_defaults() {
    let config = read("").unwrap().config;
    assert_eq!(config.port, 10250);
    assert_eq!(config.max_pods, 110);
    assert!(config.fail_cgroup_v1 && config.fail_swap_on);
    assert_eq!(config.eviction_hard.len(), 5);
    assert_eq!(config.authorization_mode, AuthorizationMode::Webhook);
    assert!(!config.anonymous_auth);
}

#[test]
fn zero_values_of_kubeadm_mean_unset() {
    let text = "\
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
authentication:
  anonymous: {enabled: false}
  webhook: {cacheTTL: 0s, enabled: true}
  x509: {clientCAFile: /etc/kubernetes/pki/ca.crt}
authorization: {mode: Webhook, webhook: {cacheAuthorizedTTL: 0s, cacheUnauthorizedTTL: 0s}}
cgroupDriver: systemd
clusterDNS: [10.96.0.10]
clusterDomain: cluster.local
containerRuntimeEndpoint: \"\"
cpuManagerReconcilePeriod: 0s
crashLoopBackOff: {}
logging: {flushFrequency: 0, options: {json: {infoBufferSize: \"0\"}, text: {infoBufferSize: \"0\"}}, verbosity: 0}
memorySwap: {}
rotateCertificates: true
runtimeRequestTimeout: 0s
syncFrequency: 0s
";
    let loaded = read(text).unwrap();
    assert_eq!(loaded.config.sync_frequency, Duration::from_secs(60));
    assert_eq!(
        loaded.config.runtime_request_timeout,
        Duration::from_secs(120)
    );
    assert_eq!(
        loaded.config.authentication_cache_ttl,
        Duration::from_secs(120)
    );
    assert_eq!(loaded.config.container_runtime_endpoint, None);
    assert_eq!(loaded.not_acted_on, Vec::<String>::new());
    assert_eq!(loaded.config.cgroup_driver, "systemd");
    assert!(loaded.config.rotate_certificates);
}

#[test]
fn every_mistake_is_named_at_once() {
    let found = mistakes("port: high\nmaxPodz: 3\nclusterDNS: 7\n");
    assert_eq!(found.len(), 3, "{found:?}");
    assert!(
        found
            .iter()
            .any(|m| m == "line 2: unknown field \"maxPodz\""),
        "{found:?}"
    );
    assert!(
        found.iter().any(|m| m.starts_with("line 1: port: ")),
        "{found:?}"
    );
}

#[test]
fn nested_unknown_field_is_a_mistake() {
    let found = mistakes("authentication: {x509: {clientCaFile: /ca}}");
    assert!(found[0].contains("clientCaFile"), "{found:?}");
}

#[test]
fn values_are_checked_together() {
    let found = mistakes(
        "syncFrequency: soon\ncgroupDriver: v3\nevictionHard: {memory.available: 101%, x: '1'}\n\
         tlsCertFile: /a\nport: 70000\n",
    );
    assert_eq!(found.len(), 6, "{found:?}");
}

#[test]
fn threshold_of_nothing_or_of_all_is_none() {
    let config = read(
        "evictionHard: {memory.available: 100%, nodefs.available: 0%, pid.available: '0', \
         imagefs.available: 99.9%}\n\
         evictionSoft: {memory.available: 100%}\nevictionSoftGracePeriod: {memory.available: 1m}\n",
    );
    let config = config.unwrap().config;
    let hard: Vec<Signal> = config.eviction_hard.iter().map(|t| t.signal).collect();
    assert_eq!(hard, [Signal::ImagefsAvailable]);
    assert_eq!(config.eviction_soft, []);
}

#[test]
fn field_without_effect_is_listed_when_it_is_set() {
    let loaded = read("memoryThrottlingFactor: 0.5\nreadOnlyPort: 0\n").unwrap();
    assert_eq!(loaded.not_acted_on, ["memoryThrottlingFactor"]);
}

#[test]
fn pointer_fields_keep_their_zero() {
    let config = read("healthzPort: 0\neventRecordQPS: 0\nresolvConf: \"\"\nevictionHard: {}\n")
        .unwrap()
        .config;
    assert_eq!(config.healthz, None);
    assert_eq!(config.event_record_qps, 0);
    assert_eq!(config.resolv_conf, None);
    assert_eq!(config.eviction_hard, []);
}

#[test]
fn missing_resolv_conf_falls_back_with_a_warning() {
    let loaded = read("resolvConf: /nowhere/resolv.conf").unwrap();
    assert_eq!(loaded.config.resolv_conf, Some("/etc/resolv.conf".into()));
    assert_eq!(loaded.warnings.len(), 1);
}

#[test]
fn later_layer_wins_and_maps_are_merged() {
    let loaded = parse(&[
        ("a", "maxPods: 10\nkubeReserved: {cpu: 100m, memory: 1Gi}\n"),
        (
            "b",
            "maxPods: 20\nkubeReserved: {cpu: 250m}\nsystemReserved: {cpu: 50m}\n",
        ),
    ])
    .unwrap();
    assert_eq!(loaded.config.max_pods, 20);
    let reserved = loaded.config.allocatable.reserved;
    assert_eq!(reserved.get("cpu"), Some(&300));
    assert_eq!(reserved.get("memory"), Some(&(1 << 30)));
}

#[test]
fn other_kind_is_refused() {
    assert_eq!(mistakes("kind: Pod").len(), 1);
}

#[test]
fn swap_is_for_pods_only_when_it_is_limited() {
    let limited = |text: &str| read(text).unwrap().config.limited_swap;
    assert!(!limited("") && !limited("memorySwap: {}"));
    assert!(!limited("memorySwap: {swapBehavior: NoSwap}"));
    assert!(limited("memorySwap: {swapBehavior: LimitedSwap}"));
    match read("memorySwap: {swapBehavior: UnlimitedSwap}") {
        Err(ConfigError::Mistakes { mistakes, .. }) => assert_eq!(mistakes.len(), 1),
        other => panic!("no mistake: {other:?}"),
    }
}
