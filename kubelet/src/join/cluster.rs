//! What the cluster tells somebody who holds the token.

use super::JoinError;
use super::report::reason;
use super::token::BootstrapToken;
use k8s_openapi::api::core::v1::{ConfigMap, Node};
use kube::api::Api;

/// The cluster's KubeletConfiguration, as YAML.
///
/// # Errors
/// When the token has expired or has no right to it.
pub async fn kubelet_config(
    client: &kube::Client,
    token: &BootstrapToken,
    server: &str,
) -> Result<String, JoinError> {
    let what = "read the ConfigMap kube-system/kubelet-config";
    let api: Api<ConfigMap> = Api::namespaced(client.clone(), "kube-system");
    let map = match api.get("kubelet-config").await {
        Ok(map) => map,
        Err(e) => return Err(refused(&e, what, token, server)),
    };
    let text = map.data.and_then(|mut d| d.remove("kubelet"));
    text.ok_or_else(|| JoinError::Api {
        what,
        reason:
            "it has no key kubelet; on the control plane: kubeadm init phase upload-config kubelet"
                .to_owned(),
    })
}

/// Fails when a live node has the name: two kubelets would fight over it.
///
/// # Errors
/// [`JoinError::NameTaken`], or when the cluster does not let us look.
pub async fn check_name(
    client: &kube::Client,
    name: &str,
    token: &BootstrapToken,
    server: &str,
) -> Result<(), JoinError> {
    let api: Api<Node> = Api::all(client.clone());
    match api.get_opt(name).await {
        Ok(Some(node)) if is_ready(&node) => Err(JoinError::NameTaken {
            name: name.to_owned(),
        }),
        Ok(_) => Ok(()),
        Err(e) => Err(refused(&e, "read its Node", token, server)),
    }
}

fn is_ready(node: &Node) -> bool {
    let conditions = node
        .status
        .iter()
        .flat_map(|s| s.conditions.iter().flatten());
    conditions
        .into_iter()
        .any(|c| c.type_ == "Ready" && c.status == "True")
}

fn refused(e: &kube::Error, what: &'static str, token: &BootstrapToken, server: &str) -> JoinError {
    match e {
        kube::Error::Api(status) if status.code == 401 => JoinError::TokenUnknown {
            id: token.id.clone(),
            server: server.to_owned(),
        },
        kube::Error::Api(status) if status.code == 403 => JoinError::Forbidden {
            what,
            reason: reason(e),
        },
        kube::Error::Api(_) => JoinError::Api {
            what,
            reason: reason(e),
        },
        _ => JoinError::Unreachable {
            server: server.to_owned(),
            reason: reason(e),
        },
    }
}
