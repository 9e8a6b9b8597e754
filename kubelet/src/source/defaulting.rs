//! What the API server would have filled in before a kubelet saw the pod.
//! Values: kubernetes v1.36 pkg/apis/core/v1/defaults.go.

use k8s_openapi::api::core::v1::{
    Container, EnvVar, LifecycleHandler, Pod, PodSecurityContext, PodSpec, Probe,
    ResourceRequirements, Volume,
};

/// Fills in a pod from a file; what it says stays.
pub fn default_pod(pod: &mut Pod) {
    let namespace = &mut pod.metadata.namespace;
    if namespace.as_deref().unwrap_or_default().is_empty() {
        *namespace = Some("default".to_owned());
    }
    if let Some(spec) = &mut pod.spec {
        default_pod_spec(spec);
    }
}

/// Fills in a pod's spec.
pub fn default_pod_spec(spec: &mut PodSpec) {
    set(&mut spec.dns_policy, "ClusterFirst");
    set(&mut spec.restart_policy, "Always");
    set(&mut spec.scheduler_name, "default-scheduler");
    spec.termination_grace_period_seconds.get_or_insert(30);
    spec.enable_service_links.get_or_insert(true);
    spec.security_context
        .get_or_insert_with(PodSecurityContext::default);
    let host_network = spec.host_network.unwrap_or(false);
    for container in spec
        .init_containers
        .iter_mut()
        .flatten()
        .chain(&mut spec.containers)
    {
        default_container(container, host_network);
    }
    for volume in spec.volumes.iter_mut().flatten() {
        default_volume(volume);
    }
}

fn set(field: &mut Option<String>, value: &str) {
    if field.as_deref().unwrap_or_default().is_empty() {
        *field = Some(value.to_owned());
    }
}

fn default_container(container: &mut Container, host_network: bool) {
    let policy = pull_policy(container.image.as_deref().unwrap_or_default());
    set(&mut container.image_pull_policy, policy);
    set(
        &mut container.termination_message_path,
        "/dev/termination-log",
    );
    set(&mut container.termination_message_policy, "File");
    for port in container.ports.iter_mut().flatten() {
        set(&mut port.protocol, "TCP");
        if host_network {
            port.host_port.get_or_insert(port.container_port);
        }
    }
    let probes = [
        &mut container.liveness_probe,
        &mut container.readiness_probe,
        &mut container.startup_probe,
    ];
    probes.into_iter().flatten().for_each(default_probe);
    if let Some(lifecycle) = &mut container.lifecycle {
        let hooks = [&mut lifecycle.post_start, &mut lifecycle.pre_stop];
        hooks.into_iter().flatten().for_each(default_hook);
    }
    container.env.iter_mut().flatten().for_each(default_env);
    if let Some(resources) = &mut container.resources {
        request_what_is_limited(resources);
    }
}

/// `Always` for what may change under its name.
fn pull_policy(image: &str) -> &'static str {
    let name = image.rsplit('/').next().unwrap_or_default();
    let (name, digest) = name.split_once('@').map_or((name, ""), |(n, d)| (n, d));
    match name.split_once(':') {
        Some((_, "latest")) => "Always",
        None if digest.is_empty() => "Always",
        _ => "IfNotPresent",
    }
}

fn default_probe(probe: &mut Probe) {
    for (field, value) in [
        (&mut probe.timeout_seconds, 1),
        (&mut probe.period_seconds, 10),
        (&mut probe.success_threshold, 1),
        (&mut probe.failure_threshold, 3),
    ] {
        if field.unwrap_or(0) == 0 {
            *field = Some(value);
        }
    }
    if let Some(http) = &mut probe.http_get {
        set(&mut http.path, "/");
        set(&mut http.scheme, "HTTP");
    }
    if let Some(grpc) = &mut probe.grpc {
        grpc.service.get_or_insert_default();
    }
}

fn default_hook(hook: &mut LifecycleHandler) {
    if let Some(http) = &mut hook.http_get {
        set(&mut http.path, "/");
        set(&mut http.scheme, "HTTP");
    }
}

fn default_env(env: &mut EnvVar) {
    let source = env.value_from.as_mut();
    if let Some(field) = source.and_then(|s| s.field_ref.as_mut()) {
        set(&mut field.api_version, "v1");
    }
}

fn request_what_is_limited(resources: &mut ResourceRequirements) {
    for (name, limit) in resources.limits.iter().flatten() {
        let requests = resources.requests.get_or_insert_default();
        requests
            .entry(name.clone())
            .or_insert_with(|| limit.clone());
    }
}

fn default_volume(volume: &mut Volume) {
    const MODE: i32 = 0o644;
    let named_only = Volume {
        name: volume.name.clone(),
        ..Volume::default()
    };
    if *volume == named_only {
        volume.empty_dir = Some(Default::default());
    }
    if let Some(source) = &mut volume.secret {
        source.default_mode.get_or_insert(MODE);
    }
    if let Some(source) = &mut volume.config_map {
        source.default_mode.get_or_insert(MODE);
    }
    if let Some(source) = &mut volume.downward_api {
        source.default_mode.get_or_insert(MODE);
    }
    if let Some(source) = &mut volume.projected {
        source.default_mode.get_or_insert(MODE);
    }
    if let Some(source) = &mut volume.host_path {
        source.type_.get_or_insert_default();
    }
    if let Some(source) = &mut volume.image {
        let policy = pull_policy(source.reference.as_deref().unwrap_or_default());
        set(&mut source.pull_policy, policy);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn pull_policy_is_always_only_for_what_may_change_under_its_name() {
        for (image, wanted) in [
            ("busybox", "Always"),
            ("localhost:5000/busybox", "Always"),
            ("busybox:latest", "Always"),
            ("localhost:5000/busybox:1.37", "IfNotPresent"),
            ("busybox@sha256:00", "IfNotPresent"),
            ("busybox:latest@sha256:00", "Always"),
        ] {
            assert_eq!(pull_policy(image), wanted, "{image}");
        }
    }

    #[test]
    fn a_bare_pod_gets_what_the_api_server_would_give_it_and_keeps_what_it_says() {
        let mut pod: Pod = serde_json::from_value(json!({
            "spec": {
                "hostNetwork": true,
                "terminationGracePeriodSeconds": 5,
                "containers": [{
                    "name": "a", "image": "busybox:1.37",
                    "ports": [{"containerPort": 80}],
                    "readinessProbe": {"httpGet": {"port": 80}, "periodSeconds": 2},
                    "resources": {"limits": {"cpu": "1"}}
                }],
                "volumes": [{"name": "v"}, {"name": "s", "secret": {"secretName": "x"}}]
            }
        }))
        .unwrap();
        default_pod(&mut pod);
        let seen = serde_json::to_value(&pod).unwrap();
        assert_eq!(seen["metadata"]["namespace"], "default");
        let spec = &seen["spec"];
        assert_eq!(spec["terminationGracePeriodSeconds"], 5);
        assert_eq!(spec["restartPolicy"], "Always");
        assert_eq!(spec["volumes"][0]["emptyDir"], json!({}));
        assert_eq!(spec["volumes"][1]["secret"]["defaultMode"], 0o644);
        let container = &spec["containers"][0];
        assert_eq!(container["imagePullPolicy"], "IfNotPresent");
        assert_eq!(
            container["ports"][0],
            json!({"containerPort": 80, "hostPort": 80, "protocol": "TCP"})
        );
        assert_eq!(
            container["readinessProbe"],
            json!({
                "httpGet": {"path": "/", "port": 80, "scheme": "HTTP"},
                "periodSeconds": 2, "timeoutSeconds": 1, "successThreshold": 1, "failureThreshold": 3
            })
        );
        assert_eq!(container["resources"]["requests"]["cpu"], "1");
    }
}
