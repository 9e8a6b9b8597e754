//! The kubeconfigs of a node, as kubeadm writes them.

use super::discovery::Cluster;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use std::path::Path;

/// kubelet.conf: the certificate by its path, so that rotation needs no rewrite.
pub fn with_certificate(cluster: &Cluster, pem: &Path) -> String {
    text(
        cluster,
        "default-auth",
        json!({"client-certificate": pem, "client-key": pem}),
    )
}

/// bootstrap-kubelet.conf.
pub fn with_token(cluster: &Cluster, token: &str) -> String {
    text(cluster, "tls-bootstrap-token-user", json!({"token": token}))
}

/// JSON is YAML, and every field here is a plain word.
fn text(cluster: &Cluster, user: &str, credentials: Value) -> String {
    let config = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "default-cluster", "cluster": {
            "certificate-authority-data": STANDARD.encode(&cluster.ca_pem),
            "server": cluster.server,
        }}],
        "users": [{"name": user, "user": credentials}],
        "contexts": [{"name": "default-context", "context": {
            "cluster": "default-cluster", "namespace": "default", "user": user,
        }}],
        "current-context": "default-context",
    });
    serde_saphyr::to_string(&config).unwrap_or_else(|_| config.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use kube::config::Kubeconfig;

    #[test]
    fn kubeconfig_is_read_back_as_it_was_meant() {
        let cluster = Cluster {
            server: "https://10.0.0.1:6443".into(),
            ca_pem: "pem".into(),
        };
        let text = with_certificate(&cluster, Path::new("/pki/current.pem"));
        let config = Kubeconfig::from_yaml(&text).unwrap();
        assert_eq!(config.current_context.as_deref(), Some("default-context"));
        let user = config.auth_infos[0].auth_info.as_ref().unwrap();
        assert_eq!(user.client_key.as_deref(), Some("/pki/current.pem"));
        let cluster = config.clusters[0].cluster.as_ref().unwrap();
        assert_eq!(cluster.certificate_authority_data.as_deref(), Some("cGVt"));
    }
}
