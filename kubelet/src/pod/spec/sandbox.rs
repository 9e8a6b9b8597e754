//! The sandbox of a pod as the runtime is asked for it.

use super::{cgroup, host_network, labels, name, namespace, resources, security, uid};
use crate::pod::{NodeFacts, Options};
use cri_proto::v1;
use k8s_openapi::api::core::v1::{ContainerPort, Pod, PodSpec};
use std::collections::HashMap;

/// What a sandbox depends on beside its pod.
#[allow(missing_docs)]
pub struct SandboxContext<'a> {
    pub pod: &'a Pod,
    pub attempt: u32,
    /// The kernel's hostname; empty for the host's.
    pub hostname: String,
    pub dns: v1::DnsConfig,
    pub userns: Option<&'a v1::UserNamespace>,
    pub node: &'a NodeFacts,
    pub options: &'a Options,
}

/// RunPodSandbox's and CreateContainer's `PodSandboxConfig`: the same for both.
#[must_use]
pub fn config(context: SandboxContext<'_>) -> v1::PodSandboxConfig {
    let pod = context.pod;
    v1::PodSandboxConfig {
        metadata: Some(v1::PodSandboxMetadata {
            name: name(pod).into(),
            uid: uid(pod).into(),
            namespace: namespace(pod).into(),
            attempt: context.attempt,
        }),
        log_directory: log_directory(pod, context.node),
        port_mappings: port_mappings(pod),
        labels: labels::of_sandbox(pod),
        annotations: labels::sandbox_annotations(pod),
        linux: Some(linux(&context)),
        hostname: context.hostname,
        dns_config: Some(context.dns),
        windows: None,
    }
}

/// `<root>/<namespace>_<name>_<uid>`.
#[must_use]
pub fn log_directory(pod: &Pod, node: &NodeFacts) -> String {
    let folder = format!("{}_{}_{}", namespace(pod), name(pod), uid(pod));
    node.pod_logs_root.join(folder).display().to_string()
}

fn linux(context: &SandboxContext<'_>) -> v1::LinuxPodSandboxConfig {
    let pod = context.pod;
    let empty = PodSpec::default();
    let spec = pod.spec.as_ref().unwrap_or(&empty);
    v1::LinuxPodSandboxConfig {
        cgroup_parent: cgroup::parent(
            pod,
            &context.options.cgroup_root,
            context.options.cgroup_driver,
        ),
        security_context: Some(security_context(pod, spec, context.userns)),
        sysctls: sysctls(spec),
        overhead: resources::overhead(spec, context.options),
        resources: Some(resources::of_pod(spec, context.options)),
    }
}

fn security_context(
    pod: &Pod,
    spec: &PodSpec,
    userns: Option<&v1::UserNamespace>,
) -> v1::LinuxSandboxSecurityContext {
    let own = spec.security_context.clone().unwrap_or_default();
    let id = |value: Option<i64>| value.map(|value| v1::Int64Value { value });
    v1::LinuxSandboxSecurityContext {
        namespace_options: Some(security::namespaces(pod, userns)),
        selinux_options: security::selinux(own.se_linux_options.as_ref()),
        run_as_user: id(own.run_as_user),
        run_as_group: id(own.run_as_group),
        supplemental_groups: security::supplemental_groups(&own),
        supplemental_groups_policy: security::groups_policy(&own).into(),
        privileged: security::any_privileged(pod),
        seccomp: Some(v1::SecurityProfile {
            profile_type: v1::security_profile::ProfileType::RuntimeDefault.into(),
            localhost_ref: String::new(),
        }),
        ..v1::LinuxSandboxSecurityContext::default()
    }
}

fn sysctls(spec: &PodSpec) -> HashMap<String, String> {
    let own = spec
        .security_context
        .as_ref()
        .and_then(|s| s.sysctls.as_ref());
    let pair = |s: &k8s_openapi::api::core::v1::Sysctl| (s.name.replace('/', "."), s.value.clone());
    own.into_iter().flatten().map(pair).collect()
}

/// Every port of app containers and sidecars that the host lends.
fn port_mappings(pod: &Pod) -> Vec<v1::PortMapping> {
    if host_network(pod) {
        return Vec::new();
    }
    host_ports(pod).into_iter().map(mapping).collect()
}

/// Ports with a hostPort, of containers that stay.
#[must_use]
pub fn host_ports(pod: &Pod) -> Vec<&ContainerPort> {
    let Some(spec) = &pod.spec else {
        return Vec::new();
    };
    let sidecars = spec.init_containers.iter().flatten();
    let sidecars = sidecars.filter(|c| crate::pod::lifecycle::restartable_init(c));
    let all = spec.containers.iter().chain(sidecars);
    let ports = all.flat_map(|c| c.ports.iter().flatten());
    ports.filter(|p| p.host_port.unwrap_or(0) > 0).collect()
}

fn mapping(port: &ContainerPort) -> v1::PortMapping {
    let protocol = match port.protocol.as_deref() {
        Some("UDP") => v1::Protocol::Udp,
        Some("SCTP") => v1::Protocol::Sctp,
        Some(_) | None => v1::Protocol::Tcp,
    };
    v1::PortMapping {
        protocol: protocol.into(),
        container_port: port.container_port,
        host_port: port.host_port.unwrap_or(0),
        host_ip: port.host_ip.clone().unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pod::spec::testing::node;
    use serde_json::json;

    fn sandbox(spec: serde_json::Value) -> v1::PodSandboxConfig {
        let metadata = json!({"name": "p", "namespace": "ns", "uid": "u", "labels": {"a": "b"}});
        let pod = json!({"metadata": metadata, "spec": spec});
        config(SandboxContext {
            pod: &serde_json::from_value(pod).unwrap_or_default(),
            attempt: 2,
            hostname: "p".into(),
            dns: v1::DnsConfig::default(),
            userns: None,
            node: &node(),
            options: &Options::default(),
        })
    }

    fn namespaces(config: &v1::PodSandboxConfig) -> v1::NamespaceOption {
        let linux = config.linux.clone().unwrap_or_default();
        let security = linux.security_context.unwrap_or_default();
        security.namespace_options.unwrap_or_default()
    }

    #[test]
    fn sandbox_is_found_again_by_labels_and_logs_where_people_look() {
        let config = sandbox(json!({"containers": []}));
        assert_eq!(config.labels["io.kubernetes.pod.uid"], "u");
        assert_eq!(config.labels["a"], "b");
        assert_eq!(config.log_directory, "/var/log/pods/ns_p_u");
    }

    #[test]
    fn sandbox_lends_host_ports_of_app_containers_only() {
        let port = |p: i32| json!([{"containerPort": p, "hostPort": p, "protocol": "UDP"}]);
        let spec = json!({
            "containers": [{"name": "a", "ports": port(80)}],
            "initContainers": [{"name": "i", "ports": port(81)}]
        });
        let found: Vec<_> = sandbox(spec)
            .port_mappings
            .iter()
            .map(|p| p.host_port)
            .collect();
        assert_eq!(found, vec![80]);
    }

    #[test]
    fn sandbox_shares_the_hosts_namespaces_when_asked() {
        use v1::NamespaceMode as Mode;
        let plain = namespaces(&sandbox(json!({"containers": []})));
        assert_eq!((plain.network(), plain.pid()), (Mode::Pod, Mode::Container));
        let spec = json!({"containers": [], "hostNetwork": true, "shareProcessNamespace": true});
        let shared = namespaces(&sandbox(spec));
        assert_eq!(
            (shared.network(), shared.pid(), shared.ipc()),
            (Mode::Node, Mode::Pod, Mode::Pod)
        );
    }
}
