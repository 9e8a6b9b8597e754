//! Variables that tell a pod where Services are.
//! Names: kubernetes v1.36 pkg/kubelet/envvars/envvars.go.

use k8s_openapi::api::core::v1::{Pod, Service, ServicePort, ServiceSpec};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Those of the pod's namespace (unless `enableServiceLinks` is false), and the
/// API server's always.
#[must_use]
pub fn variables(pod: &Pod, services: &[Arc<Service>]) -> BTreeMap<String, String> {
    let links = pod
        .spec
        .as_ref()
        .and_then(|s| s.enable_service_links)
        .unwrap_or(true);
    let own = super::namespace(pod);
    let mut found = BTreeMap::new();
    for service in services {
        let namespace = service.metadata.namespace.as_deref().unwrap_or_default();
        let name = service.metadata.name.as_deref().unwrap_or_default();
        let master = namespace == "default" && name == "kubernetes";
        if master || (links && namespace == own) {
            describe(name, service.spec.as_ref(), &mut found);
        }
    }
    found
}

fn describe(name: &str, spec: Option<&ServiceSpec>, found: &mut BTreeMap<String, String>) {
    let ip = spec
        .and_then(|s| s.cluster_ip.as_deref())
        .unwrap_or_default();
    let ports = spec.and_then(|s| s.ports.as_deref()).unwrap_or_default();
    let Some(first) = ports.first().filter(|_| !matches!(ip, "" | "None")) else {
        return;
    };
    let name = variable(name);
    found.insert(format!("{name}_SERVICE_HOST"), ip.to_owned());
    found.insert(format!("{name}_SERVICE_PORT"), first.port.to_string());
    for port in ports {
        if let Some(label) = port.name.as_deref().filter(|l| !l.is_empty()) {
            let key = format!("{name}_SERVICE_PORT_{}", variable(label));
            found.insert(key, port.port.to_string());
        }
        link(&name, ip, port, found);
    }
    let url = url(ip, first);
    found.insert(format!("{name}_PORT"), url);
}

fn link(name: &str, ip: &str, port: &ServicePort, found: &mut BTreeMap<String, String>) {
    let protocol = port.protocol.as_deref().unwrap_or("TCP");
    let prefix = format!("{name}_PORT_{}_{}", port.port, protocol.to_uppercase());
    found.insert(format!("{prefix}_PROTO"), protocol.to_lowercase());
    found.insert(format!("{prefix}_PORT"), port.port.to_string());
    found.insert(format!("{prefix}_ADDR"), ip.to_owned());
    found.insert(prefix, url(ip, port));
}

fn url(ip: &str, port: &ServicePort) -> String {
    let protocol = port.protocol.as_deref().unwrap_or("TCP").to_lowercase();
    let host = if ip.contains(':') {
        format!("[{ip}]")
    } else {
        ip.to_owned()
    };
    format!("{protocol}://{host}:{}", port.port)
}

fn variable(name: &str) -> String {
    name.to_uppercase().replace('-', "_")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service(namespace: &str, name: &str, ip: &str) -> Arc<Service> {
        Arc::new(
            serde_json::from_value(serde_json::json!({
                "metadata": {"namespace": namespace, "name": name},
                "spec": {"clusterIP": ip, "ports": [{"name": "web", "port": 80}]}
            }))
            .unwrap_or_default(),
        )
    }

    fn pod(links: bool) -> Pod {
        serde_json::from_value(serde_json::json!({
            "metadata": {"namespace": "a"},
            "spec": {"containers": [], "enableServiceLinks": links}
        }))
        .unwrap_or_default()
    }

    #[test]
    fn services_of_the_namespace_become_variables() {
        let all = [
            service("a", "my-db", "10.0.0.1"),
            service("b", "other", "10.0.0.2"),
        ];
        let found = variables(&pod(true), &all);
        assert_eq!(found["MY_DB_SERVICE_HOST"], "10.0.0.1");
        assert_eq!(found["MY_DB_SERVICE_PORT_WEB"], "80");
        assert_eq!(found["MY_DB_PORT_80_TCP"], "tcp://10.0.0.1:80");
        assert!(!found.contains_key("OTHER_SERVICE_HOST"));
    }

    #[test]
    fn api_server_stays_when_service_links_are_off_and_headless_ones_never_show() {
        let all = [
            service("default", "kubernetes", "10.0.0.1"),
            service("a", "db", "10.0.0.2"),
            service("a", "headless", "None"),
        ];
        let found = variables(&pod(false), &all);
        assert!(found.contains_key("KUBERNETES_SERVICE_HOST"));
        assert!(!found.contains_key("DB_SERVICE_HOST"));
        assert!(!variables(&pod(true), &all).contains_key("HEADLESS_SERVICE_HOST"));
    }
}
